"""A limit that nobody sets: against providers that bear so many calls at once, in a time of their own."""

import heapq
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from services.router.adaptive import FORGET_MS, SAMPLES, Limit

CALL_MS = 1_000.0


@dataclass
class Provider:
    """Bears `capacity` calls at once: with more, each takes longer, or is refused where it is `strict`.

    `spread`: of what calls take (the sigma of a lognormal); 0.8 is 1 of 20 calls taking four times the median.
    """

    capacity: int
    spread: float = 0.0
    strict: bool = False
    limit: Limit = field(default_factory=Limit)
    chance: random.Random = field(default_factory=lambda: random.Random(3))
    now_ms: float = 0
    busy: int = 0
    served: int = 0
    refused: int = 0
    slowest_ms: float = 0
    _ends: list[tuple[float, int, float, bool]] = field(default_factory=list[tuple[float, int, float, bool]])
    _n: int = 0

    def asked(self, clients: int, seconds: float, stream: bool = True) -> list[int | None]:
        """So many clients ask without a pause, as far as the limit lets them; the limit, each half second."""
        seen: list[int | None] = []
        ends_ms = look_ms = self.now_ms
        ends_ms += seconds * 1000
        while self.now_ms < ends_ms:
            while self.busy < min(clients, self.limit.calls(int(self.now_ms)) or clients):
                self._begin()
            at_ms, _, began_ms, overloaded = heapq.heappop(self._ends)
            self.now_ms = at_ms
            took_ms = None if overloaded else at_ms - began_ms
            first_ms, each_ms = (took_ms, None) if stream else (None, took_ms)
            self.limit.ended(int(began_ms), int(at_ms), self.busy, first_ms=first_ms, each_ms=each_ms, overloaded=overloaded)
            self.busy -= 1
            self.served, self.refused = self.served + (not overloaded), self.refused + overloaded
            while look_ms < at_ms:
                look_ms += 500
                seen.append(self.limit.calls(int(at_ms)))
        return seen

    def _begin(self) -> None:
        self.busy, self._n = self.busy + 1, self._n + 1
        overloaded = self.strict and self.busy > self.capacity
        noise = math.exp(self.chance.gauss(0, self.spread)) if self.spread else 1.0
        took_ms = 50.0 if overloaded else max(CALL_MS * max(1, self.busy / self.capacity) * noise, self.slowest_ms)
        self.slowest_ms = 0
        heapq.heappush(self._ends, (self.now_ms + took_ms, self._n, self.now_ms, overloaded))


def late(seen: list[int | None]) -> Iterator[int]:
    """What the limit was in the last half of the time."""
    for limit in seen[len(seen) // 2 :]:
        assert limit is not None
        yield limit


SPREADS = (0.0, 0.4, 0.8)


@pytest.mark.parametrize(
    ("capacity", "spread", "within"), [(8, 0.0, 2), (8, 0.4, 2), (50, 0.0, 2), (50, 0.4, 2), (50, 0.8, 2), (8, 0.8, 4)]
)
def test_a_provider_that_gets_slow_is_asked_for_about_what_it_bears(capacity: int, spread: float, within: int) -> None:
    """Where few calls say little, since each takes what it likes, only roughly so."""
    provider = Provider(capacity, spread)
    provider.asked(capacity // 2, 60)
    found = sorted(late(provider.asked(10 * capacity, 200)))
    assert capacity / 2 <= found[len(found) // 2] <= within * capacity


@pytest.mark.parametrize("spread", SPREADS)
def test_when_it_is_fast_again_nobody_waits_any_more(spread: float) -> None:
    provider = Provider(50, spread)
    provider.asked(25, 60)
    provider.asked(400, 150)
    provider.capacity = 500
    seen = provider.asked(400, 120)
    assert all(limit is None or limit >= 400 for limit in seen[len(seen) // 2 :])


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("clients", [1, 3, 12, 60])
def test_a_provider_that_is_well_is_not_asked_for_less(clients: int, spread: float) -> None:
    """Noise may be taken for a slow provider, but seldom, and not for long."""
    throttled = looks = 0
    for seed in range(12):
        provider = Provider(1_000, spread, chance=random.Random(seed))
        seen = provider.asked(clients, 120, stream=seed % 2 == 0)
        throttled += sum(limit is not None and limit < clients for limit in seen)
        looks += len(seen)
    assert throttled <= 0.01 * looks


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_where_calls_beyond_a_number_are_refused_the_limit_stays_near_it(spread: float) -> None:
    provider = Provider(50, spread, strict=True)
    provider.asked(200, 5)
    provider.served = provider.refused = 0
    seen = provider.asked(200, 120)
    assert all(25 <= limit <= 75 for limit in late(seen))
    assert provider.refused < provider.served / 8
    assert provider.served > 0.7 * 50 * 120


def test_a_few_refusals_of_many_calls_are_nothing() -> None:
    limit = Limit()
    for n in range(50 * SAMPLES):
        limit.ended(n * 10, n * 10 + 5, 40, first_ms=None if n % 50 == 0 else 5.0, each_ms=None, overloaded=n % 50 == 0)
    assert limit.calls(0) is None


@pytest.mark.parametrize("slowest_ms", [30_000.0, 300_000.0])
def test_one_slow_answer_changes_nothing(slowest_ms: float) -> None:
    provider = Provider(1_000)
    provider.asked(20, 30)
    provider.slowest_ms = slowest_ms
    assert set(provider.asked(20, 60)) == {None}


def test_answers_that_are_asked_for_more_are_no_slow_provider() -> None:
    """All calls take four times as long, however many there are: after a trial nobody is kept waiting."""
    provider = Provider(1_000)
    provider.asked(100, 30)
    provider.chance.gauss = lambda _, __: math.log(4)  # pyright: ignore[reportAttributeAccessIssue]
    provider.spread = 1.0
    times = provider.asked(100, 120)
    assert any(limit is not None for limit in times), "a trial"
    assert all(limit is None or limit >= 100 for limit in times[len(times) // 2 :])


def test_one_call_is_left_where_all_are_refused() -> None:
    provider = Provider(0, strict=True)
    provider.asked(100, 60)
    assert provider.limit.calls(int(provider.now_ms)) == 1


def calls(limit: Limit, number: int, now_ms: int, overloaded: Callable[[int], bool], busy: int = 10) -> None:
    for n in range(number):
        limit.ended(now_ms, now_ms + 100, busy, first_ms=None if overloaded(n) else 100, each_ms=None, overloaded=overloaded(n))


def test_it_falls_by_the_share_that_is_refused_once_a_round_trip_and_half_at_most() -> None:
    for share, expected in ((1.0, 50), (0.3, 70), (0.2, 80)):
        limit = Limit()
        # What was begun before the round does not count in it: all of these are one round trip.
        calls(limit, 300, 0, lambda n, share=share: n % 10 < share * 10, busy=100)
        assert limit.calls(100) == expected


def test_a_limit_that_nobody_has_needed_for_a_minute_is_forgotten() -> None:
    limit = Limit()
    calls(limit, SAMPLES, 0, lambda _: True)
    assert limit.calls(100) == 5
    assert limit.calls(FORGET_MS) == 5
    assert limit.calls(FORGET_MS + 101) is None


def test_calls_that_say_nothing_are_none() -> None:
    limit = Limit()
    for n in range(1_000):
        limit.ended(n, n + 1, 5, first_ms=None, each_ms=None, overloaded=False)
    assert limit.calls(1_000) is None
