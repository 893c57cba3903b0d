"""/admin/v1/live: what goes on now."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, query
from services.portal.live import Live, LiveAsked, LiveDesk


def live_endpoints(desk: LiveDesk) -> Endpoints:
    """Who answers those who look."""

    async def look(request: Request, actor: Actor) -> Response:
        return answer(await desk.look(query(request, LiveAsked), actor))

    return [Operation("GET", "/live", look, "Traffic of the last minute, what was spent today, the lanes", LiveAsked, Live)]
