"""The deployment that has lately been fastest: by the first token where the answer is streamed, else by the time a token takes.

What a deployment costs is its time, times the calls of it that are at work here and one more, as in Finagle's and linkerd's "Peak
EWMA" balancer (com.twitter.finagle.loadbalancer.PeakEwma): who gets slow is left before its first slow call has ended, since
calls pile up there. Deployments are taken by chance, in proportion to weight and to the inverse square of that cost, not the
cheapest always: so routers that have learnt the same don't all turn to the same one, and who is slower is still looked at.

A slower answer is believed at once and a faster one bit by bit. Other than in Finagle one answer at most doubles or halves what
is believed, because answers of models differ far more than those of most servers. What was measured fades while nobody asks, so
that whoever was slow is tried again; and who has not been measured lately is tried first, by one call at a time: it may be slow,
and must not get all that comes until that is known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.clock import Clock
from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted, by_share

SMOOTH_MS = 10_000
"""A faster answer counts by how long ago the last one was: fully after some times this long."""
FADE_MS = 60_000
"""What was measured is believed to be less by a factor of e each time that nobody has asked for so long."""
FORGET_MS = 600_000
"""And after so long it isn't believed any more."""
_MOST_CHANGE = 2.0
_LEAST_MS = 0.001


class Latencies:
    """About how long each deployment takes now, in milliseconds. Nothing counts as slower than `slowest_ms`: so slow is left."""

    def __init__(self, clock: Clock, slowest_ms: float) -> None:
        self._clock = clock
        self._slowest_ms = slowest_ms
        self._known: dict[str, tuple[float, int]] = {}

    def add(self, deployment: Deployment, ms: float) -> None:
        """A call took so long."""
        before, age_ms = self._faded(deployment.id)
        if before is None:
            self._set(deployment, ms)
        elif ms >= before:
            self._set(deployment, min(ms, before * _MOST_CHANGE))
        else:
            left = math.exp(-age_ms / SMOOTH_MS)
            self._set(deployment, max(ms + (before - ms) * left, before / _MOST_CHANGE))

    def add_at_least(self, deployment: Deployment, ms: float) -> None:
        """A call was given up after so long: it says nothing where others take longer."""
        before, _ = self._faded(deployment.id)
        if before is not None and ms > before:
            self.add(deployment, ms)

    def add_failure(self, deployment: Deployment, ms: float) -> None:
        """A call failed, or hung, for so long: it is as if it had been slow, however soon it failed."""
        before, _ = self._faded(deployment.id)
        self._set(deployment, self._slowest_ms if before is None else max(ms, before * _MOST_CHANGE))

    def ms(self, deployment: Deployment) -> float | None:
        """None if there was no call in the last minutes."""
        return self._faded(deployment.id)[0]

    def _set(self, deployment: Deployment, ms: float) -> None:
        self._known[deployment.id] = min(ms, self._slowest_ms), self._clock()

    def _faded(self, deployment: str) -> tuple[float | None, int]:
        """What is believed now, and how old it is."""
        known = self._known.get(deployment)
        if known is None:
            return None, 0
        ms, at_ms = known
        age_ms = max(0, self._clock() - at_ms)
        return (ms * math.exp(-age_ms / FADE_MS), age_ms) if age_ms < FORGET_MS else (None, age_ms)


@dataclass(frozen=True, slots=True)
class Fastest:
    """`ms` gives how long a deployment takes, `busy` how many calls of it are at work here."""

    ms: Callable[[Deployment], float | None]
    busy: Callable[[Deployment], int]

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        if len(deployments) == 1:
            return deployments[0]
        times = [self.ms(d) for d in deployments]
        if None in times:
            unknown = [d for d, ms in zip(deployments, times, strict=True) if ms is None]
            if idle := [d for d in unknown if not self.busy(d)]:
                return Weighted().choose(idle, chance)
            if len(unknown) == len(deployments):
                return Weighted().choose(deployments, chance)
        return by_share(deployments, [self._share(d, ms) for d, ms in zip(deployments, times, strict=True)], chance)

    def _share(self, deployment: Deployment, ms: float | None) -> float:
        if ms is None:
            # Somebody is trying it.
            return 0.0
        cost = max(ms, _LEAST_MS) * (1 + self.busy(deployment))
        return deployment.weight / (cost * cost)
