"""A message as it comes to be: from the events of a chat job to Anthropic's events, and to the object at any time.

Blocks are told one after the other, each to its end before the next begins, whatever order their pieces come in. Pure.
"""

from collections.abc import Iterable
from typing import TypeVar

from pydantic import JsonValue

from infra import tokens
from schemas.base import JsonObject
from schemas.errors import Fault
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from schemas.usage import Usage
from services.ingress.chunks import CallPiece, Chunk, TextKind, Thought, read_chunk
from services.ingress.messages.blocks import Block, Redacted, Thinking, Use, Written
from services.ingress.messages.usage import usage_object

MESSAGES = "/v1/messages"

_STOPS = {"length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}
"""Why a chat ends, and what messages call that. A sequence that stopped it can't be told from an end."""

B = TypeVar("B", bound=Block)

_TIERS = {"default": "standard", "priority": "priority", "batch": "batch"}


class Telling:
    """One message. `usage`: what is known before its provider tells; if it never does, the text is counted."""

    def __init__(self, job_id: str, model: str, usage: Usage) -> None:
        self._job_id = job_id
        self._model = model
        self._usage = usage
        self._events: list[JsonObject] = []
        self._blocks: list[Block] = []
        self._front = 0
        self._uses: dict[int, Use] = {}
        self._finish = ""
        self._refused = False
        self._service_tier = ""
        self._stop_reason: str | None = None

    def begin(self) -> list[JsonObject]:
        """The first event, before anything has come."""
        self._tell("message_start", message=self.message())
        return self._taken()

    def take(self, event: Event | None) -> list[JsonObject]:
        """What an event of the job makes known; None is silence."""
        match event:
            case None:
                self._tell("ping")
            case Opened():
                pass
            case Delta(data=data):
                for text in data:
                    self._add(read_chunk(text))
            case Closed():
                self._end()
            case Answer(body=body):
                # A whole answer is a stream of one chunk.
                self._add(read_chunk(body))
                self._end()
            case Failed(fault=fault):
                return self.interrupted(fault)
        return self._taken()

    def interrupted(self, fault: Fault) -> list[JsonObject]:
        """No more can be told, for this reason."""
        return [fault.anthropic(self._job_id)]

    def message(self) -> JsonObject:
        """The Message object as of now."""
        content: list[JsonValue] = [block.told() for block in self._blocks]
        return {
            "id": f"msg_{self._job_id.removeprefix('job_')}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": self._stop_reason,
            "stop_sequence": None,
            "usage": usage_object(self._usage) | {"service_tier": _TIERS.get(self._service_tier)},
        }

    def _add(self, chunk: Chunk) -> None:
        reasoning = "".join(text for kind, text in chunk.texts if kind == "reasoning_text")
        if reasoning and not any(thought.text for thought in chunk.thoughts):
            self._think(reasoning)
        for thought in chunk.thoughts:
            self._sign(thought, whole=not reasoning)
        for kind, text in chunk.texts:
            if kind != "reasoning_text":
                self._write(kind, text)
        for piece in chunk.calls:
            self._use(piece)
        self._finish = chunk.finish or self._finish
        self._usage = chunk.usage or self._usage
        self._service_tier = chunk.service_tier or self._service_tier
        self._tell_blocks()

    def _think(self, text: str) -> Thinking:
        block = self._open_thinking() or self._opened(Thinking())
        block.pieces.append(text)
        return block

    def _sign(self, thought: Thought, *, whole: bool) -> None:
        """`whole`: it repeats all that its block has said so far, in other chunks."""
        if thought.redacted:
            self._opened(Redacted(data=thought.redacted))
            return
        block = self._open_thinking() or self._opened(Thinking())
        said = block.text if whole else ""
        if thought.text.startswith(said) and thought.text != said:
            block.pieces.append(thought.text[len(said) :])
        block.signature = thought.signature
        block.over = whole or bool(thought.signature)

    def _open_thinking(self) -> Thinking | None:
        last = self._blocks[-1] if self._blocks else None
        return last if isinstance(last, Thinking) and not last.over else None

    def _write(self, kind: TextKind, text: str) -> None:
        last = self._blocks[-1] if self._blocks else None
        block = last if isinstance(last, Written) else self._opened(Written())
        block.pieces.append(text)
        self._refused |= kind == "refusal"

    def _use(self, piece: CallPiece) -> None:
        use = self._uses.get(piece.index)
        if use is None:
            name = piece.call_id or f"toolu_{self._job_id.removeprefix('job_')}{len(self._blocks)}"
            use = self._uses[piece.index] = self._opened(Use(id=name, name=piece.name))
        if piece.arguments:
            use.pieces.append(piece.arguments)

    def _opened(self, block: B) -> B:
        self._blocks.append(block)
        return block

    def _tell_blocks(self, *, ended: bool = False) -> None:
        """Tells what there is of the block whose turn it is, and of the next if it is over."""
        while self._front < len(self._blocks):
            block = self._blocks[self._front]
            self._tell_pieces(block)
            if not ended and (block is self._blocks[-1] or not block.whole):
                return
            if ending := block.ending():
                self._tell("content_block_delta", index=self._front, delta=ending)
            self._tell("content_block_stop", index=self._front)
            self._front += 1

    def _tell_pieces(self, block: Block) -> None:
        if not block.begun:
            block.begun = True
            self._tell("content_block_start", index=self._front, content_block=block.told(empty=True))
        for piece in block.pieces[block.said :]:
            self._tell("content_block_delta", index=self._front, delta=block.delta(piece))
        block.said = len(block.pieces)

    def _end(self) -> None:
        self._tell_blocks(ended=True)
        if self._usage.source == "none":
            count = sum(tokens.count(block.text) for block in self._blocks)
            self._usage = self._usage.model_copy(update={"output_tokens": count, "source": "estimated"})
        self._stop_reason = self._why()
        stop: JsonObject = {"stop_reason": self._stop_reason, "stop_sequence": None}
        self._tell("message_delta", delta=stop, usage=usage_object(self._usage))
        self._tell("message_stop")

    def _why(self) -> str:
        """Some end with `stop` though they called something, as OpenAI does when it was told what to call."""
        if self._refused:
            return "refusal"
        return _STOPS.get(self._finish) or ("tool_use" if self._uses else "end_turn")

    def _tell(self, kind: str, **members: JsonValue) -> None:
        self._events.append({"type": kind, **members})

    def _taken(self) -> list[JsonObject]:
        events, self._events = self._events, []
        return events


def told_whole(job_id: str, model: str, events: Iterable[Event], usage: Usage) -> JsonObject:
    """The message that these events of its job make up."""
    telling = Telling(job_id, model, usage)
    for event in events:
        telling.take(event)
    return telling.message()
