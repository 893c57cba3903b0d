"""Answers: whole messages, the events of a stream, usage, errors. Read by the provider, written by the front.

In the chat hub `reasoning_content` is the text of thinking, piece by piece in a stream; `thinking_blocks` are whole thinking and
redacted_thinking blocks, in a stream each in one delta when it ends, with an `index` among them.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from schemas.base import JsonObject

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"
]

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
]

ERROR_STATUS: Mapping[ErrorType, int] = dict(
    zip(get_args(ErrorType), (400, 401, 402, 403, 404, 413, 429, 500, 504, 529), strict=True)
)
"""The status of each type of error; one in the middle of a stream has the type alone."""


class Lenient(BaseModel):
    """Ignores what it doesn't know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Kept(BaseModel):
    """Keeps what it doesn't know: whoever pays wants to see it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TextBlock(Lenient):
    type: Literal["text"] = "text"
    text: str


class ThinkingBlock(Lenient):
    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Lenient):
    type: Literal["redacted_thinking"] = "redacted_thinking"
    data: str


class ToolUseBlock(Lenient):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: JsonObject = Field(default_factory=dict)


class OtherBlock(Lenient):
    """A block of a tool that Anthropic runs itself, or of a kind that is yet to come."""

    type: str


class CacheCreation(Kept):
    """Tokens written to the cache, by how long they are kept."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(Kept):
    thinking_tokens: int = 0


class Usage(Kept):
    """`input_tokens` is what was neither read from the cache nor written to it: the three are disjoint.

    In a stream message_start tells it first, and what message_delta tells is cumulative.
    """

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputTokensDetails | None = None
    service_tier: str | None = None
    speed: str | None = None
    server_tool_use: JsonObject | None = None


def _by_type(*known: str) -> Discriminator:
    """Tells the kinds of a union apart by `type`; what isn't known is "other"."""

    def kind(value: object) -> str:
        named = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return named if isinstance(named, str) and named in known else "other"

    return Discriminator(kind)


ContentBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[OtherBlock, Tag("other")],
    _by_type("text", "thinking", "redacted_thinking", "tool_use"),
]


class Message(Lenient):
    """A whole answer; in message_start, what is known before its content."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | str | None = None
    stop_sequence: str | None = None
    usage: Usage


class TextDelta(Lenient):
    type: Literal["text_delta"] = "text_delta"
    text: str


class InputJsonDelta(Lenient):
    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


class ThinkingDelta(Lenient):
    type: Literal["thinking_delta"] = "thinking_delta"
    thinking: str


class SignatureDelta(Lenient):
    type: Literal["signature_delta"] = "signature_delta"
    signature: str


class OtherDelta(Lenient):
    """A citation, or a kind that is yet to come."""

    type: str


Delta = Annotated[
    Annotated[TextDelta, Tag("text_delta")]
    | Annotated[InputJsonDelta, Tag("input_json_delta")]
    | Annotated[ThinkingDelta, Tag("thinking_delta")]
    | Annotated[SignatureDelta, Tag("signature_delta")]
    | Annotated[OtherDelta, Tag("other")],
    _by_type("text_delta", "input_json_delta", "thinking_delta", "signature_delta"),
]


class MessageStart(Lenient):
    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(Lenient):
    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: ContentBlock


class ContentBlockDelta(Lenient):
    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: Delta


class ContentBlockStop(Lenient):
    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class Stop(Lenient):
    stop_reason: StopReason | str | None = None
    stop_sequence: str | None = None


class MessageDelta(Lenient):
    type: Literal["message_delta"] = "message_delta"
    delta: Stop
    usage: Usage = Usage()


class MessageStop(Lenient):
    type: Literal["message_stop"] = "message_stop"


class Problem(Lenient):
    type: ErrorType | str
    message: str = ""


class ErrorAnswer(Lenient):
    """An error: the body of an answer, or an event in the middle of a stream."""

    type: Literal["error"] = "error"
    error: Problem
    request_id: str | None = None


class OtherEvent(Lenient):
    """A ping, or a kind that is yet to come."""

    type: str


AnyEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | ErrorAnswer
    | OtherEvent
)

EVENT: TypeAdapter[AnyEvent] = TypeAdapter(
    Annotated[
        Annotated[MessageStart, Tag("message_start")]
        | Annotated[ContentBlockStart, Tag("content_block_start")]
        | Annotated[ContentBlockDelta, Tag("content_block_delta")]
        | Annotated[ContentBlockStop, Tag("content_block_stop")]
        | Annotated[MessageDelta, Tag("message_delta")]
        | Annotated[MessageStop, Tag("message_stop")]
        | Annotated[ErrorAnswer, Tag("error")]
        | Annotated[OtherEvent, Tag("other")],
        _by_type(
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
            "error",
        ),
    ]
)
"""Reads the data of one event."""
