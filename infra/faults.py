"""From errors to HTTP: the one place where a fault becomes a response."""

import json
import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from infra import anthropic
from infra.redis.client import RedisUnavailable
from schemas.errors import Fault, InternalError, NotFound, RequestTimeout, SluiceError, Unavailable

log = logging.getLogger(__name__)

_BODY_UNREAD = (RequestTimeout.status,)
"""What still comes of such a request can't be told from the next one."""


def error_response(fault: Fault, headers: Mapping[str, str] | None = None, *, to_anthropics: bool = False) -> Response:
    """An error in OpenAI's shape, or Anthropic's, with what tells SDKs whether and when to try again."""
    told = {**(headers or {}), **retry_headers(fault)}
    if fault.status in _BODY_UNREAD:
        told["connection"] = "close"
    if to_anthropics:
        return anthropic.error_response(fault, told)
    return Response(json.dumps(fault.openai()), fault.status, told, "application/json")


def retry_headers(fault: Fault) -> dict[str, str]:
    """`retry-after` in whole seconds and `x-should-retry`, as far as the fault knows them."""
    headers: dict[str, str] = {}
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(fault.retry_after_s)
    if fault.should_retry is not None:
        headers["x-should-retry"] = "true" if fault.should_retry else "false"
    return headers


async def on_error(request: Request, error: Exception) -> Response:
    """The handler for whatever an endpoint raises."""
    fault, headers = _told(request, error)
    return error_response(fault, headers, to_anthropics=anthropic.asks(request))


def _told(request: Request, error: Exception) -> tuple[Fault, Mapping[str, str] | None]:
    match error:
        case SluiceError():
            return error.fault(), error.headers
        case RedisUnavailable():
            log.warning("%s %s: %s", request.method, request.url.path, error)
            away = Unavailable("A part of the gateway does not answer. Try again.", code="state_unavailable", retry_after_s=1)
            return away.fault(), None
        case HTTPException(status_code=405):
            return _with_status(405, f"{request.method} is not supported at {request.url.path}"), error.headers
        case HTTPException(status_code=404):
            return NotFound(f"Unknown request URL: {request.method} {request.url.path}").fault(), None
        case HTTPException(status_code=status, detail=detail):
            return _with_status(status, detail), error.headers
        case _:
            log.error("an endpoint failed: %s %s", request.method, request.url.path, exc_info=error)
            return InternalError("The gateway failed on this request. Try again.").fault(), None


def _with_status(status: int, message: str) -> Fault:
    return Fault(status=status, type="invalid_request_error", message=message)
