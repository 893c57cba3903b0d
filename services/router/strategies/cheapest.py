"""The deployment that costs least; among equals by weight. What nobody knows the price of comes last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from schemas.control import Deployment
from services.router.strategies.base import Chance
from services.router.strategies.weighted import Weighted

_DEAREST = Decimal("Infinity")


@dataclass(frozen=True, slots=True)
class Cheapest:
    """`price` gives what the same call would cost at a deployment, in USD; None: nobody knows."""

    price: Callable[[Deployment], Decimal | None]

    def choose(self, deployments: Sequence[Deployment], chance: Chance) -> Deployment:
        known = [self.price(d) for d in deployments]
        prices = [_DEAREST if price is None else price for price in known]
        least = min(prices)
        return Weighted().choose([d for d, price in zip(deployments, prices, strict=True) if price == least], chance)
