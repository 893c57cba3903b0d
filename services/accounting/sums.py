"""What completions say about money: added up by counter, each provider call once. Without I/O; it reads the control table."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from operator import itemgetter
from typing import Final

from pydantic import BaseModel, Field, NonNegativeInt

from infra import budgets, hierarchy
from infra.budgets import BudgetLine, counted_ms
from infra.hierarchy import Level
from infra.kafka.table import ControlTable
from infra.redis.ledger import Settlement, Spent
from schemas.alerting import AlertRules
from schemas.budget import nano
from schemas.job import Caller, Step
from schemas.topics import Lane
from services.accounting.policy import MOST_MS, MOST_USD

MOST_REMEMBERED: Final = 50_000
"""Jobs whose provider calls are remembered, for a completion that comes again in the log."""

_MOST_CALLERS: Final = 20_000
_MOST_QUARTERS: Final = 4


_Place = tuple[str, str, str, str, str, str]
"""Where a caller stands in the hierarchy."""


class _Tokens(BaseModel):
    input_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0


class Call(BaseModel):
    """A provider call, as far as it matters for what was spent and how it went."""

    id: str
    provider: str = ""
    deployment: str = ""
    model: str = ""
    status: str = ""
    http_status: int | None = None
    started_ms: int = 0
    ttft_ms: float | None = None
    hedge: bool = False
    cost_usd: Decimal = Field(default=Decimal(0), ge=0, lt=MOST_USD)
    usage: _Tokens = _Tokens()

    @cached_property
    def usd_nano(self) -> int:
        return nano(self.cost_usd)


class _Labels(BaseModel):
    feature: str = ""


class Ended(BaseModel):
    """A completion, as far as it matters for what was spent and how it went. What can't be billed is none."""

    job_id: str
    caller: Caller
    lane: Lane
    model: str = ""
    labels: _Labels = _Labels()
    shadow_of: str = ""
    accepted_ms: int = Field(ge=0, lt=MOST_MS)
    ended_ms: int
    fingerprint: str = ""
    steps: tuple[Step, ...] = ()
    attempts: tuple[Call, ...] = ()

    @cached_property
    def usd_nano(self) -> int:
        return sum([attempt.usd_nano for attempt in self.attempts])


@dataclass(frozen=True, slots=True)
class _Standing:
    """`counters`: of quarters of an hour."""

    levels: tuple[Level, ...]
    time_zone: str
    counters: dict[int, tuple[tuple[str, int], ...]]


class Sums:
    """Makes settlements of completions. What it remembers is bounded, and forgotten with the process: books make up for it."""

    def __init__(self, table: ControlTable) -> None:
        self._table = table
        self._paid: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._version = -1
        self._callers: dict[_Place, _Standing] = {}

    def add(self, settlement: Settlement, ended: Ended, before: dict[str, frozenset[str]]) -> None:
        """Adds a completion. `before` takes what is to be remembered once the settlement is known to be done."""
        known = before.get(ended.job_id) or self._paid.get(ended.job_id, frozenset())
        fresh = [attempt for attempt in ended.attempts if attempt.id not in known]
        tokens = sum([attempt.usage.input_tokens + attempt.usage.output_tokens for attempt in fresh])
        settlement.jobs.append((ended.job_id, tokens))
        if ended.caller.key_id:
            settlement.used[ended.caller.key_id] = max(ended.accepted_ms, settlement.used.get(ended.caller.key_id, 0))
        if not fresh:
            return
        before[ended.job_id] = known | {attempt.id for attempt in fresh}
        cost = sum([attempt.usd_nano for attempt in fresh])
        if not cost and not tokens:
            return
        for key, forgotten_ms in self.counters(ended):
            spent = settlement.spent.get(key)
            if spent is None:
                spent = settlement.spent[key] = Spent(forgotten_ms)
            spent.usd_nano += cost
            spent.tokens += tokens

    def counters(self, ended: Ended) -> tuple[tuple[str, int], ...]:
        """Where a completion counts, and when each of these may be forgotten (unix ms; 0: never)."""
        at_ms = counted_ms(ended.lane, ended.accepted_ms, ended.steps)
        standing = self._standing(ended.caller)
        # Periods begin at midnight, somewhere: no quarter of an hour lies in two of them.
        quarter = at_ms // 900_000
        found = standing.counters.get(quarter)
        if found is None:
            if len(standing.counters) >= _MOST_QUARTERS:
                standing.counters.clear()
            found = standing.counters[quarter] = tuple(budgets.counters(standing.levels, at_ms, standing.time_zone))
        return found

    def alert_rules(self) -> AlertRules:
        """As they stand now."""
        return self._table.alerting.rules

    def done(self, before: Mapping[str, frozenset[str]]) -> None:
        """The settlement is done: what was paid is remembered."""
        self._paid.update(before)
        while len(self._paid) > MOST_REMEMBERED:
            self._paid.popitem(last=False)

    def lines(self, seen: Iterable[Ended], now_ms: int) -> list[tuple[str, BudgetLine]]:
        """The budgets above those who are billed for these, with their team."""
        places = {_place(ended.caller): ended.caller for ended in seen}
        return [
            (caller.team, line)
            for caller in places.values()
            for standing in [self._standing(caller)]
            for line in budgets.lines(standing.levels, now_ms, standing.time_zone)
        ]

    def _standing(self, caller: Caller) -> _Standing:
        if self._version != self._table.version or len(self._callers) > _MOST_CALLERS:
            self._version = self._table.version
            self._callers.clear()
        place = _place(caller)
        found = self._callers.get(place)
        if found is None:
            organization = self._table.organizations.get(caller.organization)
            zone = organization.time_zone if organization else "UTC"
            found = self._callers[place] = _Standing(hierarchy.levels(self._table, caller), zone, {})
        return found


_members_of_place = itemgetter("organization", "team", "project", "environment", "key_id", "user")


def _place(caller: Caller) -> _Place:
    return _members_of_place(vars(caller))
