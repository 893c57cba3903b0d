"""What a strategy is."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from schemas.control import Deployment

Chance = Callable[[], float]
"""Gives a number from 0 up to, not including, 1."""


class Strategy(Protocol):
    """Chooses among the deployments of a model. Pure: chance comes in as an argument."""

    def choose(
        self, deployments: Sequence[Deployment], tried: Collection[str], cooling: Collection[str], chance: Chance
    ) -> Deployment:
        """One of `deployments`, which is not empty. Those `tried` in vain for this job come last, those `cooling` before them."""
        ...
