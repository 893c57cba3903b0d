"""Budgets: how much may be spent in a period, and when a period begins and ends. Pure.

Money is USD, as a whole number of nano-dollars (`nano`) wherever it is counted. A period is part of the name of its counter,
so that nothing ever has to be reset.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field

from schemas.base import Part

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""


class Period(StrEnum):
    """How long a budget lasts. Days, weeks (from Monday) and months begin at midnight in the organization's time zone."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


Usd = Annotated[Decimal, Field(ge=0, le=Decimal(9_000_000))]
"""An amount of a budget; beyond nine million dollars nano-dollars are no longer exact in a Lua number."""

Share = Annotated[float, Field(gt=0, le=1)]


class Increase(Part):
    """A granted addition to a budget, which ends at `until_ms`. `approval`: the request that it was granted for."""

    usd: Usd = Decimal(0)
    tokens: int = Field(default=0, ge=0)
    until_ms: int
    approval: str = ""


class Budget(Part):
    """What may be spent in each period at one level: `usd`, `tokens`, or both.

    `hard`: what doesn't fit is refused; else it is told only. `alerts`: shares (0 to 1) of the budget at which that is told.
    """

    usd: Usd | None = None
    tokens: int | None = Field(default=None, ge=0)
    period: Period = Period.MONTH
    hard: bool = True
    alerts: tuple[Share, ...] = (0.8,)
    increases: tuple[Increase, ...] = ()

    def usd_at(self, now_ms: int) -> Decimal | None:
        """USD with what has been granted besides."""
        if self.usd is None:
            return None
        return self.usd + sum((i.usd for i in self.increases if i.until_ms > now_ms), Decimal(0))

    def tokens_at(self, now_ms: int) -> int | None:
        """Tokens with what has been granted besides."""
        if self.tokens is None:
            return None
        return self.tokens + sum(i.tokens for i in self.increases if i.until_ms > now_ms)


@dataclass(frozen=True, slots=True)
class Span:
    """One day, week or month, in unix milliseconds. `id` names it in keys; `ends_ms` is no more in it, None: it never ends."""

    id: str
    starts_ms: int
    ends_ms: int | None


def span_of(period: Period, at_ms: int, time_zone: str = "UTC") -> Span:
    """The period that this moment lies in, by the clock on the wall in `time_zone` (a name of the IANA database)."""
    if period is Period.TOTAL:
        return Span("total", 0, None)
    zone = _zone(time_zone)
    local = datetime.fromtimestamp(at_ms / 1000, zone)
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
    match period:
        case Period.DAY:
            starts, name = midnight, f"{midnight:%Y-%m-%d}"
            ends = _midnight(midnight + timedelta(days=1), zone)
        case Period.WEEK:
            starts = _midnight(midnight - timedelta(days=midnight.weekday()), zone)
            ends = _midnight(starts + timedelta(days=7), zone)
            name = f"{starts:%G-W%V}"
        case Period.MONTH:
            starts = midnight.replace(day=1)
            ends = _midnight((starts + timedelta(days=32)).replace(day=1), zone)
            name = f"{starts:%Y-%m}"
    return Span(name, _ms(starts), _ms(ends))


def nano(usd: Decimal) -> int:
    """USD in nano-dollars, rounded half up."""
    return int((usd * NANO).to_integral_value(ROUND_HALF_UP))


def nano_up(usd: Decimal) -> int:
    """USD in nano-dollars, rounded up to the micro-dollar: what is reserved."""
    return int((usd * 1_000_000).to_integral_value(ROUND_CEILING)) * 1000


def usd(nanos: int) -> Decimal:
    """Nano-dollars in USD."""
    return Decimal(nanos).scaleb(-9)


def shown(nanos: int) -> str:
    """Nano-dollars for people, in USD: to the cent, or to the micro-dollar where that says more."""
    dollars = usd(nanos)
    cents = f"{dollars:.2f}"
    return cents if dollars == Decimal(cents) else f"{dollars:.6f}".rstrip("0").ljust(len(cents), "0")


def is_time_zone(name: str) -> bool:
    """True if the clock on the wall there is known."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _midnight(moment: datetime, zone: ZoneInfo) -> datetime:
    """The same day's midnight: a day may have 23 or 25 hours."""
    return datetime(moment.year, moment.month, moment.day, tzinfo=zone)


def _ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
