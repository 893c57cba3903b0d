"""A call that nobody waits for any more: closed at once, or let end so that its usage is known."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest

from infra.kafka.carriage import Finish
from schemas.attempt import Attempt
from schemas.job import JobStatus
from schemas.kept import Kept
from services.router.leases import MOST_DRAINING, Running
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import (
    START_MS,
    STREAM,
    Bench,
    Hangs,
    answer,
    chunk,
    deployment,
    failure,
    job,
    model,
    virtual_clock,
)

OnDisconnect = Literal["abort", "drain"]


def bench(on_disconnect: OnDisconnect, *script: object) -> Bench:
    return Bench(*script, table=model(deployment(on_disconnect=on_disconnect)), clock=virtual_clock)


async def late(what: object, s: float = 5) -> object:
    await asyncio.sleep(s)
    return what


async def cancelled(on: Bench, stream: bool) -> Finish:
    """The end of a job whose caller hangs up after a second."""
    given = job(stream=stream)
    task = asyncio.create_task(on.handle(given))
    await asyncio.sleep(1)
    on.running.cancel(given.id)
    on.running.cancel(given.id)
    end = await task
    assert isinstance(end, Finish)
    return end


def attempt(end: Finish) -> Attempt:
    [made] = end.completion.attempts
    return made


PLAIN, SILENT, SPEAKING = "a plain call", "before the first token", "in the middle of a stream"
SCRIPTS: dict[str, tuple[bool, object, int]] = {
    PLAIN: (False, Hangs(), 0),
    SILENT: (True, [[chunk("", role="assistant")], Hangs()], 0),
    SPEAKING: (True, [[chunk("one two three four")], Hangs()], 4),
}


@pytest.mark.parametrize("by", ["cancel", "deadline"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_abort_closes_the_call_and_bills_what_was_delivered_as_an_estimate(name: str, by: str) -> None:
    @in_virtual_time
    async def check() -> None:
        stream, script, output = SCRIPTS[name]
        on = bench("abort", script)
        if by == "cancel":
            end = await cancelled(on, stream)
            assert asyncio.get_running_loop().time() == 1
            assert end.completion.status is JobStatus.CANCELLED
        else:
            end = await on.handle(job(stream=stream, deadline_ms=START_MS + 10_000))
            assert isinstance(end, Finish)
            assert end.completion.status is JobStatus.EXPIRED
        assert on.provider.closed == 1
        made = attempt(end)
        assert (made.status, made.usage.source, made.usage.output_tokens) == ("cancelled", "estimated", output)
        assert made.usage.input_tokens > 0
        assert made.cost_usd > 0

    check()


DRAINED: dict[str, tuple[bool, object]] = {
    PLAIN: (False, lambda: late(answer())),
    SILENT: (True, [[chunk("", role="assistant")], lambda: late(STREAM[0]), *STREAM[1:]]),
    SPEAKING: (True, [STREAM[0], lambda: late(STREAM[1]), STREAM[2]]),
}


@pytest.mark.parametrize("name", DRAINED)
def test_drain_lets_the_call_end_and_bills_what_the_provider_says(name: str) -> None:
    @in_virtual_time
    async def check() -> None:
        stream, script = DRAINED[name]
        on = bench("drain", script)
        end = await cancelled(on, stream)
        assert asyncio.get_running_loop().time() == 5
        assert end.completion.status is JobStatus.CANCELLED
        made = attempt(end)
        assert (made.status, made.usage.source) == ("completed", "provider")
        assert (made.usage.input_tokens, made.usage.output_tokens) == (5, 2)
        assert kinds(on) == (["opened", "delta"] if name == SPEAKING else []), "nothing is relayed after the cancel"
        assert Kept.model_validate_json(on.records.kept).answer is None, "for nobody who asks the same"
        assert len(on.running) == 0

    check()


def kinds(on: Bench) -> Sequence[str]:
    return [event.kind for event, _, _ in on.post.sent]


@in_virtual_time
async def test_a_drained_call_that_fails_is_not_tried_again() -> None:
    on = bench("drain", lambda: late(failure()), answer())
    on.provider.script[0] = _fails
    end = await cancelled(on, stream=False)
    assert end.completion.status is JobStatus.CANCELLED
    assert attempt(end).status == "failed"
    assert len(on.provider.asked) == 1


async def _fails() -> object:
    await asyncio.sleep(5)
    raise failure()


@in_virtual_time
async def test_drain_ends_with_the_deadline() -> None:
    on = bench("drain", Hangs())
    end = await cancelled(on, stream=False)
    assert asyncio.get_running_loop().time() == pytest.approx(59.95)
    assert end.completion.status is JobStatus.CANCELLED
    assert (attempt(end).status, attempt(end).usage.source) == ("cancelled", "estimated")
    assert on.provider.closed == 1


@in_virtual_time
async def test_a_process_that_leaves_closes_what_it_drains() -> None:
    on = bench("drain", Hangs(), Hangs())
    first, second = job(), job(id="job_018f00000000700080000000000000bb")
    tasks = [asyncio.create_task(on.handle(given)) for given in (first, second)]
    await asyncio.sleep(1)
    on.running.cancel(first.id)
    await asyncio.sleep(1)
    on.running.stop_draining()
    on.running.cancel(second.id)
    ends = await asyncio.gather(*tasks)
    assert asyncio.get_running_loop().time() == 2
    assert on.provider.closed == 2
    assert all(isinstance(end, Finish) and end.completion.status is JobStatus.CANCELLED for end in ends)


@in_virtual_time
async def test_only_so_many_are_drained_at_once() -> None:
    running: Running = bench("drain").running

    async def call(number: int) -> bool:
        with running.hold(str(number)) as run:
            run.drains = True
            try:
                async with run.until(10):
                    await asyncio.Event().wait()
            except TimeoutError:
                return asyncio.get_running_loop().time() < 10
        raise AssertionError("nothing ended it")

    calls = [asyncio.create_task(call(number)) for number in range(MOST_DRAINING + 3)]
    await asyncio.sleep(1)
    for number in range(len(calls)):
        running.cancel(str(number))
    closed_at_once = await asyncio.gather(*calls)
    assert closed_at_once == [False] * MOST_DRAINING + [True] * 3


@in_virtual_time
async def test_a_cancel_between_two_tries_ends_the_job_at_once() -> None:
    on = Bench(failure(), table=model(deployment(on_disconnect="drain")), clock=virtual_clock, chance=lambda: 0.99)
    given = job()
    task = asyncio.create_task(on.handle(given))
    await asyncio.sleep(0.1)
    on.running.cancel(given.id)
    end = await task
    assert asyncio.get_running_loop().time() == 0.1
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.CANCELLED
