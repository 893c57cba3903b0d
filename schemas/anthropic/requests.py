"""Requests: what of Anthropic's Messages API Sluice translates for every provider. What it doesn't know is ignored.

A content may be a text instead of a list of blocks; here it is one block then.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from schemas.base import JsonObject

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class Lenient(BaseModel):
    """Strict about the types of what it names, silent about the rest."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Cacheable(Lenient):
    """A place up to which the provider may keep the prompt."""

    cache_control: JsonObject | None = None


def _blocks(given: object) -> object:
    return [{"type": "text", "text": given}] if isinstance(given, str) else given


B = TypeVar("B")
Blocks = Annotated[list[B], BeforeValidator(_blocks, json_schema_input_type=str | list[B])]


class Text(Cacheable):
    type: Literal["text"]
    text: str


class Base64Source(Lenient):
    type: Literal["base64"]
    media_type: str
    data: str


class UrlSource(Lenient):
    type: Literal["url"]
    url: str


class TextSource(Lenient):
    type: Literal["text"]
    data: str


class Image(Cacheable):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]


TextOrImage = Annotated[Text | Image, Field(discriminator="type")]


class BlocksSource(Lenient):
    type: Literal["content"]
    content: Blocks[TextOrImage]


class Document(Cacheable):
    type: Literal["document"]
    source: Annotated[Base64Source | TextSource | BlocksSource, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None


class SearchResult(Cacheable):
    type: Literal["search_result"]
    source: str
    title: str
    content: list[Text]


Shown = Annotated[Text | Image | Document | SearchResult, Field(discriminator="type")]
"""What may be shown to a model, by a person or by a tool."""


class ToolResult(Cacheable):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Blocks[Shown] | None = None
    is_error: bool | None = None


class ToolUse(Cacheable):
    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject


class Thinking(Lenient):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinking(Lenient):
    type: Literal["redacted_thinking"]
    data: str


class UserTurn(Lenient):
    role: Literal["user"]
    content: Blocks[Annotated[Text | Image | Document | SearchResult | ToolResult, Field(discriminator="type")]]


class AssistantTurn(Lenient):
    role: Literal["assistant"]
    content: Blocks[Annotated[Text | Thinking | RedactedThinking | ToolUse, Field(discriminator="type")]]


class SystemTurn(Lenient):
    role: Literal["system"]
    content: Blocks[Text]


class Tool(Cacheable):
    """A tool; one with another type than `custom` is Anthropic's own."""

    type: str | None = None
    name: str = ""
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None


class ToolChoice(Lenient):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Lenient):
    """How the text is to be written; the schema is the caller's own."""

    type: Literal["json_schema"]
    form: JsonObject = Field(alias="schema")


class OutputConfig(Lenient):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(Lenient):
    user_id: str | None = None


class Prompt(Cacheable):
    """POST /v1/messages/count_tokens: all that a model is given."""

    model: ModelName
    messages: list[Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]] = Field(min_length=1)
    system: Blocks[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: dict[str, JsonValue] | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(default=None, description="as the first betas had it")


class MessagesRequest(Prompt):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
