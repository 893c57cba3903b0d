"""Admission by all limits at once, over the real scripts: what is held, who waits, who is refused. Time is virtual."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from infra.clock import Clock
from infra.credentials import key_hash, new_key
from infra.estimates import Estimator
from infra.kafka.loads import Loads
from infra.kafka.table import Control, ControlTable
from infra.pace import Pace
from infra.platform import Platform
from infra.prices import PriceBook
from infra.redis import ledger
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.ledger import Counted, Settlement, Spent
from infra.settings import Settings
from infra.signing import Signer
from schemas.base import JsonObject
from schemas.budget import NANO, Budget
from schemas.control import Deployment, Model, Organization, Price, Team, VirtualKey
from schemas.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    TooLarge,
    Unavailable,
)
from schemas.job import Api, Job, ReplyTo
from schemas.policy import Limits, Policy
from schemas.topics import Lane
from services.ingress.handler import Admissions, Admitted, Repeated, Request
from services.ingress.idempotency import Repeatable
from services.ingress.identities import Credentials
from tests.fakes.clock import in_virtual_time
from tests.fakes.redis import LuaRedis

BEFORE_MIDNIGHT_MS = round(datetime(2026, 11, 30, 23, 59, 59, 500_000, tzinfo=UTC).timestamp() * 1000)
BODY: JsonObject = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
MONTH = "spend:team/fraud:2026-11"


class FlakyRedis(LuaRedis):
    """Answers after `slow_s`, or, while it is `away`, not at all."""

    away = False
    slow_s = 0.0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        await asyncio.sleep(self.slow_s)
        if self.away:
            raise RedisUnavailable("nobody answers")
        return await super().run(script, keys, args)


class Bench:
    """An ingress without doors; time is that of the loop. A request holds 0.3 USD or a little more."""

    def __init__(self, team: Policy | None = None, key: Policy | None = None, *, opened: bool = True) -> None:
        self.redis = FlakyRedis(self.now_ms)
        self.table = ControlTable()
        self.secrets = [new_key(), new_key()]
        self.keys = [
            VirtualKey(id=f"key_{n}", sha256=key_hash(secret), last4="0000", team="fraud", policy=key or Policy())
            for n, secret in enumerate(self.secrets)
        ]
        price = Price(input_usd=Decimal("0.001"), output_usd=Decimal("0.003"))
        for resource in (
            Organization(id="org_1", name="acme"),
            Team(id="team_1", name="fraud", organization="acme", policy=team or Policy()),
            *self.keys,
            Model(name="small", deployments=(Deployment(id="d", provider="openai", model="gpt", price=price),)),
            Model(name="secret", deployments=(Deployment(id="s", provider="openai", model="nobody-knows-it"),)),
        ):
            self.table.put(resource)
        self.admissions = admissions(self.redis, self.table, self.now_ms)
        self.opened = opened
        self.settled = -1

    def now_ms(self) -> int:
        return BEFORE_MIDNIGHT_MS + round(asyncio.get_running_loop().time() * 1000)

    async def open(self) -> None:
        if self.opened:
            self.opened = False
            await ledger.open_ledger(self.redis, "first", {}, {})

    async def ask(self, request: Request | None = None, by: int = 0, reply_to: str = "inbox") -> Job:
        found = await self.once(request, by, reply_to)
        assert isinstance(found, Admitted)
        return found.job

    async def once(self, request: Request | None = None, by: int = 0, reply_to: Any = "inbox") -> Admitted | Repeated:
        await self.open()
        identity = await self.admissions.identify(Credentials(self.secrets[by]))
        return await self.admissions.admit_once(identity, request or a_request(), ReplyTo(kind=reply_to))

    async def end(self, job: Job, usd: str = "0") -> None:
        """The job's completion is settled."""
        spent = {MONTH: Spent(0, int(Decimal(usd) * NANO))} if Decimal(usd) else {}
        await ledger.settle(self.redis, Settlement({0: (self.settled, self.settled + 1)}, [(job.id, 0)], spent))
        self.settled += 1

    async def at(self, counter: str = MONTH) -> Counted:
        return (await ledger.counted(self.redis, [counter]))[counter]

    async def seconds(self, asked: Any) -> float:
        """How long somebody waited for his answer, whatever it is."""
        before = asyncio.get_running_loop().time()
        await asyncio.gather(asked, return_exceptions=True)
        return asyncio.get_running_loop().time() - before


def admissions(redis: LuaRedis, table: ControlTable, clock: Clock) -> Admissions:
    """Admission with nothing but Redis behind it."""

    class Watched:
        def __init__(self) -> None:
            self.table = table

        def watch(self, _: object) -> None:
            return

    parts: dict[str, Any] = dict.fromkeys(Platform.__slots__)
    parts |= {
        "settings": Settings(),
        "redis": redis,
        "control": cast("Control", Watched()),
        "signer": Signer(b"0" * 32),
        "clock": clock,
        "loads": Loads(redis, clock),
        "pace": Pace(),
    }
    nobody: Any = None
    return Admissions(Platform(**parts), nobody, nobody, Estimator(table, PriceBook()))


def a_request(lane: Lane = Lane.INTERACTIVE, timeout: str | None = "60", body: JsonObject = BODY, **members: Any) -> Request:
    return Request(api=Api.CHAT, body=body, lane=lane, timeout_header=timeout, **members)


def usd(amount: str | int) -> Policy:
    return Policy(budgets=(Budget(usd=Decimal(amount)),))


def limited(wait_s: float | None = None, **limits: Any) -> Policy:
    return Policy(limits=Limits(**limits), concurrency_wait_s=wait_s)


@in_virtual_time
async def test_what_it_may_cost_is_held_at_the_level_of_the_budget_until_it_ends() -> None:
    bench = Bench(usd(50))
    job = await bench.ask()
    assert job.estimate is not None
    assert job.estimate.output_tokens == 100
    assert job.estimate.usd_nano >= 300_000_000
    held = await bench.at()
    assert (held.usd_nano, held.held_usd_nano) == (0, job.estimate.usd_nano)
    await bench.end(job, "0.25")
    assert await bench.at() == Counted(250_000_000, 0, 0, 0)


@in_virtual_time
async def test_a_budget_admits_what_fits_and_refuses_the_rest_at_once() -> None:
    bench = Bench(usd(1))
    answers = await asyncio.gather(*(bench.ask() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Job) for answer in answers) == 3
    refused = next(answer for answer in answers if isinstance(answer, BudgetExceeded))
    assert refused.message.startswith("Budget exceeded for team fraud: 0.00 of 1.00 USD spent this month, 0.9")
    assert refused.retry_after_s == 5
    assert await bench.seconds(bench.ask()) == 0
    assert (await bench.at()).held_usd_nano <= NANO


@in_virtual_time
async def test_who_is_refused_holds_nothing_anywhere() -> None:
    bench = Bench(Policy(budgets=(Budget(usd=Decimal(50)),), limits=Limits(concurrency=5)), usd("0.5"))
    await bench.ask()
    with pytest.raises(BudgetExceeded, match="this key"):
        await bench.ask()
    assert len(await ledger.open_holds(bench.redis)) == 1
    for _ in range(4):
        with pytest.raises(BudgetExceeded):
            await bench.ask()
    await bench.ask(by=1)


@in_virtual_time
async def test_a_refusal_over_midnight_is_told_of_the_budget_that_refused() -> None:
    """Another request has moved the caller's account on to the next month, while this one's answer was under way."""
    bench = Bench(usd("0.5"))
    await bench.ask()
    bench.redis.slow_s = 1.0
    early = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0.6)
    late = await bench.ask()
    with pytest.raises(BudgetExceeded, match="resets 2026-12-01"):
        await early
    assert [hold.counters for hold in await ledger.open_holds(bench.redis) if hold.job_id == late.id] == [
        ("spend:team/fraud:2026-12",)
    ]


@in_virtual_time
async def test_nobody_estimates_what_nobody_limits() -> None:
    bench = Bench(limited(requests_per_minute=60))
    assert (await bench.ask()).estimate is None
    assert (await bench.ask(a_request(body=BODY | {"model": "secret"}))).model == "secret"


@in_virtual_time
async def test_who_finds_no_place_waits_for_one() -> None:
    bench = Bench(limited(concurrency=1))
    first = await bench.ask()
    second = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(1.0)
    assert not second.done()
    await bench.end(first)
    assert await bench.seconds(second) <= 0.1
    assert isinstance(second.result(), Job)


@pytest.mark.parametrize("wait_s", [0.0, 0.5, 2.0, 10.0])
@in_virtual_time
async def test_but_not_longer_than_the_policy_says(wait_s: float) -> None:
    bench = Bench(limited(concurrency=1, wait_s=wait_s))
    await bench.ask()
    assert await bench.seconds(bench.ask()) == pytest.approx(wait_s, abs=1e-6)
    with pytest.raises(RateLimited) as refused:
        await bench.ask()
    assert refused.value.message == (
        "Concurrency limit reached for team fraud: 1 of 1 requests are running. Try again when one of them has ended."
    )
    assert (refused.value.fault().should_retry, refused.value.retry_after_s) == (True, 1)


@in_virtual_time
async def test_it_is_two_seconds_where_nobody_says() -> None:
    bench = Bench(limited(concurrency=1))
    await bench.ask()
    assert await bench.seconds(bench.ask()) == pytest.approx(2, abs=1e-6)


@in_virtual_time
async def test_of_two_rooms_the_one_that_is_full_is_named() -> None:
    bench = Bench(limited(concurrency=9), limited(concurrency=1))
    await bench.ask()
    with pytest.raises(RateLimited, match="Concurrency limit reached for this key: 1 of 1"):
        await bench.ask()
    await bench.ask(by=1)


@in_virtual_time
async def test_who_waits_for_a_place_is_in_no_budget_yet() -> None:
    bench = Bench(Policy(budgets=(Budget(usd=Decimal(50)),), limits=Limits(concurrency=1)))
    first = await bench.ask()
    waiting = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0.3)
    assert first.estimate is not None
    assert (await bench.at()).held_usd_nano == first.estimate.usd_nano
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await bench.end(first)
    assert (await bench.at()).held_usd_nano == 0


@in_virtual_time
async def test_what_waited_for_a_place_waits_for_no_rate_besides() -> None:
    bench = Bench(limited(requests_per_minute=60), limited(concurrency=1))
    first = await bench.ask()
    waiting = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0.05)
    others = [await bench.ask(by=1)]
    for _ in range(58):
        await bench.end(others.pop())
        others.append(await bench.ask(by=1))
    await bench.end(first)
    with pytest.raises(RateLimited, match="Rate limit reached for team fraud: 60 of 60 requests per minute used"):
        await waiting


@in_virtual_time
async def test_batch_takes_no_place_and_holds_no_money_before_it_is_sent_out() -> None:
    bench = Bench(Policy(budgets=(Budget(usd=Decimal("0.5")),), limits=Limits(concurrency=1)))
    for _ in range(5):
        await bench.ask(a_request(Lane.BATCH))
    assert await ledger.open_holds(bench.redis) == []
    await bench.end(await bench.ask(a_request(Lane.BATCH)), "0.5")
    with pytest.raises(BudgetExceeded):
        await bench.ask(a_request(Lane.BATCH))


@in_virtual_time
async def test_batch_is_given_a_turn_where_a_chat_is_refused() -> None:
    bench = Bench(limited(requests_per_minute=1))
    jobs = [await bench.ask(a_request(Lane.BATCH, "600")) for _ in range(3)]
    assert [max(0, job.not_before_ms - job.accepted_ms) for job in jobs] == [0, 60_000, 120_000]
    await bench.ask()
    with pytest.raises(RateLimited) as refused:
        await bench.ask()
    assert refused.value.retry_after_s == 60
    with pytest.raises(DeadlineExceeded, match="That is after the deadline of this request"):
        await bench.ask(a_request(Lane.BATCH, "100"))


@in_virtual_time
async def test_what_came_through_a_queue_waits_for_its_place_as_long_as_it_has_time() -> None:
    bench = Bench(limited(concurrency=1))
    first = await bench.ask()
    waiting = asyncio.ensure_future(bench.ask(reply_to="results"))
    await asyncio.sleep(30)
    assert not waiting.done()
    await bench.end(first)
    second = await waiting
    third = asyncio.ensure_future(bench.ask(reply_to="results"))
    with pytest.raises(DeadlineExceeded):
        await third
    assert await bench.at("spend:team/fraud:total") == Counted(0, 0, 0, 0)
    await bench.end(second)


@in_virtual_time
async def test_too_many_tokens_for_any_minute() -> None:
    bench = Bench(limited(tokens_per_minute=50))
    with pytest.raises(TooLarge, match="the limit is 50 tokens per minute"):
        await bench.ask()


@in_virtual_time
async def test_a_ledger_that_is_being_counted_anew_refuses_who_has_a_budget() -> None:
    bench = Bench(usd(50), opened=False)
    with pytest.raises(Unavailable) as refused:
        await bench.ask()
    assert (refused.value.fault().code, refused.value.fault().should_retry) == ("budget_unavailable", True)
    assert isinstance(await Bench(limited(requests_per_minute=9), opened=False).ask(), Job)


@in_virtual_time
async def test_without_redis_who_has_limits_is_refused_unless_his_policy_says_otherwise() -> None:
    bench = Bench(usd(50))
    bench.opened, bench.redis.away = False, True
    with pytest.raises(Unavailable) as refused:
        await bench.ask()
    assert refused.value.fault().code == "budget_unavailable"
    free = Bench()
    free.redis.away, free.opened = True, False
    assert isinstance(await free.ask(), Job)


@in_virtual_time
async def test_or_is_held_to_a_part_of_them_by_this_process_alone() -> None:
    bench = Bench(Policy(budgets=(Budget(usd=Decimal(20)),), when_redis_is_away="open"))
    await bench.open()
    bench.redis.away = True
    answers = await asyncio.gather(*(bench.ask() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Job) for answer in answers) == 3, "a twentieth of 20 USD"
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 7
    bench.redis.away = False
    assert isinstance(await bench.ask(), Job)
    assert len(await ledger.open_holds(bench.redis)) == 1


@in_virtual_time
async def test_the_same_request_again_holds_once() -> None:
    bench = Bench(usd(50))
    again = Repeatable("claim:1", "sha", attaches=True, patience_s=None)
    first = await bench.once(a_request(repeatable=again))
    second = await bench.once(a_request(repeatable=again))
    assert isinstance(first, Admitted)
    assert isinstance(second, Repeated)
    assert second.job.id == first.job.id
    assert first.job.estimate is not None
    assert (await bench.at()).held_usd_nano == first.job.estimate.usd_nano


@in_virtual_time
async def test_a_lease_outlives_the_deadline_by_a_minute_and_is_swept_then() -> None:
    bench = Bench(usd("0.5"))
    await bench.ask(a_request(timeout="60"))
    await asyncio.sleep(119)
    assert await ledger.sweep(bench.redis) == (0, True)
    await asyncio.sleep(1.1)
    assert await ledger.sweep(bench.redis) == (1, True)
    assert await bench.at() == Counted(0, 0, 0, 0)


@in_virtual_time
async def test_several_budgets_of_one_level_are_held_once_and_given_back_once() -> None:
    budgets = (Budget(usd=Decimal(50)), Budget(tokens=1_000), Budget(usd=Decimal(1)))
    bench = Bench(Policy(budgets=budgets))
    jobs = [await bench.ask() for _ in range(3)]
    assert all(job.estimate for job in jobs)
    assert (await bench.at()).held_usd_nano == sum(job.estimate.usd_nano for job in jobs if job.estimate)
    with pytest.raises(BudgetExceeded, match=r"of 1\.00 USD spent"):
        await bench.ask()
    for job in jobs:
        await bench.end(job)
    assert await bench.at() == Counted(0, 0, 0, 0)


def a_moderation(**members: Any) -> Request:
    return Request(api=Api.MODERATIONS, body={"input": "hello", **members}, lane=Lane.INTERACTIVE, timeout_header="60")


@in_virtual_time
async def test_a_moderation_without_a_price_goes_under_a_budget() -> None:
    bench = Bench(usd(1))
    job = await bench.ask(a_moderation(model="secret"))
    assert job.estimate is not None
    assert (job.model, job.stream, job.estimate.usd_nano) == ("secret", False, 0)


@in_virtual_time
async def test_where_no_model_is_named_a_moderation_goes_to_the_one_that_is_called_as_openais() -> None:
    bench = Bench()
    with pytest.raises(InvalidRequest, match="have one called `omni-moderation-latest` added") as refused:
        await bench.ask(a_moderation())
    assert refused.value.fault().param == "model"
    bench.table.put(Model(name="omni-moderation-latest", deployments=(Deployment(id="o", provider="openai", model="omni"),)))
    assert (await bench.ask(a_moderation())).model == "omni-moderation-latest"
    with pytest.raises(ModelNotFound):
        await bench.ask(a_moderation(model="gone"))


@pytest.mark.parametrize("given", [None, "", [], ["one", 1], {"text": "x"}])
@in_virtual_time
async def test_what_is_no_input_of_a_moderation(given: object) -> None:
    with pytest.raises(InvalidRequest, match="Invalid value for `input"):
        await Bench().ask(a_moderation(model="secret", input=given))
