"""/admin/v1 over HTTP: the admin key is checked at every handler, bodies are checked by their schemas."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from schemas.errors import InvalidRequest, RequestTooLarge
from services.portal import policy
from services.portal.config import Configuration
from services.portal.handler import Admin, NewJobToken, NewKey, NewTeam

B = TypeVar("B", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]

_MAX_BYTES = 4 * 1024 * 1024


def admin_routes(admin: Admin, admin_key: str) -> list[BaseRoute]:
    """The routes of the admin API."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            _, _, given = request.headers.get("authorization", "").partition(" ")
            secret = given.strip() or request.headers.get("x-api-key", "")
            policy.check_admin(secret, admin_key, admin.key(secret))
            return await endpoint(request)

        return checked

    async def create_team(request: Request) -> Response:
        return _json(await admin.create_team(await _body(request, NewTeam)), 201)

    async def list_teams(_: Request) -> Response:
        return _list(admin.teams())

    async def create_key(request: Request) -> Response:
        return _json(await admin.create_key(await _body(request, NewKey)), 201)

    async def list_keys(request: Request) -> Response:
        return _list(admin.keys(request.query_params.get("team")), exclude={"sha256"})

    async def revoke_key(request: Request) -> Response:
        return _json(await admin.revoke_key(str(request.path_params["id"])), exclude={"sha256"})

    async def job_token(request: Request) -> Response:
        return _json(await admin.job_token(await _body(request, NewJobToken)), 201)

    async def get_config(_: Request) -> Response:
        return _json(admin.configuration())

    async def put_config(request: Request) -> Response:
        return _json(await admin.apply(await _body(request, Configuration)))

    endpoints: list[tuple[str, str, Endpoint]] = [
        ("POST", "/teams", create_team),
        ("GET", "/teams", list_teams),
        ("POST", "/keys", create_key),
        ("GET", "/keys", list_keys),
        ("DELETE", "/keys/{id}", revoke_key),
        ("POST", "/job_tokens", job_token),
        ("GET", "/config", get_config),
        ("PUT", "/config", put_config),
    ]
    return [Route(f"/admin/v1{path}", guarded(endpoint), methods=[method]) for method, path, endpoint in endpoints]


async def _body(request: Request, model: type[B]) -> B:
    """Raises InvalidRequest that names the member."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BYTES:
            raise RequestTooLarge(f"The request body is too large: at most {_MAX_BYTES:,} bytes are accepted.")
    try:
        return model.model_validate_json(bytes(chunks))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"Invalid value for `{param or 'body'}`: {first['msg']}", param=param or None) from None


def _json(model: BaseModel, status: int = 200, exclude: set[str] | None = None) -> Response:
    return Response(model.model_dump_json(exclude=exclude), status, media_type="application/json")


def _list(models: "list[B]", exclude: set[str] | None = None) -> Response:
    return JSONResponse({"object": "list", "data": [model.model_dump(mode="json", exclude=exclude) for model in models]})
