"""Looks at what completions say together: counts them, shares the counts with the other instances, and tells what stands out."""

import logging
from collections.abc import Iterable
from typing import Final

from infra.alerts import QUIET_MS, Alerts
from infra.kafka.table import ControlTable
from infra.redis.client import Redis
from infra.redis.once import Once
from infra.redis.rates import add_rates
from services.accounting.costs import SPAN_MINUTES, Costs
from services.accounting.rates import KEPT_MINUTES, MINUTE_MS, Finding, Minutes, counts_of, judged
from services.accounting.sums import Ended

log = logging.getLogger(__name__)

LOOK_MS: Final = 10_000
"""So often counts are shared and judged: one round trip of an instance, however many completions there were."""

_LIFE_MS: Final = (KEPT_MINUTES + 10) * MINUTE_MS
_AT_ONCE: Final = 40
_QUIET_MS: Final = QUIET_MS + MINUTE_MS
"""Longer than `Alerts` keeps quiet, which would swallow the first alert after it."""


class Signals:
    """Counts what ends; looks every ten seconds at what all instances have counted."""

    def __init__(self, table: ControlTable, alerts: Alerts, redis: Redis) -> None:
        self._table, self._alerts, self._redis, self._once = table, alerts, redis, Once(redis)
        self._minutes, self._costs = Minutes(), Costs()
        self._looked_ms = 0
        self._learned = -1

    def saw(self, seen: Iterable[Ended]) -> None:
        """Counts completions, in the minutes in which they ended. What is too old to be judged is left out."""
        now = self._now()
        rules = self._table.alerting.rules
        for ended in seen:
            # A clock that is ahead mustn't count into minutes that are judged later than now.
            minute = min(ended.ended_ms // MINUTE_MS, now)
            if minute > now - KEPT_MINUTES:
                for name, by in counts_of(ended, rules, self._table):
                    self._minutes.add(minute, name, by)

    async def look(self) -> None:
        """Does nothing before it is time. Raises RedisUnavailable: then it counts on; and what the connection raises."""
        now_ms = self._alerts.clock()
        if now_ms - self._looked_ms < LOOK_MS:
            return
        self._looked_ms = now_ms
        now = self._now()
        await self._share(now)
        rules = self._table.alerting.rules
        found = judged(self._minutes, now, rules)
        self._learn(now, rules.cost.z_score)
        spent = self._minutes.over(now - now % SPAN_MINUTES, now, "spent")["spent"]
        found += self._costs.judge(spent, rules.cost)
        self._minutes.forget(now)
        for finding in found:
            await self._tell(finding)

    def _now(self) -> int:
        return self._alerts.clock() // MINUTE_MS

    async def _share(self, now: int) -> None:
        """Gives what we counted for what all have counted; at first for all of the last six hours."""
        fresh = range(now - 1, now + 1) if self._learned >= 0 else range(now - KEPT_MINUTES + 1, now + 1)
        asked = sorted({*fresh, *self._minutes.pending})
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            added = {minute: counts.copy() for minute in part if (counts := self._minutes.pending.get(minute))}
            known = await add_rates(self._redis, {minute: added.get(minute, {}) for minute in part}, _LIFE_MS)
            self._minutes.taken(added, known)

    def _learn(self, now: int, z_score: float) -> None:
        """Spans of which every instance has told by now."""
        over = (now - 1) // SPAN_MINUTES
        first = self._learned if self._learned >= 0 else (now - KEPT_MINUTES) // SPAN_MINUTES + 1
        for span in range(max(first, over - KEPT_MINUTES // SPAN_MINUTES), over):
            begins = span * SPAN_MINUTES
            self._costs.learn(self._minutes.over(begins, begins + SPAN_MINUTES - 1, "spent")["spent"], z_score)
        self._learned = max(over, self._learned)

    async def _tell(self, finding: Finding) -> None:
        """Once an hour, whichever instance sees it first."""
        name = f"alert:{finding.what}:{finding.scope}:{finding.about}"
        if await self._once.begin(name, _QUIET_MS):
            return
        try:
            await self._alerts.raise_(
                finding.what,
                finding.scope,
                finding.team,
                finding.message,
                finding.severity,
                finding.facts,
                about=finding.about,
            )
        except BaseException:
            await self._once.forget(name)
            raise
