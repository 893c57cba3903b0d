"""/admin/v1/alerts: what somebody should know now; /admin/v1/alert_channels: who is told."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from infra.events import Acts
from schemas.alert import Alert
from schemas.alerting import Only
from services.portal.access import Actor, Right, check
from services.portal.admin.resources import named
from services.portal.admin.wire import Endpoints, Operation, answer, page, query
from services.portal.alert_channels import AlertChannels, ChannelTried
from services.portal.alerts import AlertsAsked, Kept


class ChannelShown(BaseModel):
    """A channel, and where it leads: an URL, a reference to one, or addresses."""

    name: str
    kind: str
    to: str
    only: Only


def alert_endpoints(kept: Kept, channels: AlertChannels, acts: Acts) -> Endpoints:
    """Who answers those who look at alerts."""

    async def list_alerts(request: Request, actor: Actor) -> Response:
        return page(*kept.page(query(request, AlertsAsked), actor))

    async def show(request: Request, actor: Actor) -> Response:
        return answer(kept.one(named(request), actor))

    async def list_channels(_: Request, actor: Actor) -> Response:
        check(actor, Right.READ, what="Looking at channels")
        found = channels.channels()
        return page(
            [
                ChannelShown(name=c.name, kind=c.kind, to=", ".join(c.to) if c.kind == "email" else c.url, only=c.only)
                for c in found
            ],
            None,
        )

    async def test(request: Request, actor: Actor) -> Response:
        check(actor, Right.PLATFORM, what="Trying a channel")
        name = named(request)
        tried = await channels.try_out(name)
        await acts.tell(actor.name, "alert_channel.tried", f"alert_channel/{name}", after={"delivered": tried.delivered})
        return answer(tried)

    return [
        Operation("GET", "/alerts", list_alerts, "Alerts of the last day, the youngest first", AlertsAsked, Alert, many=True),
        Operation("GET", "/alerts/{name}", show, "Show an alert of the last day", gives=Alert),
        Operation("GET", "/alert_channels", list_channels, "Channels by which alerts are told", gives=ChannelShown, many=True),
        Operation("POST", "/alert_channels/{name}/test", test, "Send a test alert by a channel, once", gives=ChannelTried),
    ]
