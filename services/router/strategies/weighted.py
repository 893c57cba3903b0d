"""By chance, in proportion to the weights: stateless, so that any number of routers agree without speaking to each other."""

from collections.abc import Collection, Sequence

from schemas.control import Deployment
from services.router.strategies.base import Chance


class Weighted:
    """Takes a deployment with weight 3 three times as often as one with weight 1."""

    def choose(
        self, deployments: Sequence[Deployment], tried: Collection[str], cooling: Collection[str], chance: Chance
    ) -> Deployment:
        """One of the best there are: neither tried nor cooling, else not tried, else any."""
        untried = [d for d in deployments if d.id not in tried] or list(deployments)
        best = [d for d in untried if d.id not in cooling] or untried
        if len(best) == 1:
            return best[0]
        left = chance() * sum(d.weight for d in best)
        for deployment in best:
            left -= deployment.weight
            if left < 0:
                return deployment
        return best[-1]
