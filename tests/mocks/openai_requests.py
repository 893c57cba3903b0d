"""What OpenAI's chat completions take, and nothing else: a member that it doesn't know is refused in its words.

Written from its public reference (platform.openai.com: "Create chat completion", "Structured outputs", "Function calling").
"""

import base64
import binascii
import json
from collections.abc import Collection, Iterator, Mapping
from itertools import takewhile
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from schemas.base import JsonObject

_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class Refused(ValueError):
    """The request is not as it must be: a 400."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _is_image(url: str) -> str:
    head, _, data = url.partition(";base64,")
    if head.startswith(("https://", "http://")):
        return url
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        head = ""
    if head not in ("data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp"):
        raise ValueError("Invalid image data.")
    return url


class ImageUrl(_Strict):
    url: Annotated[str, AfterValidator(_is_image)]
    detail: Literal["auto", "low", "high", "original"] = "auto"


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class Part(_Strict):
    type: Literal["refusal", "file", "input_audio"]
    refusal: str | None = None
    file: JsonObject | None = None
    input_audio: JsonObject | None = None


def _as_parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Texts = Annotated[list[TextPart], BeforeValidator(_as_parts)]
_Parts = Annotated[list[Annotated[TextPart | ImagePart | Part, Field(discriminator="type")]], BeforeValidator(_as_parts)]


class CalledFunction(_Strict):
    name: str = Field(pattern=_NAME)
    arguments: str


class ToolCall(_Strict):
    id: str = Field(min_length=1, max_length=40)
    type: Literal["function"]
    function: CalledFunction


class Instruction(_Strict):
    role: Literal["system", "developer"]
    content: _Texts
    name: str | None = None


class UserMessage(_Strict):
    role: Literal["user"]
    content: _Parts
    name: str | None = None


class AssistantMessage(_Strict):
    role: Literal["assistant"]
    content: _Parts | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, min_length=1)


class ToolMessage(_Strict):
    role: Literal["tool"]
    content: _Texts
    tool_call_id: str


Message = Annotated[Instruction | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(_Strict):
    name: str = Field(pattern=_NAME)
    description: str = ""
    parameters: JsonObject = Field(default_factory=dict)
    strict: bool | None = None


class Tool(_Strict):
    type: Literal["function"]
    function: Function


class Form(_Strict):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    wanted: JsonObject = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Form | None = None


class _Named(_Strict):
    name: str


class ToolChoice(_Strict):
    type: Literal["function"]
    function: _Named


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = True


class Request(_Strict):
    """The body of a chat completion; what has no effect here is only named."""

    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] = Field(default=[], min_length=1)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice = "auto"
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    user: str | None = Field(default=None, max_length=64)
    safety_identifier: str | None = Field(default=None, max_length=64)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: JsonValue = None
    logprobs: JsonValue = None
    top_logprobs: JsonValue = None
    metadata: JsonValue = None
    modalities: JsonValue = None
    prediction: JsonValue = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    seed: int | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    store: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: JsonValue = None


def read_request(body: bytes, knows: Collection[str] = ()) -> Request:
    """Raises Refused, with words as the API has them. `knows`: members that are let pass besides."""
    given = cast("JsonObject", json.loads(body))
    try:
        request = Request.model_validate({name: value for name, value in given.items() if name not in knows})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
        if first["type"] == "extra_forbidden":
            raise Refused(f"Unrecognized request argument supplied: {where}") from None
        raise Refused(f"Invalid value for '{where}': {first['msg']}") from None
    for problem in _problems(request):
        raise Refused(problem)
    return request


def _problems(request: Request) -> Iterator[str]:
    names = [tool.function.name for tool in request.tools]
    if not names and (request.tool_choice != "auto" or request.parallel_tool_calls is not None):
        yield "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
    if isinstance(request.tool_choice, ToolChoice) and request.tool_choice.function.name not in names:
        yield f"Tool choice '{request.tool_choice.function.name}' not found in 'tools' parameter."
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        yield "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
    if request.stream_options is not None and not request.stream:
        yield "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    yield from _unanswered(request)
    for tool in request.tools:
        if tool.function.strict:
            yield from _open(tool.function.parameters, f"Invalid schema for function '{tool.function.name}'")
    form = request.response_format and request.response_format.json_schema
    if request.response_format and request.response_format.type == "json_schema" and form is None:
        yield "Missing required parameter: 'response_format.json_schema'."
    if form and form.strict:
        yield from _open(form.wanted, f"Invalid schema for response_format '{form.name}'")


def _unanswered(request: Request) -> Iterator[str]:
    """Results of all calls must follow right after them, and no others."""
    messages = request.messages
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            if not message.content and not message.tool_calls:
                yield f"Invalid value for 'messages[{index}].content': expected a string, got null."
            results = [m.tool_call_id for m in takewhile(lambda m: m.role == "tool", messages[index + 1 :]) if m.role == "tool"]
            if sorted(results) != sorted(call.id for call in message.tool_calls or ()):
                yield "An assistant message with 'tool_calls' must be followed by tool messages of each 'tool_call_id'."
        before = messages[index - 1] if index else None
        if message.role == "tool" and not (before and before.role in ("assistant", "tool")):
            yield "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."


def _open(schema: JsonValue, where: str) -> Iterator[str]:
    """Under `strict`, each object is closed and each of its properties required."""
    if isinstance(schema, list):
        for child in schema:
            yield from _open(child, where)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield f"{where}: In context=(), 'additionalProperties' is required to be supplied and to be false."
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, dict) and set(properties) != set(cast("list[str]", required or [])):
        yield f"{where}: In context=(), 'required' is required to be supplied and to include every key in properties."
    if "default" in schema:
        yield f"{where}: In context=(), 'default' is not permitted."
    for child in cast("Mapping[str, JsonValue]", schema).values():
        yield from _open(child, where)
