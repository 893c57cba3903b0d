"""Answers of Converse, events of ConverseStream, vectors of InvokeModel: as far as Sluice reads them.

Shapes as in AWS's API reference and botocore's model of bedrock-runtime. What is new to us is passed over.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt
from pydantic.alias_generators import to_camel

from schemas.base import JsonObject


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class CacheDetail(_Wire):
    """Tokens written to the cache, by how long they are kept: `5m` or `1h`."""

    ttl: str
    input_tokens: NonNegativeInt


class TokenUsage(_Wire):
    """`input_tokens` is the rest that was neither read from the cache nor written to it."""

    input_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0
    cache_read_input_tokens: NonNegativeInt | None = None
    cache_write_input_tokens: NonNegativeInt | None = None
    cache_details: tuple[CacheDetail, ...] | None = None


class ServiceTier(_Wire):
    type: str


class ToolUse(_Wire):
    tool_use_id: str
    name: str
    input: JsonValue


class ReasoningText(_Wire):
    text: str
    signature: str | None = None


class Reasoning(_Wire):
    """One of both. `redacted_content` is in base64."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Cited(_Wire):
    text: str | None = None


class Citations(_Wire):
    content: tuple[Cited, ...] = ()


class Block(_Wire):
    """One of its members."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None


class Message(_Wire):
    content: tuple[Block, ...]


class Output(_Wire):
    message: Message


class ConverseAnswer(_Wire):
    """POST /model/{id}/converse."""

    output: Output
    stop_reason: str
    usage: JsonObject | None = None
    service_tier: ServiceTier | None = None


class Event(_Wire):
    """An event of a stream."""


class MessageStart(Event):
    role: str


class ToolUseStart(_Wire):
    tool_use_id: str
    name: str


class BlockStart(_Wire):
    tool_use: ToolUseStart | None = None


class ContentBlockStart(Event):
    content_block_index: int
    start: BlockStart


class ToolUseDelta(_Wire):
    input: str


class ReasoningDelta(_Wire):
    """One of its members."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class BlockDelta(_Wire):
    """One of its members."""

    text: str | None = None
    tool_use: ToolUseDelta | None = None
    reasoning_content: ReasoningDelta | None = None


class ContentBlockDelta(Event):
    content_block_index: int
    delta: BlockDelta


class ContentBlockStop(Event):
    content_block_index: int


class MessageStop(Event):
    stop_reason: str


class Metadata(Event):
    """The last event."""

    usage: JsonObject | None = None
    service_tier: ServiceTier | None = None


EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        "messageStart": MessageStart,
        "contentBlockStart": ContentBlockStart,
        "contentBlockDelta": ContentBlockDelta,
        "contentBlockStop": ContentBlockStop,
        "messageStop": MessageStop,
        "metadata": Metadata,
    }
)
"""By `:event-type`."""


class TitanVector(_Wire):
    """POST /model/amazon.titan-embed-…/invoke."""

    embedding: list[float]
    input_text_token_count: NonNegativeInt | None = None


class ByType(_Wire):
    floats: list[list[float]] = Field(alias="float")


class CohereVectors(_Wire):
    """POST /model/cohere.embed-…/invoke; by type if types were asked for."""

    embeddings: list[list[float]] | ByType


__all__ = [
    "EVENTS",
    "Block",
    "BlockDelta",
    "ByType",
    "CohereVectors",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "ConverseAnswer",
    "Event",
    "MessageStart",
    "MessageStop",
    "Metadata",
    "Reasoning",
    "ReasoningDelta",
    "ServiceTier",
    "TitanVector",
    "TokenUsage",
    "ToolUse",
]
