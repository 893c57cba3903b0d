"""/admin/v1/analysts: who may ask ClickHouse, and whose rows they see."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.resources import named
from services.portal.admin.wire import Endpoints, Operation, answer, body, if_match, page, query, unkept
from services.portal.analysts import AnalystMade, Analysts, AnalystShown, NewAnalyst
from services.portal.resources import Listed


def analyst_endpoints(analysts: Analysts) -> Endpoints:
    """The endpoints of analysts."""

    async def create(request: Request, actor: Actor) -> Response:
        return unkept(answer(await analysts.create(await body(request, NewAnalyst), actor), 201))

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*analysts.page(query(request, Listed), actor))

    async def show(request: Request, actor: Actor) -> Response:
        return answer(analysts.find(named(request), actor))

    async def rotate(request: Request, actor: Actor) -> Response:
        return unkept(answer(await analysts.rotate(named(request), if_match(request), actor)))

    async def revoke(request: Request, actor: Actor) -> Response:
        return answer(await analysts.revoke(named(request), if_match(request), actor))

    path, one = "/analysts", "/analysts/{name}"
    return [
        Operation("POST", path, create, "Create a user of ClickHouse, shown only this once", NewAnalyst, AnalystMade, 201),
        Operation("GET", path, list_, "List analysts, by name", Listed, AnalystShown, many=True),
        Operation("GET", one, show, "Show an analyst", gives=AnalystShown),
        Operation("DELETE", one, revoke, "Revoke an analyst", gives=AnalystShown),
        Operation("POST", f"{one}/rotate", rotate, "A new password; the one before is taken no longer", gives=AnalystMade),
    ]
