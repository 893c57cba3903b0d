"""Alerts when a share of a budget is spent: each share once in its period, whichever process sees it."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from infra.alerts import Alerts
from infra.budgets import BudgetLine
from infra.redis.once import Once, OnceEach
from schemas.budget import shown

_TOLD_MS: Final = 400 * 86_400_000

Totals = Mapping[str, tuple[int, int]]
"""Of counters: nano-dollars and tokens spent so far."""


class BudgetAlerts:
    """Looks at what is spent against each budget, hard or soft."""

    def __init__(self, alerts: Alerts, once: Once) -> None:
        self._alerts, self._each = alerts, OnceEach(once)

    async def look(self, lines: Iterable[tuple[str, BudgetLine]], totals: Totals) -> None:
        """`lines`: team and budget. Raises RedisUnavailable, and what the connection raises."""
        for team, line in lines:
            total = totals.get(line.allowance.key)
            share = spent_share(line, total) if total is not None else 0.0
            reached = max((share_ for share_ in (*line.budget.alerts, 1.0) if share >= share_), default=None)
            if total is not None and reached is not None:
                await self._tell(team, line, total, share, reached)

    async def _tell(self, team: str, line: BudgetLine, total: tuple[int, int], share: float, reached: float) -> None:
        name = f"alert:{line.allowance.key}:{line.allowance.usd_nano}:{line.allowance.tokens}:{reached}"
        await self._each.do(name, _TOLD_MS, partial(self._raise, team, line, total, share, reached))

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
