"""`/v1/responses`: what of a request Sluice acts upon, and what it keeps of one for whoever asks later."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.base import JsonObject, Part
from schemas.openai.batches import MetadataKey, MetadataValue
from schemas.openai.requests import Lenient, ModelName


class TextFormat(Lenient):
    """How the text is to be written; `schema` is the caller's own."""

    type: Literal["text", "json_object", "json_schema"]


class TextOptions(Lenient):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Lenient):
    effort: str | None = None


class ResponsesRequest(Lenient):
    """POST /v1/responses."""

    model: ModelName
    input: str | list[dict[str, JsonValue]]
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=256)
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    tools: list[dict[str, JsonValue]] | None = None
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = Field(default=None, max_length=16)
    user: str | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None


class KeptResponse(Part):
    """What is kept of a response beside its job.

    `told`: the members of its request that each Response object repeats; `items`: its own input, each with an id; `before`: the
    items of the conversation that `previous_response_id` brought.
    """

    told: JsonObject
    items: tuple[JsonObject, ...] = ()
    before: tuple[JsonObject, ...] = ()


class ItemList(BaseModel):
    """A page of GET /v1/responses/{id}/input_items."""

    model_config = ConfigDict(extra="ignore")

    object: Literal["list"] = "list"
    data: list[JsonObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(BaseModel):
    """DELETE /v1/responses/{id}."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
