"""From Anthropic's answers, and the events of its streams, to a chat completion and its chunks. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.anthropic.answers import (
    AnyEvent,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    RedactedThinkingBlock,
    SignatureDelta,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from schemas.base import JsonObject
from services.router.providers.base import DONE

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TIERS = {"standard": "default"}


def raw(usage: Usage) -> JsonObject:
    """The usage in Anthropic's words, exactly as it came."""
    return usage.model_dump(mode="json", exclude_unset=True)


def chat_usage(usage: Usage) -> JsonObject | None:
    """The usage in OpenAI's words: totals that include what was cached and what was thought. None if nothing is told."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    kept = usage.cache_creation
    in_parts = kept.ephemeral_5m_input_tokens + kept.ephemeral_1h_input_tokens if kept else 0
    written = usage.cache_creation_input_tokens if usage.cache_creation_input_tokens is not None else in_parts
    read = usage.cache_read_input_tokens or 0
    prompt, completion = (usage.input_tokens or 0) + read + written, usage.output_tokens or 0
    details: JsonObject = {"cached_tokens": read, "cache_write_tokens": written}
    if kept:
        details["cache_write_1h_tokens"] = kept.ephemeral_1h_input_tokens
    told: JsonObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }
    if usage.output_tokens_details:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.output_tokens_details.thinking_tokens}
    if usage.server_tool_use:
        told["server_tool_use"] = usage.server_tool_use
    return told


def completion(message: Message, created: int) -> str:
    """The chat completion that says what the message says."""
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    calls = [_call(block) for block in message.content if isinstance(block, ToolUseBlock)]
    thoughts = [block for block in message.content if isinstance(block, ThinkingBlock | RedactedThinkingBlock)]
    said: JsonObject = {"role": "assistant", "content": "".join(texts) if texts or not calls else None, "refusal": None}
    if calls:
        said["tool_calls"] = [*calls]
    if text := "".join(block.thinking for block in thoughts if isinstance(block, ThinkingBlock)):
        said["reasoning_content"] = text
    if thoughts:
        said["thinking_blocks"] = [block.model_dump(mode="json") for block in thoughts]
    choice: JsonObject = {"index": 0, "message": said, "logprobs": None, "finish_reason": _finish(message.stop_reason)}
    return _json(message, created, "chat.completion", [choice], message.usage)


class BrokenStream(ValueError):
    """Events that make no message."""


@dataclass(slots=True)
class _Open:
    """A block that has begun. `number`: among the calls, or the thoughts; `text`: its arguments, or what was thought."""

    kind: ToolUseBlock | ThinkingBlock | RedactedThinkingBlock
    number: int
    text: str = ""
    signature: str = ""


class Chunks:
    """Makes the chunks of one stream. `usage`: what was told of it so far, in Anthropic's words."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._head: Message | None = None
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._stop_reason: str | None = None
        self.usage: JsonObject = {}

    def of(self, event: AnyEvent) -> list[str]:
        """The chunks that an event is worth. Raises BrokenStream for one before the message has begun."""
        match event:
            case MessageStart(message=message):
                self._head = message
                self.usage |= raw(message.usage)
                return [self._chunk({"role": "assistant", "content": ""})]
            case ContentBlockStart(index=index, content_block=block):
                return self._deltas(self._begun(index, block))
            case ContentBlockDelta(index=index, delta=delta):
                return self._deltas(self._gone_on(index, delta))
            case ContentBlockStop(index=index):
                return self._deltas(self._ended(index))
            case MessageDelta(delta=delta, usage=usage):
                self._stop_reason = delta.stop_reason or self._stop_reason
                # Cumulative; what it leaves out stands as it was.
                self.usage |= {name: value for name, value in raw(usage).items() if value is not None}
                return []
            case MessageStop():
                return [*self._end(), DONE]
            case _:
                return []

    def _begun(self, index: int, block: object) -> JsonObject | None:
        match block:
            case TextBlock(text=text):
                return {"content": text} if text else None
            case ToolUseBlock(input=given):
                opened = self._open[index] = _Open(block, self._calls, to_json(given).decode() if given else "")
                self._calls += 1
                return {"tool_calls": [{"index": opened.number, **_call(block), "function": _function(block, opened.text)}]}
            case ThinkingBlock(thinking=text, signature=signature):
                self._open[index] = _Open(block, self._thoughts, text, signature)
                self._thoughts += 1
                return {"reasoning_content": text} if text else None
            case RedactedThinkingBlock():
                self._open[index] = _Open(block, self._thoughts)
                self._thoughts += 1
                return None
            case _:
                return None

    def _gone_on(self, index: int, delta: Delta) -> JsonObject | None:
        opened = self._open.get(index)
        match delta:
            case TextDelta(text=text):
                return {"content": text} if text else None
            case InputJsonDelta(partial_json=text) if opened and text:
                opened.text += text
                return {"tool_calls": [{"index": opened.number, "function": {"arguments": text}}]}
            case ThinkingDelta(thinking=text) if opened and text:
                opened.text += text
                return {"reasoning_content": text}
            case SignatureDelta(signature=signature) if opened:
                opened.signature += signature
                return None
            case _:
                return None

    def _ended(self, index: int) -> JsonObject | None:
        opened = self._open.pop(index, None)
        match opened:
            case _Open(kind=ToolUseBlock(), number=number, text=""):
                # OpenAI's SDK reads the arguments as JSON, also where there are none.
                return {"tool_calls": [{"index": number, "function": {"arguments": "{}"}}]}
            case _Open(kind=ThinkingBlock(), number=number, text=text, signature=signature):
                block: JsonObject = {"index": number, "type": "thinking", "thinking": text, "signature": signature}
                return {"thinking_blocks": [block]}
            case _Open(kind=RedactedThinkingBlock(data=data), number=number):
                return {"thinking_blocks": [{"index": number, "type": "redacted_thinking", "data": data}]}
            case _:
                return None

    def _end(self) -> list[str]:
        head, usage = self._begun_with(), Usage.model_validate(self.usage)
        last = self._chunk({}, _finish(self._stop_reason))
        if chat_usage(usage) is None:
            return [last]
        return [last, _json(head, self._created, "chat.completion.chunk", [], usage)]

    def _deltas(self, delta: JsonObject | None) -> list[str]:
        return [self._chunk(delta)] if delta is not None else []

    def _chunk(self, delta: JsonObject, finish_reason: str | None = None) -> str:
        choice: JsonObject = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _json(self._begun_with(), self._created, "chat.completion.chunk", [choice], None)

    def _begun_with(self) -> Message:
        if self._head is None:
            raise BrokenStream("the stream doesn't begin with message_start")
        return self._head


def _finish(stop_reason: str | None) -> str:
    return _FINISH.get(stop_reason or "", "stop")


def _call(block: ToolUseBlock) -> dict[str, JsonValue]:
    return {"id": block.id, "type": "function", "function": _function(block, to_json(block.input).decode())}


def _function(block: ToolUseBlock, arguments: str) -> JsonObject:
    return {"name": block.name, "arguments": arguments}


def _json(head: Message, created: int, kind: str, choices: Sequence[JsonObject], usage: Usage | None) -> str:
    body: JsonObject = {
        "id": head.id,
        "object": kind,
        "created": created,
        "model": head.model,
        "choices": [*choices],
        "usage": chat_usage(usage) if usage else None,
        "system_fingerprint": None,
    }
    tier = ("fast" if usage.speed == "fast" else usage.service_tier) if usage else None
    if tier:
        body["service_tier"] = _TIERS.get(tier, tier)
    return to_json(body).decode()
