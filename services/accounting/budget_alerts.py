"""Alerts when a share of a budget is spent: each share once in its period, whichever process sees it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from infra.alerts import Alerts
from infra.budgets import BudgetLine
from infra.redis.once import Once, OnceEach
from infra.telemetry import meters
from schemas.alerting import AlertRules, ForecastRule
from schemas.budget import shown

_TOLD_MS: Final = 400 * 86_400_000

Totals = Mapping[str, tuple[int, int]]
"""Of counters: nano-dollars and tokens spent so far."""


class BudgetAlerts:
    """Looks at what is spent against each budget, hard or soft."""

    def __init__(self, alerts: Alerts, once: Once, rules: Callable[[], AlertRules] = AlertRules) -> None:
        self._alerts, self._each, self._rules = alerts, OnceEach(once), rules

    async def look(self, lines: Iterable[tuple[str, BudgetLine]], totals: Totals) -> None:
        """`lines`: team and budget. Raises RedisUnavailable, and what the connection raises."""
        rule, now_ms = self._rules().forecast, self._alerts.clock()
        for team, line in lines:
            total = totals.get(line.allowance.key)
            share = spent_share(line, total) if total is not None else 0.0
            meters.budget(line.scope, line.budget.period.value, share)
            reached = max((share_ for share_ in (*line.budget.alerts, 1.0) if share >= share_), default=None)
            if total is not None and reached is not None:
                await self._tell(team, line, total, share, reached)
            if 0 < share < 1 and (forecast := forecast_share(line, share, now_ms, rule)) is not None:
                await self._each.do(f"forecast:{_name(line)}", _TOLD_MS, partial(self._foretell, team, line, share, forecast))

    async def _tell(self, team: str, line: BudgetLine, total: tuple[int, int], share: float, reached: float) -> None:
        await self._each.do(f"alert:{_name(line)}:{reached}", _TOLD_MS, partial(self._raise, team, line, total, share, reached))

    async def _raise(self, team: str, line: BudgetLine, total: tuple[int, int], share: float, reached: float) -> None:
        await self._alerts.raise_(
            "budget_exhausted" if reached >= 1 else "budget_share",
            line.scope,
            team,
            f"{line.scope} has spent {_amount(line, total, share)} in {line.span.id}: {share:.0%} of its budget",
            "critical" if reached >= 1 and line.budget.hard else "warning",
            {"share": round(share, 4), "period": line.span.id, "hard": line.budget.hard},
            about=f"{line.span.id}:{reached}",
        )

    async def _foretell(self, team: str, line: BudgetLine, share: float, forecast: float) -> None:
        await self._alerts.raise_(
            "budget_forecast",
            line.scope,
            team,
            f"{line.scope} has spent {share:.0%} of its budget of {line.span.id} and, if it goes on like this, "
            f"will have spent {forecast:.0%} when that ends",
            facts={"share": round(share, 4), "forecast_share": round(forecast, 4), "period": line.span.id},
            about=f"{line.span.id}:forecast",
        )


def forecast_share(line: BudgetLine, share: float, now_ms: int, rule: ForecastRule) -> float | None:
    """How much of a budget will be spent when its period ends, at the mean pace so far; None where that is nothing to tell.

    Of a total that never ends there is no forecast, and none before enough of the period is over.
    """
    ends_ms = line.span.ends_ms
    if not rule.enabled or ends_ms is None:
        return None
    elapsed = (now_ms - line.span.starts_ms) / (ends_ms - line.span.starts_ms)
    if not rule.least_elapsed <= elapsed <= 1:
        return None
    forecast = share / elapsed
    return forecast if forecast >= rule.over else None


def _name(line: BudgetLine) -> str:
    return f"{line.allowance.key}:{line.allowance.usd_nano}:{line.allowance.tokens}"


def spent_share(line: BudgetLine, total: tuple[int, int]) -> float:
    """How much of a budget is spent, from 0: of its USD or of its tokens, whichever is more."""
    limits = (line.allowance.usd_nano, line.allowance.tokens)
    parts = [spent / limit if limit else 1.0 for spent, limit in zip(total, limits, strict=True) if limit is not None]
    return max(parts, default=0.0)


def _amount(line: BudgetLine, total: tuple[int, int], share: float) -> str:
    """What the share is of."""
    limit, tokens = line.allowance.usd_nano, line.allowance.tokens
    if limit is None or (tokens is not None and (total[0] / limit if limit else 1.0) < share):
        return f"{total[1]} of {tokens} tokens"
    return f"{shown(total[0])} of {shown(limit)} USD"
