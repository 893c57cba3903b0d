"""All gates of all models: a job goes when each gate of its model is open."""

from collections.abc import Callable
from decimal import Decimal

from schemas.control import Model
from schemas.gates import Gate as Rule
from schemas.gates import PriceGate, PrometheusGate, PrometheusRule, QuotaGate, WindowGate
from services.router.gates.base import Gate
from services.router.gates.price import Price
from services.router.gates.prometheus import Prometheus, Reading
from services.router.gates.quota import Quota
from services.router.gates.window import Window


class Gates:
    """Asks the gates of a model. The callables give what gates look at: a metric, share in use, price."""

    def __init__(
        self,
        reading: Callable[[PrometheusRule], Reading | None],
        share: Callable[[Model, int], float],
        price: Callable[[Model, int], Decimal | None],
    ) -> None:
        self._reading, self._share, self._price = reading, share, price

    def closed_until(self, model: Model, now_ms: int) -> int:
        """0 if all gates are open; else when to look again at the earliest."""
        return max((self._gate(rule, model).closed_until(now_ms) for rule in model.gates), default=0)

    def _gate(self, rule: Rule, model: Model) -> Gate:
        match rule:
            case WindowGate():
                return Window(rule)
            case PrometheusGate(prometheus=metric):
                return Prometheus(metric, self._reading)
            case QuotaGate():
                return Quota(rule, lambda now_ms: self._share(model, now_ms))
            case PriceGate():
                return Price(rule, lambda now_ms: self._price(model, now_ms))
