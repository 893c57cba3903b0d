"""The deployment that has lately been fastest: by the first token where the answer is streamed, else by the time a token takes.

Those nearly as fast as the fastest share the load by weight. Who has not been measured lately is tried first, by one call at a
time: it may be slow, and must not get all that comes until that is known.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.clock import Clock
from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted

NEARLY = 1.1
"""As fast as the fastest is who takes no more than so many times as long."""
SAMPLES = 10
FORGET_MS = 600_000
"""A measurement counts so long: whoever was slow is looked at again."""


class Latencies:
    """The last measurements of each deployment, in milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: dict[str, deque[tuple[int, float]]] = {}

    def add(self, deployment: Deployment, ms: float) -> None:
        self._samples.setdefault(deployment.id, deque(maxlen=SAMPLES)).append((self._clock(), ms))

    def mean_ms(self, deployment: Deployment) -> float | None:
        """The mean of the last few; None if there is none of the last minutes."""
        samples, now_ms = self._samples.get(deployment.id, ()), self._clock()
        fresh = [ms for at_ms, ms in samples if now_ms - at_ms < FORGET_MS]
        return sum(fresh) / len(fresh) if fresh else None


@dataclass(frozen=True, slots=True)
class Fastest:
    """`mean_ms` gives how long a deployment takes, `busy` how many calls of it are at work."""

    mean_ms: Callable[[Deployment], float | None]
    busy: Callable[[Deployment], int]

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        known = {d.id: ms for d in deployments if (ms := self.mean_ms(d)) is not None}
        untried = [d for d in deployments if d.id not in known and not self.busy(d)]
        most_ms = min(known.values(), default=0.0) * NEARLY
        near = [d for d in deployments if d.id in known and known[d.id] <= most_ms]
        return Weighted().choose(untried or near or deployments, chance)
