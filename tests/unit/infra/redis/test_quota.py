"""A provider's quota of calls and tokens, by its own script: interactive's reserve, batch's tenth, never more than it is."""

from collections import Counter
from collections.abc import Coroutine
from typing import TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.redis.quota import MINUTE_MS, Taken, Wish, correct, take
from schemas.control import Deployment
from schemas.topics import Lane
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis

T = TypeVar("T")
INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH


def at_once(asking: Coroutine[None, None, T]) -> T:
    """The Redis in this process answers without waiting: no loop is needed, which would take most of the time."""
    try:
        asking.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waited")


class Bench:
    """A quota at a time that the test chooses."""

    def __init__(self, rpm: int | None = None, tpm: int | None = None) -> None:
        self.clock = FakeClock()
        self.deployment = Deployment(id="d1", provider="openai", model="real-model", rpm=rpm, tpm=tpm)
        self._redis = LuaRedis(self.clock)

    def ask(self, lane: Lane, tokens: int = 0, team: str = "team") -> Taken:
        return at_once(take(self._redis, self.deployment, Wish(lane, team, tokens=tokens)))

    def correct(self, lane: Lane, charged: int, took: int) -> None:
        at_once(correct(self._redis, self.deployment, Wish(lane, "team", tokens=charged), took))

    def drain(self, lane: Lane, tokens: int = 0) -> int:
        """How many calls of this lane may be made now."""
        made = 0
        while not self.ask(lane, tokens).wait_ms:
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


# Tokens


def test_tokens_have_the_same_shares_as_calls() -> None:
    bench = Bench(tpm=60_000)
    assert bench.drain(BATCH, 1_000) == 45
    assert bench.drain(INTERACTIVE, 1_000) == 15
    assert Bench(tpm=60_000).drain(INTERACTIVE, 1_000) == 54


@pytest.mark.parametrize(("rpm", "tpm", "made"), [(20, 60_000, 18), (600, 60_000, 54)])
def test_a_call_is_charged_to_both_or_to_neither(rpm: int, tpm: int, made: int) -> None:
    bench = Bench(rpm, tpm)
    assert bench.drain(INTERACTIVE, 1_000) == made
    before = bench.ask(INTERACTIVE, 1_000)
    assert before.full_ms == max(made * MINUTE_MS // rpm, made * MINUTE_MS // 60)
    for _ in range(10):
        assert bench.ask(INTERACTIVE, 1_000) == before, "what is refused costs nothing"


def test_what_is_larger_than_the_minute_passes_when_nothing_is_in_use() -> None:
    for lane in Lane:
        bench = Bench(tpm=60_000)
        assert bench.ask(INTERACTIVE, 1_000).wait_ms == 0
        wait_ms = bench.ask(lane, 300_000).wait_ms
        assert 0 < wait_ms <= 1_112
        bench.clock.move(wait_ms)
        assert bench.ask(lane, 300_000) == Taken(0, 5 * MINUTE_MS)
        assert bench.ask(INTERACTIVE, 1_000).wait_ms > 4 * MINUTE_MS, "and then all wait until it is paid"
        bench.clock.move(6 * MINUTE_MS)
        assert bench.ask(lane, 300_000).wait_ms == 0


def test_what_a_call_did_not_take_is_given_back_and_what_it_took_beyond_is_charged() -> None:
    bench = Bench(tpm=60_000)
    assert bench.ask(INTERACTIVE, 10_000) == Taken(0, 10_000)
    bench.correct(INTERACTIVE, 10_000, 1_000)
    assert bench.ask(INTERACTIVE, 1_000) == Taken(0, 2_000)
    bench.correct(INTERACTIVE, 1_000, 5_000)
    assert bench.ask(INTERACTIVE, 1_000) == Taken(0, 7_000)
    bench.clock.move(2 * MINUTE_MS)
    bench.correct(INTERACTIVE, 60_000, 0)
    assert bench.ask(INTERACTIVE, 1_000) == Taken(0, 1_000), "no more than a minute is ever there"


def test_batch_is_given_its_tenth_back_too() -> None:
    bench = Bench(tpm=60_000)
    assert bench.ask(BATCH, 6_000).wait_ms == 0
    bench.correct(BATCH, 6_000, 0)
    assert bench.drain(INTERACTIVE, 1_000) == 54
    assert bench.drain(BATCH, 1_000) == 6


def test_batch_gathers_what_is_more_than_its_tenth_while_interactive_takes_all_it_can() -> None:
    bench, made = Bench(tpm=60_000), Counter[Lane]()
    bench.drain(INTERACTIVE, 500)
    for _ in range(30 * 60):
        bench.clock.move(1_000)
        made[INTERACTIVE] += 500 * bench.drain(INTERACTIVE, 500)
        made[BATCH] += 20_000 * (not bench.ask(BATCH, 20_000).wait_ms)
    assert made[BATCH] >= 0.1 * 60_000 * 30 - 20_000
    assert made[INTERACTIVE] >= 0.85 * 60_000 * 30


TOKENS = st.lists(
    st.tuples(st.integers(0, 3_000), st.sampled_from(Lane), st.sampled_from("abc"), st.integers(0, 4_000), st.integers(1, 10)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=40)
@given(st.integers(4_000, 60_000), st.integers(1, 120), TOKENS)
def test_never_more_tokens_than_a_burst_and_what_came_since(
    tpm: int, rpm: int, steps: list[tuple[int, Lane, str, int, int]]
) -> None:
    bench, calls, tokens, elapsed = Bench(rpm, tpm), 0, 0, 0
    for pause_ms, lane, team, size, asked in steps:
        bench.clock.move(pause_ms)
        elapsed += pause_ms
        made = sum(not bench.ask(lane, size, team).wait_ms for _ in range(asked))
        calls, tokens = calls + made, tokens + made * size
        assert calls <= rpm + rpm * elapsed / MINUTE_MS + 1e-3
        assert tokens <= tpm + tpm * elapsed / MINUTE_MS + 1
