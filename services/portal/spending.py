"""What has been spent of each budget, what is held for jobs that run, and for which: asked of the ledger itself."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, PlainSerializer

from infra import budgets as counters
from infra.budgets import BudgetLine
from infra.hierarchy import Level as Scoped
from infra.hierarchy import plain
from infra.platform import Platform
from infra.redis import ledger
from infra.redis.ledger import OpenHold
from schemas.base import JsonObject
from schemas.budget import Period, usd
from schemas.control import Environment, Organization, Project, Team, User, VirtualKey
from schemas.errors import NotFound
from services.portal.access import Actor
from services.portal.budgets import Budgets, Level, LevelsAsked, scope_of

_MOST_HOLDS = 10_000


Money = Annotated[Decimal, PlainSerializer(lambda usd_: format(usd_.normalize(), "f"), return_type=str, when_used="json")]
"""USD without trailing zeros."""


class Spending(BaseModel):
    """A budget as it stands. Money in USD; `left_*`: what may still be promised; `resets_at`: RFC 3339, null if it never does."""

    scope: JsonObject
    name: str
    period: Period
    span: str
    hard: bool
    usd: Money | None
    spent_usd: Money
    held_usd: Money
    left_usd: Money | None
    tokens: int | None
    spent_tokens: int
    held_tokens: int
    left_tokens: int | None
    resets_at: str | None


class Reservation(BaseModel):
    """What is held for a job until it ends, or until `ends_at` (RFC 3339) if it is dead. `at`: the levels where it counts."""

    job: str
    usd: Money
    tokens: int
    ends_at: str
    at: list[str]


class Explained(BaseModel):
    """GET /admin/v1/budgets/explain. `ledger_open`: False while what was spent is counted anew."""

    ledger_open: bool
    budgets: list[Spending]
    reservations: list[Reservation]


class Explanations:
    """Explains budgets by what the ledger says."""

    def __init__(self, platform: Platform, budgets: Budgets) -> None:
        self._platform, self._budgets = platform, budgets

    async def explain(self, asked: LevelsAsked, actor: Actor) -> Explained:
        """The budgets of the levels that are asked for. Raises RedisUnavailable, and NotFound for a level that has none."""
        table, now_ms = self._platform.control.table, self._platform.clock()
        zone = next((o.time_zone for o in table.organizations.values()), "UTC")
        found = [
            (level, line)
            for level in self._budgets.levels(asked, actor)
            for line in counters.lines([Scoped(_scope(level), level.version, level.policy)], now_ms, zone)
        ]
        if not found:
            raise NotFound("There is no budget there. `sluice budgets list` shows all of them, `sluice budgets set` sets one.")
        keys = [line.allowance.key for _, line in found]
        _, is_open = await ledger.sweep(self._platform.redis)
        counted = await ledger.counted(self._platform.redis, keys)
        holds = await ledger.open_holds(self._platform.redis, 0, _MOST_HOLDS)
        own = [hold for hold in holds if not set(keys).isdisjoint(hold.counters)]
        return Explained(
            ledger_open=is_open,
            budgets=[_spending(level, line, counted[line.allowance.key]) for level, line in found],
            reservations=[_reservation(hold) for hold in own],
        )


def _spending(level: Level, line: BudgetLine, counted: ledger.Counted) -> Spending:
    limit, tokens = line.allowance.usd_nano, line.allowance.tokens
    in_use, words = counted.usd_nano + counted.held_usd_nano, counted.tokens + counted.held_tokens
    return Spending(
        scope=scope_of(level),
        name=line.scope,
        period=line.budget.period,
        span=line.span.id,
        hard=line.budget.hard,
        usd=None if limit is None else usd(limit),
        spent_usd=usd(counted.usd_nano),
        held_usd=usd(counted.held_usd_nano),
        left_usd=None if limit is None else usd(max(0, limit - in_use)),
        tokens=tokens,
        spent_tokens=counted.tokens,
        held_tokens=counted.held_tokens,
        left_tokens=None if tokens is None else max(0, tokens - words),
        resets_at=None if line.span.ends_ms is None else _time(line.span.ends_ms),
    )


def _reservation(hold: OpenHold) -> Reservation:
    at = sorted({counter.removeprefix("spend:").rpartition(":")[0] for counter in hold.counters})
    return Reservation(job=hold.job_id, usd=usd(hold.usd_nano), tokens=hold.tokens, ends_at=_time(hold.ends_ms), at=at)


def _scope(level: Level) -> str:
    """As infra.hierarchy names it."""
    match level:
        case Organization() | Team():
            return f"{level.kind}/{level.name}"
        case Project():
            return f"project/{level.team}/{level.name}"
        case Environment():
            return f"environment/{level.team}/{level.project}/{level.name}"
        case VirtualKey():
            return f"key/{level.id}"
        case User():
            return f"user/{plain(level.name)}"


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")
