"""Open while a model is cheap: prices change by date and by the hour. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from schemas.gates import PriceGate

_LOOK_AGAIN_MS = 60_000


@dataclass(frozen=True, slots=True)
class Price:
    """`price` gives USD per million input tokens at the cheapest deployment, or None if nobody knows: then it's closed."""

    rule: PriceGate
    price: Callable[[int], Decimal | None]

    def closed_until(self, now_ms: int) -> int:
        price = self.price(now_ms)
        return 0 if price is not None and price < self.rule.price_below_usd_per_mtok else now_ms + _LOOK_AGAIN_MS
