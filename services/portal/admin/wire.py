"""Bodies and queries of the admin API: checked by their schemas on the way in, JSON on the way out."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.errors import InvalidRequest, RequestTooLarge

B = TypeVar("B", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
Endpoints = list[tuple[str, str, Endpoint]]
"""Method, path below /admin/v1, and who answers."""

_MAX_BYTES = 4 * 1024 * 1024


async def body(request: Request, model: type[B]) -> B:
    """Raises InvalidRequest that names the member."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BYTES:
            raise RequestTooLarge(f"The request body is too large: at most {_MAX_BYTES:,} bytes are accepted.")
    try:
        return model.model_validate_json(bytes(chunks))
    except ValidationError as error:
        raise _invalid(error) from None


def query(request: Request, model: type[B]) -> B:
    """The parameters of the query. Raises InvalidRequest that names one."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _invalid(error) from None


def answer(model: BaseModel, status: int = 200, exclude: set[str] | None = None) -> Response:
    """One object."""
    return Response(model.model_dump_json(exclude=exclude), status, media_type="application/json")


def listed(models: Iterable[BaseModel], exclude: set[str] | None = None) -> Response:
    """All of a kind."""
    return JSONResponse({"object": "list", "data": [model.model_dump(mode="json", exclude=exclude) for model in models]})


def page(models: Iterable[BaseModel], after: str | None) -> Response:
    """Some of a kind; `last_id` is what the next page is asked for with, null where this is the last."""
    data = [model.model_dump(mode="json") for model in models]
    return JSONResponse({"object": "list", "data": data, "has_more": after is not None, "last_id": after})


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    return InvalidRequest(f"Invalid value for `{param or 'body'}`: {first['msg']}", param=param or None)
