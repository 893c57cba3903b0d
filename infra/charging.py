"""What a request is charged: rates, places, money, at every level; and what is said to who is refused. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from infra.budgets import BudgetLine, hard, lines
from infra.hierarchy import Level
from infra.redis.admission import (
    DAY_MS,
    MINUTE_MS,
    Admitted,
    Allowance,
    Charge,
    Closed,
    Limits,
    NoRoom,
    OverBudget,
    OverRate,
    Rate,
    Refused,
    Room,
    Standing,
)
from schemas.budget import Period, shown
from schemas.errors import BudgetExceeded, RateLimited, SluiceError, TokensLimited, TooLarge, Unavailable
from schemas.job import Estimate
from schemas.topics import Lane

LEASE_GRACE_MS = 60_000
"""A hold outlives its job's deadline by so much (RELIABILITY.md 5.10)."""

_SOON_S = 5
"""When to come again where what is held for jobs that run is in the way: most of it is given back."""

_PERIODS: Mapping[Period, str] = {
    Period.DAY: "today",
    Period.WEEK: "this week",
    Period.MONTH: "this month",
    Period.TOTAL: "in all",
}
_UNITS: Mapping[tuple[str, int], str] = {
    ("requests", MINUTE_MS): "requests per minute",
    ("requests", DAY_MS): "requests per day",
    ("tokens", MINUTE_MS): "tokens per minute",
    ("tokens", DAY_MS): "tokens per day",
}


@dataclass(slots=True)
class Account:
    """The limits and budgets of a caller. `levels`: the farthest first; `throttled`: requests a minute of a key that is held."""

    levels: Sequence[Level]
    time_zone: str
    throttled: int | None = None
    _lines: tuple[BudgetLine, ...] = field(default=(), init=False)
    _since_ms: int = field(default=0, init=False)
    _until_ms: int = field(default=0, init=False)
    _limits: dict[tuple[Lane, bool], Limits] = field(default_factory=dict[tuple[Lane, bool], Limits], init=False)
    _rates: dict[Lane, tuple[Rate, ...]] = field(default_factory=dict[Lane, tuple[Rate, ...]], init=False)
    _rooms: tuple[Room, ...] | None = field(default=None, init=False)

    def rates(self, lane: Lane) -> tuple[Rate, ...]:
        """Each lane is counted by itself: what a batch has still to come must not be refused to a chat."""
        found = self._rates.get(lane)
        if found is None:
            prefix = "batch/" if lane is Lane.BATCH else ""
            found = self._rates[lane] = tuple(rate for level in self.levels for rate in _rates_of(level, prefix))
            if self.throttled is not None:
                key = next(level.scope for level in self.levels if level.scope.startswith("key/"))
                found = self._rates[lane] = (*found, Rate(f"{prefix}{key}@held", self.throttled))
        return found

    def rooms(self) -> tuple[Room, ...]:
        """How many jobs may be open at once."""
        if self._rooms is None:
            limits = [(f"{level.scope}{level.by}", level.policy.limits.concurrency) for level in self.levels]
            self._rooms = tuple(Room(scope, limit) for scope, limit in limits if limit is not None)
        return self._rooms

    def lines(self, now_ms: int) -> tuple[BudgetLine, ...]:
        """The hard budgets as they stand at this time, which may be before one that was asked for."""
        if not self._since_ms <= now_ms < self._until_ms:
            found = tuple(line for line in lines(self.levels, now_ms, self.time_zone) if line.budget.hard)
            ends = [line.span.ends_ms for line in found if line.span.ends_ms is not None]
            increases = [i.until_ms for line in found for i in line.budget.increases]
            self._lines = found
            self._since_ms = max((*(line.span.starts_ms for line in found), *(ms for ms in increases if ms <= now_ms)), default=0)
            self._until_ms = min((*ends, *(ms for ms in increases if ms > now_ms)), default=now_ms + DAY_MS)
            self._limits.clear()
        return self._lines

    def limits(self, lane: Lane, now_ms: int, *, sent_out: bool = False) -> Limits:
        """All limits of a request. Batch takes its place when it is `sent_out`, and its rates are charged before."""
        lines = self.lines(now_ms)
        found = self._limits.get((lane, sent_out))
        if found is None:
            rates = () if sent_out else self.rates(lane)
            rooms = self.rooms() if sent_out or lane is Lane.INTERACTIVE else ()
            found = self._limits[lane, sent_out] = Limits(rates, rooms, hard(lines))
        return found

    def allowances(self, now_ms: int) -> tuple[Allowance, ...]:
        return hard(self.lines(now_ms))

    def line_of(self, refused: OverBudget, now_ms: int) -> BudgetLine:
        """The budget that refused: of several at one counter the tightest."""
        return next(
            line
            for line in self.lines(now_ms)
            if line.allowance.key == refused.allowance.key and refused.limit_of(line.allowance) == refused.limit
        )

    def needs_money(self, now_ms: int) -> bool:
        """Whether it must be known what a request costs."""
        return any(line.allowance.usd_nano is not None for line in self.lines(now_ms))

    def needs_tokens(self, lane: Lane, now_ms: int) -> bool:
        """Whether it must be known how many tokens a request has."""
        return bool(self.lines(now_ms)) or any(rate.unit == "tokens" for rate in self.rates(lane))


def charge(account: Account, lane: Lane, estimate: Estimate | None, now_ms: int, deadline_ms: int) -> Charge:
    """What a request is charged at admission. Batch holds its money, and takes its place, when it is sent out."""
    now = lane is Lane.INTERACTIVE
    needed = estimate or Estimate(input_tokens=0, output_tokens=0)
    return Charge(
        account.limits(lane, now_ms),
        tokens=needed.input_tokens + needed.output_tokens,
        usd_nano=needed.usd_nano,
        lease_ms=deadline_ms - now_ms + LEASE_GRACE_MS,
        holds=now,
    )


def check_size(asked: Charge) -> None:
    """Raises TooLarge for a request that no period has tokens enough for."""
    for rate in asked.limits.rates:
        if rate.unit == "tokens" and asked.tokens > rate.limit:
            raise TooLarge(
                f"Request too large for {level_name(rate.scope)}: the limit is {rate.limit} {_unit(rate)}, and it may need "
                f"{asked.tokens}. Shorten the prompt, or set max_tokens lower."
            )


def refusal(refused: Refused, asked: Charge, account: Account, now_ms: int) -> SluiceError:
    """Which limit, at which level, how much of it is used, and when to come again."""
    match refused:
        case OverRate(standing=standing, wait_ms=wait_ms):
            kind = TokensLimited if standing.rate.unit == "tokens" else RateLimited
            retry_s = max(1, math.ceil(wait_ms / 1000))
            return kind(rate_refusal(standing, retry_s), retry_after_s=retry_s, headers=rate_headers([standing]))
        case NoRoom(room=room):
            return RateLimited(
                f"Concurrency limit reached for {level_name(room.scope)}: {room.limit} of {room.limit} requests are running. "
                "Try again when one of them has ended.",
                retry_after_s=1,
            )
        case Closed():
            return Unavailable(
                "The budgets are being counted anew. Try again in a moment.", code="budget_unavailable", retry_after_s=2
            )
        case OverBudget():
            line = account.line_of(refused, now_ms)
            return BudgetExceeded(
                budget_refusal(line, refused, asked, account.time_zone), retry_after_s=_retry_s(line, refused, asked, now_ms)
            )


def rate_refusal(standing: Standing, retry_s: int) -> str:
    """The sentence for a caller over a rate limit."""
    rate = standing.rate
    used = rate.limit - standing.remaining
    return (
        f"Rate limit reached for {level_name(rate.scope)}: {used} of {rate.limit} {_unit(rate)} used. Try again in {retry_s} s."
    )


def budget_refusal(line: BudgetLine, refused: OverBudget, asked: Charge, time_zone: str) -> str:
    """The sentence for a request that a budget has no room for."""
    limit, needed = refused.limit, _needed(refused, asked)
    said = f"Budget exceeded for {level_name(line.scope)}: {_amount(refused.spent, limit, refused.unit)} spent "
    said += _PERIODS[line.budget.period]
    if refused.spent < limit:
        if refused.held:
            said += f", {_bare(refused.held, refused.unit)} held for requests that are running"
        said += f", and this request may need {_bare(needed, refused.unit)}"
    if line.span.ends_ms is None:
        return f"{said}; this budget does not reset"
    resets = datetime.fromtimestamp(line.span.ends_ms / 1000, ZoneInfo(time_zone))
    return f"{said}; resets {resets:%Y-%m-%d}"


def level_name(scope: str) -> str:
    """A level as a person calls it: `team fraud in environment dev`."""
    level, _, name = scope.removeprefix("batch/").partition("/")
    parts = name.split("/")
    match level:
        case "key":
            return "this key"
        case "project":
            return f"project {parts[1]} of team {parts[0]}"
        case "environment" if parts[1]:
            return f"project {parts[1]} of team {parts[0]} in environment {parts[2]}"
        case "environment":
            return f"team {parts[0]} in environment {parts[2]}"
        case _:
            return f"{level} {name}"


def rate_headers(rates: Sequence[Standing]) -> dict[str, str]:
    """OpenAI's rate limit headers, for the tightest limit of requests and that of tokens."""
    headers: dict[str, str] = {}
    admitted = Admitted(rates=rates)
    for standing in (admitted.tightest("requests"), admitted.tightest("tokens")):
        if standing is not None:
            unit = standing.rate.unit
            headers[f"x-ratelimit-limit-{unit}"] = str(standing.rate.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = duration(standing.reset_ms)
    return headers


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: `1s`, `6m0s`, `120ms`."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def duration_ms(written: str) -> int:
    """The milliseconds of a duration that `duration` wrote."""
    if written.endswith("ms"):
        return int(written[:-2])
    minutes, _, seconds = written.removesuffix("s").rpartition("m")
    return 1000 * (60 * int(minutes or 0) + int(seconds))


def _rates_of(level: Level, prefix: str) -> Sequence[Rate]:
    limits, scope = level.policy.limits, f"{prefix}{level.scope}{level.by}"
    wanted = (
        Rate(scope, limits.requests_per_minute or 0),
        Rate(scope, limits.requests_per_day or 0, period_ms=DAY_MS),
        Rate(scope, limits.tokens_per_minute or 0, "tokens"),
        Rate(scope, limits.tokens_per_day or 0, "tokens", DAY_MS),
    )
    return [rate for rate in wanted if rate.limit and level.scope]


def _needed(refused: OverBudget, asked: Charge) -> int:
    return asked.usd_nano if refused.unit == "usd" else asked.tokens


def _retry_s(line: BudgetLine, refused: OverBudget, asked: Charge, now_ms: int) -> int | None:
    """When it may fit: soon if only what is held is in the way; None: never."""
    # Where nothing is held now, it is enough that something is left.
    needed = _needed(refused, asked) if asked.holds else 1
    if refused.spent + needed <= refused.limit:
        return _SOON_S
    if needed > refused.limit:
        return None
    return None if line.span.ends_ms is None else max(1, math.ceil((line.span.ends_ms - now_ms) / 1000))


def _unit(rate: Rate) -> str:
    return _UNITS[rate.unit, rate.period_ms]


def _amount(spent: int, limit: int, unit: str) -> str:
    return f"{_number(spent, unit)} of {_bare(limit, unit)}"


def _bare(amount: int, unit: str) -> str:
    return f"{_number(amount, unit)} {'USD' if unit == 'usd' else 'tokens'}"


def _number(amount: int, unit: str) -> str:
    return shown(amount) if unit == "usd" else str(amount)
