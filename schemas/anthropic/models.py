"""What Anthropic's other endpoints answer: models, and counts of tokens."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class TokenCount(BaseModel):
    """POST /v1/messages/count_tokens."""

    input_tokens: int


class ModelInfo(BaseModel):
    """A model. `retires_at`: the first day on which one of its deployments is no more."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active", "deprecated"] = "active"
    retires_at: datetime | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class ModelPage(BaseModel):
    """GET /v1/models, asked with `anthropic-version`."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None
