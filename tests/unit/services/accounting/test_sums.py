"""What completions say about money, added up: each provider call once, at every level and in the right period."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.kafka.table import ControlTable
from infra.redis.ledger import Settlement
from schemas.budget import NANO, Budget, Period
from schemas.control import Organization, Team, User
from schemas.ids import uuid7_hex
from schemas.job import Caller, Step
from schemas.policy import Policy
from schemas.topics import Lane
from schemas.usage import Usage
from services.accounting import sums
from services.accounting.sums import Ended, Sums
from tests.unit.services.accounting.examples import attempt, completion


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW_MS = ms("2026-11-21T10:00")
CALLER = Caller(organization="acme", team="fraud", project="p", environment="dev", key_id="key_1", user="ada")
SCOPES = ("organization/acme", "team/fraud", "project/fraud/p", "environment/fraud/p/dev", "key/key_1", "user/ada")


def ended(n: int = 1, usd: str = "0.5", calls: int = 1, tokens: int = 10, **members: Any) -> Ended:
    """A completion as it comes from the log, of so many calls that cost `usd` each."""
    made = tuple(
        attempt(k, id=f"att_{n}_{k}", cost_usd=Decimal(usd), usage=Usage(input_tokens=tokens, output_tokens=1))
        for k in range(calls)
    )
    told: dict[str, Any] = {"job_id": f"job_{n}", "caller": CALLER, "lane": Lane.INTERACTIVE, "accepted_ms": NOW_MS, "steps": ()}
    return Ended.model_validate_json(completion(attempts=made, **(told | members)).model_dump_json())


def table(*resources: Any, zone: str = "UTC") -> ControlTable:
    made = ControlTable()
    for resource in (Organization(id="o", name="acme", time_zone=zone), User(id="u", name="ada"), *resources):
        made.put(resource)
    return made


def settled(*given: Ended, into: Sums | None = None) -> Settlement:
    """One settlement of these, which is done."""
    by, settlement, before = into or Sums(table()), Settlement(), dict[str, frozenset[str]]()
    for one in given:
        by.add(settlement, one, before)
    by.done(before)
    return settlement


def usd_at(settlement: Settlement, counter: str) -> Decimal:
    spent = settlement.spent.get(f"spend:{counter}")
    return Decimal(spent.usd_nano) / NANO if spent else Decimal(0)


def test_every_level_in_every_period() -> None:
    found = settled(ended(), ended(2, usd="0.25", tokens=5))
    periods = ("2026-11-21", "2026-W47", "2026-11", "total")
    assert set(found.spent) == {f"spend:{scope}:{period}" for scope in SCOPES for period in periods}
    assert {(spent.usd_nano, spent.tokens) for spent in found.spent.values()} == {(750_000_000, 17)}
    assert found.spent["spend:team/fraud:2026-11"].forgotten_ms == ms("2026-12-09")
    assert found.spent["spend:team/fraud:total"].forgotten_ms == 0


def test_each_job_gives_back_what_it_held_and_says_how_many_tokens_it_needed() -> None:
    found = settled(ended(1, tokens=10), ended(2, calls=2, tokens=20), ended(3, calls=0))
    assert found.jobs == [("job_1", 11), ("job_2", 42), ("job_3", 0)]


def test_all_calls_of_a_job_count() -> None:
    assert usd_at(settled(ended(calls=3)), "team/fraud:total") == Decimal("1.5")


def test_what_cost_nothing_leaves_no_counter() -> None:
    found = settled(ended(calls=0), ended(2, calls=0))
    assert found.spent == {}
    assert [job for job, _ in found.jobs] == ["job_1", "job_2"]


def test_a_completion_that_comes_again_counts_once() -> None:
    by = Sums(table())
    first, again = settled(ended(), ended(), into=by), settled(ended(), into=by)
    assert usd_at(first, "team/fraud:total") == Decimal("0.5")
    assert (again.spent, again.jobs) == ({}, [("job_1", 0)])


def test_but_a_call_that_only_the_second_one_tells_of_counts() -> None:
    by = Sums(table())
    assert usd_at(settled(ended(calls=1), into=by), "team/fraud:total") == Decimal("0.5")
    assert usd_at(settled(ended(calls=3), into=by), "team/fraud:total") == Decimal(1)
    assert usd_at(settled(ended(calls=1), ended(calls=3), into=by), "team/fraud:total") == 0


def test_what_was_not_done_is_not_remembered() -> None:
    by, settlement, before = Sums(table()), Settlement(), dict[str, frozenset[str]]()
    by.add(settlement, ended(), before)
    assert usd_at(settled(ended(), into=by), "team/fraud:total") == Decimal("0.5")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_REMEMBERED", 2)
    by = Sums(table())
    settled(*(ended(n) for n in range(3)), into=by)
    assert usd_at(settled(ended(2), into=by), "team/fraud:total") == 0
    assert usd_at(settled(ended(0), into=by), "team/fraud:total") == Decimal("0.5")


def test_a_job_counts_in_the_period_in_which_it_was_accepted() -> None:
    found = settled(ended(accepted_ms=ms("2026-11-30T23:59:59.999"), ended_ms=ms("2026-12-01T00:05")))
    assert (usd_at(found, "team/fraud:2026-11"), usd_at(found, "team/fraud:2026-12")) == (Decimal("0.5"), 0)
    found = settled(ended(accepted_ms=ms("2026-12-01")))
    assert (usd_at(found, "team/fraud:2026-11"), usd_at(found, "team/fraud:2026-12")) == (0, Decimal("0.5"))


def test_by_the_clock_of_the_organization() -> None:
    found = settled(ended(accepted_ms=ms("2026-11-30T23:30")), into=Sums(table(zone="Europe/Berlin")))
    assert usd_at(found, "team/fraud:2026-12") == Decimal("0.5")


@pytest.mark.parametrize("born", ["2020-01-01", "2026-11-21T10:00", "2199-01-01"])
def test_and_not_when_a_publisher_says_that_it_was_born(born: str) -> None:
    """A record of the Kafka door bears the time that its publisher likes: that must not choose the budget."""
    found = settled(ended(job_id=f"job_{uuid7_hex(ms(born), 7)}"))
    assert usd_at(found, "team/fraud:2026-11") == Decimal("0.5")


def test_batch_counts_in_the_period_in_which_it_was_sent_out() -> None:
    steps = (Step(stage="router", at_ms=ms("2026-11-30T23:00")), Step(stage="router", at_ms=ms("2026-12-01T00:01")))
    found = settled(ended(lane=Lane.BATCH, accepted_ms=ms("2026-11-30T22:00"), steps=steps))
    assert (usd_at(found, "team/fraud:2026-11"), usd_at(found, "team/fraud:2026-12")) == (0, Decimal("0.5"))


def test_levels_that_a_caller_does_not_have_are_not_counted() -> None:
    found = settled(ended(caller=Caller(organization="acme", team="fraud", key_id="", user="")))
    assert {key.split(":")[1] for key in found.spent} == {"organization/acme", "team/fraud"}
    assert found.used == {}


def test_a_key_was_last_used_when_its_last_job_was_accepted() -> None:
    found = settled(ended(1, accepted_ms=NOW_MS), ended(2, accepted_ms=NOW_MS + 9), ended(3, accepted_ms=NOW_MS + 5))
    assert found.used == {"key_1": NOW_MS + 9}


def test_a_change_of_the_hierarchy_counts_at_once() -> None:
    control = table()
    by = Sums(control)
    november, december = ms("2026-11-30T23:30"), "team/fraud:2026-12"
    assert usd_at(settled(ended(1, accepted_ms=november), into=by), december) == 0
    control.put(Organization(id="o", name="acme", time_zone="Europe/Berlin", version=2))
    control.version += 1
    assert usd_at(settled(ended(2, accepted_ms=november), into=by), december) == Decimal("0.5")


def test_budgets_above_those_who_are_billed() -> None:
    hard, soft = Budget(usd=Decimal(5)), Budget(usd=Decimal(1), period=Period.DAY, hard=False)
    control = table(
        Team(id="t", name="fraud", organization="acme", policy=Policy(budgets=(hard, soft))),
        Team(id="t2", name="search", organization="acme", policy=Policy(budgets=(hard,))),
    )
    found = Sums(control).lines([ended(), ended(2)], NOW_MS)
    assert [(team, line.scope, line.budget, line.span.id) for team, line in found] == [
        ("fraud", "team/fraud", hard, "2026-11"),
        ("fraud", "team/fraud", soft, "2026-11-21"),
    ], "each once, soft ones too, and nobody else's"


@pytest.mark.parametrize(
    "members",
    [
        {"accepted_ms": -1},
        {"accepted_ms": 10_413_792_000_000},
        {"attempts": [{"id": "a", "cost_usd": "-0.1"}]},
        {"attempts": [{"id": "a", "cost_usd": "1000000000"}]},
        {"attempts": [{"id": "a", "cost_usd": "NaN"}]},
        {"attempts": [{"id": "a", "usage": {"input_tokens": -1}}]},
    ],
)
def test_what_cannot_be_billed_is_no_completion(members: dict[str, object]) -> None:
    told: dict[str, object] = {
        "job_id": "job_1",
        "caller": CALLER.model_dump(),
        "lane": "interactive",
        "accepted_ms": NOW_MS,
        "ended_ms": NOW_MS,
    }
    assert Ended.model_validate(told)
    with pytest.raises(ValidationError):
        Ended.model_validate(told | members)


costs = st.decimals(0, 1_000, places=12)


@given(st.lists(st.tuples(st.integers(0, 5), costs), max_size=30), st.data())
def test_the_sum_of_settlements_is_the_sum_of_distinct_calls(calls: list[tuple[int, Decimal]], data: st.DataObject) -> None:
    """However completions are cut into settlements, repeated, and grow."""
    by, total, made = Sums(table()), 0, dict[int, list[Decimal]]()
    for job, cost in calls:
        made.setdefault(job, []).append(cost)
        told = [_of(job, made[job])] * data.draw(st.integers(1, 2))
        settlement = settled(*told, into=by)
        spent = settlement.spent.get("spend:team/fraud:total")
        total += spent.usd_nano if spent else 0
    exact = sum((cost for _, cost in calls), Decimal(0))
    assert abs(Decimal(total) / NANO - exact) <= len(calls) * Decimal("0.5e-9")


def _of(job: int, made: list[Decimal]) -> Ended:
    calls = tuple(attempt(n, id=f"att_{job}_{n}", cost_usd=cost) for n, cost in enumerate(made))
    return Ended.model_validate_json(
        completion(
            job_id=f"job_{job}", caller=CALLER, lane=Lane.INTERACTIVE, accepted_ms=NOW_MS, attempts=calls
        ).model_dump_json()
    )
