"""/admin/v1/teams/{name}/webhook…: secrets, and an event to try an endpoint with."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.admin.wire import Endpoints, answer, body
from services.portal.webhooks import NewTry, Webhooks


def webhook_endpoints(webhooks: Webhooks) -> Endpoints:
    """The endpoints, by method and path."""

    async def show(request: Request) -> Response:
        return _unkept(answer(webhooks.secret(_team(request))))

    async def rotate(request: Request) -> Response:
        return _unkept(answer(await webhooks.rotate(_team(request))))

    async def test(request: Request) -> Response:
        return answer(await webhooks.try_out(_team(request), await body(request, NewTry)))

    return [
        ("GET", "/teams/{name}/webhook_secret", show),
        ("POST", "/teams/{name}/webhook_secret/rotate", rotate),
        ("POST", "/teams/{name}/webhooks/test", test),
    ]


def _team(request: Request) -> str:
    return str(request.path_params["name"])


def _unkept(response: Response) -> Response:
    """A secret: no cache on its way may keep it."""
    response.headers["cache-control"] = "no-store"
    return response
