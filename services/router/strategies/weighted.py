"""By chance, in proportion to the weights: stateless, so that any number of routers agree without speaking to each other."""

from collections.abc import Sequence

from schemas.control import Deployment
from services.router.strategies.base import Chance


class Weighted:
    """Takes a deployment with weight 3 three times as often as one with weight 1."""

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        if len(deployments) == 1:
            return deployments[0]
        return by_share(deployments, [d.weight for d in deployments], chance)


def by_share(deployments: Sequence[Deployment], shares: Sequence[float], chance: Chance) -> Deployment:
    """One of them, each as often as its share says."""
    left = chance() * sum(shares)
    for deployment, share in zip(deployments, shares, strict=True):
        left -= share
        if left < 0:
            return deployment
    return deployments[-1]
