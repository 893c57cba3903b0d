"""The server span of a request: from its door to the last byte of its answer."""

from collections.abc import Awaitable

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.telemetry import genai
from infra.telemetry.spans import Span, Tracing
from schemas.base import JsonObject
from schemas.errors import SluiceError
from services.ingress.http.streams import EventStream


def opened(tracing: Tracing, http: HttpRequest, context: str, operation: str, given: JsonObject, sample: float) -> Span:
    """The span of a request that may become a job. `context`: of the caller's trace, or empty; `given`: its body."""
    path = str(http.scope["path"])
    span = tracing.open(f"POST {path}", context, "server", sample)
    if span.recording:
        span.set(genai.server("POST", path, operation, given.get("model")))
    return span


async def traced(span: Span, answer: Awaitable[Response]) -> Response:
    """The answer. It ends the span, a stream with its last event; so does what is raised instead of one."""
    try:
        response = await answer
    except BaseException as error:
        if isinstance(error, SluiceError):
            fault = error.fault()
            span.set({genai.HTTP_STATUS: fault.status, genai.ERROR_TYPE: fault.code or fault.type})
        else:
            span.fail(error)
        span.end()
        raise
    span.set({genai.HTTP_STATUS: response.status_code})
    if response.status_code >= 500:
        span.set({genai.ERROR_TYPE: str(response.status_code)})
    if isinstance(response, EventStream):
        response.span = span
    else:
        span.end()
    return response
