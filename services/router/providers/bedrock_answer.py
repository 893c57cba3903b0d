"""From Converse's answers, and the events of ConverseStream, to a chat completion and its chunks. Pure."""

from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.bedrock.answers import (
    EVENTS,
    Block,
    BlockDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ConverseAnswer,
    MessageStart,
    MessageStop,
    Metadata,
    Reasoning,
    ServiceTier,
    TokenUsage,
    ToolUseStart,
)
from services.router.providers.base import DONE
from services.router.providers.bedrock_request import ANSWER_TOOL

_FINISH = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class NoAnswer(ValueError):
    """What came is none of Bedrock's answers, or the model wrote what is none."""


@dataclass(frozen=True, slots=True)
class Head:
    """What OpenAI says about an answer beside it. `answers_by_tool`: the input of ANSWER_TOOL is the content."""

    id: str
    created: int
    model: str
    answers_by_tool: bool = False


def completion(answer: ConverseAnswer, head: Head) -> str:
    """The chat completion that says what the answer says. Raises NoAnswer."""
    said = _Said(head.answers_by_tool)
    for block in answer.output.message.content:
        said.take(block)
    finish = _finish(answer.stop_reason, called=bool(said.calls))
    choice: JsonObject = {"index": 0, "message": said.message(), "logprobs": None, "finish_reason": finish}
    return _json(head, "chat.completion", [choice], chat_usage(answer.usage), answer.service_tier)


def chat_usage(raw: JsonObject | None) -> JsonObject | None:
    """The usage in OpenAI's words: totals that include what was cached. None if nothing is told, or nothing that can be true."""
    try:
        usage = TokenUsage.model_validate(raw)
    except ValidationError:
        return None
    read, written = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    for_an_hour = sum(detail.input_tokens for detail in usage.cache_details or () if detail.ttl == "1h")
    prompt = usage.input_tokens + read + written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written, "cache_write_1h_tokens": for_an_hour},
    }


class _Said:
    """The blocks of a message, gathered to OpenAI's."""

    def __init__(self, answers_by_tool: bool) -> None:
        self._answers_by_tool = answers_by_tool
        self._texts: list[str] = []
        self._answers: list[str] = []
        self._thoughts: list[JsonObject] = []
        self.calls: list[JsonObject] = []

    def take(self, block: Block) -> None:
        if block.text is not None:
            self._texts.append(block.text)
        elif (call := block.tool_use) is not None:
            arguments = to_json(call.input).decode()
            if self._answers_by_tool and call.name == ANSWER_TOOL:
                self._answers.append(arguments)
            else:
                self.calls.append(_call(call.tool_use_id, call.name, arguments))
        elif block.reasoning_content is not None:
            self._thoughts.append(_thought(block.reasoning_content))
        elif block.citations_content is not None:
            self._texts.extend(cited.text for cited in block.citations_content.content if cited.text)

    def message(self) -> JsonObject:
        # Beside the answer, what is said would spoil its JSON.
        text = "".join(self._answers or self._texts)
        message: JsonObject = {"role": "assistant", "content": text if text or not self.calls else None, "refusal": None}
        if self.calls:
            message["tool_calls"] = [*self.calls]
        if self._thoughts:
            message["reasoning_content"] = "".join(str(thought.get("thinking", "")) for thought in self._thoughts)
            message["thinking_blocks"] = [*self._thoughts]
        return message


def _thought(reasoning: Reasoning) -> JsonObject:
    """Anthropic's block of it."""
    if (text := reasoning.reasoning_text) is None:
        return {"type": "redacted_thinking", "data": reasoning.redacted_content or ""}
    return {"type": "thinking", "thinking": text.text, "signature": text.signature or ""}


def _call(call_id: str, name: str, arguments: str) -> JsonObject:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@dataclass(slots=True)
class _Open:
    """A block that has begun. `number`: among the calls, or the thoughts; `text`: what was thought, or that a call has input."""

    kind: str
    number: int = 0
    text: str = ""
    signature: str = ""


class Chunks:
    """Makes the chunks of one stream. `stopped`: the message is complete; `usage`: what was told of it, in Bedrock's words."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._aside: list[str] = []
        self._answered = False
        self.stopped = False
        self.usage: JsonObject | None = None

    def of(self, name: str, payload: bytes) -> list[str]:
        """The chunks that an event is worth; none if it is new to us. Raises NoAnswer."""
        if (kind := EVENTS.get(name)) is None:
            return []
        try:
            event = kind.model_validate_json(payload)
        except ValidationError:
            # From None: the chain would hold the answer.
            raise NoAnswer(f"a broken {name}") from None
        match event:
            case MessageStart():
                return self._deltas({"role": "assistant", "content": ""})
            case ContentBlockStart(content_block_index=index, start=start):
                return self._deltas(self._begun(index, start.tool_use)) if start.tool_use else []
            case ContentBlockDelta(content_block_index=index, delta=delta):
                return self._deltas(self._gone_on(index, delta))
            case ContentBlockStop(content_block_index=index):
                return self._deltas(self._ended(index))
            case MessageStop(stop_reason=reason):
                self.stopped = True
                text = "" if self._answered else "".join(self._aside)
                last = self._chunk({}, _finish(reason, called=self._calls > 0))
                return [*self._deltas({"content": text} if text else None), last]
            case Metadata():
                return self._end(event)
            case _:
                return []

    def _begun(self, index: int, call: ToolUseStart) -> JsonObject | None:
        if self._head.answers_by_tool and call.name == ANSWER_TOOL:
            self._open[index], self._answered = _Open("answer"), True
            return None
        opened = self._open[index] = _Open("call", self._calls)
        self._calls += 1
        return {"tool_calls": [{"index": opened.number, **_call(call.tool_use_id, call.name, "")}]}

    def _gone_on(self, index: int, delta: BlockDelta) -> JsonObject | None:
        if delta.text and self._head.answers_by_tool:
            # Beside the answer it would spoil its JSON.
            self._aside.append(delta.text)
            return None
        if delta.text:
            return {"content": delta.text}
        if (thought := delta.reasoning_content) is not None:
            opened = self._thinking(index)
            opened.text += thought.text or ""
            opened.signature += thought.signature or thought.redacted_content or ""
            opened.kind = "redacted" if thought.redacted_content else opened.kind
            return {"reasoning_content": thought.text} if thought.text else None
        opened = self._open.get(index)
        if delta.tool_use is None or opened is None or not delta.tool_use.input:
            return None
        opened.text = "some"
        if opened.kind == "answer":
            return {"content": delta.tool_use.input}
        return {"tool_calls": [{"index": opened.number, "function": {"arguments": delta.tool_use.input}}]}

    def _thinking(self, index: int) -> _Open:
        """The block of thoughts with this index, which has no beginning of its own."""
        if index not in self._open:
            self._open[index] = _Open("thought", self._thoughts)
            self._thoughts += 1
        return self._open[index]

    def _ended(self, index: int) -> JsonObject | None:
        match self._open.pop(index, None):
            case _Open(kind="call", number=number, text=""):
                # OpenAI's SDK reads the arguments as JSON, also where there are none.
                return {"tool_calls": [{"index": number, "function": {"arguments": "{}"}}]}
            case _Open(kind="thought", number=number, text=text, signature=signature):
                block: JsonObject = {"index": number, "type": "thinking", "thinking": text, "signature": signature}
                return {"thinking_blocks": [block]}
            case _Open(kind="redacted", number=number, signature=data):
                return {"thinking_blocks": [{"index": number, "type": "redacted_thinking", "data": data}]}
            case _:
                return None

    def _end(self, told: Metadata) -> list[str]:
        """It follows on the end of the message."""
        self.usage = told.usage
        usage = chat_usage(told.usage)
        last = [_json(self._head, "chat.completion.chunk", [], usage, told.service_tier)] if usage else []
        return [*last, DONE] if self.stopped else last

    def _deltas(self, delta: JsonObject | None) -> list[str]:
        return [self._chunk(delta)] if delta is not None else []

    def _chunk(self, delta: JsonObject, finish_reason: str | None = None) -> str:
        choice: JsonObject = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _json(self._head, "chat.completion.chunk", [choice], None, None)


def _finish(stop_reason: str, *, called: bool) -> str:
    """Raises NoAnswer where the model wrote a call, or else something, that can't be read."""
    if stop_reason.startswith("malformed_"):
        raise NoAnswer(stop_reason)
    if stop_reason == "tool_use" and not called:
        # The only tool it called was the one that takes the answer.
        return "stop"
    return _FINISH.get(stop_reason, "stop")


def _json(head: Head, kind: str, choices: list[JsonObject], usage: JsonObject | None, tier: ServiceTier | None) -> str:
    body: JsonObject = {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "choices": [*choices],
        "usage": usage,
        "system_fingerprint": None,
    }
    if tier:
        body["service_tier"] = tier.type
    return to_json(body).decode()
