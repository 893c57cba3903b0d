"""Rates over the last minutes: what is worth an alert, and what isn't."""

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.kafka.table import ControlTable
from schemas.alerting import AlertRules, ErrorRule, Slo
from schemas.control import Deployment, Model
from schemas.job import Caller
from schemas.topics import Lane
from services.accounting.rates import KEPT_MINUTES, MOST_FIELDS, Finding, Minutes, counts_of, judged
from services.accounting.sums import Call, Ended

NOW = 30_000_000
RULES = AlertRules(slos={"chat": Slo(ttft_ms=2000)})
CALLER = Caller(organization="acme", team="fraud", project="p", key_id="key_1")


@pytest.fixture
def table() -> ControlTable:
    table = ControlTable()
    table.put(Model(name="chat", deployments=(Deployment(id="d", provider="echo", model="echo"),), fallbacks=("other",)))
    return table


def call(status: str = "completed", http: int | None = None, **members: Any) -> Call:
    given: dict[str, Any] = {"id": "att", "provider": "openai", "deployment": "d", "model": "chat", "started_ms": 1_000}
    return Call(status=status, http_status=http, **(given | members))


def ended(*calls: Call, **members: Any) -> Ended:
    given: dict[str, Any] = {
        "job_id": "j",
        "caller": CALLER,
        "lane": Lane.INTERACTIVE,
        "model": "chat",
        "accepted_ms": 0,
        "ended_ms": 0,
    }
    return Ended.model_validate(given | {"attempts": calls} | members)


def counted(table: ControlTable, one: Ended, rules: AlertRules = RULES) -> dict[str, int]:
    return {name.replace("\x1f", "/"): by for name, by in counts_of(one, rules, table)}


CALLS: list[tuple[Call, int, int]] = [
    (call(), 1, 0),
    (call("failed", 500), 1, 1),
    (call("failed", 429), 1, 1),
    (call("failed", 401), 1, 1),
    (call("failed"), 1, 1),
    (call("unknown"), 1, 1),
    (call("failed", 400), 1, 0),
    (call("failed", 422), 1, 0),
    (call("cancelled"), 0, 0),
]


@pytest.mark.parametrize(("one", "calls", "failed"), CALLS)
def test_a_call_fails_by_its_provider_not_by_its_caller(table: ControlTable, one: Call, calls: int, failed: int) -> None:
    found = counted(table, ended(one))
    assert (found.get("calls/openai/d", 0), found.get("failed/openai/d", 0)) == (calls, failed)


JOBS: list[tuple[tuple[Call, ...], bool]] = [
    ((call(),), False),
    ((call(), call(hedge=True)), False),
    ((call("failed", 500), call()), True),
    ((call(model="other"),), True),
    ((call(model="chosen-by-a-rule"),), False),
]


@pytest.mark.parametrize(("calls", "fell"), JOBS)
def test_a_second_call_or_another_model_is_a_fallback_and_a_hedge_is_none(
    table: ControlTable, calls: tuple[Call, ...], fell: bool
) -> None:
    found = counted(table, ended(*calls))
    assert (found["jobs/chat"], found.get("fell/chat", 0)) == (1, int(fell))


def test_the_first_token_counts_from_when_it_was_asked_for(table: ControlTable) -> None:
    assert "late/2000/chat" not in counted(table, ended(call(ttft_ms=1000)))
    assert counted(table, ended(call(ttft_ms=1001)))["late/2000/chat"] == 1
    assert "first/2000/chat" not in counted(table, ended(call())), "what was not streamed has no first token"
    assert "first/2000/chat" not in counted(table, ended(call(ttft_ms=1), lane=Lane.BATCH))
    assert "first/2000/chat" not in counted(table, ended(call(ttft_ms=1)), AlertRules())


def test_spend_counts_for_team_project_and_feature(table: ControlTable) -> None:
    found = counted(table, ended(call(cost_usd=Decimal("0.5")), labels={"feature": "search"}))
    spent = {name: by for name, by in found.items() if name.startswith("spent")}
    assert spent == dict.fromkeys(("spent/team/fraud", "spent/project/fraud/p", "spent/feature/fraud/search"), 500_000_000)


def test_models_that_nobody_declared_and_shadows_are_not_counted(table: ControlTable) -> None:
    assert set(counted(table, ended(call("failed", 500), call(ttft_ms=9), model="junk"))) == {"calls/openai/d", "failed/openai/d"}
    assert set(counted(table, ended(call(), shadow_of="job_1"))) == {"calls/openai/d"}


def house(**counts: list[tuple[int, dict[str, int]]]) -> Minutes:
    """By kind: minutes ago, and what was counted then."""
    minutes = Minutes()
    for kind, told in counts.items():
        for ago, by_name in told:
            for name, n in by_name.items():
                minutes.add(NOW - ago, "\x1f".join((kind, *name.split("/"))), n)
    share(minutes)
    return minutes


def share(minutes: Minutes) -> None:
    """Nobody else counts."""
    added = {minute: counts.copy() for minute, counts in minutes.pending.items()}
    minutes.taken(added, {minute: dict(counts) for minute, counts in added.items()})


def told(minutes: Minutes, rules: AlertRules = RULES) -> list[tuple[str, str]]:
    return [(finding.what, finding.scope) for finding in judged(minutes, NOW, rules)]


ERRORS: list[tuple[dict[str, int], dict[str, int], list[str]]] = [
    ({"a/1": 20}, {"a/1": 5}, ["deployment/1"]),
    ({"a/1": 20}, {"a/1": 4}, []),
    ({"a/1": 19}, {"a/1": 19}, []),
    ({"a/1": 10, "a/2": 10, "b/3": 50}, {"a/1": 5, "a/2": 5, "b/3": 1}, ["provider/a"]),
    ({"a/1": 40, "a/2": 40}, {"a/1": 40}, ["deployment/1"]),
]


@pytest.mark.parametrize(("calls", "failed", "scopes"), ERRORS)
def test_errors_are_told_of_the_deployment_else_of_the_provider(
    calls: dict[str, int], failed: dict[str, int], scopes: list[str]
) -> None:
    assert [scope for _, scope in told(house(calls=[(0, calls)], failed=[(0, failed)]))] == scopes


def test_what_is_older_than_the_window_counts_no_more() -> None:
    assert told(house(calls=[(4, {"a/1": 20})], failed=[(4, {"a/1": 20})]))
    assert not told(house(calls=[(5, {"a/1": 20})], failed=[(5, {"a/1": 20})]))
    assert not told(house(calls=[(0, {"a/1": 20})], failed=[(0, {"a/1": 20})]), AlertRules(errors=ErrorRule(enabled=False)))


def test_fallbacks_are_told_of_the_model() -> None:
    found = judged(house(jobs=[(9, {"chat": 10}), (0, {"chat": 10})], fell=[(0, {"chat": 6})]), NOW, RULES)
    assert [(one.what, one.scope, one.message) for one in found] == [
        ("fallback_rate", "model/chat", "6 of 20 jobs of model chat needed a retry or a fallback in 10 minutes: 30%")
    ]


BURNS: list[tuple[list[tuple[int, int, int]], str]] = [
    ([(ago, 100, 0) for ago in range(60)], ""),
    ([(ago, 100, 15) for ago in range(60)], "fast"),
    ([(ago, 100, 14) for ago in range(60)], "slow"),
    ([(ago, 100, 7) for ago in range(360)], "slow"),
    ([(ago, 100, 5) for ago in range(360)], ""),
    ([(ago, 100, 50 if ago > 30 else 0) for ago in range(360)], ""),
    ([(ago, 100, 30 if ago > 4 else 0) for ago in range(60)], "slow"),
    ([(0, 49, 49)], ""),
    ([(0, 50, 50)], "fast"),
    ([(ago, 1000, 0) for ago in range(5, 360)] + [(ago, 1000, 1000) for ago in range(5)], ""),
    ([(ago, 1000, 0) for ago in range(9, 360)] + [(ago, 1000, 1000) for ago in range(9)], "fast"),
]
"""Minutes ago, first tokens, how many of them late; objective 99 %."""


@pytest.mark.parametrize(("traffic", "burn"), BURNS)
def test_an_objective_burns_in_both_windows_or_not_at_all(traffic: list[tuple[int, int, int]], burn: str) -> None:
    minutes = house(
        first=[(ago, {"2000/chat": n}) for ago, n, _ in traffic], late=[(ago, {"2000/chat": n}) for ago, _, n in traffic if n]
    )
    found = judged(minutes, NOW, RULES)
    assert [one.about for one in found] == ([burn] if burn else [])
    assert [one.severity for one in found] == ([{"fast": "critical", "slow": "warning"}[burn]] if burn else [])


def test_an_objective_that_was_changed_begins_anew() -> None:
    minutes = house(first=[(0, {"2000/chat": 90})], late=[(0, {"2000/chat": 90})])
    assert told(minutes)
    assert not told(minutes, AlertRules(slos={"chat": Slo(ttft_ms=5000)}))
    assert told(minutes, AlertRules(slos={"*": Slo(ttft_ms=2000)}))


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_traffic_that_stays_below_all_thresholds_is_never_told(chance: Random) -> None:
    """Of a hundred calls of each minute at most four are late, failed, or repeated."""
    traffic = [(chance.randint(0, 200), chance.randint(0, 4)) for _ in range(KEPT_MINUTES)]
    bad = {ago: n * more // 100 for ago, (more, n) in enumerate(traffic)}
    counts: dict[str, list[tuple[int, dict[str, int]]]] = {
        "calls": [(ago, {"a/1": more}) for ago, (more, _) in enumerate(traffic)],
        "failed": [(ago, {"a/1": n}) for ago, n in bad.items()],
        "first": [(ago, {"2000/chat": more}) for ago, (more, _) in enumerate(traffic)],
        "late": [(ago, {"2000/chat": n}) for ago, n in bad.items()],
        "jobs": [(ago, {"chat": more}) for ago, (more, _) in enumerate(traffic)],
        "fell": [(ago, {"chat": n}) for ago, n in bad.items()],
    }
    assert told(house(**counts)) == []


def test_what_is_counted_is_bounded() -> None:
    minutes = Minutes()
    for n in range(MOST_FIELDS + 50):
        minutes.add(NOW, f"calls\x1fa\x1f{n}", 1)
    minutes.add(NOW, "calls\x1fa\x1f0", 1)
    assert len(minutes.pending[NOW]) == MOST_FIELDS
    assert minutes.pending[NOW]["calls\x1fa\x1f0"] == 2


def test_old_minutes_keep_only_what_objectives_need() -> None:
    old = KEPT_MINUTES - 1
    minutes = house(calls=[(old, {"a/1": 1}), (0, {"a/1": 1})], first=[(old, {"2000/chat": 1}), (old + 1, {"2000/chat": 1})])
    minutes.forget(NOW)
    kept = minutes.over(NOW - 1000, NOW, "calls", "first")
    assert (sum(kept["calls"].values()), sum(kept["first"].values())) == (1, 1)


def test_what_comes_while_counts_are_shared_is_not_lost() -> None:
    minutes = Minutes()
    minutes.add(NOW, "jobs\x1fchat", 1)
    added = {minute: counts.copy() for minute, counts in minutes.pending.items()}
    minutes.add(NOW, "jobs\x1fchat", 1)
    minutes.taken(added, {NOW: {"jobs\x1fchat": 5}})
    assert minutes.pending == {NOW: {"jobs\x1fchat": 1}}
    assert minutes.over(NOW, NOW, "jobs")["jobs"] == {("chat",): 5}


def test_a_finding_says_its_numbers() -> None:
    [found] = judged(house(calls=[(0, {"a/1": 20})], failed=[(0, {"a/1": 20})]), NOW, RULES)
    facts: Any = {"failed": 20, "calls": 20, "share": 1.0, "minutes": 5}
    message = "Deployment 1 of a failed 20 of 20 calls in 5 minutes: 100%"
    assert found == Finding("provider_errors", "deployment/1", message, severity="critical", facts=facts)
