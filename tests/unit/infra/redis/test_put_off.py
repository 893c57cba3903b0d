"""A job that was put off: who may work on it next, and which copies of it are out of date."""

import pytest

from infra.redis.jobs import JobRecords, Lease
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis

JOB = "job_1"


class Bench:
    """Records of two routers in one Redis."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        redis = LuaRedis(self.clock)
        self.a, self.b = JobRecords(redis, "a", "1"), JobRecords(redis, "b", "1")
        self._asks = 0

    async def ask(self, records: JobRecords, made: int = 0, attempts: int = 3, held: int = 0) -> Lease:
        self._asks += 1
        note = f"call {self._asks}"
        return await records.lease(
            JOB, 60_000, lease_ms=10_000, attempts=made + attempts, ask=str(self._asks), held=held, note=note, made=made
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_whoever_gets_it_next_need_not_wait_and_has_all_tries_again(bench: Bench) -> None:
    for n in range(3):
        assert (await bench.ask(bench.a, held=n)).n == n + 1
    assert (await bench.ask(bench.a, held=3)).state == "exhausted"
    await bench.a.put_off(JOB, 3)
    lease = await bench.ask(bench.b, made=3)
    assert lease == Lease("granted", n=4, notes=("call 1", "call 2", "call 3"))


async def test_a_copy_that_knows_of_fewer_calls_is_stale(bench: Bench) -> None:
    """The router died between sending it on and committing: the record it came in is delivered again."""
    await bench.ask(bench.a)
    await bench.a.put_off(JOB, 1)
    assert await bench.ask(bench.b, made=0) == Lease("stale")
    assert (await bench.ask(bench.b, made=1)).state == "granted"


async def test_a_job_that_was_put_off_before_its_first_call(bench: Bench) -> None:
    assert (await bench.ask(bench.a, attempts=0)).state == "exhausted"
    await bench.a.put_off(JOB, 0)
    assert await bench.ask(bench.b) == Lease("granted", n=1)


async def test_only_its_holder_puts_it_off(bench: Bench) -> None:
    await bench.ask(bench.a)
    await bench.b.put_off(JOB, 1)
    assert (await bench.ask(bench.b)).state == "leased"


async def test_one_that_was_cancelled_meanwhile_is_found_so(bench: Bench) -> None:
    await bench.ask(bench.a)
    await bench.a.put_off(JOB, 1)
    await bench.b.abandon(JOB, 60_000)
    assert await bench.ask(bench.b, made=1) == Lease("abandoned", n=1, notes=("call 1",))


async def test_one_that_has_ended_meanwhile_stays_so(bench: Bench) -> None:
    await bench.ask(bench.a)
    await bench.a.done(JOB, 60_000, keep_answer=False)
    await bench.a.put_off(JOB, 1)
    assert await bench.ask(bench.b, made=1) == Lease("done")
