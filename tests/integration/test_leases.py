"""The lease script on a real Redis: who may call a provider, how often, and what is told after a death."""

from collections.abc import AsyncGenerator
from itertools import count

import pytest

from infra.embedded.stack import Stack
from infra.redis.client import Redis
from infra.redis.jobs import JobRecords, Lease

_NUMBERS = count()


@pytest.fixture
async def redis(stack: Stack) -> AsyncGenerator[Redis]:
    client = Redis(stack.redis, 2)
    yield client
    await client.close()


@pytest.fixture
def job_id() -> str:
    return f"job_lease_{next(_NUMBERS)}"


async def _ask(records: JobRecords, job_id: str, ask: str = "", held: int = 0, attempts: int = 3, note: str = "") -> Lease:
    return await records.lease(job_id, 60_000, lease_ms=10_000, attempts=attempts, ask=ask, held=held, note=note)


async def test_one_at_a_time_and_next_when_given_back(redis: Redis, job_id: str) -> None:
    a, b = JobRecords(redis, "a", "1"), JobRecords(redis, "b", "1")
    assert await _ask(a, job_id, note="first") == Lease("granted", n=1)
    waits = await _ask(b, job_id)
    assert waits.state == "leased"
    assert 0 < waits.left_ms <= 10_000
    await a.release(job_id)
    assert await _ask(b, job_id) == Lease("granted", n=2, notes=("first",))


async def test_a_renewed_lease_stays_and_only_its_holder_renews(redis: Redis, job_id: str) -> None:
    a, b = JobRecords(redis, "a", "1"), JobRecords(redis, "b", "1")
    await _ask(a, job_id)
    await b.renew([job_id], 0)
    assert (await _ask(b, job_id)).state == "leased"
    await a.renew([job_id], 50_000)
    assert (await _ask(b, job_id)).left_ms > 10_000


async def test_the_same_question_is_answered_alike(redis: Redis, job_id: str) -> None:
    a = JobRecords(redis, "a", "1")
    assert (await _ask(a, job_id, "1")).n == 1
    assert await _ask(a, job_id, "1") == Lease("granted", n=1)
    assert (await _ask(a, job_id, "2")).state == "leased", "another copy in the same process waits"
    assert (await _ask(a, job_id, "3", held=1)).n == 2
    assert (await _ask(a, job_id, "3", held=1)).n == 2


async def test_again_only_for_the_attempt_that_is_over(redis: Redis, job_id: str) -> None:
    a = JobRecords(redis, "a", "1")
    await _ask(a, job_id, "1")
    assert (await _ask(a, job_id, "2", held=1)).state == "granted"
    assert (await _ask(a, job_id, "3", held=1)).state == "leased"
    assert (await _ask(a, job_id, "4", held=2)).n == 3
    assert await _ask(a, job_id, "5", held=3) == Lease("exhausted", n=3, notes=("", "", ""))
    assert await _ask(a, job_id, "5", held=3) == Lease("exhausted", n=3, notes=("", "", ""))


async def test_a_slot_reborn_takes_over_at_once(redis: Redis, job_id: str) -> None:
    await _ask(JobRecords(redis, "slot-0", "1"), job_id, note="x")
    reborn = JobRecords(redis, "slot-0", "2")
    assert await _ask(reborn, job_id) == Lease("granted", n=2, notes=("x",))


async def test_after_the_first_token_nobody_calls_again(redis: Redis, job_id: str) -> None:
    a = JobRecords(redis, "slot-0", "1")
    await _ask(a, job_id, note="x")
    await a.streamed(job_id)
    reborn = JobRecords(redis, "slot-0", "2")
    assert await _ask(reborn, job_id) == Lease("interrupted", n=1, notes=("x",))
    assert (await _ask(JobRecords(redis, "b", "1"), job_id)).state == "leased", "one of them ends it"


async def test_only_the_life_whose_stream_broke_off_may_go_on_with_it(redis: Redis, job_id: str) -> None:
    a, reborn, b = JobRecords(redis, "a", "1"), JobRecords(redis, "a", "2"), JobRecords(redis, "b", "1")

    async def go_on(records: JobRecords, ask: str, held: int) -> str:
        lease = await records.lease(job_id, 60_000, lease_ms=10_000, attempts=3, ask=ask, held=held, goes_on=True)
        return lease.state

    await _ask(a, job_id)
    await a.streamed(job_id)
    assert (await _ask(a, job_id, "2", held=1)).state == "interrupted"
    assert await go_on(b, "1", 1) == "leased"
    assert await go_on(a, "3", 0) == "leased", "another copy in the same process"
    assert await go_on(a, "4", 1) == "granted"
    assert await go_on(a, "4", 1) == "granted", "the same question is answered alike"
    assert await go_on(reborn, "5", 2) == "interrupted"


async def test_an_answer_is_kept_once_and_given_to_the_successor(redis: Redis, job_id: str) -> None:
    a, b = JobRecords(redis, "slot-0", "1"), JobRecords(redis, "slot-0", "2")
    await _ask(a, job_id)
    assert await a.answered(job_id, 60_000, b"{}")
    assert not await a.answered(job_id, 60_000, b"other")
    assert (await _ask(JobRecords(redis, "b", "1"), job_id)).state == "leased", "it is being published"
    assert await _ask(b, job_id) == Lease("answered", answer=b"{}")
    await b.done(job_id, 60_000, keep_answer=False)
    assert await _ask(a, job_id) == Lease("done")
    assert not await a.answered(job_id, 60_000, b"late")


async def test_an_abandoned_job_is_ended_by_one_and_called_for_by_nobody(redis: Redis, job_id: str) -> None:
    a, b = JobRecords(redis, "a", "1"), JobRecords(redis, "b", "1")
    await a.abandon(job_id, 60_000)
    assert await _ask(a, job_id) == Lease("abandoned", n=0)
    assert (await _ask(b, job_id)).state == "leased"
    await a.release(job_id)
    assert await _ask(b, job_id) == Lease("abandoned", n=0)


async def test_abandoned_while_called_stays_with_its_holder(redis: Redis, job_id: str) -> None:
    a, b = JobRecords(redis, "a", "1"), JobRecords(redis, "b", "1")
    await _ask(a, job_id, note="x")
    await b.abandon(job_id, 60_000)
    await a.renew([job_id], 50_000)
    assert (await _ask(b, job_id)).left_ms > 10_000
    assert await _ask(a, job_id, held=1) == Lease("abandoned", n=1, notes=("x",))


async def test_a_job_that_ends_elsewhere_is_not_called_for(redis: Redis, job_id: str) -> None:
    cache = JobRecords(redis, "cache", "1")
    assert (await cache.may_end(job_id, 60_000, "sluice.cache.batch/0@1")).state == "granted"
    assert await _ask(JobRecords(redis, "a", "1"), job_id) == Lease("ending")
    await cache.abandon(job_id, 60_000)
    assert await _ask(JobRecords(redis, "a", "1"), job_id) == Lease("ending")


async def test_no_attempt_left(redis: Redis, job_id: str) -> None:
    a = JobRecords(redis, "a", "1")
    assert await _ask(a, job_id, attempts=0) == Lease("exhausted", n=0)
    assert (await a.may_end(job_id, 60_000, "router/0@1")).state == "granted", "who was told so may end it"
