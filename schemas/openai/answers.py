"""Answers, as far as Sluice makes or reads them itself."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PromptDetails(BaseModel):
    model_config = ConfigDict(extra="ignore")
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None


class CompletionDetails(BaseModel):
    model_config = ConfigDict(extra="ignore")
    reasoning_tokens: int | None = None


class ChatUsage(BaseModel):
    """OpenAI's usage of a chat completion or an embedding: `prompt_tokens` includes what was cached."""

    model_config = ConfigDict(extra="ignore")
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class ModelCard(BaseModel):
    """A line of GET /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: str | None = None


class ModelList(BaseModel):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard] = Field(default_factory=list[ModelCard])
