"""Budgets: when a period begins and ends, wherever the clock stands, and how money is counted."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.budget import NANO, Budget, Increase, Period, Span, is_time_zone, nano, nano_up, span_of, usd

HOUR_MS = 3_600_000
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Havana",
    "America/Nuuk",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Atlantic/Azores",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
)
"""Those that shift by half an hour, by two hours, at midnight, or not at all; from UTC-4 to UTC+14."""

times = st.integers(
    int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1000, int(datetime(2037, 1, 1, tzinfo=UTC).timestamp()) * 1000
)


def ms(text: str, zone: str = "UTC") -> int:
    """A moment by the clock on the wall."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def hours(span: Span) -> float:
    assert span.ends_ms is not None
    return (span.ends_ms - span.starts_ms) / HOUR_MS


SPANS = [
    (Period.DAY, "2026-11-21T10:00", "UTC", "2026-11-21", "2026-11-21", "2026-11-22"),
    (Period.WEEK, "2026-11-21T10:00", "UTC", "2026-W47", "2026-11-16", "2026-11-23"),
    (Period.MONTH, "2026-11-21T10:00", "UTC", "2026-11", "2026-11-01", "2026-12-01"),
    (Period.MONTH, "2026-12-31T23:59:59.999", "UTC", "2026-12", "2026-12-01", "2027-01-01"),
    (Period.MONTH, "2028-02-29T12:00", "Asia/Kolkata", "2028-02", "2028-02-01", "2028-03-01"),
    # A week belongs to the year that its Thursday lies in (ISO 8601).
    (Period.WEEK, "2026-12-31T12:00", "UTC", "2026-W53", "2026-12-28", "2027-01-04"),
    (Period.WEEK, "2027-01-03T23:59", "UTC", "2026-W53", "2026-12-28", "2027-01-04"),
    (Period.WEEK, "2027-01-04T00:00", "UTC", "2027-W01", "2027-01-04", "2027-01-11"),
    (Period.WEEK, "2024-12-30T00:00", "Europe/Berlin", "2025-W01", "2024-12-30", "2025-01-06"),
]


@pytest.mark.parametrize(("period", "at", "zone", "name", "starts", "ends"), SPANS)
def test_a_moment_lies_in_its_span(period: Period, at: str, zone: str, name: str, starts: str, ends: str) -> None:
    assert span_of(period, ms(at, zone), zone) == Span(name, ms(starts, zone), ms(ends, zone))


def test_midnight_is_the_organizations() -> None:
    at = ms("2026-11-30T23:30")
    assert span_of(Period.MONTH, at, "UTC").id == "2026-11"
    assert span_of(Period.MONTH, at, "Europe/Berlin").id == "2026-12"
    assert span_of(Period.DAY, ms("2026-11-30T11:30"), "Pacific/Kiritimati").id == "2026-12-01"
    assert span_of(Period.DAY, ms("2026-12-01T04:30"), "America/New_York").id == "2026-11-30"


def test_the_last_millisecond_is_in_and_the_next_is_not() -> None:
    ends = ms("2026-12-01", "Europe/Berlin")
    assert span_of(Period.MONTH, ends - 1, "Europe/Berlin").id == "2026-11"
    assert span_of(Period.MONTH, ends, "Europe/Berlin").id == "2026-12"


SHIFTS = [
    ("Europe/Berlin", "2026-03-29", 23, 7 * 24 - 1),
    ("Europe/Berlin", "2026-10-25", 25, 7 * 24 + 1),
    ("Australia/Lord_Howe", "2026-04-05", 24.5, 7 * 24 + 0.5),
    ("Antarctica/Troll", "2026-03-29", 22, 7 * 24 - 2),
    # Here the clock goes on at midnight itself: the day begins at one.
    ("America/Santiago", "2026-09-06", 23, 7 * 24 - 1),
    ("America/Havana", "2026-11-01", 25, 7 * 24 + 1),
]


@pytest.mark.parametrize(("zone", "day", "of_day", "of_week"), SHIFTS)
def test_a_day_on_which_the_clock_changes_is_shorter_or_longer(zone: str, day: str, of_day: float, of_week: float) -> None:
    noon = ms(f"{day}T12:00", zone)
    found = span_of(Period.DAY, noon, zone)
    assert (found.id, hours(found)) == (day, of_day)
    assert hours(span_of(Period.WEEK, noon, zone)) == of_week
    assert hours(span_of(Period.DAY, noon + 24 * HOUR_MS, zone)) == 24


def test_a_day_may_end_before_the_clock_says_so_twice() -> None:
    """In Nuuk the clock goes back from midnight to eleven: the evening comes twice, and is one day's."""
    day = span_of(Period.DAY, ms("2026-10-24T22:00", "America/Nuuk"), "America/Nuuk")
    assert (day.id, hours(day)) == ("2026-10-24", 25)
    assert day.ends_ms is not None
    assert span_of(Period.DAY, day.ends_ms - 1, "America/Nuuk") == day


def test_a_total_never_ends() -> None:
    assert span_of(Period.TOTAL, ms("2026-11-21"), "Europe/Berlin") == Span("total", 0, None)


@given(times, st.sampled_from(list(Period)), st.sampled_from(ZONES))
@example(ms("2026-09-06T03:59:59.999"), Period.DAY, "America/Santiago")
@example(ms("2026-11-01T04:30"), Period.DAY, "America/Havana")
def test_every_millisecond_lies_in_exactly_its_span(at_ms: int, period: Period, zone: str) -> None:
    span = span_of(period, at_ms, zone)
    assert span.starts_ms <= at_ms
    assert span_of(period, span.starts_ms, zone) == span
    if span.ends_ms is not None:
        assert at_ms < span.ends_ms
        assert span_of(period, span.ends_ms - 1, zone) == span


@given(times, st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]), st.sampled_from(ZONES))
def test_spans_tile_the_time_line(at_ms: int, period: Period, zone: str) -> None:
    names = set[str]()
    for _ in range(4):
        span = span_of(period, at_ms, zone)
        assert span.ends_ms is not None
        following = span_of(period, span.ends_ms, zone)
        assert following.starts_ms == span.ends_ms
        assert span_of(period, span.starts_ms - 1, zone).ends_ms == span.starts_ms
        names.add(span.id)
        at_ms = span.ends_ms
    assert len(names) == 4, "no two spans have the same name"


@given(times, st.sampled_from(ZONES))
def test_no_quarter_of_an_hour_lies_in_two_days(at_ms: int, zone: str) -> None:
    """What the sums of accounting go by."""
    begin = at_ms // 900_000 * 900_000
    assert span_of(Period.DAY, begin, zone) == span_of(Period.DAY, begin + 899_999, zone)


@given(times, st.sampled_from(ZONES))
def test_it_is_the_clock_on_the_wall_that_names_a_day(at_ms: int, zone: str) -> None:
    local = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    assert span_of(Period.DAY, at_ms, zone).id == f"{local:%Y-%m-%d}"
    assert span_of(Period.MONTH, at_ms, zone).id == f"{local:%Y-%m}"
    monday = local.date() - timedelta(days=local.weekday())
    assert datetime.fromtimestamp(span_of(Period.WEEK, at_ms, zone).starts_ms / 1000, ZoneInfo(zone)).date() == monday


@pytest.mark.parametrize(
    ("name", "known"), [("Europe/Berlin", True), ("UTC", True), ("Mars/Olympus", False), ("../etc", False), ("", False)]
)
def test_time_zones(name: str, known: bool) -> None:
    assert is_time_zone(name) is known


@pytest.mark.parametrize(
    ("dollars", "nearest", "up"),
    [
        ("0", 0, 0),
        ("1", NANO, NANO),
        ("0.0000000005", 1, 1_000),
        ("0.0000000004", 0, 1_000),
        ("0.000001", 1_000, 1_000),
        ("0.000001000000000001", 1_000, 2_000),
        ("9000000", 9_000_000 * NANO, 9_000_000 * NANO),
        ("8999999.999999999", 9_000_000 * NANO - 1, 9_000_000 * NANO),
    ],
)
def test_nano_dollars(dollars: str, nearest: int, up: int) -> None:
    assert nano(Decimal(dollars)) == nearest
    assert nano_up(Decimal(dollars)) == up


amounts = st.decimals(0, 9_000_000, allow_nan=False, allow_infinity=False, places=15)


@given(amounts)
def test_what_is_reserved_is_never_less_than_what_is_spent(amount: Decimal) -> None:
    assert nano(amount) <= nano_up(amount) < nano(amount) + 1_001
    assert nano_up(amount) % 1_000 == 0
    assert abs(usd(nano(amount)) - amount) <= Decimal("0.5e-9")


@given(st.integers(0, 9_000_000 * NANO))
def test_nano_dollars_there_and_back(nanos: int) -> None:
    assert nano(usd(nanos)) == nanos
    assert int(float(nanos)) == nanos, "a number of Lua's holds it exactly"


def test_increases_count_until_they_end() -> None:
    budget = Budget(
        usd=Decimal(50),
        tokens=1_000,
        increases=(Increase(usd=Decimal(5), until_ms=2_000), Increase(usd=Decimal("0.5"), tokens=10, until_ms=1_000)),
    )
    assert [budget.usd_at(now) for now in (999, 1_000, 1_999, 2_000)] == [Decimal("55.5"), Decimal(55), Decimal(55), Decimal(50)]
    assert [budget.tokens_at(now) for now in (999, 1_000)] == [1_010, 1_000]


def test_an_increase_makes_no_limit_where_there_is_none() -> None:
    more = (Increase(usd=Decimal(5), tokens=5, until_ms=2_000),)
    assert Budget(tokens=1, increases=more).usd_at(0) is None
    assert Budget(usd=Decimal(1), increases=more).tokens_at(0) is None


@pytest.mark.parametrize(
    "written",
    [{"usd": -1}, {"usd": 9_000_001}, {"tokens": -1}, {"usd": 1, "alerts": [0]}, {"usd": 1, "alerts": [1.1]}, {"period": "year"}],
)
def test_a_budget_that_means_nothing_is_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(written)


def test_a_budget_is_hard_by_the_month_and_tells_at_four_fifths_unless_said_otherwise() -> None:
    budget = Budget(usd=Decimal(1))
    assert (budget.period, budget.hard, budget.alerts) == (Period.MONTH, True, (0.8,))
