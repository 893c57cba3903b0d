"""A job goes on in memory where its next stage lives in the same process, and loses nothing by it."""

import asyncio
from pathlib import Path

import pytest

from infra.files import FileStore
from infra.kafka.carriage import Carriage, Delivery, Finish, Forward, Handler, Outcome
from infra.kafka.envelope import encode
from infra.kafka.log import Mark, Partition
from infra.kafka.neighbours import Neighbours
from infra.kafka.post import Post
from infra.kafka.stage import Stage
from infra.telemetry.spans import Tracing
from schemas.completion import completion_of
from schemas.job import Job, JobStatus
from schemas.reply import Answer, Served
from schemas.slip import Stage as StageName
from schemas.topics import ROUTER as ROUTER_TOPIC
from tests.fakes.clock import FakeClock
from tests.fakes.jobs import NOW_MS, SIGNER, FakeRecords, FakeTickets, a_job
from tests.fakes.log import MemoryLog

GUARD, ROUTER = "sluice.guard.interactive", "sluice.router.interactive"
WAY = (StageName.GUARD, StageName.ROUTER)


class House:
    """A guard and a router in one process. The router's work is held until it `may_end`."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog(partitions=ROUTER_TOPIC.partitions)
        self.may_end = asyncio.Event()
        self.at_router: list[Delivery] = []
        self._files = FileStore(folder)
        self._records = FakeRecords()
        self._neighbours = Neighbours()
        self.guard = self._stage(StageName.GUARD, self._pass_on)
        self.router = self._stage(StageName.ROUTER, self._end)

    def _stage(self, name: StageName, handler: Handler) -> Stage:
        clock = FakeClock(NOW_MS)
        carriage = Carriage(
            stage=name,
            handler=handler,
            post=Post(self.log, self._files, clock, name.value),
            records=self._records,
            tickets=FakeTickets(),
            signer=SIGNER,
            files=self._files,
            clock=clock,
            tracing=Tracing(None),
            hand_over=self._neighbours.hand_over,
            told=self._is_told,
            leased=name is StageName.ROUTER,
        )
        stage = Stage(name.value, self.log.source(name.value, [f"sluice.{name.value}.interactive"]), carriage.work, total=4)
        self._neighbours.add(stage, carriage)
        return stage

    async def _is_told(self, team: str, result_id: str, since_ms: int) -> bool:
        return False

    async def _pass_on(self, job: Job, _: Delivery) -> Outcome:
        return Forward(job.past(StageName.GUARD))

    async def _end(self, job: Job, delivery: Delivery) -> Outcome:
        self.at_router.append(delivery)
        await self.may_end.wait()
        completion = completion_of(job, JobStatus.COMPLETED, "router", NOW_MS)
        return Finish(completion, Answer(body="{}", served=Served()), attempt=1)

    async def send(self) -> None:
        job = SIGNER.sign(a_job(slip=WAY, way=WAY))
        record = encode(job, topic=GUARD, key="fraud", partition=0, event_id=job.id, source="ingress", now_ms=NOW_MS)
        await self.log.send(record)

    async def until(self, *, at_router: int = 0, by_kafka: int = 0) -> None:
        """Waits until so many jobs have come to the router, so many of them over Kafka."""
        async with asyncio.timeout(10):
            while len(self.at_router) < at_router or len(self.log.records(ROUTER)) < by_kafka:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        for stage in (self.guard, self.router):
            await stage.drain(5)
            await stage.stop()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def committed(house: House) -> Mark | None:
    return house.log.marks("guard").get(Partition(GUARD, 0))


async def test_a_job_is_finished_where_it_came_in_only_when_the_last_stage_is_done(house: House) -> None:
    await house.router.start()
    await house.guard.start()
    await house.send()
    await house.until(at_router=1)
    await house.guard.drain(0.3)
    assert committed(house) in (None, Mark(0)), "cut off: it comes again"
    assert not house.log.records(ROUTER)
    await house.close()


async def test_what_was_handed_over_ends_before_the_process_does(house: House) -> None:
    await house.router.start()
    await house.guard.start()
    await house.send()
    await house.until(at_router=1)
    house.may_end.set()
    await house.close()
    assert len(house.log.records("sluice.completions")) == len(house.log.records("sluice.replies")) == 1
    assert not house.log.records(ROUTER)
    assert committed(house) == Mark(1)


async def test_a_stage_that_is_not_ready_or_full_is_reached_over_kafka(house: House) -> None:
    await house.guard.start()
    await house.send()
    await house.until(by_kafka=1)
    await house.router.start()
    for _ in range(3):
        await house.send()
    await house.until(at_router=3, by_kafka=2)
    house.may_end.set()
    await house.until(at_router=4)
    await house.close()
    assert len(house.log.records("sluice.completions")) == 4
