"""What 19 of 20 calls of a deployment take, by the last few hundred: beyond that a call is slow."""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

from schemas.control import Deployment

LAST = 256
LEAST = 20
"""Nothing is said of fewer calls: one of them would decide."""


@dataclass(slots=True)
class _Window:
    """The last calls, as they came and in order."""

    lately: deque[float] = field(default_factory=deque[float])
    ordered: list[float] = field(default_factory=list[float])

    def add(self, ms: float) -> None:
        if len(self.lately) == LAST:
            del self.ordered[bisect_left(self.ordered, self.lately.popleft())]
        self.lately.append(ms)
        insort(self.ordered, ms)


class Durations:
    """Of each deployment, in milliseconds."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def add(self, deployment: Deployment, ms: float) -> None:
        """A call took so long."""
        self._windows.setdefault(deployment.id, _Window()).add(ms)

    def add_at_least(self, deployment: Deployment, ms: float) -> None:
        """A call was given up after so long, such as the slower of two. Without those the slow ones would go unseen; but one
        that was given up soon says nothing."""
        p95_ms = self.p95_ms(deployment)
        if p95_ms is not None and ms >= p95_ms:
            self.add(deployment, ms)

    def p95_ms(self, deployment: Deployment) -> float | None:
        """The 95th percentile; None of too few calls."""
        window = self._windows.get(deployment.id)
        if window is None or len(window.ordered) < LEAST:
            return None
        return window.ordered[(95 * len(window.ordered) + 99) // 100 - 1]
