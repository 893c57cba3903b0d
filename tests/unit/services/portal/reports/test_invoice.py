"""Bills, worked out by hand."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.portal.reports.asked import Window, month_of
from services.portal.reports.invoice import BY, invoices, number
from services.portal.reports.sums import Line

NOVEMBER = month_of(date(2026, 11, 1), "UTC")
AFTER_MS = round(datetime(2026, 12, 2, tzinfo=UTC).timestamp() * 1000)


def line(team: str, cost: Decimal, **place: str) -> Line:
    return Line(place=dict.fromkeys(BY, "") | {"team": team, **place}, jobs=1, cost_usd=cost)


def test_a_bill_is_exact_and_only_what_is_due_is_rounded() -> None:
    lines = [line("fraud", Decimal("0.000000001"), model="b"), line("fraud", Decimal("10.004999999"), price_version="list:2")]
    (bill,) = invoices(lines, NOVEMBER, "default", Decimal(0), AFTER_MS)
    assert (bill.subtotal.cost_usd, bill.total_usd, bill.due_usd) == (
        Decimal("10.005000000"),
        Decimal("10.005"),
        Decimal("10.01"),
    )
    assert (bill.number, bill.status, bill.issued) == ("2026-11-fraud", "final", date(2026, 12, 2))
    assert bill.price_versions == ["list:2"]


@pytest.mark.parametrize(
    ("percent", "margin", "due"),
    [("5", "0.500000001", "10.50"), ("-10", "-1.000000001", "9.00"), ("0.5", "0.050000000", "10.05")],
)
def test_a_margin_is_added_and_a_discount_taken_off(percent: str, margin: str, due: str) -> None:
    (bill,) = invoices([line("a", Decimal("10.00000001"))], NOVEMBER, "default", Decimal(percent), AFTER_MS)
    assert (bill.margin_usd, bill.due_usd) == (Decimal(margin), Decimal(due))


def test_before_a_period_is_over_its_bill_is_preliminary() -> None:
    (bill,) = invoices([line("a", Decimal(1))], NOVEMBER, "default", Decimal(0), AFTER_MS - 2 * 86_400_000)
    assert bill.status == "preliminary"


def test_a_number_says_whose_and_when() -> None:
    days = Window(date(2026, 11, 3), date(2026, 11, 9), "UTC")
    assert [number("a", NOVEMBER), number("", NOVEMBER), number("a", days)] == [
        "2026-11-a",
        "2026-11-none",
        "20261103-20261109-a",
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.decimals(0, 10**6, places=9)), max_size=30))
def test_no_nano_dollar_is_lost_between_lines_and_bills(costs: list[tuple[str, Decimal]]) -> None:
    bills = invoices([line(team, cost) for team, cost in costs], NOVEMBER, "default", Decimal(0), AFTER_MS)
    assert sum((bill.total_usd for bill in bills), Decimal(0)) == sum((cost for _, cost in costs), Decimal(0))
