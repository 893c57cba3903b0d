"""A provider's quota that is short: teams share it by their weights, nothing of it is left lying, and it is never exceeded.

The real script, in a time of its own. Callers behave as the router's do: they wait as long as they are told, if they have the
patience; else interactive is refused, and batch comes back later.
"""

import heapq
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.redis.quota import MINUTE_MS, Wish, take
from schemas.control import Deployment
from schemas.topics import Lane
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis

T = TypeVar("T")
INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH
PATIENCE_MS = {INTERACTIVE: 2_000, BATCH: 4_000}
APART_MS, PUT_OFF_MS = 50, 10_000
START_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Team:
    """Who asks: `per_minute` calls on average, of `tokens` each, from `begins` to `ends` (minutes)."""

    name: str
    per_minute: float
    weight: float = 1.0
    tokens: int = 0
    lane: Lane = INTERACTIVE
    begins: float = 0
    ends: float = 1_000


@dataclass(order=True)
class Caller:
    """A call that asks at `at_ms`; it came at `came_ms`, and was told to wait since, or not."""

    at_ms: int
    order: int
    team: Team = field(compare=False)
    came_ms: int = field(compare=False)
    again: bool = field(compare=False, default=False)


class World:
    """Teams that ask one deployment for some minutes, and the calls that were made."""

    def __init__(self, *teams: Team, minutes: float, rpm: int | None = None, tpm: int | None = None, seed: int = 1) -> None:
        self.minutes = minutes
        self.deployment = Deployment(id="d1", provider="openai", model="real-model", rpm=rpm, tpm=tpm)
        self.clock = FakeClock(START_MS)
        self.redis = LuaRedis(self.clock)
        self.made: list[tuple[int, Team]] = []
        self.asked = 0
        self._chance, self._order = Random(seed), count()
        self._queue = [Caller(at, next(self._order), team, at) for team in teams for at in self._arrivals(team)]
        heapq.heapify(self._queue)
        while self._queue and self._queue[0].at_ms < minutes * MINUTE_MS:
            self._ask(heapq.heappop(self._queue))

    def calls(self, since: float = 1, until: float = 1_000) -> Counter[str]:
        """Calls by team. The first minute's burst is left out."""
        return Counter(team.name for at, team in self.made if since * MINUTE_MS <= at < until * MINUTE_MS)

    def tokens(self, since: float = 1) -> Counter[str]:
        used = Counter[str]()
        for at, team in self.made:
            used[team.name] += team.tokens * (at >= since * MINUTE_MS)
        return used

    def _arrivals(self, team: Team) -> Iterator[int]:
        at = team.begins * MINUTE_MS
        while (at := at + self._chance.expovariate(team.per_minute / MINUTE_MS)) < min(team.ends, self.minutes) * MINUTE_MS:
            yield int(at)

    def _ask(self, caller: Caller) -> None:
        team, self.clock.now_ms = caller.team, START_MS + caller.at_ms
        rest_ms = PATIENCE_MS[team.lane] - (caller.at_ms - caller.came_ms)
        wish = Wish(team.lane, team.name, team.weight, team.tokens, max(0, rest_ms), caller.again)
        wait_ms = at_once(take(self.redis, self.deployment, wish)).wait_ms
        self.asked += 1
        if not wait_ms:
            self.made.append((caller.at_ms, team))
        elif wait_ms <= rest_ms:
            self._later(caller.at_ms + wait_ms + round(self._chance.random() * APART_MS), team, caller.came_ms, again=True)
        elif team.lane is BATCH:
            back_ms = caller.at_ms + max(1_000, wait_ms) + round(self._chance.random() * PUT_OFF_MS)
            self._later(back_ms, team, back_ms)

    def _later(self, at_ms: int, team: Team, came_ms: int, *, again: bool = False) -> None:
        heapq.heappush(self._queue, Caller(at_ms, next(self._order), team, came_ms, again))


def at_once(asking: Coroutine[None, None, T]) -> T:
    """The Redis in this process answers without waiting."""
    try:
        asking.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waited")


def jain(shares: Counter[str]) -> float:
    """Jain's index of fairness: 1 if all are equal."""
    return sum(shares.values()) ** 2 / (len(shares) * sum(n * n for n in shares.values()))


@pytest.mark.parametrize(("rpm", "minutes"), [(30, 20), (60, 15), (300, 5), (1_200, 3)])
def test_weights_of_one_to_three_get_one_to_three(rpm: int, minutes: int) -> None:
    teams = Team("a", rpm * 2.5), Team("b", rpm * 2.5, weight=3)
    calls = World(*teams, rpm=rpm, minutes=minutes).calls()
    assert calls["b"] / calls["a"] == pytest.approx(3, rel=0.05)
    assert calls.total() >= 0.95 * rpm * (minutes - 1)


def test_so_do_tokens_whatever_the_size_of_the_calls() -> None:
    teams = Team("small", 2_500, tokens=100), Team("large", 150, weight=3, tokens=2_000)
    tokens = World(*teams, tpm=100_000, minutes=5).tokens()
    assert tokens["large"] / tokens["small"] == pytest.approx(3, rel=0.05)
    assert tokens.total() >= 0.95 * 400_000


def test_so_do_batches_and_interactive_keeps_nine_tenths() -> None:
    teams = Team("a", 300, lane=BATCH, ends=1), Team("b", 700, weight=3, lane=BATCH, ends=1)
    alone = World(*teams, rpm=150, minutes=5).calls()
    assert alone["b"] / alone["a"] == pytest.approx(3, rel=0.05)
    assert alone.total() >= 0.95 * 150 * 4
    beside = World(*teams, Team("i", 750), rpm=150, minutes=5).calls()
    assert beside["i"] == pytest.approx(0.9 * 150 * 4, rel=0.05)
    assert beside["a"] + beside["b"] >= 0.095 * 150 * 4
    assert beside["b"] / beside["a"] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("number", [2, 5, 20])
def test_equal_teams_are_served_equally_whoever_asks_most(number: int) -> None:
    teams = [Team(f"team-{n}", 300 * 5 / number * (1 + n % 3)) for n in range(number)]
    calls = World(*teams, rpm=300, minutes=4).calls()
    assert len(calls) == number
    assert jain(calls) >= 0.99
    assert calls.total() >= 0.95 * 300 * 3


def test_what_a_team_does_not_use_others_do_and_it_has_its_share_when_it_is_back() -> None:
    """It has gathered no credit meanwhile: the other is served as before from the first moment."""
    teams = Team("steady", 1_500), Team("returns", 1_500, ends=2), Team("returns", 1_500, begins=4)
    world = World(*teams, rpm=300, minutes=6)
    for since, until, steady, returns in ((1, 2, 150, 150), (2.1, 4, 300 * 1.9, 0), (4, 4.25, 37, 37), (4.25, 6, 262, 262)):
        calls = world.calls(since, until)
        assert calls["steady"] == pytest.approx(steady, rel=0.05, abs=3)
        assert calls["returns"] == pytest.approx(returns, rel=0.05, abs=3)


def test_who_needs_little_is_served_while_another_asks_for_all() -> None:
    world = World(Team("greedy", 3_000), Team("modest", 60), rpm=300, minutes=5)
    asked = 60 * 4
    assert world.calls()["modest"] >= 0.9 * asked


def test_a_large_call_gathers_its_tokens_beside_small_ones() -> None:
    world = World(Team("small", 2_500, tokens=100), Team("large", 20, tokens=30_000), tpm=100_000, minutes=10)
    assert world.tokens()["large"] >= 0.3 * 100_000 * 9
    assert world.tokens().total() >= 0.95 * 100_000 * 9


def test_who_asked_and_went_away_holds_nobody_up() -> None:
    teams = [Team(f"gone-{n}", 60, begins=0.5 + n / 100, ends=0.55 + n / 100, weight=5) for n in range(30)]
    world = World(Team("stays", 600), *teams, rpm=120, minutes=4)
    assert world.calls(1.2)["stays"] >= 0.95 * 120 * 2.8


def test_teams_that_have_not_asked_for_a_minute_are_forgotten() -> None:
    world = World(*(Team(f"team-{n}", 60, weight=1 + n % 3) for n in range(40)), rpm=60, minutes=2)
    keys = [f"quota:d1:waiting:interactive:team-{n}".encode() for n in range(40)]
    assert any(world.redis.keys.exists(key) for key in keys)
    world.clock.move(MINUTE_MS * 2 + 12_000)
    names = (*keys, b"quota:d1:waiting:interactive", b"quota:d1:minute")
    assert not any(world.redis.keys.exists(key) for key in names)


TEAMS = st.lists(
    st.tuples(st.floats(1, 5), st.sampled_from((0.5, 1, 2, 4)), st.sampled_from((INTERACTIVE, INTERACTIVE, BATCH))),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=8)
@given(st.integers(60, 200), TEAMS, st.integers(0, 9))
def test_never_more_than_the_quota_and_all_of_it_while_it_is_short(
    rpm: int, asked: list[tuple[float, float, Lane]], seed: int
) -> None:
    minutes = 2
    teams = [Team(f"{lane}-{n}", rpm * load, weight, 0, lane) for n, (load, weight, lane) in enumerate(asked)]
    world = World(*teams, rpm=rpm, minutes=minutes, seed=seed)
    for n, (at_ms, _) in enumerate(world.made, 1):
        assert n <= rpm + rpm * at_ms / MINUTE_MS + 1e-3, "a burst, and what came since"
    calls = world.calls()
    interactive = {team.name: calls[team.name] / team.weight for team in teams if team.lane is INTERACTIVE}
    if sum(load for load, _, lane in asked if lane is INTERACTIVE) > 1.5 or not interactive:
        assert calls.total() >= 0.95 * rpm * (minutes - 1) - 3
    # Each of them alone asks for more than all of its share.
    if interactive and min(load for load, _, lane in asked if lane is INTERACTIVE) >= 1.5:
        assert max(interactive.values()) <= 1.1 * min(interactive.values()) + 8
