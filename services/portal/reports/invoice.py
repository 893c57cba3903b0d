"""A team's bill of a period. Pure: made of the lines of a chargeback."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, Literal

from pydantic import BaseModel, Field

from services.portal.reports.asked import Shown, TeamsAsked, Window, month_of
from services.portal.reports.sums import Line, Money, Sums, total

BY: Final = ("team", "project", "environment", "model", "provider", "service_tier", "price_version")
"""What a line of an invoice is of."""

Status = Literal["final", "preliminary"]
_CENT: Final = Decimal("0.01")
_NANO: Final = Decimal("1e-9")


class InvoicesAsked(TeamsAsked):
    """GET /admin/v1/reports/invoices."""

    margin_percent: Decimal = Field(
        default=Decimal(0), ge=-100, le=1000, description="added to what the providers charge; a discount if less than 0"
    )


class Invoice(BaseModel):
    """What a team owes. Lines are exact; only `due_usd` is rounded, to the cent, half up.

    `preliminary`: the period isn't over, and there may be more.
    """

    number: str
    status: Status
    issued: date
    organization: str
    team: str
    period: Shown
    lines: list[Line]
    subtotal: Sums
    margin_percent: Money
    margin_usd: Money
    total_usd: Money
    due_usd: Money
    price_versions: list[str]


class Invoices(BaseModel):
    """The invoices of a period, by team."""

    data: list[Invoice]


def invoices(lines: Sequence[Line], window: Window, organization: str, margin_percent: Decimal, now_ms: int) -> list[Invoice]:
    """An invoice for each team that has a line."""
    issued = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    status: Status = "final" if window.is_over(now_ms) else "preliminary"
    by_team: dict[str, list[Line]] = {}
    for line in lines:
        by_team.setdefault(line.place["team"], []).append(line)
    return [_invoice(team, of, window, organization, margin_percent, issued, status) for team, of in sorted(by_team.items())]


def number(team: str, window: Window) -> str:
    """What an invoice is called: the same whenever it is made."""
    is_month = window == month_of(window.first, window.time_zone)
    period = f"{window.first:%Y-%m}" if is_month else f"{window.first:%Y%m%d}-{window.last:%Y%m%d}"
    return f"{period}-{team or 'none'}"


def _invoice(
    team: str, lines: list[Line], window: Window, organization: str, margin_percent: Decimal, issued: date, status: Status
) -> Invoice:
    subtotal = total(lines)
    margin = (subtotal.cost_usd * margin_percent / 100).quantize(_NANO, ROUND_HALF_UP)
    owed = subtotal.cost_usd + margin
    return Invoice(
        number=number(team, window),
        status=status,
        issued=issued,
        organization=organization,
        team=team,
        period=window.shown(),
        lines=sorted(lines, key=lambda line: tuple(line.place.values())),
        subtotal=subtotal,
        margin_percent=margin_percent,
        margin_usd=margin,
        total_usd=owed,
        due_usd=owed.quantize(_CENT, ROUND_HALF_UP),
        price_versions=_versions(lines),
    )


def _versions(lines: Iterable[Line]) -> list[str]:
    return sorted({line.place["price_version"] for line in lines} - {""})
