"""Money of batch jobs is held when they are sent out, not for the day that they may wait; streams ask for more as they flow."""

import logging
from collections.abc import Sequence

from infra import hierarchy, tokens
from infra.budgets import BudgetLine, counted_ms
from infra.charging import LEASE_GRACE_MS, Account, refusal
from infra.clock import Clock
from infra.estimates import Estimator
from infra.kafka.table import ControlTable
from infra.redis import ledger
from infra.redis.admission import Admitted, Allowance, Charge, Closed, Limits, NoRoom, OverBudget, admit
from infra.redis.client import Redis, RedisUnavailable
from infra.telemetry import metrics
from schemas.attempt import Attempt
from schemas.budget import nano
from schemas.errors import BudgetExceeded, Fault, SluiceError, Unavailable
from schemas.job import Estimate, Job
from schemas.topics import Lane
from services.router import parking
from services.router.parking import Later, Moment

log = logging.getLogger(__name__)

_MOST_ACCOUNTS = 20_000
_LEAST_MORE = 256
"""Tokens that a stream asks for at once, at least."""


class Purse:
    """What jobs may spend, as the budgets stand now."""

    def __init__(self, table: ControlTable, redis: Redis, estimator: Estimator, clock: Clock) -> None:
        self._table, self._redis, self._estimator, self._clock = table, redis, estimator, clock
        self._accounts: dict[tuple[str, ...], Account] = {}
        self._version = -1

    async def hold(self, job: Job, now: Moment) -> bool | Later | Fault:
        """Holds what a batch job may cost, and its places: whether that is new, for what is delivered again holds what it held.

        Or until when the job waits, or why it never may be sent out.
        """
        account, at_ms = self._account(job), _counted_ms(job)
        limits = account.limits(job.lane, at_ms, sent_out=True)
        if job.lane is not Lane.BATCH or not limits:
            return False
        try:
            estimate = await self._estimate(job, account, at_ms)
        except SluiceError as error:
            return error.fault()
        charge = _charge(limits, job, estimate, job.made, now.now_ms)
        try:
            decision = await admit(self._redis, charge, job_id=job.id)
        except RedisUnavailable as error:
            log.warning("what %s may cost can't be held: %s", job.id, error)
            decision = Closed()
        match decision:
            case Admitted():
                return not decision.again
            case OverBudget() | NoRoom() | Closed():
                fault = refusal(decision, charge, account, at_ms).fault()
                line = account.line_of(decision, at_ms) if isinstance(decision, OverBudget) else None
                until_ms = _until_ms(decision, charge, line, now.now_ms)
                return parking.without_budget(job, until_ms, now) or fault
            case _:
                raise AssertionError(f"nobody is {decision} here")

    async def covers(self, job: Job, made: Sequence[Attempt], calls: int = 1) -> bool:
        """Holds what these calls have cost and what so many more may cost at once; False if that doesn't fit.

        While Redis is away it does.
        """
        account, at_ms = self._account(job), _counted_ms(job)
        limits = Limits(allowances=account.allowances(at_ms))
        if not limits or (calls == 1 and not any(attempt.cost_usd or attempt.usage.output_tokens for attempt in made)):
            return True
        try:
            estimate = await self._estimate(job, account, at_ms)
            decision = await admit(self._redis, _charge(limits, job, estimate, made, self._clock(), calls), job_id=job.id)
        except (RedisUnavailable, SluiceError) as error:
            log.warning("%s is tried again although nothing more can be held for it: %s", job.id, error)
            return True
        return not isinstance(decision, OverBudget)

    async def give_back(self, job: Job, made: Sequence[Attempt] = ()) -> None:
        """It is not sent out now: nothing is held for it any more but what it has cost so far."""
        if job.lane is not Lane.BATCH:
            return
        tokens_, nano_ = _spent(made)
        try:
            if nano_ or tokens_:
                await ledger.shrink(self._redis, job.id, tokens_, nano_)
            else:
                await ledger.release(self._redis, job.id)
        except RedisUnavailable as error:
            log.warning("what is held for %s is given back at the end of its lease: %s", job.id, error)

    def meter(self, job: Job) -> "Meter | None":
        """For a stream whose end nobody knows; None where nothing is held for it."""
        if job.estimate is None or not self._account(job).allowances(_counted_ms(job)):
            return None
        return Meter(self, job)

    async def more(self, job: Job, held: int, output_tokens: int) -> bool:
        """Holds so many more tokens of an answer than are `held`; False if they don't fit. While Redis is away it goes on."""
        try:
            nano = self._usd_nano(job, held + output_tokens) - self._usd_nano(job, held)
            allowances = self._account(job).allowances(_counted_ms(job))
            fits = await ledger.extend(self._redis, job.id, allowances, output_tokens, nano)
            return await self._hold_whole(job, allowances, held + output_tokens) if fits is None else fits
        except (RedisUnavailable, SluiceError) as error:
            log.warning("%s goes on although nothing more can be held for it: %s", job.id, error)
            return True

    async def _hold_whole(self, job: Job, allowances: tuple[Allowance, ...], output_tokens: int) -> bool:
        """For a job for which nothing is held: Redis has lost it, or a budget was set since. While Redis counts anew, it fits."""
        lease_ms = job.deadline_ms - self._clock() + LEASE_GRACE_MS
        if lease_ms <= 0:
            return False
        given = job.estimate.input_tokens if job.estimate else 0
        charge = Charge(
            Limits(allowances=allowances),
            tokens=given + output_tokens,
            usd_nano=self._usd_nano(job, output_tokens),
            lease_ms=lease_ms,
        )
        return not isinstance(await admit(self._redis, charge, job_id=job.id), OverBudget)

    def _usd_nano(self, job: Job, output_tokens: int) -> int:
        """What a job whose answer has so many tokens costs at most, above a cliff too."""
        model = self._table.models.get(job.model)
        if model is None or job.estimate is None:
            return 0
        given = job.estimate.input_tokens
        return self._estimator.usd_nano(job.body, model, job.policy, given, output_tokens, self._clock())

    async def _estimate(self, job: Job, account: Account, now_ms: int) -> Estimate:
        """As admission made it, unless a budget was set since then."""
        money = account.needs_money(now_ms)
        if job.estimate is not None and (job.estimate.usd_nano or not money):
            return job.estimate
        model = self._table.models.get(job.model)
        if model is None:
            raise Unavailable(f"The model `{job.model}` is gone.")
        return await self._estimator.estimate(job.api, job.body, model, job.policy, now_ms, money=money)

    def _account(self, job: Job) -> Account:
        if self._version != self._table.version or len(self._accounts) > _MOST_ACCOUNTS:
            self._version = self._table.version
            self._accounts.clear()
        caller = job.caller
        place = (caller.organization, caller.team, caller.project, caller.environment, caller.key_id, caller.user)
        found = self._accounts.get(place)
        if found is None:
            organization = self._table.organizations.get(caller.organization)
            zone = organization.time_zone if organization else "UTC"
            found = self._accounts[place] = Account(hierarchy.levels(self._table, caller), zone)
        return found


class Meter:
    """Counts a stream as it flows."""

    def __init__(self, purse: Purse, job: Job) -> None:
        assert job.estimate is not None
        self._purse, self._job = purse, job
        self._held = job.estimate.output_tokens
        self._seen = 0
        self._counted = 0

    async def flowed(self, text: list[str]) -> None:
        """`text`: all that has been generated. Raises OutOfBudget when no more of it is held, and none can be."""
        self._counted += tokens.count("".join(text[self._seen :]))
        self._seen = len(text)
        while self._counted > self._held:
            more = max(_LEAST_MORE, self._held // 2)
            if not await self._purse.more(self._job, self._held, more):
                metrics.BUDGET_CUTS.inc()
                raise OutOfBudget
            self._held += more


def _charge(limits: Limits, job: Job, estimate: Estimate, made: Sequence[Attempt], now_ms: int, calls: int = 1) -> Charge:
    """What a job may cost in all: the calls that it has made, and so many more."""
    tokens_, nano_ = _spent(made)
    return Charge(
        limits,
        tokens=tokens_ + calls * (estimate.input_tokens + estimate.output_tokens),
        usd_nano=nano_ + calls * estimate.usd_nano,
        lease_ms=job.deadline_ms - now_ms + LEASE_GRACE_MS,
    )


def _spent(made: Sequence[Attempt]) -> tuple[int, int]:
    """Tokens and nano-dollars."""
    usages = [attempt.usage for attempt in made]
    return sum(u.input_tokens + u.output_tokens for u in usages), sum(nano(attempt.cost_usd) for attempt in made)


class OutOfBudget(Exception):
    """A stream was cut, because its budget has nothing left for what still comes."""

    @property
    def fault(self) -> Fault:
        return BudgetExceeded(
            "Budget exceeded: this answer was cut, because nothing is left for the rest of it. Give max_tokens to have that "
            "checked before the answer begins."
        ).fault()


def _counted_ms(job: Job) -> int:
    return counted_ms(job.lane, job.accepted_ms, job.steps)


def _until_ms(refused: OverBudget | NoRoom | Closed, charge: Charge, line: BudgetLine | None, now_ms: int) -> int | None:
    """When to look again; None: this budget, the one of `line`, never has enough for the job."""
    if not isinstance(refused, OverBudget) or line is None:
        return now_ms + 500
    needed = charge.usd_nano if refused.unit == "usd" else charge.tokens
    if refused.spent + needed <= refused.limit:
        # What is held for others is in the way, and much of that comes back.
        return now_ms + 1_000
    return line.span.ends_ms if needed <= refused.limit else None
