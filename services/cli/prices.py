"""Which deployments have no price: what they cost would be booked as nothing."""

import time
from collections.abc import Iterable, Iterator

from infra.prices import PriceBook
from schemas.control import Deployment, Model


def unpriced(models: Iterable[Model]) -> Iterator[tuple[str, str]]:
    """Alias and deployment id of each deployment without a price of its own and without one in the price data."""
    prices, now_ms = PriceBook(), round(time.time() * 1000)
    for model in models:
        yield from ((model.name, d.id) for d in model.deployments if not _has_price(prices, d, now_ms))


def _has_price(prices: PriceBook, deployment: Deployment, now_ms: int) -> bool:
    """True if a call of it would be booked at a price: as the router books it, by the same book."""
    return prices.most_micro(deployment.provider, deployment.model, 1, 1, now_ms, deployment.price) is not None
