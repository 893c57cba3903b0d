"""What a month will have cost when it is over, by what each day has cost so far. Pure.

Each day to come costs what this day of the week has cost on average in the last four weeks; what is left of today, its part of
that. Around it lies the interval that should hold in four of five months, if days go on to scatter as they did.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from pydantic import BaseModel

from services.portal.reports.sums import Money

HISTORY_DAYS: Final = 28
_FOUR_OF_FIVE: Final = Decimal("1.2816")
_DAY: Final = timedelta(days=1)
_NANO: Final = Decimal("1e-9")
_NOTHING: Final = Decimal(0)


class Forecasted(BaseModel):
    """What a place will have cost at the end of the month. `reached_on`: when its budget is used up, if it will be."""

    place: dict[str, str]
    spent_usd: Money
    expected_usd: Money
    low_usd: Money
    high_usd: Money
    budget_usd: Money | None = None
    reached_on: date | None = None


class Forecasts(BaseModel):
    """GET /admin/v1/reports/forecast, of the month up to `last`, as it looks at `at` in `time_zone`."""

    month: str
    last: date
    at: datetime
    time_zone: str
    by: list[str]
    lines: list[Forecasted]


@dataclass(frozen=True, slots=True)
class Forecast:
    """USD: spent so far, and at the end of the month: expected, and from `low` to `high`."""

    spent: Decimal
    expected: Decimal
    low: Decimal
    high: Decimal


def forecast(days: Mapping[date, Decimal], today: date, of_today: Decimal, last: date) -> Forecast:
    """The forecast at a moment of `today`, `of_today` (0 to 1) of which is over; `last`: the month's last day.

    `days`: what each day cost; a day that isn't there cost nothing, but days before the first one there say nothing.
    """
    spent = sum((cost for day, cost in days.items() if today.replace(day=1) <= day <= today), _NOTHING)
    known = _history(days, today)
    usual = _usual(known) if known else dict.fromkeys(range(7), _so_far(days.get(today, _NOTHING), of_today))
    left = [(today, 1 - of_today)] + [(day, Decimal(1)) for day in _days(today + _DAY, last)]
    expected = spent + sum((usual[day.weekday()] * part for day, part in left), _NOTHING)
    spread = _FOUR_OF_FIVE * (_variance(known, usual) * sum(part for _, part in left)).sqrt()
    return Forecast(spent, _nano(expected), _nano(max(spent, expected - spread)), _nano(expected + spread))


def reached_on(days: Mapping[date, Decimal], today: date, of_today: Decimal, last: date, budget: Decimal) -> date | None:
    """The day on which a budget will be used up as expected; None if not this month."""
    return next((day for day in _days(today, last) if forecast(days, today, of_today, day).expected >= budget), None)


def _history(days: Mapping[date, Decimal], today: date) -> dict[date, Decimal]:
    """The whole days before today, from the first that anything is known of."""
    first = max(min(days, default=today), today - HISTORY_DAYS * _DAY)
    return {day: days.get(day, _NOTHING) for day in _days(first, today - _DAY)}


def _usual(known: Mapping[date, Decimal]) -> dict[int, Decimal]:
    """What each day of the week costs. One that hasn't been there yet costs what days do on average."""
    average = _mean(known.values())
    return {weekday: _mean([c for day, c in known.items() if day.weekday() == weekday] or [average]) for weekday in range(7)}


def _variance(known: Mapping[date, Decimal], usual: Mapping[int, Decimal]) -> Decimal:
    """How far days lie from what is usual. Less than two weeks tell it by the average: one day of a kind can't scatter."""
    if len(known) < 2:
        return _NOTHING
    average = _mean(known.values())
    by_week = len(known) >= 14
    off = [(cost - (usual[day.weekday()] if by_week else average)) ** 2 for day, cost in known.items()]
    return sum(off, _NOTHING) / (len(off) - (7 if by_week else 1))


def _so_far(cost: Decimal, part: Decimal) -> Decimal:
    """What a whole day costs by a part of it; an hour at least, that one call after midnight isn't a fortune."""
    return cost / max(part, Decimal(1) / 24)


def _mean(costs: Iterable[Decimal]) -> Decimal:
    all_ = list(costs)
    return sum(all_, _NOTHING) / len(all_)


def _days(first: date, last: date) -> Iterable[date]:
    return (first + n * _DAY for n in range((last - first).days + 1))


def _nano(usd: Decimal) -> Decimal:
    return usd.quantize(_NANO)
