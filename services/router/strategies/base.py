"""What a strategy is."""

from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.control import Deployment

Chance = Callable[[], float]
"""Gives a number from 0 up to, not including, 1."""


class Strategy(Protocol):
    """Chooses among the deployments of a model that may be asked now. Chance comes in as an argument, all else by callables."""

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        """One of `deployments`, which is not empty."""
        ...
