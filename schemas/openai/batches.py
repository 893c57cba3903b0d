"""`/v1/batches`: what OpenAI's SDK sends and expects."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.openai.files import ExpiresAfter

MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]

BatchStatus = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]

OVER: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})
"""From these a batch never moves."""


class BatchRequest(BaseModel):
    """POST /v1/batches."""

    model_config = ConfigDict(extra="ignore", strict=True)

    input_file_id: str = Field(min_length=1, max_length=256)
    endpoint: str
    completion_window: Literal["24h"]
    metadata: dict[MetadataKey, MetadataValue] | None = Field(default=None, max_length=16)
    output_expires_after: ExpiresAfter | None = None


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class BatchProblem(_Told):
    """Why a batch failed; `line` counts from 1."""

    code: str | None = None
    message: str
    param: str | None = None
    line: int | None = None


class BatchProblems(_Told):
    object: Literal["list"] = "list"
    data: list[BatchProblem] = Field(default_factory=list[BatchProblem])


class RequestCounts(_Told):
    """Lines in all, answered, and not; while the batch runs the two latter are below `total`."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputDetails(_Told):
    cached_tokens: int = 0


class OutputDetails(_Told):
    reasoning_tokens: int = 0


class BatchUsage(_Told):
    """Tokens of all answered lines; the details are parts of the totals."""

    input_tokens: int = 0
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int = 0


class Batch(_Told):
    """A batch as its owner sees it; times are unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchProblems | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None


class BatchList(BaseModel):
    """A page of GET /v1/batches, the youngest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
