"""A response as it comes to be: from the events of a chat job to the events of a response, and to the object at any time.

The same job events give the same response events, with the same numbers, however they were cut on their way: so a stream can
be read again from any number on, at any instance, for as long as the job's events are kept. Pure.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.errors import Cancelled, Fault, ProviderError
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from services.ingress.chunks import CallPiece, Chunk, TextKind, read_chunk
from services.ingress.responses.ids import item_id
from services.ingress.responses.output import Call, Content, Item, ItemStatus, Written
from services.ingress.responses.usage import usage_object

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a chat ends before it is complete, and what responses call that."""

_ERROR_CODES = {400: "invalid_prompt", 413: "invalid_prompt", 429: "rate_limit_exceeded"}
"""OpenAI's codes for the error of a response: a closed list."""


class Telling:
    """One response. `frame`: its id and all that doesn't change while it comes to be."""

    def __init__(self, frame: JsonObject) -> None:
        self._frame = frame
        self._id = str(frame["id"])
        self._background = frame.get("background") is True
        self._events: list[JsonObject] = []
        self._number = 0
        self._items: list[Item] = []
        self._open: Item | None = None
        self._calls: dict[int, Call] = {}
        self._finish = ""
        self._changing: JsonObject = {"status": "queued" if self._background else "in_progress"}

    def begin(self) -> list[JsonObject]:
        """The first events, before anything has come."""
        self._tell_response("response.created")
        if self._background:
            self._tell_response("response.queued")
        else:
            self._tell_response("response.in_progress")
        return self._taken()

    def take(self, event: Event | None) -> list[JsonObject]:
        """What an event of the job makes known; None is silence."""
        match event:
            case None:
                return []
            case Opened():
                self._work()
            case Delta(data=data):
                self._work()
                for text in data:
                    self._add(read_chunk(text))
            case Closed():
                self._end()
            case Answer(body=body):
                self._answer(body)
            case Failed(fault=fault):
                self._fail(fault)
        return self._taken()

    def interrupted(self, fault: Fault) -> list[JsonObject]:
        """The connection can't be told any more, whatever becomes of the response."""
        self._tell_error(fault)
        return self._taken()

    def go_on_from(self, number: int) -> None:
        """What was told up to `number` can't be told again; what comes is numbered behind it."""
        self._number = max(self._number, number + 1)

    def response(self) -> JsonObject:
        """The Response object as of now."""
        output: list[JsonValue] = [item.told() for item in self._items]
        known: JsonObject = {"error": None, "incomplete_details": None, "usage": None, "output": output}
        return self._frame | known | self._changing

    def _work(self) -> None:
        if self._changing["status"] == "queued":
            self._changing["status"] = "in_progress"
            self._tell_response("response.in_progress")

    def _add(self, chunk: Chunk) -> None:
        for kind, text in chunk.texts:
            self._write(kind, text)
        for piece in chunk.calls:
            self._call(piece)
        self._finish = chunk.finish or self._finish
        if chunk.usage is not None:
            self._changing["usage"] = usage_object(chunk.usage)
        if chunk.service_tier:
            self._changing["service_tier"] = chunk.service_tier

    def _write(self, kind: TextKind, text: str) -> None:
        item = self._written("reasoning" if kind == "reasoning_text" else "message")
        if not item.parts or item.parts[-1].kind != kind:
            self._close_part(item)
            item.parts.append(Content(kind))
            self._tell_part("response.content_part.added", item, part=item.parts[-1].told())
        part = item.parts[-1]
        part.text += text
        extra: JsonObject = {"logprobs": []} if kind == "output_text" else {}
        self._tell_part(f"{part.event}.delta", item, delta=text, **extra)

    def _written(self, kind: str) -> Written:
        """The open item of this kind, opened now if it isn't."""
        if isinstance(self._open, Written) and self._open.kind == kind:
            return self._open
        index = len(self._items)
        item = Written(item_id(kind, self._id, index, output=True), index, "message" if kind == "message" else "reasoning")
        self._open_item(item)
        return item

    def _call(self, piece: CallPiece) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            index = len(self._items)
            name = item_id("function_call", self._id, index, output=True)
            call = Call(name, index, piece.call_id or f"call_{name.removeprefix('fc_')}", piece.name)
            self._calls[piece.index] = call
            self._open_item(call)
        if piece.arguments:
            call.arguments += piece.arguments
            self._tell_item("response.function_call_arguments.delta", call, delta=piece.arguments)

    def _open_item(self, item: Item) -> None:
        self._close_item("completed")
        self._items.append(item)
        self._open = item
        self._tell("response.output_item.added", output_index=item.index, item=item.told())

    def _close_item(self, status: ItemStatus) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if isinstance(item, Call):
            self._tell_item("response.function_call_arguments.done", item, name=item.name, arguments=item.arguments)
        else:
            self._close_part(item)
        item.status = status
        self._tell("response.output_item.done", output_index=item.index, item=item.told())

    def _close_part(self, item: Written) -> None:
        if not item.parts:
            return
        part = item.parts[-1]
        extra: JsonObject = {"logprobs": []} if part.kind == "output_text" else {}
        self._tell_part(f"{part.event}.done", item, **{part.member: part.text}, **extra)
        self._tell_part("response.content_part.done", item, part=part.told())

    def _answer(self, body: str) -> None:
        """A whole answer is a stream of one chunk."""
        self._work()
        try:
            chunk = read_chunk(body)
        except ValueError:
            self._fail(ProviderError("The provider's answer was no JSON object").fault())
            return
        self._add(chunk)
        self._end()

    def _end(self) -> None:
        self._work()
        why = _INCOMPLETE.get(self._finish)
        self._close_item("incomplete" if why else "completed")
        self._changing["status"] = "incomplete" if why else "completed"
        if why:
            self._changing["incomplete_details"] = {"reason": why}
        self._tell_response(f"response.{self._changing['status']}")

    def _fail(self, fault: Fault) -> None:
        for item in self._items:
            item.status = "incomplete" if item is self._open else item.status
        if fault.code == Cancelled.code:
            self._changing["status"] = "cancelled"
        else:
            self._tell_error(fault)
            code = _ERROR_CODES.get(fault.status, "server_error")
            self._changing |= {"status": "failed", "error": {"code": code, "message": fault.message}}
        self._tell_response("response.failed")

    def _tell_error(self, fault: Fault) -> None:
        self._tell("error", code=fault.code or fault.type, message=fault.message, param=fault.param)

    def _tell_response(self, kind: str) -> None:
        self._tell(kind, response=self.response())

    def _tell_part(self, kind: str, item: Written, **members: JsonValue) -> None:
        self._tell_item(kind, item, content_index=len(item.parts) - 1, **members)

    def _tell_item(self, kind: str, item: Item, **members: JsonValue) -> None:
        self._tell(kind, item_id=item.id, output_index=item.index, **members)

    def _tell(self, kind: str, **members: JsonValue) -> None:
        self._events.append({"type": kind, "sequence_number": self._number, **members})
        self._number += 1

    def _taken(self) -> list[JsonObject]:
        events, self._events = self._events, []
        return events


def told_whole(frame: JsonObject, events: Sequence[Event]) -> JsonObject:
    """The response that these events of its job make up."""
    telling = Telling(frame)
    telling.begin()
    for event in events:
        telling.take(event)
    return telling.response()
