"""Quotas and gates on a job's way: who waits, for how long, and what he is told."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from infra.kafka.carriage import Finish, PutOff
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import Lease
from infra.redis.quota import Taken
from infra.tokens import prompt_tokens
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.control import Deployment, Model, StrategyName
from schemas.errors import Fault
from schemas.gates import WindowGate
from schemas.job import Api, Estimate, Job, JobStatus
from schemas.policy import EffectivePolicy
from schemas.reply import Failed
from schemas.topics import Lane
from schemas.usage import Usage
from services.router.health import IN_A_ROW
from services.router.places import Place, Places
from services.router.quota import Quotas, expected_tokens
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import START_MS, Bench, Hangs, answer, deployment, failure, job, model, virtual_clock

HOUR_MS = 3_600_000
BATCH = job(lane=Lane.BATCH, deadline_ms=START_MS + 24 * HOUR_MS)


def bench(*script: object, table: Model | None = None) -> Bench:
    return Bench(*script, table=table, clock=virtual_clock)


def chat(text: str, **more: int) -> JsonObject:
    return {"model": "alias", "messages": [{"role": "user", "content": text}], **more}


def attempt(given: int, made: int) -> Attempt:
    """A call that took so many tokens."""
    return Attempt(
        id="att_1",
        n=1,
        deployment="d1",
        provider="openai",
        provider_model="real-model",
        started_ms=START_MS,
        latency_ms=1,
        status="completed",
        usage=Usage(input_tokens=given, output_tokens=made, source="provider"),
    )


def seconds() -> float:
    return asyncio.get_running_loop().time()


def slow(s: float) -> Callable[[], Awaitable[str]]:
    async def done() -> str:
        await asyncio.sleep(s)
        return answer()

    return done


def status(outcome: object) -> JobStatus:
    assert isinstance(outcome, Finish)
    return outcome.completion.status


# Requests per minute


@in_virtual_time
async def test_a_short_wait_for_the_minute_is_waited_in_place() -> None:
    for lane, wait_ms in ((Lane.INTERACTIVE, 1_500), (Lane.BATCH, 3_500)):
        on, began = bench(answer(), table=model(deployment(rpm=60))), seconds()
        on.quota_waits.append(wait_ms)
        assert status(await on.handle(job(lane=lane))) is JobStatus.COMPLETED
        assert seconds() - began == wait_ms / 1000


@in_virtual_time
async def test_interactive_is_told_at_once_when_a_longer_wait_would_be_in_vain() -> None:
    on = bench(table=model(deployment(rpm=60)))
    on.quota_waits.append(7_300)
    end = await on.handle(job())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    fault = end.last.fault
    assert (fault.status, fault.code, fault.retry_after_s, fault.should_retry) == (429, "rate_limit_exceeded", 8, True)
    assert (seconds(), len(on.provider.asked)) == (0, 0)


@in_virtual_time
async def test_interactive_with_little_time_waits_half_of_it() -> None:
    on = bench(table=model(deployment(rpm=60)))
    on.quota_waits.append(600)
    end = await on.handle(job(deadline_ms=START_MS + 1_000))
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert end.last.fault.status == 429


@in_virtual_time
async def test_batch_is_put_off_for_a_longer_wait_and_no_call_is_on_its_record() -> None:
    on = bench(answer(), table=model(deployment(rpm=60)))
    on.quota_waits.append(30_000)
    outcome = await on.handle(BATCH)
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 30_000
    assert outcome.job.made == ()
    assert on.records.asks[0]["attempts"] == 0
    assert status(await on.handle(outcome.job)) is JobStatus.COMPLETED


@in_virtual_time
async def test_another_deployment_is_tried_before_anybody_waits() -> None:
    on = bench(answer(), table=model(deployment("d1", rpm=60), deployment("d2", rpm=60)))
    on.quota_waits.append(30_000)
    end = await on.handle(job())
    assert isinstance(end, Finish)
    assert [a.deployment for a in end.completion.attempts] == ["d2"]
    assert dict(on.charged) == {("d1", Lane.INTERACTIVE): 0, ("d2", Lane.INTERACTIVE): 1}


@in_virtual_time
async def test_a_job_that_waits_for_another_router_is_charged_nothing() -> None:
    on = bench(answer(), table=model(deployment(rpm=60)))
    on.records.leases += [Lease("leased", left_ms=9_000), *(Lease("leased", left_ms=8_000) for _ in range(9)), Lease("exhausted")]
    assert status(await on.handle()) is JobStatus.COMPLETED
    assert on.charged["d1", Lane.INTERACTIVE] == 2, "one for the look at the lease, one for the call"
    assert on.records.calls[0] == "release"


@in_virtual_time
async def test_without_redis_the_provider_knows_its_quota_itself() -> None:
    async def away(*_: object) -> Taken:
        raise RedisUnavailable("away")

    async def correcting_away(*_: object) -> None:
        raise RedisUnavailable("away")

    on = bench()
    quotas = Quotas(away, correcting_away, Places(on.health, on.clock), on.clock)
    assert await quotas.charge(deployment(rpm=1), BATCH) == 0
    quotas.took(deployment(tpm=1), BATCH, attempt(5, 2))
    await asyncio.sleep(0)


@in_virtual_time
async def test_who_waited_says_so_and_how_long_it_still_does() -> None:
    on = bench(answer(), table=model(deployment(rpm=60)))
    on.quota_waits.append(1_500)
    heavy = EffectivePolicy(version="1", weight=3)
    assert status(await on.handle(job(policy=heavy))) is JobStatus.COMPLETED
    assert [(wish.patience_ms, wish.again, wish.weight, wish.team) for wish in on.wishes] == [
        (2_000, False, 3, "team"),
        (500, True, 3, "team"),
    ]


# Tokens per minute


@in_virtual_time
async def test_a_call_is_charged_what_it_is_expected_to_take_and_put_right_afterwards() -> None:
    on = bench(answer(), table=model(deployment(tpm=60_000)))
    estimated = job(estimate=Estimate(input_tokens=20, output_tokens=80))
    assert status(await on.handle(estimated)) is JobStatus.COMPLETED
    assert [wish.tokens for wish in on.wishes] == [100]
    await asyncio.sleep(0)
    assert on.corrected == [("d1", 100, 7)]


@in_virtual_time
async def test_a_call_that_failed_is_given_its_tokens_back() -> None:
    on = bench(failure(), answer(), table=model(deployment("d1", tpm=60_000), deployment("d2")))
    estimated = job(estimate=Estimate(input_tokens=20, output_tokens=80))
    assert status(await on.handle(estimated)) is JobStatus.COMPLETED
    assert on.corrected == [("d1", 100, 0)], "and of a deployment without such a quota nothing is asked"


def test_without_an_estimate_the_length_of_what_is_asked_tells() -> None:
    limited = deployment(tpm=1)
    assert expected_tokens(limited, job(body=chat("x" * 400, max_tokens=50))) == pytest.approx(150, abs=5)
    assert expected_tokens(limited, job(body=chat("x" * 400, max_tokens=50, n=3))) == pytest.approx(250, abs=5)
    bounded = EffectivePolicy(version="1", max_output_tokens=30)
    assert expected_tokens(limited, job(body=chat("x" * 400), policy=bounded)) == pytest.approx(130, abs=5)
    assert expected_tokens(limited, job(api=Api.EMBEDDINGS, body={"input": "x" * 400})) == pytest.approx(100, abs=5)


@in_virtual_time
async def test_the_tighter_of_both_quotas_is_what_gates_see() -> None:
    async def half_in_use(*_: object) -> Taken:
        return Taken(0, full_ms=30_000)

    async def no_correction(*_: object) -> None:
        raise AssertionError

    on = bench()
    quotas = Quotas(half_in_use, no_correction, Places(on.health, on.clock), on.clock)
    target = deployment(tpm=1_000)
    assert await quotas.charge(target, job()) == 0
    assert quotas.share(model(target), on.clock()) == 0.5
    quotas.took(target, job(estimate=Estimate(input_tokens=5, output_tokens=2)), attempt(5, 2))
    await asyncio.sleep(0)


# Calls at once


@in_virtual_time
async def test_interactive_waits_two_seconds_for_a_place_and_batch_four() -> None:
    table = model(deployment(max_parallel_requests=1))
    for lane, s in ((Lane.INTERACTIVE, 2), (Lane.BATCH, 4)):
        on = bench(Hangs(), answer(), table=table)
        blocking = asyncio.create_task(on.handle(job(id="job_018f00000000700080000000000000bb")))
        await asyncio.sleep(0)
        began = seconds()
        outcome = await on.handle(job(lane=lane))
        assert seconds() - began == s
        if lane is Lane.BATCH:
            assert isinstance(outcome, PutOff)
        else:
            assert isinstance(outcome, Finish)
            assert isinstance(outcome.last, Failed)
            assert (outcome.last.fault.status, outcome.last.fault.retry_after_s) == (429, 1)
        blocking.cancel()
        await asyncio.wait([blocking])
        assert status(await on.handle(job(lane=lane))) is JobStatus.COMPLETED, "who was cut gave his place back"


@in_virtual_time
async def test_a_freed_place_is_used_at_once() -> None:
    on = bench(slow(1), answer(), table=model(deployment(max_parallel_requests=1)))
    first = asyncio.create_task(on.handle(job(id="job_018f00000000700080000000000000bb")))
    await asyncio.sleep(0)
    assert status(await on.handle()) is JobStatus.COMPLETED
    assert seconds() == 1
    await first


@in_virtual_time
async def test_batch_saturates_and_interactive_still_finds_its_quarter() -> None:
    on = bench(*(slow(10) for _ in range(20)), *(answer() for _ in range(5)), table=model(deployment(max_parallel_requests=20)))

    def named(number: int, lane: Lane) -> str:
        return f"job_018f0000000070008000{int(lane is Lane.BATCH)}{number:011x}"

    flood = [asyncio.create_task(on.handle(job(id=named(n, Lane.BATCH), lane=Lane.BATCH))) for n in range(40)]
    await asyncio.sleep(0.1)
    assert len(on.provider.asked) == 15
    began = seconds()
    outcomes = await asyncio.gather(*(on.handle(job(id=named(n, Lane.INTERACTIVE))) for n in range(5)))
    assert len(on.provider.asked) == 20
    assert {status(outcome) for outcome in outcomes} == {JobStatus.COMPLETED}
    assert seconds() - began == 10, "their own calls' time, and no wait"
    for task in flood:
        task.cancel()
    await asyncio.wait(flood)


# Gates


def gated(window: str) -> Model:
    return model().model_copy(update={"gates": (WindowGate(window=window),)})


@in_virtual_time
async def test_a_closed_gate_holds_batch_until_it_opens_and_never_interactive() -> None:
    # START_MS is 08:00 UTC.
    on = bench(answer(), answer(), table=gated("22:00-06:00"))
    assert status(await on.handle(job())) is JobStatus.COMPLETED
    outcome = await on.handle(BATCH)
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 14 * HOUR_MS
    assert len(on.provider.asked) == 1
    assert status(await on.carry(outcome.job)) is JobStatus.COMPLETED
    assert seconds() == 14 * 3600


@in_virtual_time
async def test_a_job_that_could_not_wait_until_the_gate_opens_goes_before_its_deadline() -> None:
    on = bench(answer(), table=gated("22:00-06:00"))
    assert status(await on.carry(job(lane=Lane.BATCH, deadline_ms=START_MS + 2 * HOUR_MS))) is JobStatus.COMPLETED
    assert seconds() == 2 * 3600 - 600


# Who is asked first


def strategic(name: StrategyName, *deployments: Deployment) -> Model:
    return model(*deployments).model_copy(update={"strategy": name})


async def taken(on: Bench, asking: Job, times: int = 1) -> list[str]:
    """At whom places are found, one after another; none is given back."""
    route = await on.dispatcher.route(asking, on.control.models, on.control.models["alias"])
    found = [await on.dispatcher.find(asking, route) for _ in range(times)]
    return [place.deployment.id for place in found if isinstance(place, Place)]


def cool(on: Bench, name: str) -> None:
    for _ in range(IN_A_ROW):
        on.health.failed(name, START_MS, virtual_clock())


LANES = pytest.mark.parametrize("lane", list(Lane))


@LANES
def test_reserved_capacity_is_spent_first_and_then_paid_for_at_once(lane: Lane) -> None:
    @in_virtual_time
    async def check() -> None:
        reserved = deployment("reserved", reserved=True, max_parallel_requests=1)
        on = bench(table=strategic("usage-priority", deployment("paid", weight=99), reserved))
        assert await taken(on, job(lane=lane), 3) == ["reserved", "paid", "paid"]
        assert seconds() == 0

    check()


@in_virtual_time
async def test_batch_waits_for_reserved_capacity_where_only_interactive_may_burst() -> None:
    paid = deployment("paid", lanes=(Lane.INTERACTIVE,))
    on = bench(table=strategic("usage-priority", paid, deployment("reserved", reserved=True, max_parallel_requests=1)))
    assert await taken(on, job(), 2) == ["reserved", "paid"]
    assert await taken(on, job(lane=Lane.BATCH)) == []
    assert seconds() == 4


@pytest.mark.parametrize("name", ["simple-shuffle", "cost-based-routing", "latency-based-routing", "usage-priority"])
def test_the_next_in_order_is_asked_only_when_the_first_cannot_be(name: StrategyName) -> None:
    @in_virtual_time
    async def check() -> None:
        first, second = deployment("first", order=1), deployment("second", order=2, weight=99, reserved=True)
        busy = first.model_copy(update={"max_parallel_requests": 1})
        assert await taken(bench(table=strategic(name, second, first)), job(), 3) == ["first"] * 3
        assert await taken(bench(table=strategic(name, second, busy)), job(), 2) == ["first", "second"]
        on = bench(table=strategic(name, second, first.model_copy(update={"rpm": 1})))
        on.quota_waits.append(1_000)
        assert await taken(on, job()) == ["second"]
        cool(on, "first")
        assert await taken(on, job()) == ["second"]
        assert seconds() == 0

    check()


# What operators have taken out


@in_virtual_time
async def test_a_drained_deployment_gets_no_new_calls() -> None:
    on = bench(table=model(deployment("d1"), deployment("d2")))
    assert await taken(on, job()) == ["d1"]
    on.health.drained = ("d1",)
    assert await taken(on, job(), 3) == ["d2"] * 3


@in_virtual_time
async def test_when_all_are_drained_interactive_is_told_and_batch_waits() -> None:
    on = bench(answer(), table=model(deployment("d1"), deployment("d2")))
    on.health.drained = ("d1", "d2")
    end = await on.handle(job())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    fault = end.last.fault
    assert (fault.status, fault.code, fault.retry_after_s, fault.owner) == (503, "deployments_drained", 5, "gateway")
    outcome = await on.handle(BATCH)
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 5_000
    on.health.drained = ()
    assert status(await on.carry(outcome.job)) is JobStatus.COMPLETED


@in_virtual_time
async def test_one_that_cools_down_beside_a_drained_one_says_when_it_is_back() -> None:
    on = bench(table=model(deployment("d1"), deployment("d2")))
    on.health.drained = ("d1",)
    cool(on, "d2")
    end = await on.handle(job())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert (end.last.fault.code, end.last.fault.retry_after_s) == ("provider_unavailable", 5)


# A place at once, for a call beside a slow one


async def now(on: Bench, *tried: str, asking: Job | None = None) -> str | None:
    """At whom there is a place now, for a job that asks."""
    given = asking or job()
    route = await on.dispatcher.route(given, on.control.models, on.control.models["alias"])
    place = await on.dispatcher.find_now(given, route, tried)
    assert seconds() == 0
    return place.deployment.id if place else None


@in_virtual_time
async def test_a_hedge_goes_to_one_that_was_not_tried_and_is_charged() -> None:
    on = bench(table=model(deployment("d1"), deployment("d2", rpm=60)))
    assert await now(on, "d1") == "d2"
    assert on.charged["d2", Lane.INTERACTIVE] == 1
    assert await now(on, "d1", "d2") is None
    cool(on, "d2")
    assert await now(on, "d1") is None


@in_virtual_time
async def test_a_hedge_waits_for_nothing() -> None:
    on = bench(table=model(deployment("d1"), deployment("d2", rpm=60, max_parallel_requests=1)))
    on.quota_waits.append(1)
    assert await now(on, "d1") is None
    assert [wish.patience_ms for wish in on.wishes] == [0]
    assert await now(on, "d1") == "d2", "what was not charged was given back"
    assert await now(on, "d1") is None, "no place is left"


@in_virtual_time
async def test_a_closed_gate_holds_a_hedge_of_batch() -> None:
    on = bench(table=gated("22:00-06:00").model_copy(update={"deployments": (deployment("d1"), deployment("d2"))}))
    assert await now(on, "d1", asking=BATCH) is None
    assert await now(on, "d1") == "d2"


# What the request needs


SHORT_AND_LONG = model(deployment("short", max_input_tokens=100), deployment("long"))


@in_virtual_time
async def test_a_prompt_is_counted_where_its_length_matters() -> None:
    on = bench(table=SHORT_AND_LONG)
    assert await taken(on, job(body=chat("word " * 50))) == ["short"]
    assert await taken(on, job(body=chat("word " * 200))) == ["long"]
    estimated = Estimate(input_tokens=130, output_tokens=9)
    assert await taken(on, job(body=chat("word " * 90), estimate=estimated)) == ["short"], "an estimate is more than there is"


async def test_a_long_prompt_is_counted_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def to_thread(count: Callable[[Api, JsonObject], int], api: Api, body: JsonObject) -> int:
        asked.append(count)
        return count(api, body)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    assert await taken(bench(table=SHORT_AND_LONG), job(body=chat("word " * 20_000))) == ["long"]
    assert asked == [prompt_tokens]


@in_virtual_time
async def test_a_request_that_nobody_can_serve_is_told_why_before_anybody_waits() -> None:
    on = bench(table=model(deployment(capabilities=("tools",))))
    asking = job(stream=True)
    route = await on.dispatcher.route(asking, on.control.models, on.control.models["alias"])
    fault = await on.dispatcher.find(asking, route)
    assert isinstance(fault, Fault)
    assert (fault.status, fault.code) == (400, "unsupported_capability")
