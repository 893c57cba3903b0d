"""Limits while Redis is away, for callers whose policy would rather have approximate ones (`when_redis_is_away: open`).

Each process counts for itself: rates in full, so that all of them together let through that many times more; of each budget a
twentieth, once an outage, and nothing of one that was last seen exhausted. What is spent meanwhile is counted when it ends.
"""

import logging
from collections import OrderedDict

from infra.clock import Clock
from infra.redis.admission import Admitted, Attached, Charge, OverBudget, OverRate, Refused, Standing
from infra.telemetry import metrics

log = logging.getLogger(__name__)

SHARE = 20
"""A budget's part that one process may spend in one outage is one in so many."""

_MOST = 10_000


class Degraded:
    """What this process lets through by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals: OrderedDict[str, float] = OrderedDict()
        self._spent: dict[str, tuple[int, int]] = {}
        self._exhausted: OrderedDict[str, None] = OrderedDict()
        self._since_ms = 0

    def heard(self, decision: Admitted | Refused | Attached, charge: Charge) -> None:
        """Redis has decided: the outage is over, if there was one; what is exhausted is remembered, until it isn't any more."""
        if self._since_ms:
            log.warning("Redis is back after %.1f s: limits are exact again", (self._clock() - self._since_ms) / 1000)
            metrics.LIMITS_DEGRADED.set(0)
            self._since_ms = 0
            self._arrivals.clear()
            self._spent.clear()
        if isinstance(decision, OverBudget):
            self._exhausted[decision.allowance.key] = None
            while len(self._exhausted) > _MOST:
                self._exhausted.popitem(last=False)
        elif isinstance(decision, Admitted) and self._exhausted:
            for allowance in charge.limits.allowances:
                self._exhausted.pop(allowance.key, None)

    def admit(self, charge: Charge) -> Admitted | Refused:
        """Charges a request to the limits of this process alone."""
        if not self._since_ms:
            self._since_ms = self._clock()
            metrics.LIMITS_DEGRADED.set(1)
            log.error("Redis is away: limits are those of this process alone for callers whose policy is fail-open")
        if refused := self._over_rate(charge) or self._over_budget(charge):
            return refused
        metrics.ADMITTED_UNCHECKED.inc()
        for rate in charge.limits.rates:
            cost = charge.tokens if rate.unit == "tokens" else 1
            self._arrivals[rate.key] = self._arrival(rate.key) + cost * rate.period_ms / rate.limit
        while len(self._arrivals) > _MOST:
            self._arrivals.popitem(last=False)
        for allowance in charge.limits.allowances:
            usd_nano, tokens = self._spent.get(allowance.key, (0, 0))
            self._spent[allowance.key] = (usd_nano + charge.usd_nano, tokens + charge.tokens)
        return Admitted()

    def _arrival(self, key: str) -> float:
        return max(self._arrivals.get(key, 0.0), float(self._clock()))

    def _over_rate(self, charge: Charge) -> OverRate | None:
        now = self._clock()
        for rate in charge.limits.rates:
            cost, interval = charge.tokens if rate.unit == "tokens" else 1, rate.period_ms / rate.limit
            before = self._arrival(rate.key)
            if (wait := before + cost * interval - rate.period_ms - now) > 0:
                return OverRate(Standing(rate, 0, int(before - now)), int(wait) + 1)
        return None

    def _over_budget(self, charge: Charge) -> OverBudget | None:
        for allowance in charge.limits.allowances:
            usd_nano, tokens = self._spent.get(allowance.key, (0, 0))
            unknown = allowance.key in self._exhausted or (allowance.key not in self._spent and len(self._spent) >= _MOST)
            if allowance.usd_nano is not None and (unknown or usd_nano + charge.usd_nano > allowance.usd_nano // SHARE):
                return OverBudget(allowance, "usd", usd_nano, 0)
            if allowance.tokens is not None and (unknown or tokens + charge.tokens > allowance.tokens // SHARE):
                return OverBudget(allowance, "tokens", tokens, 0)
        return None
