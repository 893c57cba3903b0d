"""GET /admin/v1/reports/…: what was used, what it cost, and who pays."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.wire import Endpoint, Endpoints, Operation, answer, query
from services.portal.reports.asked import ChargebackAsked, ForecastAsked
from services.portal.reports.calls import Calls, CallsAsked
from services.portal.reports.desk import Reports
from services.portal.reports.focus import Focus, FocusAsked
from services.portal.reports.forecast import Forecasts
from services.portal.reports.invoice import Invoices, InvoicesAsked
from services.portal.reports.savings import Savings
from services.portal.reports.sums import Chargeback

A = TypeVar("A", bound=BaseModel)


def report_endpoints(reports: Reports) -> Endpoints:
    """Each report with what it is asked by."""
    return [
        _report("chargeback", reports.chargeback, "What was used in a period and what it cost", ChargebackAsked, Chargeback),
        _report("invoices", reports.invoices, "The bill of each team for a period", InvoicesAsked, Invoices),
        _report("focus", reports.focus, "The charges of a day in the columns of FOCUS 1.2", FocusAsked, Focus),
        _report("forecast", reports.forecast, "What this month will have cost when it is over", ForecastAsked, Forecasts),
        _report("savings", reports.savings, "What the cache and cheaper service tiers have saved", ChargebackAsked, Savings),
        _report("calls", reports.calls, "Provider calls as their provider counts them", CallsAsked, Calls),
    ]


def _report(
    name: str, make: Callable[[A, Actor], Awaitable[BaseModel]], summary: str, takes: type[A], gives: type[BaseModel]
) -> Operation:
    return Operation("GET", f"/reports/{name}", _endpoint(make, takes), summary, takes, gives)


def _endpoint(make: Callable[[A, Actor], Awaitable[BaseModel]], takes: type[A]) -> Endpoint:
    async def asked(request: Request, actor: Actor) -> Response:
        return answer(await make(query(request, takes), actor))

    return asked
