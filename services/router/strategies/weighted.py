"""By chance, in proportion to the weights: stateless, so that any number of routers agree without speaking to each other."""

from collections.abc import Sequence

from schemas.control import Deployment
from services.router.strategies.base import Chance


class Weighted:
    """Takes a deployment with weight 3 three times as often as one with weight 1."""

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        if len(deployments) == 1:
            return deployments[0]
        left = chance() * sum(d.weight for d in deployments)
        for deployment in deployments:
            left -= deployment.weight
            if left < 0:
                return deployment
        return deployments[-1]
