"""The events of one job on their way to the connection that waits."""

import asyncio
from collections.abc import Iterable

import pytest

from infra.kafka.waiter import Interruption, Memory, Waiter
from schemas.errors import ProviderError
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened, Reply, Served
from tests.fakes.clock import in_virtual_time

OPENED, CLOSED, FAILED = Opened(served=Served()), Closed(), Failed(fault=ProviderError("no").fault())
ANSWER = Answer(body="{}", served=Served())


def delta(text: str) -> Delta:
    return Delta(data=(text,))


def reply(event: Event, seq: int = 0, attempt: int = 1) -> Reply:
    return Reply(job_id="job_1", attempt=attempt, seq=seq, event=event)


def given(replies: Iterable[Reply]) -> tuple[Waiter, list[str | None]]:
    waiter = Waiter(Memory(1_000_000))
    return waiter, [waiter.put(each) for each in replies]


def gone() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


async def read(waiter: Waiter) -> list[Event | Interruption]:
    """Everything there is, and why there is no more."""
    found: list[Event | Interruption] = []
    while not found or not isinstance(found[-1], str):
        found.append(await waiter.next(1, gone()))
    return found


CASES: dict[str, tuple[list[Reply], list[str | None], list[Event | Interruption]]] = {
    "an answer": ([reply(ANSWER)], [None], [ANSWER, "late"]),
    "a stream": (
        [reply(OPENED), reply(delta("a"), 1), reply(CLOSED, 2)],
        [None, None, None],
        [OPENED, delta("a"), CLOSED, "late"],
    ),
    "what comes twice": (
        [reply(OPENED), reply(OPENED), reply(delta("a"), 1), reply(delta("a"), 1), reply(OPENED)],
        [None, "repeated", None, "repeated", "repeated"],
        [OPENED, delta("a"), "late"],
    ),
    "another attempt": (
        [reply(OPENED), reply(OPENED, attempt=2), reply(delta("b"), 1, attempt=2), reply(delta("a"), 1)],
        [None, "other attempt", "other attempt", None],
        [OPENED, delta("a"), "late"],
    ),
    "another attempt that failed": ([reply(OPENED), reply(FAILED, attempt=2)], [None, None], [OPENED, FAILED, "late"]),
    "a gap": ([reply(OPENED), reply(delta("b"), 2), reply(CLOSED, 3)], [None, "gap", "gap"], [OPENED, "lost"]),
    "a beginning that is missing": ([reply(delta("b"), 1)], ["gap"], ["lost"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_event_once_and_in_order(case: str) -> None:
    @in_virtual_time
    async def run() -> None:
        replies, dropped, events = CASES[case]
        waiter, said = given(replies)
        assert said == dropped
        assert await read(waiter) == events

    run()


@in_virtual_time
async def test_a_reader_waits_for_what_comes_and_is_not_woken_by_what_is_dropped() -> None:
    waiter, _ = given([reply(OPENED)])
    nobody = gone()
    await waiter.next(1, nobody)
    waiting = asyncio.create_task(waiter.next(100, nobody))
    await asyncio.sleep(10)
    for stray in (reply(OPENED), reply(OPENED, attempt=2)):
        waiter.put(stray)
        await asyncio.sleep(10)
        assert not waiting.done()
    waiter.put(reply(CLOSED, 1))
    assert await waiting == CLOSED


@in_virtual_time
async def test_a_reader_hears_when_the_client_is_gone_when_it_is_late_and_when_events_are_lost() -> None:
    loop = asyncio.get_running_loop()
    for end in ("gone", "late", "lost"):
        waiter, client = Waiter(Memory(1_000_000)), gone()
        waiting = asyncio.create_task(waiter.next(100, client))
        await asyncio.sleep(0)
        began = loop.time()
        if end == "gone":
            client.set_result(None)
        if end == "lost":
            waiter.put(reply(CLOSED, 7))
        assert await waiting == end
        assert loop.time() - began == (100 if end == "late" else 0)


@in_virtual_time
async def test_a_reader_that_is_too_slow_loses_the_stream_and_not_the_process() -> None:
    waiter, said = given(reply(delta("x"), n) for n in range(10_500))
    assert said == [None] * 10_000 + ["slow reader"] + ["gap"] * 499
    assert (await read(waiter))[-1] == "lost"
