"""Two books side by side."""

from datetime import date
from decimal import Decimal

import pytest

from services.cli.reconcile.compare import Tolerance, add_up, agrees, compare, totals
from services.cli.reconcile.ledger import Entry, Unreadable
from services.portal.reports.calls import Called

CENT = Tolerance(Decimal("0.01"), 0)


def called(model: str, calls: int = 1, tokens: int = 10, cost: str = "1", unsure: int = 0) -> Called:
    return Called(
        place={"model": model},
        calls=calls,
        input_tokens=tokens,
        cached_tokens=0,
        output_tokens=tokens,
        cost_usd=Decimal(cost),
        unsure_calls=unsure,
        unsure_tokens=0,
    )


def entry(model: str, calls: int | None = 1, tokens: int | None = 10, cost: str | None = None) -> Entry:
    return Entry(
        model=model, calls=calls, input_tokens=tokens, output_tokens=tokens, cost_usd=None if cost is None else Decimal(cost)
    )


CASES = [
    ("the same", [entry("a")] * 2, [called("a", 2, 20)], True),
    ("a token is missing", [entry("a", tokens=9)], [called("a")], False),
    ("a call is missing", [entry("a", calls=2)], [called("a")], False),
    ("within a cent", [entry("a", cost="1.01")], [called("a")], True),
    ("more than a cent", [entry("a", cost="1.010000001")], [called("a")], False),
    ("two models a cent off each", [entry("a", cost="1.01"), entry("b", cost="1.01")], [called("a"), called("b")], False),
    ("one too much, one too little", [entry("a", cost="0"), entry("b", cost="2")], [called("a"), called("b")], False),
    ("only theirs", [entry("a"), entry("b")], [called("a")], False),
    ("only ours", [entry("a")], [called("a"), called("b")], False),
    ("what nothing was billed for is in nobody's books", [entry("a")], [called("a"), called("b", 0, 0, "0")], True),
    ("only cost is told", [entry("a", None, None, "1")], [called("a", 7, 70)], True),
    ("a dated name", [entry("gpt-4o-2024-08-06"), entry("gpt-4o-20240806")], [called("gpt-4o", 2, 20)], True),
    ("both names are ours", [entry("m-20240806"), entry("m")], [called("m-20240806"), called("m")], True),
    ("a file that tells calls of some lines only", [entry("a"), entry("a", None)], [called("a", 5, 20)], True),
]


@pytest.mark.parametrize(("theirs", "ours", "equal"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_verdict(theirs: list[Entry], ours: list[Called], equal: bool) -> None:
    compared = compare(add_up(theirs, ["model"], None, None).places, ours, ["model"])
    assert all(agrees(one, CENT) for one in (*compared, totals(compared, ["model"]))) is equal


def test_what_differs_is_told_with_what_is_unsure() -> None:
    theirs = add_up([entry("a", 2, 15, "1.5"), entry("c")], ["model"], None, None)
    compared = compare(theirs.places, [called("a", unsure=1), called("b")], ["model"])
    assert [(one.place, one.known) for one in compared] == [(("a",), "both"), (("b",), "ours"), (("c",), "theirs")]
    assert (compared[0].difference("input_tokens"), compared[0].difference("cost_usd")) == (-5, Decimal("-0.5"))
    assert (compared[0].unsure["calls"], compared[0].difference("cached_tokens")) == (1, None)


def test_only_the_days_asked_for_count() -> None:
    days = [Entry(model="a", day=date(2026, 11, day), calls=1) for day in (1, 2, 3, 4)]
    found = add_up(days, ["model"], date(2026, 11, 2), date(2026, 11, 3))
    assert (found.first, found.last) == (date(2026, 11, 2), date(2026, 11, 3))
    assert found.places[("a",)].told("calls") == 2
    assert add_up(days, ["day"], None, None).places.keys() == {(f"2026-11-0{day}",) for day in (1, 2, 3, 4)}


def test_what_the_file_does_not_say_cannot_be_asked_by() -> None:
    with pytest.raises(Unreadable, match="no team"):
        add_up([entry("a")], ["model", "team"], None, None)
    with pytest.raises(Unreadable, match="no time"):
        add_up([entry("a")], ["model"], date(2026, 11, 1), None)
