"""Budgets as counters: which there are, when they are forgotten, and in whose period a job is counted."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.budgets import BudgetLine, counted_ms, counter_key, counters, hard, lines
from infra.hierarchy import Level
from infra.redis.admission import Allowance
from schemas.budget import NANO, Budget, Increase, Period, Span
from schemas.job import Step
from schemas.policy import Policy
from schemas.topics import Lane

DAY_MS = 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW_MS = ms("2026-11-21T10:00")
DECEMBER_MS = ms("2026-12-01")


def level(scope: str, *budgets: Budget, version: int = 1, by: str = "") -> Level:
    return Level(scope, version, Policy(budgets=budgets), by)


def usd(amount: str | int, **more: Any) -> Budget:
    return Budget(usd=Decimal(amount), **more)


def test_each_budget_has_a_counter_in_the_period_that_runs() -> None:
    month, day = usd(50), Budget(tokens=1_000, period=Period.DAY, hard=False)
    found = lines([level("organization/acme", month), level(""), level("team/fraud", day)], NOW_MS, "UTC")
    november = Span("2026-11", ms("2026-11-01"), DECEMBER_MS)
    today = Span("2026-11-21", ms("2026-11-21"), ms("2026-11-22"))
    assert found == (
        BudgetLine(
            "organization/acme",
            month,
            november,
            Allowance("spend:organization/acme:2026-11", 50 * NANO, None, DECEMBER_MS + 8 * DAY_MS),
        ),
        BudgetLine(
            "team/fraud", day, today, Allowance("spend:team/fraud:2026-11-21", None, 1_000, ms("2026-11-22") + 8 * DAY_MS)
        ),
    )


def test_only_hard_ones_stand_in_the_way() -> None:
    found = lines([level("team/fraud", usd(1), usd(2, period=Period.DAY, hard=False))], NOW_MS, "UTC")
    assert [allowance.key for allowance in hard(found)] == ["spend:team/fraud:2026-11"]


def test_several_budgets_of_one_counter_are_held_to_once_by_the_tightest() -> None:
    """A counter that came twice would be held twice, and given back twice."""
    written = (
        usd(50),
        Budget(tokens=1_000),
        usd(40, tokens=2_000),
        usd(5, period=Period.DAY),
        usd(1, hard=False),
    )
    found = hard(lines([level("team/fraud", *written)], NOW_MS, "UTC"))
    assert [(one.key, one.usd_nano, one.tokens) for one in found] == [
        ("spend:team/fraud:2026-11", 40 * NANO, 1_000),
        ("spend:team/fraud:2026-11-21", 5 * NANO, None),
    ]


def test_a_users_own_budget_and_its_groups_are_one_counter() -> None:
    found = lines([level("user/ada", usd(5)), level("user/ada", usd(3), by="@analysts")], NOW_MS, "UTC")
    assert [(one.key, one.usd_nano) for one in hard(found)] == [("spend:user/ada:2026-11", 3 * NANO)]


def test_what_is_written_finer_than_a_nano_dollar_is_rounded_down() -> None:
    found = hard(lines([level("team/fraud", usd("0.0000000019"))], NOW_MS, "UTC"))
    assert found[0].usd_nano == 1


def test_an_increase_counts_until_it_ends() -> None:
    budget = usd(50, increases=(Increase(usd=Decimal(5), until_ms=NOW_MS + 1),))
    assert [hard(lines([level("team/fraud", budget)], now, "UTC"))[0].usd_nano for now in (NOW_MS, NOW_MS + 1)] == [
        55 * NANO,
        50 * NANO,
    ]


def test_periods_are_those_of_the_organizations_clock() -> None:
    late = ms("2026-11-30T23:30")
    assert [hard(lines([level("team/fraud", usd(1))], late, zone))[0].key for zone in ("UTC", "Europe/Berlin")] == [
        "spend:team/fraud:2026-11",
        "spend:team/fraud:2026-12",
    ]


def test_every_level_is_counted_in_every_period_whether_or_not_it_has_a_budget() -> None:
    found = dict(counters([level("team/fraud", version=0), level("")], NOW_MS, "UTC"))
    assert found == {
        "spend:team/fraud:2026-11-21": ms("2026-11-22") + 8 * DAY_MS,
        "spend:team/fraud:2026-W47": ms("2026-11-23") + 8 * DAY_MS,
        "spend:team/fraud:2026-11": DECEMBER_MS + 8 * DAY_MS,
        "spend:team/fraud:total": 0,
    }


def test_of_users_whom_nobody_has_written_down_a_total_is_forgotten_when_they_stay_away() -> None:
    unknown = dict(counters([level("user/ada", version=0)], NOW_MS, "UTC"))
    known = dict(counters([level("user/ada")], NOW_MS, "UTC"))
    assert unknown.keys() == known.keys()
    assert known["spend:user/ada:total"] == 0
    assert unknown["spend:user/ada:total"] > NOW_MS + 365 * DAY_MS


@given(
    st.integers(ms("2025-01-01"), ms("2030-01-01")),
    st.sampled_from(["UTC", "Asia/Kathmandu", "America/Santiago"]),
    st.lists(st.sampled_from(list(Period)), unique=True),
)
def test_a_budget_is_always_at_a_counter_that_is_kept(at_ms: int, zone: str, periods: list[Period]) -> None:
    """And is forgotten at the same time, whoever writes it first."""
    asked = [level("team/fraud", *(usd(1, period=period) for period in periods))]
    kept = dict(counters(asked, at_ms, zone))
    for line in lines(asked, at_ms, zone):
        assert kept[line.allowance.key] == line.allowance.forgotten_ms
        assert line.allowance.key == counter_key("team/fraud", line.span)


def test_interactive_jobs_count_when_they_were_accepted() -> None:
    assert counted_ms(Lane.INTERACTIVE, NOW_MS, [Step(stage="router", at_ms=NOW_MS + 9)]) == NOW_MS


def test_batch_counts_when_the_router_took_it_last() -> None:
    steps = [
        Step(stage="guard", at_ms=1),
        Step(stage="router", at_ms=2),
        Step(stage="router", at_ms=3),
        Step(stage="delay", at_ms=4),
    ]
    assert counted_ms(Lane.BATCH, 0, steps) == 3
    assert counted_ms(Lane.BATCH, 7, steps[:1]) == 7, "it never came there"
