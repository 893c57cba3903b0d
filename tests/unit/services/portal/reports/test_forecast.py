"""What a month will have cost, worked out by hand."""

from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.portal.reports.forecast import Forecast, forecast, reached_on

TODAY = date(2026, 11, 21)  # A Saturday.
LAST = date(2026, 11, 30)
D = Decimal


def month_so_far(workday: str, weekend: str, first: date = date(2026, 10, 1)) -> dict[date, Decimal]:
    days = (first + timedelta(days=n) for n in range((TODAY - first).days + 1))
    return {day: D(workday if day.weekday() < 5 else weekend) for day in days}


def test_days_that_never_scatter_are_certain() -> None:
    """20 days and half of today at 10 are spent; half of today and nine days are to come."""
    days = month_so_far("10", "10") | {TODAY: D(5)}
    assert forecast(days, TODAY, D("0.5"), LAST) == Forecast(D(205), D(300), D(300), D(300))


def test_weekends_are_weekends() -> None:
    """Spent: 15 workdays at 10 and, with today, 6 days of weekends at 1. To come: a Sunday, a week, a Monday."""
    found = forecast(month_so_far("10", "1"), TODAY, D(1), LAST)
    assert (found.spent, found.expected) == (D(156), D(156) + 1 + 50 + 2 + 10)
    assert found.low == found.expected == found.high


def test_the_first_day_of_all_is_taken_for_all_days() -> None:
    assert forecast({TODAY: D(6)}, TODAY, D("0.5"), LAST) == Forecast(D(6), D(6 + 6 + 9 * 12), D(120), D(120))


def test_one_call_after_midnight_is_no_fortune() -> None:
    """One dollar in the first second counts as one in an hour."""
    assert forecast({TODAY: D(1)}, TODAY, D(1) / 86_400, TODAY).expected < D(25)


def test_a_house_that_has_begun_this_week_has_an_average() -> None:
    """Two days at 2 and 4: a day is 3. They scatter by 1.414; nine and a half days by 4.36, of which 1.2816 hold four of five."""
    days = {date(2026, 11, 19): D(2), date(2026, 11, 20): D(4), TODAY: D(1)}
    found = forecast(days, TODAY, D("0.5"), LAST)
    assert (found.spent, found.expected) == (D(7), D("35.5"))
    assert abs(found.high - found.expected - D("5.5863")) < D("0.001")
    assert found.expected - found.low == found.high - found.expected


def test_nothing_is_expected_of_who_uses_nothing() -> None:
    assert forecast({}, TODAY, D("0.5"), LAST) == Forecast(D(0), D(0), D(0), D(0))


def test_the_last_moment_of_a_month_is_what_it_has_cost() -> None:
    days = month_so_far("10", "1", first=date(2026, 11, 1))
    found = forecast(days, TODAY, D(1), TODAY)
    assert found.spent == found.expected == found.low == found.high


def test_the_day_on_which_a_budget_is_used_up() -> None:
    days = month_so_far("10", "10") | {TODAY: D(5)}
    reached = {budget: reached_on(days, TODAY, D("0.5"), LAST, D(budget)) for budget in ("205", "210", "211", "300", "301")}
    assert reached == {"205": TODAY, "210": TODAY, "211": TODAY + timedelta(days=1), "300": LAST, "301": None}


@given(
    st.dictionaries(st.dates(date(2026, 9, 1), TODAY), st.decimals(0, 10**6, places=9), max_size=80),
    st.decimals(0, 1, places=4),
)
def test_what_is_expected_lies_in_its_interval_and_never_below_what_is_spent(days: dict[date, Decimal], over: Decimal) -> None:
    found = forecast(days, TODAY, over, LAST)
    assert found.spent == sum((cost for day, cost in days.items() if day.month == 11), D(0))
    assert found.spent <= found.low <= found.expected <= found.high
