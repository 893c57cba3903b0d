"""The chat body, as a provider must read it whose API isn't OpenAI's. Pure.

Members that aren't named here are OpenAI's own and harmless (seed, penalties, logit_bias, store…): nobody else gets them.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from services.router.providers.base import ProviderFailure

DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
"""Media type and base64 of a data URL."""

JSON_ONLY: Final = "Answer with one JSON object and nothing else: no other text, no code fences."
"""Said to models that have no `json_object` of their own."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(_Part):
    url: str


class FileData(_Part):
    file_data: str | None = None
    filename: str | None = None


class ContentPart(_Part):
    """A part of a message's content: `type` says which of the others is there."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None
    file: FileData | None = None
    cache_control: JsonObject | None = None


class CalledFunction(_Part):
    name: str
    arguments: str = ""


class ToolCall(_Part):
    id: str
    function: CalledFunction


def _as_parts(content: object) -> object:
    if content is None:
        return ()
    return ({"type": "text", "text": content},) if isinstance(content, str) else content


def _as_list(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


class ChatMessage(_Part):
    """A message; text alone is read as one part."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[tuple[ContentPart, ...], BeforeValidator(_as_parts)] = ()
    tool_calls: Annotated[tuple[ToolCall, ...], BeforeValidator(_as_list)] = ()
    tool_call_id: str | None = None
    thinking_blocks: Annotated[tuple[JsonObject, ...], BeforeValidator(_as_list)] = ()
    cache_control: JsonObject | None = None


class FunctionTool(_Part):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None
    cache_control: JsonObject | None = None


class ChatTool(_Part):
    type: Literal["function"] = "function"
    function: FunctionTool
    cache_control: JsonObject | None = None


class JsonForm(_Part):
    wanted: JsonObject | None = Field(default=None, alias="schema")


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonForm | None = None


class Chat(_Part):
    """What OpenAI's chat can say that others can too, and LiteLLM's extensions of it."""

    messages: tuple[ChatMessage, ...]
    tools: Annotated[tuple[ChatTool, ...], BeforeValidator(_as_list)] = ()
    tool_choice: JsonValue = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    thinking: JsonObject | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def forced_tool(self) -> str | None:
        """The name of the one tool that must be called. Raises ProviderFailure for a choice that OpenAI doesn't know."""
        match self.tool_choice:
            case None | "auto" | "none" | "required":
                return None
            case {"type": "function", "function": {"name": str(name)}}:
                return name
            case _:
                raise refusal("tool_choice must be none, auto, required, or name a function.", "tool_choice")

    @property
    def wanted_schema(self) -> JsonObject | None:
        """The schema to which the answer must keep. Raises ProviderFailure for a json_schema without one."""
        if self.response_format is None or self.response_format.type != "json_schema":
            return None
        form = self.response_format.json_schema
        if form is None or form.wanted is None:
            raise refusal("A json_schema needs a `schema`.", "response_format.json_schema.schema")
        return form.wanted


def read_chat(body: JsonObject) -> Chat:
    """Reads the caller's body. Raises ProviderFailure for what has the wrong shape, or what only OpenAI's API can do."""
    if body.get("functions") is not None or body.get("function_call") is not None:
        raise refusal("`functions` are no more: send `tools`, and `tool_choice`.", "functions")
    for name, asked in _wants_openai(body):
        if asked:
            raise refusal(f"The model that is to answer doesn't support `{name}`: leave it out, or ask another model.", name)
    try:
        return Chat.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = path(first["loc"])
        # From None: the chain would hold the body.
        raise refusal(f"Invalid value for '{param}': {first['msg']}.", param) from None


def arguments(call: ToolCall, where: str) -> JsonObject:
    """What a tool is called with. Raises ProviderFailure for what is no JSON object."""
    place = f"{where}.function.arguments"
    try:
        given = cast("JsonValue", from_json(call.function.arguments or "{}"))
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise refusal(f"'{place}' must be a JSON object.", place)
    return given


def answered_call(message: ChatMessage, where: str) -> str:
    """Which call a tool's message is the result of. Raises ProviderFailure where it doesn't say."""
    if not message.tool_call_id:
        raise refusal(f"'{where}.tool_call_id' is missing: it says which call this is the result of.", f"{where}.tool_call_id")
    return message.tool_call_id


def only_text(message: ChatMessage, part: ContentPart, place: str) -> None:
    """Raises ProviderFailure for what is no text."""
    if part.type != "text":
        raise refusal(f"'{place}': a {message.role} message can only hold text.", f"{place}.type")


def untakeable(part: ContentPart, place: str) -> ProviderFailure:
    """The failure of a part that none but OpenAI's API takes."""
    return refusal(
        f"'{place}': the model that is to answer takes no content of type '{part.type[:64]}'; text, image_url and file can be "
        "sent, each with the member of that name.",
        f"{place}.type",
    )


def refusal(message: str, param: str) -> ProviderFailure:
    """The failure of a request that the provider can't be given."""
    return ProviderFailure("final", InvalidRequest(message, param=param).fault(), http_status=400)


def path(loc: Sequence[int | str]) -> str:
    """A place in a body, as OpenAI names it: `messages[0].content`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _wants_openai(body: JsonObject) -> Sequence[tuple[str, bool]]:
    n, modalities = body.get("n"), body.get("modalities")
    return (
        ("n", n is not None and n != 1),
        ("logprobs", bool(body.get("logprobs"))),
        ("top_logprobs", bool(body.get("top_logprobs"))),
        ("audio", bool(body.get("audio"))),
        ("modalities", isinstance(modalities, list) and any(modality != "text" for modality in modalities)),
        ("web_search_options", body.get("web_search_options") is not None),
    )
