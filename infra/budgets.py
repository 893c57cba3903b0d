"""Budgets as counters: at which of them a job is counted, and what may be spent there. Pure.

Every job is counted at each level above it, in each period, whether or not anybody has set a budget there: a budget that is set
in the middle of a month finds what has been spent in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra.hierarchy import Level
from infra.redis.admission import Allowance
from schemas.budget import NANO, Budget, Period, Span, span_of
from schemas.job import Step
from schemas.slip import Stage
from schemas.topics import Lane

KEPT_MS = 8 * 86_400_000
"""How long a counter is kept when its period is over: jobs that were admitted in it may still run."""

_STRANGERS_MS = 400 * 86_400_000


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget at one level, in the period that runs now."""

    scope: str
    budget: Budget
    span: Span
    allowance: Allowance


def lines(levels: Sequence[Level], now_ms: int, time_zone: str) -> tuple[BudgetLine, ...]:
    """Every budget of these levels as it stands now, hard or soft."""
    return tuple(
        BudgetLine(level.scope, budget, span, _allowance(level.scope, budget, span, now_ms))
        for level in levels
        if level.scope
        for budget in level.policy.budgets
        for span in [span_of(budget.period, now_ms, time_zone)]
    )


def hard(found: Sequence[BudgetLine]) -> tuple[Allowance, ...]:
    """What must not be exceeded. Each counter comes once: of several budgets in one period the tightest of each kind counts."""
    allowed: dict[str, Allowance] = {}
    for line in found:
        if line.budget.hard:
            one = line.allowance
            known = allowed.get(one.key, one)
            least = _least(known.usd_nano, one.usd_nano), _least(known.tokens, one.tokens)
            allowed[one.key] = Allowance(one.key, *least, one.forgotten_ms)
    return tuple(allowed.values())


def counted_ms(lane: Lane, accepted_ms: int, steps: Sequence[Step]) -> int:
    """In whose period a job is counted, where it is held and where it is settled: what one period holds, no other must spend.

    That is when it was accepted; of batch, which may wait for the next period, when the router took it last.
    """
    if lane is Lane.INTERACTIVE:
        return accepted_ms
    return next((step.at_ms for step in reversed(steps) if step.stage == Stage.ROUTER.value), accepted_ms)


def counters(levels: Sequence[Level], at_ms: int, time_zone: str) -> Iterator[tuple[str, int]]:
    """The counters of a job that is counted at this time, and when each may be forgotten (unix ms; 0: never).

    Of users whom nobody has written down a total is kept as long as they come: there is no end to them.
    """
    spans = [span_of(period, at_ms, time_zone) for period in Period]
    for level in levels:
        for span in spans if level.scope else ():
            stranger = span.ends_ms is None and not level.version and level.scope.startswith("user/")
            yield counter_key(level.scope, span), at_ms + _STRANGERS_MS if stranger else _forgotten_ms(span)


def counter_key(scope: str, span: Span) -> str:
    """Where Redis counts what is spent at a level in a period."""
    return f"spend:{scope}:{span.id}"


def _allowance(scope: str, budget: Budget, span: Span, now_ms: int) -> Allowance:
    usd = budget.usd_at(now_ms)
    # Rounded down: what is left may be less than was written, never more.
    nano = None if usd is None else int(usd * NANO)
    return Allowance(counter_key(scope, span), nano, budget.tokens_at(now_ms), _forgotten_ms(span))


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _forgotten_ms(span: Span) -> int:
    return 0 if span.ends_ms is None else span.ends_ms + KEPT_MS
