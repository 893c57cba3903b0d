"""A batch that was delivered to two processes is worked on by one of them, and by the other when the first is gone."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.embedded.stack import Stack
from infra.kafka.envelope import encode
from infra.kafka.log import Outgoing
from infra.redis.client import Redis
from schemas.batch import BatchOrder
from services.ingress.batches import runner
from services.ingress.batches.runner import Runner
from tests.fakes.log import Record
from tests.unit.services.ingress.batches.examples import an_order, when


@pytest.fixture
async def redis(stack: Stack) -> AsyncGenerator[Redis]:
    redis = Redis(stack.redis, timeout_s=2)
    yield redis
    await redis.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LEASE_MS", 400)
    monkeypatch.setattr(runner, "_RENEW_S", 0.1)
    monkeypatch.setattr(runner, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def order() -> BatchOrder:
    return an_order(id=f"batch_{uuid.uuid4().hex}")


def a_runner(redis: Redis, owner: str, settle: Callable[[BatchOrder], Awaitable[None]]) -> Runner:
    """A runner whose work on a batch is what a test says."""
    nothing = cast("Any", None)
    made = Runner(cast("Any", SimpleNamespace(redis=redis, owner=owner)), nothing, nothing, nothing, nothing)
    cast("Any", made)._settle = settle
    return made


def delivered(order: BatchOrder) -> Record:
    sent: Outgoing = encode(order, topic="sluice.batches", key=order.id, event_id=order.id, source="test", now_ms=0)
    return Record(sent.topic, 0, 0, 0, sent.key, sent.value, sent.headers)


async def test_while_one_works_the_other_waits_and_then_has_its_turn(redis: Redis, order: BatchOrder) -> None:
    at_work, log, go_on = 0, list[str](), asyncio.Event()

    def settle(name: str) -> Callable[[BatchOrder], Awaitable[None]]:
        async def work(_: BatchOrder) -> None:
            nonlocal at_work
            at_work += 1
            assert at_work == 1
            log.append(name)
            await go_on.wait()
            at_work -= 1

        return work

    runners = [a_runner(redis, name, settle(name)) for name in ("a", "b")]
    tasks = [asyncio.create_task(each.work(delivered(order), False)) for each in runners]
    await when(lambda: bool(log))
    # Longer than the lease: it is renewed.
    await asyncio.sleep(0.8)
    assert len(log) == 1
    go_on.set()
    await asyncio.gather(*tasks)
    assert sorted(log) == ["a", "b"]


async def test_who_is_cancelled_gives_the_batch_back_at_once(
    redis: Redis, order: BatchOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LEASE_MS", 600_000)
    begun = asyncio.Event()

    async def for_ever(_: BatchOrder) -> None:
        begun.set()
        await asyncio.sleep(3600)

    async def at_once(_: BatchOrder) -> None:
        return

    task = asyncio.create_task(a_runner(redis, "a", for_ever).work(delivered(order), False))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        await a_runner(redis, "b", at_once).work(delivered(order), True)


async def test_who_loses_the_lease_stops_and_waits_for_it(redis: Redis, order: BatchOrder) -> None:
    lives, stopped = 0, asyncio.Event()

    async def work(_: BatchOrder) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            try:
                await asyncio.sleep(3600)
            finally:
                stopped.set()

    task = asyncio.create_task(a_runner(redis, "a", work).work(delivered(order), False))
    await when(lambda: lives == 1)
    await runner.claim(redis, f"batch:{order.id}", 1, "ingress-a", 1, held=0)
    # The lease has ended, as after a pause of the whole process, and another one took it.
    while await runner.claim(redis, f"batch:{order.id}", 1, "ingress-b", 500, held=0) is None:
        await runner.claim(redis, f"batch:{order.id}", 1, "ingress-a", 1, held=0)
    await stopped.wait()
    await task
    assert lives == 2


async def test_a_batch_that_fails_for_a_while_is_tried_again(redis: Redis, order: BatchOrder) -> None:
    lives = 0

    async def work(_: BatchOrder) -> None:
        nonlocal lives
        lives += 1
        if lives < 3:
            raise ConnectionError("the store is away")

    await a_runner(redis, "a", work).work(delivered(order), False)
    assert lives == 3


async def test_what_is_no_order_is_put_aside(redis: Redis) -> None:
    put_aside: list[object] = []

    async def dead(record: object, _: object) -> None:
        put_aside.append(record)

    made = a_runner(redis, "a", lambda _: asyncio.sleep(0))
    made._post = cast("Any", SimpleNamespace(dead=dead))  # pyright: ignore[reportPrivateUsage]
    record = Record("sluice.batches", 0, 0, value=b"{}")
    await made.work(record, False)
    assert put_aside == [record]
