"""/admin/v1 over HTTP: who asks is found out here, what he may do at each handler; bodies are checked by their schemas."""

from collections.abc import Awaitable, Callable, Sequence
from functools import cache

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from infra.events import Acts
from schemas.base import JsonObject
from schemas.control import Model
from schemas.errors import NotAllowed, NotFound
from services.portal.access import Actor, check_any
from services.portal.admin.authentication import Authentication, VirtualKeyGiven
from services.portal.admin.budgets import budget_endpoints
from services.portal.admin.credentials import credential_endpoints
from services.portal.admin.openapi import openapi
from services.portal.admin.refusals import Refusals
from services.portal.admin.resources import named, resource_endpoints
from services.portal.admin.webhooks import webhook_endpoints
from services.portal.admin.wire import Endpoints, Operation, answer, body, page, query
from services.portal.config import Configuration
from services.portal.handler import Admin, Applied
from services.portal.resources import Listed

PREFIX = "/admin/v1"


def admin_operations(admin: Admin, acts: Acts) -> Endpoints:
    """The operations that stand in this folder, but for those of operators."""
    return [
        *resource_endpoints(admin),
        *credential_endpoints(admin),
        *budget_endpoints(admin.budgets),
        *_models(admin),
        *_configuration(admin),
        *webhook_endpoints(admin.webhooks, acts),
    ]


def admin_routes(authentication: Authentication, refusals: Refusals, operations: Endpoints) -> Sequence[BaseRoute]:
    """The routes of the admin API, and of the document about it. Tries that are refused are told, those of nobody aside."""

    def guarded(one: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            who = ""
            try:
                actor = await authentication.actor(request)
                who = actor.name
                return await one.endpoint(request, actor)
            except NotAllowed as refusal:
                name = refusal.name if isinstance(refusal, VirtualKeyGiven) else who
                await refusals.tell(name, f"{one.method} {one.path}", request.url.path, refusal.message)
                raise

        return checked

    @cache
    def document() -> JsonObject:
        return openapi(PREFIX, operations)

    async def openapi_json(_: Request) -> Response:
        return JSONResponse(document())

    routes = [Route(f"{PREFIX}{one.path}", guarded(one), methods=[one.method]) for one in operations]
    return [Route(f"{PREFIX}/openapi.json", openapi_json, methods=["GET"]), *routes]


def _models(admin: Admin) -> Endpoints:
    models = admin.table.models

    async def list_(request: Request, actor: Actor) -> Response:
        check_any(actor, "Looking at models")
        asked = query(request, Listed)
        behind = sorted(name for name in models if name > asked.after)
        given = behind[: asked.limit]
        return page([models[name] for name in given], given[-1] if len(behind) > len(given) else None)

    async def show(request: Request, actor: Actor) -> Response:
        check_any(actor, "Looking at models")
        model = models.get(named(request))
        if model is None:
            raise NotFound(f"There is no model {named(request)[:64]!r}. `sluice models list` shows them.")
        return answer(model)

    return [
        Operation("GET", "/models", list_, "List models and their deployments, by name", Listed, Model, many=True),
        Operation("GET", "/models/{name:path}", show, "Show a model and its deployments", gives=Model),
    ]


def _configuration(admin: Admin) -> Endpoints:
    async def get(_: Request, actor: Actor) -> Response:
        return answer(admin.configuration(actor))

    async def put(request: Request, actor: Actor) -> Response:
        return answer(await admin.apply(await body(request, Configuration), actor))

    return [
        Operation("GET", "/config", get, "What is set by policy as code, as it stands", gives=Configuration),
        Operation("PUT", "/config", put, "Apply a configuration", Configuration, Applied),
    ]
