"""Reserved capacity first, by weight; what is paid by use only for what is beyond it.

Who has no place or no quota left is not among those to choose from, so reserved capacity is spent before anything is paid.
"""

from collections.abc import Sequence

from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted


class ReservedFirst:
    """What is reserved is paid for whether it is used or not."""

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        return Weighted().choose([d for d in deployments if d.reserved] or deployments, chance)
