"""/admin/v1/alerts: what somebody should know now."""

from starlette.requests import Request
from starlette.responses import Response

from schemas.alert import Alert
from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, page, query
from services.portal.alerts import AlertsAsked, Kept


def alert_endpoints(kept: Kept) -> Endpoints:
    """Who answers those who look at alerts."""

    async def list_alerts(request: Request, actor: Actor) -> Response:
        return page(*kept.page(query(request, AlertsAsked), actor))

    return [Operation("GET", "/alerts", list_alerts, "Alerts of the last day, the youngest first", AlertsAsked, Alert, many=True)]
