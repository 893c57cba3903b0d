"""A slow call gets a second one beside it: who speaks first answers, the other is cancelled, and both are on the bill."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.carriage import Finish
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from schemas.attempt import Attempt
from schemas.control import Deployment, Hedge, Model
from schemas.errors import Fault
from schemas.job import Job, JobStatus
from schemas.policy import EffectivePolicy, RoutePolicy
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from schemas.topics import Lane
from services.router.books import Call
from services.router.hedging import Hedges
from services.router.providers.base import ProviderRequest
from tests.fakes.clock import in_virtual_time
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import (
    STREAM,
    Bench,
    Hangs,
    ScriptedProvider,
    answer,
    chunk,
    deployment,
    failure,
    job,
    virtual_clock,
)

Step = Callable[[], Awaitable[object]]


def after(s: float, what: object) -> Step:
    """What comes so many seconds later."""

    async def step() -> object:
        await asyncio.sleep(s)
        if isinstance(what, Exception):
            raise what
        return what

    return step


@dataclass
class Each(ScriptedProvider):
    """Each deployment does what `does` says."""

    does: dict[str, object] = field(default_factory=dict[str, object])

    async def call(self, request: ProviderRequest) -> str:
        self.script.append(self.does[request.deployment.id])
        return await super().call(request)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        self.script.append(self.does[request.deployment.id])
        async for batch in super().stream(request):
            yield batch

    @property
    def called(self) -> list[str]:
        return [request.deployment.id for request in self.asked]


def hedged(*deployments: Deployment, after_s: float = 1.0) -> Model:
    return Model(
        name="alias",
        deployments=deployments or (deployment("d1"), deployment("d2")),
        hedge=Hedge(after_s=after_s, most_share=1),
    )


def bench(table: Model | None = None, **does: object) -> tuple[Bench, Each]:
    on = Bench(table=table or hedged(), clock=virtual_clock)
    provider = on.provider = Each(does=does)
    return on, provider


def events(on: Bench) -> list[tuple[Event, int, int]]:
    return on.post.sent


def attempts(end: object) -> list[tuple[int, str, str, bool]]:
    assert isinstance(end, Finish)
    return [(a.n, a.deployment, a.status, a.hedge) for a in end.completion.attempts]


@in_virtual_time
async def test_a_quick_call_is_not_hedged() -> None:
    on, provider = bench(d1=after(0.9, answer("quick")), d2=answer("never"))
    end = await on.handle()
    assert provider.called == ["d1"]
    assert attempts(end) == [(1, "d1", "completed", False)]


@in_virtual_time
async def test_the_second_answers_first() -> None:
    on, provider = bench(d1=after(30, answer("late")), d2=after(0.5, answer("soon")))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert asyncio.get_running_loop().time() == pytest.approx(1.5)
    assert isinstance(end.last, Answer)
    assert "soon" in end.last.body
    assert end.last.served.deployment == "d2"
    assert attempts(end) == [(1, "d1", "cancelled", False), (2, "d2", "completed", True)]
    assert provider.closed == 2
    assert not on.places.busy(deployment("d1"))
    assert not on.places.busy(deployment("d2"))


@in_virtual_time
async def test_the_first_answers_first_all_the_same() -> None:
    on, _ = bench(d1=after(1.2, answer("first")), d2=after(5, answer("second")))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert "first" in end.last.body
    assert attempts(end) == [(1, "d1", "completed", False), (2, "d2", "cancelled", True)]


@in_virtual_time
async def test_a_loser_is_billed() -> None:
    on, _ = bench(d1=after(30, answer("late")), d2=answer("soon"))
    end = await on.handle()
    assert isinstance(end, Finish)
    loser, winner = end.completion.attempts
    assert loser.usage.source == "estimated"
    assert loser.usage.input_tokens > 0
    assert loser.cost_usd > 0
    assert loser.error == "hedged"
    assert end.completion.cost_usd == loser.cost_usd + winner.cost_usd


@in_virtual_time
async def test_a_loser_that_bills_whole_answers_is_billed_a_whole_one() -> None:
    table = hedged(deployment("d1", on_disconnect="drain"), deployment("d2"))
    on, _ = bench(table, d1=after(30, answer("late")), d2=answer("a rather long answer", usage={}))
    end = await on.handle()
    assert isinstance(end, Finish)
    loser, winner = end.completion.attempts
    assert loser.usage.output_tokens == winner.usage.output_tokens > 0


@in_virtual_time
async def test_a_stream_of_the_second_goes_out_alone() -> None:
    slow = [[chunk("", role="assistant")], after(30, [chunk("one")])]
    on, _ = bench(d1=slow, d2=STREAM)
    end = await on.handle(job(stream=True))
    assert isinstance(end, Finish)
    assert isinstance(end.last, Closed)
    assert (end.attempt, end.seq) == (2, len(events(on)))
    assert {n for _, n, _ in events(on)} == {2}
    assert isinstance(events(on)[0][0], Opened)
    said = "".join(text for event, _, _ in events(on) if isinstance(event, Delta) for text in event.data)
    assert "one" in said
    assert "two" in said
    assert attempts(end) == [(1, "d1", "cancelled", False), (2, "d2", "completed", True)]


@in_virtual_time
async def test_once_the_first_speaks_the_second_is_cut() -> None:
    first = [after(2, [chunk("", role="assistant"), chunk("one")]), after(5, [chunk(finish="stop"), "[DONE]"])]
    second = [after(2, [chunk("other")])]
    on, provider = bench(d1=first, d2=second)
    end = await on.handle(job(stream=True))
    assert isinstance(end, Finish)
    assert end.attempt == 1
    assert {n for _, n, _ in events(on)} == {1}
    assert provider.closed == 2
    assert attempts(end) == [(1, "d1", "completed", False), (2, "d2", "cancelled", True)]


@in_virtual_time
async def test_one_of_both_fails_and_the_other_answers() -> None:
    on, _ = bench(d1=after(2, failure()), d2=after(3, answer("well")))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.COMPLETED
    assert attempts(end) == [(1, "d1", "failed", False), (2, "d2", "completed", True)]


@in_virtual_time
async def test_both_fail_and_the_job_has_one_call_left() -> None:
    on, provider = bench(d1=after(2, failure()), d2=after(3, failure()))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert len(provider.called) == 3
    assert [n for n, *_ in attempts(end)] == [1, 2, 3]


@in_virtual_time
async def test_a_winner_that_breaks_off_ends_the_stream() -> None:
    on, _ = bench(d1=[after(30, [])], d2=[[chunk("one")], failure()])
    end = await on.handle(job(stream=True))
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert end.attempt == 2
    assert attempts(end) == [(1, "d1", "cancelled", False), (2, "d2", "failed", True)]


@in_virtual_time
async def test_a_cancel_ends_both() -> None:
    on, provider = bench(d1=Hangs(), d2=Hangs())
    given = job()
    task = asyncio.create_task(on.handle(given))
    await asyncio.sleep(2)
    assert provider.called == ["d1", "d2"]
    on.running.cancel(given.id)
    end = await task
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.CANCELLED
    assert attempts(end) == [(1, "d1", "cancelled", False), (2, "d2", "cancelled", True)]
    assert provider.closed == 2
    assert not on.places.busy(deployment("d1"))


@in_virtual_time
async def test_nobody_else_to_ask() -> None:
    on, provider = bench(hedged(deployment("d1")), d1=after(5, answer("late")))
    end = await on.handle()
    assert provider.called == ["d1"]
    assert attempts(end) == [(1, "d1", "completed", False)]


@in_virtual_time
async def test_batch_waits_for_what_it_has_asked() -> None:
    on, provider = bench(d1=after(5, answer("late")), d2=answer("soon"))
    await on.handle(job(lane=Lane.BATCH))
    assert provider.called == ["d1"]


@in_virtual_time
async def test_where_one_call_is_allowed_there_is_no_second() -> None:
    on, provider = bench(d1=after(5, answer("late")), d2=answer("soon"))
    await on.handle(job(policy=EffectivePolicy(version="1", route=RoutePolicy(max_attempts=1))))
    assert provider.called == ["d1"]


@given(share=st.floats(0.01, 1), calls=st.integers(0, 300))
def test_hedges_are_a_share_of_calls(share: float, calls: int) -> None:
    model = Model(name="m", deployments=(deployment(),), hedge=Hedge(after_s=1, most_share=share))
    hedges = Hedges(lambda _, __: None)
    made = 0
    for _ in range(calls):
        assert hedges.after_s(model, model.deployments[0], False) == 1
        made += hedges.take(model)
    assert made <= share * calls + 1e-6


def test_without_a_time_of_its_own_a_hedge_waits_for_the_95th_percentile() -> None:
    known: dict[str, float | None] = {"d1": 250.0, "d2": None}
    hedges = Hedges(lambda d, stream: known[d.id] if stream else None)
    model = Model(name="m", deployments=(deployment("d1"), deployment("d2")), hedge=Hedge())
    first, second = model.deployments
    assert hedges.after_s(model, first, True) == 0.25
    assert hedges.after_s(model, first, False) is None
    assert hedges.after_s(model, second, True) is None
    assert hedges.after_s(model.model_copy(update={"hedge": None}), first, True) is None


@in_virtual_time
async def test_what_a_hedge_may_cost_is_held_too() -> None:
    on, provider = bench(d1=after(5, answer("late")), d2=answer("soon"))
    asked: list[int] = []

    async def covers(*_: object, calls: int = 1) -> bool:
        asked.append(calls)
        return False

    on.purse.covers = covers  # type: ignore[method-assign]
    end = await on.handle()
    assert asked == [2]
    assert provider.called == ["d1"]
    assert cast("Finish", end).completion.status is JobStatus.COMPLETED
    assert not isinstance(cast("Finish", end).last, Fault)


# What goes wrong in the middle of a race.


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls take the time of the loop."""

    def now() -> float:
        return asyncio.get_running_loop().time()

    def call(*args: Any, **more: Any) -> Call:
        return Call(*args, began=now(), **more)

    monkeypatch.setattr("services.router.books.time", SimpleNamespace(perf_counter=now))
    monkeypatch.setattr("services.router.sending.Call", call)


def slow(monkeypatch: pytest.MonkeyPatch, on: Bench, s: float) -> None:
    """A lease for a second call takes so long."""
    ask = on.records.lease

    async def lease(job_id: str, rest_ms: int, **asked: object) -> Lease:
        if asked["held"]:
            await asyncio.sleep(s)
        return await ask(job_id, rest_ms, **asked)

    monkeypatch.setattr(on.records, "lease", lease)


def made(end: object) -> tuple[Attempt, ...]:
    assert isinstance(end, Finish)
    return end.completion.attempts


async def cancelled_at(s: float, on: Bench, given: Job) -> Finish:
    task = asyncio.create_task(on.handle(given))
    await asyncio.sleep(s)
    on.running.cancel(given.id)
    end = await task
    assert isinstance(end, Finish)
    return end


TALK = [*([chunk("word ")] for _ in range(10)), [chunk(finish="stop"), "[DONE]"]]


def talks(step_s: float) -> list[object]:
    return [after(step_s, batch) for batch in TALK]


@pytest.mark.usefixtures("timed")
@in_virtual_time
async def test_a_loser_took_as_long_as_it_flew() -> None:
    on, _ = bench(d1=[after(30, [])], d2=talks(2))
    loser, winner = made(await on.handle(job(stream=True)))
    assert loser.latency_ms == pytest.approx(3000), "it was cut when the other spoke, two seconds after it was asked"
    assert winner.latency_ms == pytest.approx(22_000)
    assert winner.ttft_ms == pytest.approx(2000)


@pytest.mark.usefixtures("timed")
@in_virtual_time
async def test_two_calls_at_once_are_at_the_provider_once() -> None:
    on, _ = bench(d1=Hangs(), d2=after(2, answer()))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert end.last.served.provider_ms == pytest.approx(3000)


@in_virtual_time
async def test_what_has_failed_stays_failed_when_the_other_is_cut() -> None:
    on, _ = bench(d1=after(2, failure("throttled", 429)), d2=Hangs())
    first, second = made(await cancelled_at(4, on, job()))
    assert (first.status, first.http_status, first.cost_usd) == ("failed", 429, 0)
    assert (second.status, second.error) == ("cancelled", "cancelled")


@in_virtual_time
async def test_a_breaker_hears_of_a_failure_before_the_race_is_over() -> None:
    on, _ = bench(d1=after(2, failure("denied", 401)), d2=after(20, answer()))
    task = asyncio.create_task(on.handle())
    await asyncio.sleep(3)
    assert on.health.state("d1", virtual_clock())[0] == "quarantined"
    await task


@in_virtual_time
async def test_who_was_asked_as_the_first_one_failed_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    on, provider = bench(d1=after(1.5, failure()), d2=answer("well"))
    slow(monkeypatch, on, 2)
    end = await on.handle(job(policy=EffectivePolicy(version="1", route=RoutePolicy(max_attempts=2))))
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert provider.called == ["d1", "d2"]
    assert attempts(end) == [(1, "d1", "failed", False), (2, "d2", "completed", True)]


@in_virtual_time
async def test_but_not_for_what_was_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = failure("final", 400)
    refused.fault = refused.fault.model_copy(update={"status": 400})
    on, provider = bench(d1=after(1.5, refused), d2=answer("well"))
    slow(monkeypatch, on, 2)
    end = await on.handle()
    assert provider.called == ["d1"]
    assert [(a.n, a.status, a.usage.source) for a in made(end)] == [(1, "failed", "none"), (2, "cancelled", "none")]


@in_virtual_time
async def test_what_was_never_called_is_not_billed_and_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    on, provider = bench(d1=[after(1.5, [chunk("one")]), Hangs()], d2=answer())
    slow(monkeypatch, on, 2)
    task = asyncio.create_task(on.handle(job(stream=True)))
    await asyncio.sleep(10)
    assert not on.places.busy(deployment("d2"))
    on.running.cancel(job().id)
    first, second = made(await task)
    assert provider.called == ["d1"]
    assert first.usage.input_tokens > 0
    assert (second.status, second.error, second.usage.source) == ("cancelled", "hedged", "none")


@in_virtual_time
async def test_a_number_taken_while_the_first_began_to_speak_is_known_to_who_goes_on() -> None:
    """The answer of the lease was lost, and was given again after the stream had begun."""
    clock = virtual_clock
    on, provider = bench(
        d1=[after(1.5, [chunk("one ")]), after(5, failure(billable=True))], d2=[[chunk("two"), chunk(finish="stop")]]
    )
    records = JobRecords(LuaRedis(clock), "slot", "life")
    lost = iter([False, True])

    async def lease(job_id: str, rest_ms: int, **asked: Any) -> Lease:
        given = await records.lease(job_id, rest_ms, **asked)
        if next(lost, False):
            await asyncio.sleep(1)
            raise RedisUnavailable("the answer was lost")
        return given

    on.records.lease = lease  # type: ignore[method-assign]
    on.records.streamed = records.streamed  # type: ignore[method-assign]
    end = await on.handle(job(stream=True, policy=EffectivePolicy(version="1", route=RoutePolicy(on_broken_stream="continue"))))
    assert isinstance(end, Finish)
    assert isinstance(end.last, Closed)
    assert [(a.n, a.status) for a in made(end)] == [(1, "failed"), (2, "cancelled"), (3, "completed")]
    assert provider.called == ["d1", "d2"]


@in_virtual_time
async def test_a_hedge_that_crashes_leaves_the_first_call_alone() -> None:
    on, _ = bench(d1=after(5, answer("well")), d2=KeyError("a bug"))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert attempts(end) == [(1, "d1", "completed", False), (2, "d2", "failed", True)]


@in_virtual_time
async def test_so_does_one_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    on, provider = bench(d1=after(5, answer("well")), d2=answer())

    async def crash(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(on.dispatcher, "find_now", crash)
    assert attempts(await on.handle()) == [(1, "d1", "completed", False)]
    assert provider.called == ["d1"]


@pytest.mark.parametrize("second", [Hangs(), None])
def test_a_cancel_lets_a_call_end_where_its_deployment_wants_that(second: object) -> None:
    @in_virtual_time
    async def run() -> None:
        table = hedged(*(deployment(name, on_disconnect="drain") for name in ("d1", "d2")), after_s=1 if second else 9)
        on, provider = bench(table, d1=after(5, answer("late")), d2=second)
        end = await cancelled_at(2, on, job())
        assert end.completion.status is JobStatus.CANCELLED
        assert made(end)[0].usage.source == "provider"
        assert provider.called == (["d1", "d2"] if second else ["d1"])

    run()


@in_virtual_time
async def test_one_of_both_that_is_to_be_closed_at_once_closes_both() -> None:
    on, _ = bench(hedged(deployment("d1", on_disconnect="drain"), deployment("d2")), d1=after(9, answer()), d2=Hangs())
    await cancelled_at(2, on, job())
    assert asyncio.get_running_loop().time() == 2


@in_virtual_time
async def test_what_another_try_may_help_is_told_though_the_other_was_refused_for_good() -> None:
    on, _ = bench(d1=after(2, failure()), d2=after(3, failure("final", 422)))
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert [a.http_status for a in made(end)] == [500, 422]
    assert end.last.fault.message == failure().fault.message


@in_virtual_time
async def test_a_process_that_leaves_gives_every_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    on, _ = bench(d1=[after(1.5, [chunk("one")]), Hangs()], d2=answer())
    slow(monkeypatch, on, 2)
    task = asyncio.create_task(on.handle(job(stream=True)))
    await asyncio.sleep(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not on.places.busy(deployment("d1"))
    assert not on.places.busy(deployment("d2"))
