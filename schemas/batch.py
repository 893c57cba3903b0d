"""Lines of OpenAI's batch files: what stands on `sluice.jobs.{lane}` and `sluice.results.{team}`."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Message, Part
from schemas.job import Api, Caller, Labels

URL_TO_API: dict[str, Api] = {
    "/v1/chat/completions": Api.CHAT,
    "/v1/embeddings": Api.EMBEDDINGS,
    "/v1/moderations": Api.MODERATIONS,
}


class BatchLine(Message):
    """One line of batch input (platform.openai.com, Batch API, "request input object")."""

    TYPE: ClassVar[str] = "io.sluice.batch_line.v1"

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: JsonObject


class BatchResponse(Part):
    """The HTTP answer that the line would have got."""

    status_code: int
    request_id: str
    body: JsonObject


class BatchError(Part):
    """Why there is no answer."""

    code: str
    message: str


class BatchResult(Message):
    """One line of batch output ("request output object"): `response` or `error`, the other null."""

    TYPE: ClassVar[str] = "io.sluice.batch_result.v1"

    id: str
    custom_id: str
    response: BatchResponse | None = None
    error: BatchError | None = None


class BatchOrder(Message):
    """A batch as it was asked for (POST /v1/batches): what its runner needs to begin it, and to begin again after a death.

    `key_id` in `caller` names the virtual key under which each line is admitted; times are unix milliseconds.
    """

    TYPE: ClassVar[str] = "io.sluice.batch_order.v1"

    id: str
    caller: Caller
    groups: tuple[str, ...] = Field(default=(), description="groups of who ordered it, as far as rules name them")
    input_file_id: str
    endpoint: str
    api: Api
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    labels: Labels = Labels()
    created_ms: int
    deadline_ms: int
    output_expires_after_s: int | None = None
    webhook: str = ""
