"""Lines of OpenAI's batch files: what stands on `sluice.jobs.{lane}` and `sluice.results.{team}`."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Message, Part
from schemas.job import Api

URL_TO_API: dict[str, Api] = {"/v1/chat/completions": Api.CHAT, "/v1/embeddings": Api.EMBEDDINGS}


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
