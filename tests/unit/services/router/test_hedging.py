"""A slow call gets a second one beside it: who speaks first answers, the other is cancelled, and both are on the bill."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.carriage import Finish
from schemas.control import Deployment, Hedge, Model
from schemas.errors import Fault
from schemas.job import JobStatus
from schemas.policy import EffectivePolicy, RoutePolicy
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from schemas.topics import Lane
from services.router.hedging import Hedges
from services.router.providers.base import ProviderRequest
from tests.fakes.clock import in_virtual_time
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
