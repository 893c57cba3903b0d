"""While Redis is away: what a process lets through by itself, and how much of it."""

import logging

import pytest

from infra.redis.admission import DAY_MS, Admitted, Allowance, Charge, Limits, OverBudget, OverRate, Rate
from infra.telemetry.metrics import REGISTRY
from services.ingress import degraded
from services.ingress.degraded import SHARE, Degraded
from tests.fakes.clock import FakeClock

MONTH = Allowance("spend:team/fraud:2026-11", 1_000, None, 0)
TOKENS = Allowance("spend:key/key_1:total", None, 100, 0)
RATE = Rate("team/fraud", 60)


def charge(*allowances: Allowance, rates: tuple[Rate, ...] = (), usd_nano: int = 0, tokens: int = 0) -> Charge:
    return Charge(Limits(rates=rates, allowances=allowances), tokens=tokens, usd_nano=usd_nano)


def lost() -> Degraded:
    """A Redis that has just gone away."""
    return Degraded(FakeClock())


def let_through(gate: Degraded, asked: Charge, times: int) -> int:
    return sum(isinstance(gate.admit(asked), Admitted) for _ in range(times))


def test_who_has_no_limit_passes() -> None:
    assert let_through(lost(), charge(), 100) == 100


def test_rates_count_in_full() -> None:
    clock = FakeClock()
    gate = Degraded(clock)
    assert let_through(gate, charge(rates=(RATE,)), 100) == 60
    refused = gate.admit(charge(rates=(RATE,)))
    assert isinstance(refused, OverRate)
    assert (refused.standing.rate, refused.standing.remaining) == (RATE, 0)
    clock.move(refused.wait_ms)
    assert isinstance(gate.admit(charge(rates=(RATE,))), Admitted), "what it says about coming again is true"


def test_tokens_are_rated_too() -> None:
    rate = Rate("team/fraud", 1_000, "tokens", DAY_MS)
    assert let_through(lost(), charge(rates=(rate,), tokens=300), 9) == 3


def test_of_a_budget_a_twentieth_may_be_spent() -> None:
    gate = lost()
    assert let_through(gate, charge(MONTH, usd_nano=10), 100) == 1_000 // SHARE // 10
    refused = gate.admit(charge(MONTH, usd_nano=10))
    assert refused == OverBudget(MONTH, "usd", 50, 0)
    assert isinstance(gate.admit(charge(MONTH, usd_nano=0)), Admitted)


def test_of_tokens_as_well() -> None:
    assert let_through(lost(), charge(TOKENS, tokens=2), 100) == 100 // SHARE // 2


def test_all_levels_or_none() -> None:
    gate = lost()
    assert isinstance(gate.admit(charge(MONTH, TOKENS, rates=(RATE,), usd_nano=10, tokens=6)), OverBudget)
    assert let_through(gate, charge(rates=(RATE,)), 100) == 60, "who is refused by one limit is charged at none"
    assert let_through(gate, charge(MONTH, usd_nano=50), 2) == 1


def test_nothing_of_a_budget_that_was_last_seen_exhausted() -> None:
    gate = lost()
    gate.heard(OverBudget(MONTH, "usd", 1_000, 0), charge(MONTH))
    assert let_through(gate, charge(MONTH, usd_nano=0), 3) == 0
    assert let_through(gate, charge(TOKENS, tokens=1), 1) == 1, "others are not concerned"


def test_a_budget_that_has_room_again_is_not_exhausted_any_more() -> None:
    gate = lost()
    gate.heard(OverBudget(MONTH, "usd", 500, 490), charge(MONTH))
    gate.heard(Admitted(), charge(TOKENS))
    assert let_through(gate, charge(MONTH, usd_nano=1), 1) == 0
    gate.heard(Admitted(), charge(MONTH))
    assert let_through(gate, charge(MONTH, usd_nano=1), 1) == 1


def test_every_outage_begins_anew() -> None:
    gate = lost()
    asked = charge(MONTH, rates=(RATE,), usd_nano=50)
    assert let_through(gate, asked, 5) == 1
    gate.heard(Admitted(), asked)
    assert let_through(gate, asked, 5) == 1


def test_it_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    def degraded_now() -> float | None:
        return REGISTRY.get_sample_value("sluice_limits_degraded")

    caplog.set_level(logging.WARNING)
    gate = lost()
    let_through(gate, charge(), 3)
    assert degraded_now() == 1
    gate.heard(Admitted(), charge())
    gate.heard(Admitted(), charge())
    assert degraded_now() == 0
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Redis is away", "Redis is back after 0.0 s"]


def test_memory_is_bounded_and_what_is_known_counts_on() -> None:
    gate, most = lost(), degraded._MOST  # pyright: ignore[reportPrivateUsage]
    for n in range(most):
        gate.admit(charge(Allowance(f"spend:user/{n}:total", 1_000, None, 0), rates=(Rate(f"user/{n}", 9),)))
    first = Allowance("spend:user/0:total", 1_000, None, 0)
    assert let_through(gate, charge(first, usd_nano=10), 100) == 5
    assert isinstance(gate.admit(charge(Allowance("spend:user/new:total", 1_000, None, 0))), OverBudget)
    gate.admit(charge(rates=(Rate("user/new", 9),)))
    assert len(gate._arrivals) == most  # pyright: ignore[reportPrivateUsage]
