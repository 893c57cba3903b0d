"""What Anthropic's Messages API takes, and nothing else: a wrong request is refused in its words.

Written from its public reference (platform.claude.com: "Create a Message", "Extended thinking", "Structured outputs",
"Versions").
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from schemas.base import JsonObject

VERSIONS = ("2023-06-01", "2026-10-21")
"""The newer one has no temperature, top_p and top_k any more."""

_NAME = r"^[a-zA-Z0-9_-]{1,128}$"
_ID = r"^[a-zA-Z0-9_-]+$"


class Refused(ValueError):
    """The request is not as it must be: a 400."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CacheControl(_Strict):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class _Block(_Strict):
    cache_control: CacheControl | None = None


class Text(_Block):
    type: Literal["text"]
    text: str


class Base64(_Strict):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"]
    data: str = Field(pattern=r"^[A-Za-z0-9+/]+=*$")


class Url(_Strict):
    type: Literal["url"]
    url: str = Field(pattern=r"^https://")


Source = Annotated[Base64 | Url, Field(discriminator="type")]


class Image(_Block):
    type: Literal["image"]
    source: Source


class Document(_Block):
    type: Literal["document"]
    source: Source
    title: str | None = None


class Thinking(_Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str


class Redacted(_Strict):
    type: Literal["redacted_thinking"]
    data: str


class ToolUse(_Block):
    type: Literal["tool_use"]
    id: str = Field(pattern=_ID)
    name: str = Field(pattern=_NAME)
    input: JsonObject


def _as_blocks(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ToolResult(_Block):
    type: Literal["tool_result"]
    tool_use_id: str = Field(pattern=_ID)
    content: Annotated[list[Annotated[Text | Image | Document, Field(discriminator="type")]], BeforeValidator(_as_blocks)] = []
    is_error: bool = False


Block = Annotated[
    Text | Image | Document | Thinking | Redacted | ToolUse | ToolResult,
    Field(discriminator="type"),
]


class Turn(_Strict):
    role: Literal["user", "assistant"]
    content: Annotated[list[Block], BeforeValidator(_as_blocks)] = Field(min_length=1)


class Tool(_Block):
    type: Literal["custom"] = "custom"
    name: str = Field(pattern=_NAME)
    description: str = ""
    input_schema: JsonObject
    strict: bool = False


class ToolChoice(_Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ThinkingConfig(_Strict):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = Field(default=None, ge=1024)
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(_Strict):
    type: Literal["json_schema"]
    wanted: JsonObject = Field(alias="schema")


class OutputConfig(_Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class Metadata(_Strict):
    user_id: str | None = Field(default=None, max_length=256)


class Request(_Strict):
    """A request of API version 2023-06-01."""

    model: str = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    messages: list[Turn] = Field(min_length=1)
    system: Annotated[list[Text], BeforeValidator(_as_blocks)] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig = OutputConfig()
    stop_sequences: list[str] = []
    stream: bool = False
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    metadata: Metadata = Metadata()
    service_tier: Literal["auto", "standard_only"] = "auto"

    @property
    def thinks(self) -> bool:
        return self.thinking is not None and self.thinking.type in ("enabled", "adaptive")


def read_request(body: bytes, version: str) -> Request:
    """Raises Refused, with words as the API has them."""
    try:
        request = Request.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = "Extra inputs are not permitted" if first["type"] == "extra_forbidden" else first["msg"]
        raise Refused(f"{where}: {what}") from None
    for name in ("temperature", "top_p", "top_k"):
        if version != VERSIONS[0] and getattr(request, name) is not None:
            raise Refused(f"{name}: Extra inputs are not permitted")
    for rule in _RULES:
        if said := rule(request):
            raise Refused(said)
    return request


def _blank_texts(request: Request) -> str:
    blocks = [block for turn in request.messages for block in turn.content] + [*request.system]
    inner = [part for block in blocks if isinstance(block, ToolResult) for part in block.content]
    if any(isinstance(block, Text) and not block.text.strip() for block in [*blocks, *inner]):
        return "messages: text content blocks must contain non-whitespace text"
    last = request.messages[-1]
    if last.role == "assistant" and isinstance(end := last.content[-1], Text) and end.text != end.text.rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    return ""


def _tool_ids(request: Request) -> str:
    called: set[str] = set()
    for number, turn in enumerate(request.messages):
        results = {block.tool_use_id for block in turn.content if isinstance(block, ToolResult)}
        if strange := results - called:
            return f"messages.{number}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {min(strange)}"
        if missing := called - results:
            return f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: {min(missing)}"
        uses = [block.id for block in turn.content if isinstance(block, ToolUse)]
        called = set(uses)
        if len(called) != len(uses):
            return f"messages.{number}: `tool_use` ids must be unique"
    return ""


def _tools(request: Request) -> str:
    names = {tool.name for tool in request.tools}
    if len(names) != len(request.tools):
        return "tools: Tool names must be unique."
    if any(tool.input_schema.get("type") != "object" for tool in request.tools):
        return "tools.0.custom.input_schema.type: Field required"
    if any(tool.strict and tool.input_schema.get("additionalProperties") is not False for tool in request.tools):
        return "tools.0.custom: For 'object' type, 'additionalProperties' must be explicitly set to false"
    blocks = [block for turn in request.messages for block in turn.content]
    if not names and any(isinstance(block, ToolUse | ToolResult) for block in blocks):
        return "Requests which include `tool_use` or `tool_result` blocks must define tools"
    choice = request.tool_choice
    if choice and not names:
        return "tool_choice: tools must be provided when tool_choice is specified"
    if choice and choice.type == "tool" and choice.name not in names:
        return f"tool_choice: Tool '{choice.name}' not found in provided tools"
    return ""


def _thinking(request: Request) -> str:
    if not request.thinks or request.thinking is None:
        return ""
    budget = request.thinking.budget_tokens
    if (request.thinking.type == "enabled") != (budget is not None):
        return "thinking.enabled.budget_tokens: Field required"
    if budget is not None and budget >= request.max_tokens:
        return "`max_tokens` must be greater than `thinking.budget_tokens`"
    if request.temperature not in (None, 1) or request.top_k is not None:
        return "`temperature` may only be set to 1 when thinking is enabled"
    if request.tool_choice and request.tool_choice.type in ("any", "tool"):
        return "Thinking may not be enabled when tool_choice forces tool use."
    return ""


def _others(request: Request) -> str:
    if request.temperature is not None and request.top_p is not None:
        return "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    if not all(stop.strip() for stop in request.stop_sequences):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    if "@" in (request.metadata.user_id or ""):
        return "metadata.user_id: user_id appears to contain an email address"
    form = request.output_config.format
    return _open_object(form.wanted) if form else ""


def _open_object(schema: JsonValue) -> str:
    """Structured outputs want each object closed, and know no bounds."""
    if isinstance(schema, list):
        return _first(_open_object(child) for child in schema)
    if not isinstance(schema, dict):
        return ""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
    for name in ("minimum", "maximum", "minLength", "maxLength", "multipleOf", "maxItems"):
        if isinstance(schema.get(name), int | float):
            return f"output_config.format.schema: property '{name}' is not supported"
    return _first(_open_object(child) for child in schema.values())


def _first(said: Iterable[str]) -> str:
    return next((words for words in said if words), "")


_RULES: Sequence[Callable[[Request], str]] = (_blank_texts, _tool_ids, _tools, _thinking, _others)
