"""What the endpoints of files and batches have in common: whole numbers in a query, and parts of ours that are away."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.objects import ObjectsUnavailable
from infra.redis.client import RedisUnavailable
from schemas.errors import InvalidRequest, Unavailable
from services.ingress.handler import CallerGone

_CLIENT_CLOSED = 499

E = TypeVar("E")


def guarded(serve: Callable[[E, HttpRequest], Awaitable[Response]]) -> Callable[[E, HttpRequest], Awaitable[Response]]:
    """An endpoint whose caller learns which part of ours is away, and that it helps to come again."""

    @wraps(serve)
    async def served(endpoints: E, http: HttpRequest) -> Response:
        try:
            return await serve(endpoints, http)
        except CallerGone:
            return Response(status_code=_CLIENT_CLOSED)
        except ObjectsUnavailable:
            text, code = "The file store does not answer. Try again.", "files_unavailable"
        except RedisUnavailable:
            text, code = "Batches can't be looked up at the moment. Try again.", "batches_unavailable"
        raise Unavailable(text, code=code, retry_after_s=2)

    return served


def whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from 1 to `most`. Raises InvalidRequest."""
    given = query.get(name, str(default))
    if not (given.isdecimal() and len(given) < 10 and 1 <= int(given) <= most):
        raise InvalidRequest(f"{name} must be a whole number from 1 to {most}", param=name)
    return int(given)
