"""A provider that is away: no batch job fails, interactive is told at once, every call is on the books, nobody stampedes."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from infra.kafka.carriage import Finish, PutOff
from infra.redis.jobs import Lease
from schemas.control import Model
from schemas.errors import Fault
from schemas.ids import attempt_id
from schemas.job import Job, JobStatus
from schemas.reply import Failed
from schemas.topics import Lane
from services.router.health import IN_A_ROW
from services.router.parking import MOST_MADE
from services.router.providers.base import ProviderFailure, ProviderRequest
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import (
    START_MS,
    STREAM,
    Bench,
    ScriptedProvider,
    answer,
    chunk,
    deployment,
    failure,
    job,
    model,
    seeded,
    virtual_clock,
)

DAY_MS = 86_400_000
AWAY_S = 600.0
JOBS = 300


@dataclass
class Flaky(ScriptedProvider):
    """Fails every call of the first `away_s`, then takes 0.2 s for each; remembers when each came, and how many were at once."""

    away_s: float = AWAY_S
    fails: Callable[[], ProviderFailure] = failure
    began: list[float] = field(default_factory=list[float])
    at_once: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    running: int = 0

    async def call(self, request: ProviderRequest) -> str:
        now = asyncio.get_running_loop().time()
        self.asked.append(request)
        self.began.append(now)
        self.running += 1
        self.at_once.append((now, self.running))
        try:
            await asyncio.sleep(0.2)
            if now < self.away_s:
                raise self.fails()
            return answer()
        finally:
            self.running -= 1

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        await self.call(request)
        for batch in STREAM:
            yield batch


def bench(provider: ScriptedProvider, table: Model | None = None) -> Bench:
    made = Bench(table=table, clock=virtual_clock, chance=seeded(7))
    made.provider = provider
    return made


def batch_job(number: int, **changes: object) -> Job:
    now = virtual_clock()
    return job(
        **{"id": f"job_018f0000000070008000{number:012x}", "lane": Lane.BATCH, "accepted_ms": now, "deadline_ms": now + DAY_MS}
        | changes
    )


def fault_of(outcome: object) -> Fault:
    assert isinstance(outcome, Finish)
    assert isinstance(outcome.last, Failed)
    return outcome.last.fault


async def arriving(on: Bench, seconds: float) -> list[Finish]:
    """The ends of jobs that arrive one after another within so many seconds."""

    async def one(number: int) -> Finish:
        await asyncio.sleep(number * seconds / JOBS)
        end = await on.carry(batch_job(number))
        assert isinstance(end, Finish)
        return end

    return await asyncio.gather(*(one(number) for number in range(JOBS)))


@pytest.mark.parametrize("arrive_s", [1.0, 500.0])
def test_ten_minutes_away_fail_no_batch_job_and_every_call_is_on_the_books(arrive_s: float) -> None:
    @in_virtual_time
    async def check() -> None:
        provider = Flaky()
        ends = await arriving(bench(provider), arrive_s)
        assert {end.completion.status for end in ends} == {JobStatus.COMPLETED}
        booked = Counter(attempt.id for end in ends for attempt in end.completion.attempts)
        assert booked == Counter(request.id for request in provider.asked)
        for end in ends:
            attempts = end.completion.attempts
            assert [a.n for a in attempts] == list(range(1, len(attempts) + 1))
            assert [a.status for a in attempts] == ["failed"] * (len(attempts) - 1) + ["completed"]
            assert not end.again, "no life has ended: nobody need look whether the end was told"
        in_vain = [at for at in provider.began if 1.0 < at < AWAY_S]
        assert len(in_vain) <= 0.2 * JOBS, "whoever is known to be away is only probed"

    check()


def test_the_recovery_is_noticed_soon_and_is_no_stampede() -> None:
    @in_virtual_time
    async def check() -> None:
        provider = Flaky()
        await arriving(bench(provider), 1.0)
        after = [(at, running) for at, running in provider.at_once if at >= AWAY_S]
        assert after[0][0] - AWAY_S <= 130, "a cooling, and as long again until somebody looks"
        first = after[0][0]
        rounds = [first + 0.2 * number for number in range(1, 6)]
        busiest = [max(running for at, running in after if at < ends) for ends in rounds]
        assert busiest[0] <= 2
        assert all(later <= 2 * earlier + 1 for earlier, later in pairwise(busiest)), "twice as many each round at most"
        away = [running for at, running in provider.at_once if 60 < at < AWAY_S]
        assert away
        assert max(away) <= 2, "while it is away it is only probed"

    check()


@in_virtual_time
async def test_interactive_is_told_at_once_and_when_to_come_again() -> None:
    provider = Flaky()
    on = bench(provider)
    for _ in range(IN_A_ROW):
        on.health.failed("d1", START_MS, virtual_clock())
    await asyncio.sleep(1.5)
    began = asyncio.get_running_loop().time()
    end = await on.handle(job())
    assert asyncio.get_running_loop().time() == began
    fault = fault_of(end)
    assert (fault.status, fault.code, fault.retry_after_s, fault.should_retry) == (503, "provider_unavailable", 4, True)
    assert not provider.asked
    assert isinstance(end, Finish)
    assert end.completion.attempts == ()


@in_virtual_time
async def test_interactive_goes_elsewhere_while_one_deployment_cools() -> None:
    on = Bench(answer(), table=model(deployment("d1"), deployment("d2")), clock=virtual_clock)
    for _ in range(IN_A_ROW):
        on.health.failed("d1", START_MS, virtual_clock())
    end = await on.handle(job())
    assert isinstance(end, Finish)
    assert [a.deployment for a in end.completion.attempts] == ["d2"]


@in_virtual_time
async def test_an_answer_that_is_kept_is_published_though_all_providers_are_down() -> None:
    first = Bench(answer())
    await first.handle()
    for lane in Lane:
        on = bench(Flaky())
        for _ in range(IN_A_ROW):
            on.health.failed("d1", START_MS, virtual_clock())
        on.records.leases.append(Lease("answered", answer=first.records.kept))
        end = await on.handle(job(lane=lane))
        assert isinstance(end, Finish)
        assert end.completion.status is JobStatus.COMPLETED


@in_virtual_time
async def test_a_cancelled_job_ends_when_it_comes_back_with_what_it_cost() -> None:
    on = bench(Flaky())
    outcome = await on.handle(batch_job(1))
    assert isinstance(outcome, PutOff)
    made = outcome.job.made
    assert made
    on.records.leases.append(Lease("abandoned", n=len(made), notes=tuple(on.records.notes[outcome.job.id])))
    end = await on.handle(outcome.job)
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.CANCELLED
    assert end.completion.attempts == made


@in_virtual_time
async def test_only_what_a_dead_life_left_behind_is_unknown() -> None:
    on = bench(Flaky(away_s=1))
    outcome = await on.handle(batch_job(1))
    assert isinstance(outcome, PutOff)
    made = outcome.job.made
    on.records.notes[outcome.job.id].append(f"{START_MS} d1")
    await asyncio.sleep(100)
    end = await on.handle(outcome.job)
    assert isinstance(end, Finish)
    assert [a.status for a in end.completion.attempts] == [*["failed"] * len(made), "unknown", "completed"]
    assert [a.id for a in end.completion.attempts] == [attempt_id(outcome.job.id, n + 1) for n in range(len(made) + 2)]
    assert end.again


@in_virtual_time
async def test_a_throttled_batch_job_comes_when_the_provider_said() -> None:
    provider = Flaky(away_s=1, fails=lambda: failure("throttled", 429, retry_after_s=40.0))
    on = bench(provider)
    outcome = await on.handle(batch_job(1))
    assert isinstance(outcome, PutOff)
    assert 40_000 <= outcome.job.not_before_ms - virtual_clock() < 43_000
    assert len(provider.asked) == 1


@in_virtual_time
async def test_what_the_provider_refuses_for_good_fails_in_the_batch_lane_too() -> None:
    end = await bench(Flaky(fails=lambda: failure("final", 400))).carry(batch_job(1))
    assert fault_of(end).message == "it broke"


@in_virtual_time
async def test_a_request_that_breaks_its_provider_ends_after_so_many_calls() -> None:
    provider = Flaky(away_s=1e9)
    on = bench(provider)
    end = await on.carry(batch_job(1))
    assert fault_of(end).code == "provider_error"
    assert MOST_MADE <= len(provider.asked) <= MOST_MADE + 2
    assert isinstance(end, Finish)
    assert len(end.completion.attempts) == len(provider.asked)


@in_virtual_time
async def test_a_stream_that_has_begun_is_not_put_off() -> None:
    on = bench(ScriptedProvider())
    on.provider.script.append([[chunk("one two")], failure()])
    assert fault_of(await on.handle(batch_job(1, stream=True))).code == "provider_error"


@in_virtual_time
async def test_a_stream_that_has_not_begun_is_put_off() -> None:
    on = bench(Flaky(away_s=5))
    end = await on.carry(batch_job(1, stream=True))
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.COMPLETED


@in_virtual_time
async def test_a_provider_that_never_comes_back_ends_a_job_just_before_its_deadline() -> None:
    on = bench(Flaky(away_s=1e9))
    for _ in range(IN_A_ROW):
        on.health.failed("d1", START_MS, virtual_clock())
    end = await on.carry(batch_job(1, deadline_ms=virtual_clock() + 30_000))
    assert 27 < asyncio.get_running_loop().time() <= 30
    assert fault_of(end).status in (502, 503, 504)


@in_virtual_time
async def test_a_job_whose_deadline_passes_while_it_waits_ends_with_what_it_cost() -> None:
    on = bench(Flaky())
    outcome = await on.handle(batch_job(1))
    assert isinstance(outcome, PutOff)
    await asyncio.sleep(2 * DAY_MS / 1000)
    end = await on.handle(outcome.job)
    assert isinstance(end, Finish)
    assert end.completion.status is JobStatus.EXPIRED
    assert end.completion.attempts == outcome.job.made != ()


@in_virtual_time
async def test_too_late_is_not_sent_out() -> None:
    on = bench(Flaky(away_s=0))
    end = await on.handle(job(deadline_ms=START_MS + 120))
    assert fault_of(end).code == "deadline_exceeded"
    assert not on.provider.asked
