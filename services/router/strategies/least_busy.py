"""The deployment with the fewest calls at work in this process; among equals by weight."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted


@dataclass(frozen=True, slots=True)
class LeastBusy:
    """`busy` gives how many calls of a deployment are at work."""

    busy: Callable[[Deployment], int]

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        calls = [self.busy(d) for d in deployments]
        fewest = min(calls)
        return Weighted().choose([d for d, n in zip(deployments, calls, strict=True) if n == fewest], chance)
