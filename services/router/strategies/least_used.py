"""The deployment of whose requests and tokens a minute the smallest share is in use; then the one with the fewest tokens.

Each process counts what it has sent itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.clock import Clock
from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted

_MINUTE_MS = 60_000


@dataclass(slots=True)
class _Minute:
    """Calls and tokens of about the last minute: what is older fades, so that nothing has to be remembered one by one."""

    calls: float = 0.0
    tokens: float = 0.0
    at_ms: int = 0

    def fade(self, now_ms: int) -> None:
        left = math.exp(min(0, self.at_ms - now_ms) / _MINUTE_MS)
        self.calls, self.tokens, self.at_ms = self.calls * left, self.tokens * left, now_ms


class Used:
    """What this process has used of each deployment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minutes: dict[str, _Minute] = {}

    def add(self, deployment: Deployment, *, calls: int = 0, tokens: int = 0) -> None:
        """A call has begun, or its tokens are known."""
        minute = self._minutes.setdefault(deployment.id, _Minute())
        minute.fade(self._clock())
        minute.calls += calls
        minute.tokens += tokens

    def share(self, deployment: Deployment) -> tuple[float, float]:
        """The share of its quota that is in use (0: it has none), and the tokens of the last minute."""
        minute = self._minutes.get(deployment.id)
        if minute is None:
            return 0.0, 0.0
        minute.fade(self._clock())
        of_calls = minute.calls / deployment.rpm if deployment.rpm else 0.0
        of_tokens = minute.tokens / deployment.tpm if deployment.tpm else 0.0
        return max(of_calls, of_tokens), minute.tokens


@dataclass(frozen=True, slots=True)
class LeastUsed:
    """`share` gives what a deployment is compared by; the smallest is taken, among equals one by weight."""

    share: Callable[[Deployment], tuple[float, float]]

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        shares = [self.share(d) for d in deployments]
        least = min(shares)
        return Weighted().choose([d for d, share in zip(deployments, shares, strict=True) if share == least], chance)
