"""/admin/v1/teams/{name}/webhook…: secrets, and an event to try an endpoint with."""

from starlette.requests import Request
from starlette.responses import Response

from infra.events import Acts
from services.portal.access import Actor, Right, check
from services.portal.admin.wire import Endpoints, Operation, answer, body, unkept
from services.portal.webhooks import NewTry, Tried, Webhooks, WebhookSecret


def webhook_endpoints(webhooks: Webhooks, acts: Acts) -> Endpoints:
    """The endpoints. Whoever knows a secret can sign as Sluice, so each look at one is told."""

    async def show(request: Request, actor: Actor) -> Response:
        team = _team(request, actor, "Seeing a webhook secret")
        shown = webhooks.secret(team)
        await acts.tell(actor.name, "webhook_secret.shown", f"team/{team}", after={"version": shown.version})
        return unkept(answer(shown))

    async def rotate(request: Request, actor: Actor) -> Response:
        team = _team(request, actor, "Rotating a webhook secret")
        return unkept(answer(await webhooks.rotate(team, actor.author("team.webhook_secret_rotated"))))

    async def test(request: Request, actor: Actor) -> Response:
        team = _team(request, actor, "Sending a test event")
        tried = await webhooks.try_out(team, await body(request, NewTry))
        await acts.tell(actor.name, "webhook.tried", f"team/{team}", after={"id": tried.id, "delivered": tried.delivered})
        return answer(tried)

    secret = "/teams/{name}/webhook_secret"
    return [
        Operation("GET", secret, show, "The secrets that a team's events are signed with", gives=WebhookSecret),
        Operation("POST", f"{secret}/rotate", rotate, "A new secret; the one before stays in use", gives=WebhookSecret),
        Operation("POST", "/teams/{name}/webhooks/test", test, "Send an event, once", NewTry, Tried),
    ]


def _team(request: Request, actor: Actor, what: str) -> str:
    name = str(request.path_params["name"])
    check(actor, Right.KEYS, name, what)
    return name
