"""Requests: just enough of OpenAI's schema to say early, and clearly, what is wrong.

Only members that Sluice itself acts upon are checked; all others are the provider's business and pass untouched.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class Lenient(BaseModel):
    """Strict about the types of what it names, silent about the rest."""

    model_config = ConfigDict(extra="ignore", strict=True)


class StreamOptions(Lenient):
    include_usage: bool | None = None


class ChatMessage(Lenient):
    """A message; `content` may be text, parts, or null (a message of tool calls)."""

    role: str = Field(min_length=1)
    content: str | list[dict[str, JsonValue]] | None = None


class ChatRequest(Lenient):
    """POST /v1/chat/completions."""

    model: ModelName
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)


class CompletionRequest(Lenient):
    """POST /v1/completions, as far as a chat doesn't have the same member."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=1)
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None


class EmbeddingRequest(Lenient):
    """POST /v1/embeddings: a text, texts, a token list or token lists; at most 2,048 inputs."""

    model: ModelName
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=2048)]
    )
    encoding_format: str | None = Field(default=None, pattern="^(float|base64)$")
    dimensions: int | None = Field(default=None, ge=1)


MODERATION_MODEL = "omni-moderation-latest"
"""What OpenAI takes where no model is named."""


class ModerationRequest(Lenient):
    """POST /v1/moderations: a text, texts, or the parts of one message."""

    model: ModelName = MODERATION_MODEL
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | Annotated[list[dict[str, JsonValue]], Field(min_length=1, max_length=2048)]
    )
