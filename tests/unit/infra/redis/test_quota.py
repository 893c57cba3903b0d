"""A provider's quota of requests per minute, by its own script: interactive's reserve, batch's tenth, never more than it is."""

from collections import Counter
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.redis.quota import MINUTE_MS, Taken, take
from schemas.topics import Lane
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis

INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH


class Bench:
    """A quota at a time that the test chooses."""

    def __init__(self, rpm: int) -> None:
        self.clock = FakeClock()
        self.rpm = rpm
        self._redis = LuaRedis(self.clock)

    def ask(self, lane: Lane) -> Taken:
        asking = take(self._redis, "d1", self.rpm, lane)
        try:
            asking.send(None)
        except StopIteration as done:
            # The Redis in this process answers without waiting: no loop is needed, which would take most of the time.
            return cast("Taken", done.value)
        raise AssertionError("it waited")

    def drain(self, lane: Lane) -> int:
        """How many calls of this lane may be made now."""
        made = 0
        while not self.ask(lane).wait_ms:
            made += 1
        return made


SHARES = [(1, 1, 0, 1), (2, 1, 1, 1), (4, 3, 1, 3), (10, 7, 3, 9), (60, 45, 15, 54), (600, 450, 150, 540)]


@pytest.mark.parametrize(("rpm", "batch", "reserve", "interactive"), SHARES)
def test_each_lane_leaves_the_other_its_share(rpm: int, batch: int, reserve: int, interactive: int) -> None:
    bench = Bench(rpm)
    assert bench.drain(BATCH) == batch
    assert bench.drain(INTERACTIVE) == reserve
    assert Bench(rpm).drain(INTERACTIVE) == interactive


def test_after_interactive_batch_finds_its_tenth() -> None:
    bench = Bench(60)
    assert bench.drain(INTERACTIVE) == 54
    assert bench.drain(BATCH) == 6
    assert bench.drain(INTERACTIVE) == 0


def test_who_must_wait_is_told_how_long() -> None:
    for lane in Lane:
        bench = Bench(60)
        bench.drain(INTERACTIVE)
        bench.drain(BATCH)
        wait_ms = bench.ask(lane).wait_ms
        assert wait_ms
        bench.clock.move(wait_ms - 2)
        assert bench.ask(lane).wait_ms
        bench.clock.move(2)
        assert bench.ask(lane).wait_ms == 0


def test_an_idle_minute_makes_it_full_again() -> None:
    bench = Bench(60)
    assert bench.ask(BATCH) == Taken(0, 1_000)
    bench.drain(INTERACTIVE)
    bench.clock.move(10 * MINUTE_MS)
    assert bench.drain(INTERACTIVE) == 54


STEPS = st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from(Lane), st.integers(1, 30)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 120), STEPS)
def test_never_more_than_a_burst_and_what_came_since(rpm: int, steps: list[tuple[int, Lane, int]]) -> None:
    bench, made, elapsed = Bench(rpm), 0, 0
    for pause_ms, lane, asked in steps:
        bench.clock.move(pause_ms)
        elapsed += pause_ms
        made += sum(not bench.ask(lane).wait_ms for _ in range(asked))
        assert made <= rpm + rpm * elapsed / MINUTE_MS + 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(10, 200), st.sampled_from(Lane))
def test_under_a_flood_of_both_each_lane_has_its_share_of_the_minutes(rpm: int, first: Lane) -> None:
    """Interactive first: batch has its tenth, and not more than what interactive leaves."""
    bench, made = Bench(rpm), Counter[Lane]()
    order = (first, *(lane for lane in Lane if lane is not first))
    for _ in range(100):
        for lane in order:
            made[lane] += bench.drain(lane)
        bench.clock.move(MINUTE_MS // 20)
    in_all = rpm + rpm * 5
    assert sum(made.values()) == pytest.approx(in_all, abs=0.03 * in_all + 3)
    assert made[BATCH] >= 0.1 * rpm * 5 - 2
    assert made[INTERACTIVE] >= 0.8 * rpm * 5 - 2, "what batch had beyond its tenth was its burst at the beginning"


@settings(deadline=None, max_examples=10)
@given(st.integers(20, 200))
def test_while_batch_saturates_interactive_never_waits_for_a_burst_within_its_reserve(rpm: int) -> None:
    bench = Bench(rpm)
    for _ in range(60):
        bench.drain(BATCH)
        bench.clock.move(2_000)
    bench.drain(BATCH)
    bench.clock.move(30_000)
    bench.drain(BATCH)
    assert bench.drain(INTERACTIVE) >= rpm // 4 - 2
