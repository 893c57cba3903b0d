"""What an operation of the admin API is; its bodies and queries: checked by their schemas on the way in, JSON on the way out."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.base import JsonObject
from schemas.errors import RequestTooLarge
from services.portal.access import Actor
from services.portal.resources import invalid

B = TypeVar("B", bound=BaseModel)
Endpoint = Callable[[Request, Actor], Awaitable[Response]]
"""Answers a request of somebody who is known; what he may do is checked there, with the team whose thing it is."""

_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Operation:
    """A method at a path below /admin/v1, who answers, and what /admin/v1/openapi.json tells of it.

    `takes`: the body, or for GET and DELETE the query; `gives`: the answer, or with `many` what is in the list.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    status: int = 200
    many: bool = False


Endpoints = Sequence[Operation]


async def body(request: Request, model: type[B]) -> B:
    """Raises InvalidRequest that names the member, also one that isn't known: what is misspelt must not look as if it held."""
    return checked(await raw(request), model, extra="forbid")


async def patch(request: Request) -> JsonObject:
    """The body, a merge patch (RFC 7396). Raises InvalidRequest."""
    try:
        return _OBJECT.validate_json(await raw(request))
    except ValidationError as error:
        raise invalid(error) from None


def if_match(request: Request) -> frozenset[str] | None:
    """The versions that an If-Match takes; None if there is none."""
    given = request.headers.get("if-match")
    return None if given is None else frozenset(tag.strip().strip('"') for tag in given.split(","))


async def raw(request: Request) -> bytes:
    """The body as it came. Raises RequestTooLarge."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BYTES:
            raise RequestTooLarge(f"The request body is too large: at most {_MAX_BYTES:,} bytes are accepted.")
    return bytes(chunks)


def checked(given: bytes, model: type[B], extra: Literal["forbid"] | None = None) -> B:
    """JSON by its schema. Raises InvalidRequest that names the member."""
    try:
        return model.model_validate_json(given, extra=extra)
    except ValidationError as error:
        raise invalid(error) from None


def query(request: Request, model: type[B]) -> B:
    """The parameters of the query. Raises InvalidRequest that names one, also one that isn't known: a filter that is misspelt
    must not look as if it filtered."""
    try:
        return model.model_validate(dict(request.query_params), extra="forbid")
    except ValidationError as error:
        raise invalid(error) from None


def answer(model: BaseModel, status: int = 200, exclude: set[str] | None = None) -> Response:
    """One object; its `version`, if it has one, is its ETag."""
    version = getattr(model, "version", None)
    headers = {"etag": f'"{version}"'} if isinstance(version, int) else None
    return Response(model.model_dump_json(exclude=exclude), status, headers, media_type="application/json")


def page(models: Iterable[BaseModel], after: str | None) -> Response:
    """Some of a kind; `last_id` is what the next page is asked for with, null where this is the last."""
    data = [to_jsonable_python(model) for model in models]
    return JSONResponse({"object": "list", "data": data, "has_more": after is not None, "last_id": after})


def unkept(response: Response) -> Response:
    """A secret: no cache on its way may keep it."""
    response.headers["cache-control"] = "no-store"
    return response
