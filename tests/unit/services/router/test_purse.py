"""Money of batch jobs is held when they are sent out; streams hold more as they flow, and are cut when there is no more."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from infra import tokens
from infra.estimates import Estimator
from infra.kafka.carriage import Finish, PutOff
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from infra.redis import ledger
from infra.redis.admission import Charge, Limits, admit
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.jobs import Lease
from infra.redis.ledger import Counted, Settlement, Spent
from schemas import policy as policies
from schemas.budget import NANO, Budget, Period, nano
from schemas.control import Model, Organization, Team
from schemas.errors import Fault
from schemas.job import Estimate, Job, JobStatus
from schemas.policy import Policy
from schemas.reply import Failed
from schemas.slip import Stage
from schemas.topics import Lane
from services.router import parking
from services.router.parking import Later, Moment
from services.router.purse import Meter, OutOfBudget, Purse
from tests.fakes.clock import FakeClock, in_virtual_time
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import (
    START_MS,
    STREAM,
    Bench,
    answer,
    chunk,
    deployment,
    failure,
    job,
    model,
    usage_chunk,
    virtual_clock,
)

HOUR_MS = 3_600_000
TODAY, TOMORROW = "spend:team/team:2027-01-15", "spend:team/team:2027-01-16"
MIDNIGHT_MS = START_MS + 16 * HOUR_MS
ESTIMATE = Estimate(input_tokens=100, output_tokens=200, usd_nano=NANO)


class FlakyRedis(LuaRedis):
    """Answers, unless it is `away`."""

    away = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        if self.away:
            raise RedisUnavailable("nobody answers")
        return await super().run(script, keys, args)


def usd(amount: str | int, period: Period = Period.DAY) -> Budget:
    return Budget(usd=Decimal(amount), period=period)


def team(*budgets: Budget, concurrency: int | None = None) -> Team:
    return Team(
        id="t", name="team", organization="org", policy=Policy(budgets=budgets, limits=policies.Limits(concurrency=concurrency))
    )


def batch(n: int = 0, deadline_ms: int = START_MS + 24 * HOUR_MS, taken_ms: int = START_MS, **members: Any) -> Job:
    """A batch job that the router has just taken. It may cost a dollar."""
    members = {"lane": Lane.BATCH, "estimate": ESTIMATE, "deadline_ms": deadline_ms, "id": f"job_{n:032x}"} | members
    return job(**members).taken(Stage.ROUTER, taken_ms)


class Till:
    """A purse, and what is in its ledger."""

    def __init__(self, *budgets: Budget, concurrency: int | None = None, of: Model | None = None) -> None:
        self.clock, self.table = FakeClock(START_MS), ControlTable()
        self.redis = FlakyRedis(self.clock)
        for resource in (Organization(id="o", name="org"), team(*budgets, concurrency=concurrency), of or model()):
            self.table.put(resource)
        self.purse = Purse(self.table, self.redis, Estimator(self.table, PriceBook()), self.clock)
        self.settled = -1

    async def open(self) -> "Till":
        await ledger.open_ledger(self.redis, "first", {}, {})
        return self

    async def hold(self, asked: Job, jitter: float = 0.0) -> bool | Later | Fault:
        return await self.purse.hold(asked, Moment(self.clock(), jitter))

    async def at(self, counter: str = TODAY) -> Counted:
        return (await ledger.counted(self.redis, [counter]))[counter]

    async def spend(self, amount: str | int, counter: str = TODAY, of: str = "") -> None:
        """A completion is settled."""
        spent = {counter: Spent(0, int(Decimal(amount) * NANO))}
        await ledger.settle(self.redis, Settlement({0: (self.settled, self.settled + 1)}, [(of, 0)] if of else [], spent))
        self.settled += 1

    def set(self, *budgets: Budget) -> None:
        self.table.put(team(*budgets))
        self.table.version += 1


async def till(*budgets: Budget, **more: Any) -> Till:
    return await Till(*budgets, **more).open()


async def test_interactive_jobs_hold_nothing_here_for_they_do_already() -> None:
    bench = await till(usd(50))
    assert await bench.hold(job(estimate=ESTIMATE)) is False
    assert await ledger.open_holds(bench.redis) == []


async def test_without_limits_there_is_nothing_to_hold() -> None:
    bench = Till()
    bench.redis.away = True
    assert await bench.hold(batch()) is False


async def test_batch_holds_when_it_is_sent_out() -> None:
    bench = await till(usd(50))
    assert await bench.hold(batch()) is True
    assert await bench.at() == Counted(0, NANO, 0, 300)
    [held] = await ledger.open_holds(bench.redis)
    assert held.ends_ms == START_MS + 24 * HOUR_MS + 60_000, "the deadline and a minute"


async def test_what_is_delivered_again_holds_once() -> None:
    bench = await till(usd(50))
    assert [await bench.hold(batch()) for _ in range(3)] == [True, False, False]
    assert (await bench.at()).held_usd_nano == NANO


async def test_even_where_nothing_more_would_fit() -> None:
    bench = await till(usd(1), concurrency=1)
    assert [await bench.hold(batch()) for _ in range(2)] == [True, False]


async def test_what_is_not_sent_out_is_given_back() -> None:
    bench = await till(usd(1), concurrency=1)
    await bench.hold(batch(1))
    await bench.purse.give_back(batch(1))
    assert await bench.at() == Counted(0, 0, 0, 0)
    assert await bench.hold(batch(2)) is True, "its place too"
    await bench.purse.give_back(batch(1))
    assert (await bench.at()).held_usd_nano == NANO, "that of others isn't"


async def test_an_interactive_job_keeps_what_it_holds() -> None:
    bench = await till(usd(1))
    given = job(estimate=ESTIMATE)
    await admit(bench.redis, Charge(Limits(), 0, 0, 1_000), job_id=given.id)
    await admit(bench.redis, Charge(bench.purse._account(given).limits(given.lane, START_MS), 300, NANO, 1_000), job_id=given.id)  # pyright: ignore[reportPrivateUsage]
    await bench.purse.give_back(given)
    assert (await bench.at()).held_usd_nano == NANO


async def test_giving_back_while_redis_is_away_is_left_to_the_sweep() -> None:
    bench = await till(usd(1))
    await bench.hold(batch())
    bench.redis.away = True
    await bench.purse.give_back(batch())
    bench.redis.away = False
    bench.clock.move(24 * HOUR_MS + 60_001)
    assert await ledger.sweep(bench.redis) == (1, True)


async def test_over_budget_it_waits_for_the_next_period() -> None:
    bench = await till(usd(1))
    await bench.spend(1)
    assert await bench.hold(batch()) == Later(MIDNIGHT_MS, "budget")
    assert await bench.hold(batch(), jitter=0.5) == Later(MIDNIGHT_MS + 5_000, "budget"), "not all of them at once"
    assert await ledger.open_holds(bench.redis) == []


async def test_and_is_sent_out_then_at_that_periods_expense() -> None:
    bench = await till(usd(1))
    await bench.spend(1)
    later = await bench.hold(batch())
    assert isinstance(later, Later)
    waiting = parking.put_off(batch(), (), later)
    bench.clock.move(later.at_ms - START_MS)
    assert await bench.hold(waiting.taken(Stage.ROUTER, bench.clock())) is True
    assert (await bench.at(TODAY)) == Counted(NANO, 0, 0, 0)
    assert (await bench.at(TOMORROW)).held_usd_nano == NANO


async def test_it_is_counted_where_the_router_took_it_though_midnight_has_passed_since() -> None:
    """The completion says when that was, and is settled there: what one period holds, no other must spend."""
    bench = await till(usd(1))
    taken = batch(taken_ms=MIDNIGHT_MS - 1)
    bench.clock.now_ms = MIDNIGHT_MS + 2_000
    assert await bench.hold(taken) is True
    assert (await bench.at(TODAY)).held_usd_nano == NANO
    again = await bench.hold(batch(2, taken_ms=MIDNIGHT_MS - 1))
    assert again == Later(MIDNIGHT_MS + 3_000, "budget"), "that period is over: it is looked at again at once, in the next one"


async def test_whose_deadline_comes_first_fails_and_says_why() -> None:
    bench = await till(usd(1))
    await bench.spend(1)
    fault = await bench.hold(batch(deadline_ms=MIDNIGHT_MS + 1_000))
    assert isinstance(fault, Fault)
    assert (fault.status, fault.code, fault.should_retry) == (429, "budget_exceeded", False)
    assert fault.message == "Budget exceeded for team team: 1.00 of 1.00 USD spent today; resets 2027-01-16"


async def test_a_total_never_resets() -> None:
    bench = await till(usd(5, Period.TOTAL))
    await bench.spend(5, "spend:team/team:total")
    fault = await bench.hold(batch())
    assert isinstance(fault, Fault)
    assert fault.message.endswith("spent in all; this budget does not reset")


async def test_what_no_period_has_room_for_fails_at_once() -> None:
    bench = await till(usd("0.5"))
    fault = await bench.hold(batch())
    assert isinstance(fault, Fault)
    assert "this request may need 1.00 USD" in fault.message


async def test_where_others_hold_it_comes_back_soon() -> None:
    bench = await till(usd("1.5"))
    assert await bench.hold(batch(1)) is True
    assert await bench.hold(batch(2)) == Later(START_MS + 1_000, "budget")
    await bench.spend("0.5", of=batch(1).id)
    assert await bench.hold(batch(2)) is True


async def test_tokens_are_budgeted_too() -> None:
    bench = await till(Budget(tokens=500, period=Period.DAY))
    assert await bench.hold(batch(1)) is True
    assert await bench.hold(batch(2)) == Later(START_MS + 1_000, "budget")


async def test_where_all_places_are_taken_it_comes_back_soon() -> None:
    bench = await till(concurrency=1)
    assert await bench.hold(batch(1)) is True
    assert await bench.hold(batch(2)) == Later(START_MS + 500, "budget")
    await bench.purse.give_back(batch(1))
    assert await bench.hold(batch(2)) is True


@pytest.mark.parametrize("lost", [True, False])
async def test_without_a_ledger_it_waits(lost: bool) -> None:
    bench = Till(usd(50))
    bench.redis.away = not lost
    assert await bench.hold(batch()) == Later(START_MS + 500, "budget")
    fault = await bench.hold(batch(deadline_ms=START_MS + 1_000))
    assert isinstance(fault, Fault)
    assert (fault.status, fault.code) == (503, "budget_unavailable")


async def test_it_is_estimated_here_if_a_budget_was_set_since_it_was_admitted() -> None:
    bench = await till()
    unknown = Estimate(input_tokens=10, output_tokens=20)
    assert await bench.hold(batch(estimate=unknown)) is False
    bench.set(usd(50))
    assert await bench.hold(batch(estimate=unknown)) is True
    found = await bench.at()
    given = tokens.prompt_tokens(batch().api, batch().body)
    assert found.held_usd_nano == (given + 8) * 1_000_000 + 1024 * 2_000_000
    assert found.held_tokens == given + 8 + 1024


async def test_what_has_no_price_fails_where_money_is_counted() -> None:
    bench = await till(usd(50), of=model(deployment(price=None, model="nobody-knows-it")))
    fault = await bench.hold(batch(estimate=None))
    assert isinstance(fault, Fault)
    assert fault.code == "model_not_priced"
    bench.set(Budget(tokens=5_000))
    assert await bench.hold(batch(estimate=None)) is True


async def test_a_change_of_the_budget_counts_at_once() -> None:
    bench = await till(usd(1))
    await bench.spend(1)
    assert isinstance(await bench.hold(batch()), Later)
    bench.set(usd(2))
    assert await bench.hold(batch()) is True


# Streams.


def chat(**members: Any) -> Job:
    """A stream that nobody bounds: 200 tokens are held for its answer."""
    return job(**({"estimate": ESTIMATE, "stream": True} | members))


async def metered(bench: Till, given: Job | None = None) -> Meter:
    """A stream that was admitted."""
    given = given or chat()
    account = bench.purse._account(given)  # pyright: ignore[reportPrivateUsage]
    limits = account.limits(given.lane, given.accepted_ms)
    asked = Charge(limits, 300, NANO, given.deadline_ms - given.accepted_ms + 60_000)
    await admit(bench.redis, asked, job_id=given.id)
    meter = bench.purse.meter(given)
    assert meter is not None
    return meter


def words(count: int) -> list[str]:
    """So many tokens, in pieces."""
    return [" word"] * count


async def test_nothing_is_metered_where_nothing_is_held() -> None:
    assert Till().purse.meter(chat()) is None
    assert Till(usd(50)).purse.meter(chat(estimate=None)) is None


async def test_a_stream_holds_more_when_it_needs_more() -> None:
    bench = await till(usd(50))
    meter, text = await metered(bench), words(200)
    await meter.flowed(text)
    assert (await bench.at()).held_usd_nano == NANO, "what is held suffices so far"
    text += words(1)
    await meter.flowed(text)
    assert await bench.at() == Counted(0, NANO + 256 * 2_000_000, 0, 300 + 256)
    text += words(2_000)
    await meter.flowed(text)
    held = await bench.at()
    assert held.held_tokens >= 100 + 2_201
    assert held.held_usd_nano == NANO + (held.held_tokens - 300) * 2_000_000
    await bench.spend("4.5", of=chat().id)
    assert await bench.at() == Counted(nano(Decimal("4.5")), 0, 0, 0)


async def test_it_is_cut_when_no_more_of_it_fits() -> None:
    bench = await till(usd("1.6"))
    meter, text = await metered(bench), words(456)
    await meter.flowed(text)
    held = await bench.at()
    with pytest.raises(OutOfBudget) as cut:
        await meter.flowed(text + words(1))
    assert cut.value.fault.code == "budget_exceeded"
    assert "Give max_tokens" in cut.value.fault.message
    assert await bench.at() == held, "what it holds already is still needed: it has flowed"


async def test_what_others_hold_is_not_there_for_it() -> None:
    bench = await till(usd("2.2"))
    meter = await metered(bench)
    await metered(bench, chat(id="job_2"))
    with pytest.raises(OutOfBudget):
        await meter.flowed(words(201))


async def test_while_redis_is_away_it_flows_on() -> None:
    bench = await till(usd(1))
    meter = await metered(bench)
    bench.redis.away = True
    await meter.flowed(words(201))
    bench.redis.away = False
    with pytest.raises(OutOfBudget):
        await meter.flowed(words(1_000))


async def test_a_stream_over_midnight_spends_of_the_day_on_which_it_began() -> None:
    bench = await till(usd("1.6"))
    bench.clock.now_ms = MIDNIGHT_MS - 1_000
    meter = await metered(bench, chat(accepted_ms=bench.clock(), deadline_ms=bench.clock() + 60_000))
    bench.clock.now_ms = MIDNIGHT_MS + 1_000
    text = words(456)
    await meter.flowed(text)
    assert (await bench.at(TODAY)).held_tokens == 300 + 256
    assert await bench.at(TOMORROW) == Counted(0, 0, 0, 0)
    with pytest.raises(OutOfBudget):
        await meter.flowed(text + words(1))


async def test_a_stream_that_outlived_its_lease_gets_no_more() -> None:
    bench = await till(usd(50))
    meter = await metered(bench)
    bench.clock.move(120_001)
    await ledger.sweep(bench.redis)
    with pytest.raises(OutOfBudget):
        await meter.flowed(words(201))
    assert await bench.at() == Counted(0, 0, 0, 0)


# The whole way through the router.


async def a_router(*script: object, budget: Budget | None = None, **more: Any) -> Bench:
    bench = Bench(*script, **more)
    bench.control.put(team(*([budget] if budget else [])))
    await ledger.open_ledger(bench.redis, "first", {}, {})
    return bench


async def held(bench: Bench, counter: str = TODAY) -> int:
    return (await ledger.counted(bench.redis, [counter]))[counter].held_usd_nano


@in_virtual_time
async def test_a_stream_that_is_cut_ends_incomplete_and_is_billed_for_what_flowed() -> None:
    text = " word" * 100
    script = (
        [chunk("", role="assistant"), chunk(text)],
        *([chunk(text)] for _ in range(20)),
        [chunk(finish="stop"), usage_chunk()],
    )
    bench = await a_router(script, budget=usd("1.6"))
    given = chat()
    account = bench.router._purse._account(given)  # pyright: ignore[reportPrivateUsage]
    await admit(bench.redis, Charge(account.limits(given.lane, START_MS), 300, NANO, 120_000), job_id=given.id)
    end = await bench.handle(given)
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert end.completion.status is JobStatus.INCOMPLETE
    fault = end.completion.fault
    assert fault is not None
    assert (fault.code, end.last.fault) == ("budget_exceeded", fault)
    [attempt] = end.completion.attempts
    assert (attempt.status, attempt.error, attempt.usage.source) == ("cancelled", "budget_exceeded", "estimated")
    assert attempt.usage.output_tokens == 500, "456 tokens were held when the piece came that was too much"
    assert attempt.cost_usd == Decimal("0.001") * attempt.usage.input_tokens + Decimal("0.002") * 500
    assert bench.provider.closed == 1, "the provider is told to stop"
    sent = [event for event, _, _ in bench.post.sent]
    assert len(sent) == 6


@in_virtual_time
async def test_a_stream_within_its_budget_ends_as_it_should() -> None:
    bench = await a_router(STREAM, budget=usd(50))
    end = await bench.handle(chat())
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.COMPLETED


@in_virtual_time
async def test_a_batch_job_holds_while_it_is_sent_out() -> None:
    during: list[int] = []

    async def answered() -> str:
        during.append(await held(bench))
        return answer("hi")

    bench = await a_router(answered, budget=usd(1))
    end = await bench.handle(batch())
    assert isinstance(end, Finish)
    assert during == [NANO]
    assert await held(bench) == NANO, "until its completion is settled"


@in_virtual_time
async def test_over_budget_a_batch_job_is_put_off_and_calls_nobody() -> None:
    bench = await a_router(answer("hi"), budget=usd(1), clock=virtual_clock)
    spent = Settlement({0: (-1, 0)}, [], {TODAY: Spent(0, NANO)})
    await ledger.settle(bench.redis, spent)
    outcome = await bench.handle(batch())
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == MIDNIGHT_MS
    assert bench.provider.asked == []
    await asyncio.sleep(16 * 3600)
    end = await bench.handle(outcome.job.taken(Stage.ROUTER, bench.clock()))
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.COMPLETED
    assert (await held(bench, TOMORROW), await held(bench)) == (NANO, 0)


@in_virtual_time
async def test_without_time_for_that_it_fails() -> None:
    bench = await a_router(budget=usd(1))
    await ledger.settle(bench.redis, Settlement({0: (-1, 0)}, [], {TODAY: Spent(0, NANO)}))
    end = await bench.handle(batch(deadline_ms=START_MS + HOUR_MS))
    assert isinstance(end, Finish)
    assert end.completion.fault is not None
    assert (end.completion.status, end.completion.fault.code) == (JobStatus.FAILED, "budget_exceeded")
    assert bench.provider.asked == []


@in_virtual_time
async def test_what_is_put_off_after_a_failure_gives_back_what_it_held() -> None:
    bench = await a_router(*(failure() for _ in range(9)), budget=usd(1))
    assert isinstance(await bench.handle(batch()), PutOff)
    assert await held(bench) == 0


@pytest.mark.parametrize("state", ["done", "stale", "abandoned", "exhausted"])
@in_virtual_time
async def test_whoever_gets_no_lease_gives_back(state: Any) -> None:
    bench = await a_router(budget=usd(1))
    bench.records.leases.append(Lease(state))
    await bench.handle(batch())
    assert await held(bench) == 0
    assert bench.provider.asked == []


@pytest.mark.parametrize("concurrency", [None, 1])
@in_virtual_time
async def test_what_is_held_for_a_job_that_somebody_else_is_at_work_on_stays(concurrency: int | None) -> None:
    """He may have found it held already, by us; and its place is his."""
    bench = await a_router(answer("hi"), clock=virtual_clock)
    bench.control.put(team(*([] if concurrency else [usd(1)]), concurrency=concurrency))
    seen: list[int] = []

    async def lease(*_: Any, **__: Any) -> Lease:
        seen.append(len(await ledger.open_holds(bench.redis)))
        return Lease("leased", left_ms=1_000) if len(seen) == 1 else Lease("done")

    bench.records.lease = lease
    await bench.handle(batch())
    assert seen == [1, 1], "while it waits for him, nothing was given back"


@in_virtual_time
async def test_what_a_dead_life_held_is_not_held_twice() -> None:
    bench = await a_router(answer("hi"), budget=usd(1))
    await bench.router._purse.hold(batch(), Moment(START_MS, 0.0))  # pyright: ignore[reportPrivateUsage]
    end = await bench.handle(batch())
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.COMPLETED
    assert await held(bench) == NANO
