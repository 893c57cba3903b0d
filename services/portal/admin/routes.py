"""/admin/v1 over HTTP: the admin key is checked at every handler, bodies are checked by their schemas."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.portal import policy
from services.portal.admin.webhooks import webhook_endpoints
from services.portal.admin.wire import Endpoint, Endpoints, answer, body, listed
from services.portal.config import Configuration
from services.portal.handler import Admin, NewJobToken, NewKey, NewTeam


def admin_routes(admin: Admin, admin_key: str, *more: Endpoints) -> Sequence[BaseRoute]:
    """The routes of the admin API; `more` stand in files of their own."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            _, _, given = request.headers.get("authorization", "").partition(" ")
            secret = given.strip() or request.headers.get("x-api-key", "")
            policy.check_admin(secret, admin_key, admin.key(secret))
            return await endpoint(request)

        return checked

    async def create_team(request: Request) -> Response:
        return answer(await admin.create_team(await body(request, NewTeam)), 201)

    async def list_teams(_: Request) -> Response:
        return listed(admin.teams())

    async def create_key(request: Request) -> Response:
        return answer(await admin.create_key(await body(request, NewKey)), 201)

    async def list_keys(request: Request) -> Response:
        return listed(admin.keys(request.query_params.get("team")), exclude={"sha256"})

    async def revoke_key(request: Request) -> Response:
        return answer(await admin.revoke_key(str(request.path_params["id"])), exclude={"sha256"})

    async def job_token(request: Request) -> Response:
        return answer(await admin.job_token(await body(request, NewJobToken)), 201)

    async def get_config(_: Request) -> Response:
        return answer(admin.configuration())

    async def put_config(request: Request) -> Response:
        return answer(await admin.apply(await body(request, Configuration)))

    endpoints: Endpoints = [
        ("POST", "/teams", create_team),
        ("GET", "/teams", list_teams),
        ("POST", "/keys", create_key),
        ("GET", "/keys", list_keys),
        ("DELETE", "/keys/{id}", revoke_key),
        ("POST", "/job_tokens", job_token),
        ("GET", "/config", get_config),
        ("PUT", "/config", put_config),
        *webhook_endpoints(admin.webhooks),
        *(endpoint for group in more for endpoint in group),
    ]
    return [Route(f"/admin/v1{path}", guarded(endpoint), methods=[method]) for method, path, endpoint in endpoints]
