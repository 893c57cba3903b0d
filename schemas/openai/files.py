"""`/v1/files`: what OpenAI's SDK sends and expects, and how we keep it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["batch", "batch_output"]


class ExpiresAfter(BaseModel):
    """When a file ends: so many seconds after it was created (an hour to 30 days)."""

    model_config = ConfigDict(extra="ignore", strict=True)

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class OpenAIFile(BaseModel):
    """A file as its owner sees it. `status` is deprecated, but required by the schema."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileList(BaseModel):
    """A page of GET /v1/files."""

    object: Literal["list"] = "list"
    data: list[OpenAIFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """DELETE /v1/files/{id}."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
