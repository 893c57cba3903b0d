"""The driver of a stage, with a log in memory and time that jumps. Tests are named after what is feared."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from infra.kafka.log import Incoming, Mark, Outgoing, Partition
from infra.kafka.offsets import MAX_SPAN
from infra.kafka.stage import Stage
from schemas.topics import Lane
from tests.fakes.clock import in_virtual_time
from tests.fakes.log import MemoryLog, MemorySource

TOPIC, BATCH_TOPIC = "sluice.router.interactive", "sluice.router.batch"

Place = tuple[str, int, int]


class Desk:
    """Work that a test ends by hand: what is `held` waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[Place] = []
        self.ended: list[Place] = []
        self.suspect: list[Place] = []
        self.failing: set[Place] = set()
        self._held: dict[Place, asyncio.Event] = {}
        self._hold_all = False

    async def work(self, record: Incoming, suspect: bool) -> None:
        place = record.topic, record.partition, record.offset
        self.begun.append(place)
        if suspect:
            self.suspect.append(place)
        if self._hold_all:
            self._held.setdefault(place, asyncio.Event())
        if place in self._held:
            await self._held[place].wait()
        if place in self.failing:
            raise RuntimeError("the work failed")
        self.ended.append(place)

    def hold(self, *places: Place) -> None:
        for place in places:
            self._held[place] = asyncio.Event()

    def hold_all(self) -> None:
        self._hold_all = True

    def let_go(self, *places: Place) -> None:
        for place in places:
            self._held.pop(place).set()

    @property
    def busy(self) -> list[Place]:
        """What was begun and hasn't ended."""
        return [place for place in self.begun if place not in self.ended]


async def until(holds: Callable[[], object]) -> None:
    """Waits for a condition; an hour of this loop's time takes no time."""
    async with asyncio.timeout(3600):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def fill(log: MemoryLog, count: int, topic: str = TOPIC, partition: int = 0) -> None:
    for n in range(count):
        await log.send(Outgoing(topic, b"k", b"%d" % n, (), partition))


def stage_of(log: MemoryLog, desk: Desk, total: int = 1000) -> tuple[Stage, MemorySource]:
    source = log.source("g", [TOPIC, BATCH_TOPIC])
    return Stage("router", source, desk.work, total), source


@asynccontextmanager
async def running(log: MemoryLog, desk: Desk, total: int = 1000) -> AsyncGenerator[Stage]:
    stage, _ = stage_of(log, desk, total)
    await stage.start()
    try:
        yield stage
    finally:
        await stage.drain(0)
        await stage.stop()


def first(offset: int, partition: int = 0) -> Place:
    return TOPIC, partition, offset


def committed(log: MemoryLog, partition: int = 0) -> Mark | None:
    return log.marks("g").get(Partition(TOPIC, partition))


@in_virtual_time
async def test_a_slow_job_delays_nobody_and_a_crash_repeats_only_it() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold(first(3))
    await fill(log, 50)
    stage, source = stage_of(log, desk)
    await stage.start()
    await until(lambda: len(desk.ended) == 49)
    await until(lambda: (mark := committed(log)) and mark.offset == 3 and mark.metadata)
    await source.crash()
    successor = Desk()
    async with running(log, successor):
        await fill(log, 1)
        await until(lambda: len(successor.ended) == 2)
    assert successor.begun == [first(3), first(50)]
    assert successor.suspect == [first(3)]
    assert committed(log) == Mark(51)


@in_virtual_time
async def test_what_ended_after_the_last_commit_is_all_that_a_crash_repeats() -> None:
    log, desk = MemoryLog(), Desk()
    await fill(log, 10)
    desk.hold(first(8), first(9))
    stage, source = stage_of(log, desk)
    await stage.start()
    await until(lambda: committed(log) == Mark(8))
    desk.let_go(first(9))
    await until(lambda: first(9) in desk.ended)
    await source.crash()
    successor = Desk()
    async with running(log, successor):
        await until(lambda: len(successor.ended) == 2)
    assert successor.begun == [first(8), first(9)]


@in_virtual_time
async def test_a_full_partition_is_left_out_and_the_others_go_on() -> None:
    log, desk = MemoryLog(partitions=2), Desk()
    desk.hold(first(0))
    await fill(log, MAX_SPAN + 1000)
    async with running(log, desk):
        await until(lambda: len(desk.ended) >= MAX_SPAN - 1)
        await fill(log, 300, partition=1)
        await until(lambda: first(299, partition=1) in desk.ended)
        assert MAX_SPAN <= len([p for p in desk.begun if p[1] == 0]) <= MAX_SPAN + 256
        desk.let_go(first(0))
        await until(lambda: len(desk.ended) == MAX_SPAN + 1300)
        await until(lambda: committed(log) == Mark(MAX_SPAN + 1000))


@in_virtual_time
async def test_work_goes_on_over_a_rebalance_and_nothing_is_repeated() -> None:
    log, desk = MemoryLog(partitions=2), Desk()
    held = [first(n, p) for n in range(0, 20, 3) for p in (0, 1)]
    desk.hold(*held)
    for partition in (0, 1):
        await fill(log, 20, partition=partition)
    async with running(log, desk):
        await until(lambda: len(desk.begun) == 40)
        for _ in range(3):
            await log.rebalance("g")
        desk.let_go(*held)
        await fill(log, 5)
        await until(lambda: len(desk.ended) == 45)
        await until(lambda: (committed(log), committed(log, 1)) == (Mark(25), Mark(20)))
    assert len(desk.begun) == len(set(desk.begun)) == 45


@in_virtual_time
async def test_work_that_ends_in_the_middle_of_a_rebalance_is_not_repeated() -> None:
    async def slowly() -> None:
        await asyncio.sleep(1)

    log, desk = MemoryLog(pause=slowly), Desk()
    desk.hold(first(0), first(1))
    await fill(log, 3)
    async with running(log, desk):
        await until(lambda: len(desk.begun) == 3)
        rebalance = asyncio.create_task(log.rebalance("g"))
        await asyncio.sleep(0.5)
        desk.let_go(first(1))
        await asyncio.sleep(1)
        desk.let_go(first(0))
        await rebalance
        await until(lambda: committed(log) == Mark(3))
    assert len(desk.begun) == 3


@in_virtual_time
async def test_a_partition_that_went_away_is_worked_on_there_and_comes_back_finished() -> None:
    log, here, there = MemoryLog(partitions=2), Desk(), Desk()
    moving = first(0, 1), first(1, 1)
    here.hold(*moving)
    for partition in (0, 1):
        await fill(log, 3, partition=partition)
    async with running(log, here):
        await until(lambda: len(here.begun) == 6)
        async with running(log, there):
            await until(lambda: there.ended)
            gone = sorted(there.ended)
            assert set(gone) <= set(moving)
            await until(lambda: len(there.ended) == 2)
        await fill(log, 1, partition=1)
        await until(lambda: first(3, 1) in here.ended)
        here.let_go(*moving)
        await until(lambda: committed(log, 1) == Mark(4))
    assert len(here.begun) == len(set(here.begun)) == 7


@in_virtual_time
async def test_gaps_are_passed() -> None:
    log, desk = MemoryLog(), Desk()
    await fill(log, 10)
    for gap in (0, 4, 5, 9):
        log.remove(Partition(TOPIC, 0), gap)
    async with running(log, desk):
        await until(lambda: len(desk.ended) == 6)
        await until(lambda: committed(log) == Mark(9))


@in_virtual_time
async def test_drain_takes_nothing_new_waits_and_commits() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold(first(0))
    await fill(log, 2)
    stage, _ = stage_of(log, desk)
    await stage.start()
    await until(lambda: len(desk.begun) == 2)
    draining = asyncio.create_task(stage.drain(60))
    await asyncio.sleep(1)
    await fill(log, 5)
    await asyncio.sleep(30)
    assert not draining.done()
    desk.let_go(first(0))
    await draining
    await stage.stop()
    assert len(desk.begun) == 2
    assert committed(log) == Mark(2)


@in_virtual_time
async def test_work_that_outlasts_the_grace_is_cancelled_and_comes_again() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold(first(1))
    await fill(log, 3)
    stage, _ = stage_of(log, desk)
    await stage.start()
    await until(lambda: len(desk.begun) == 3)
    await stage.drain(5)
    await stage.stop()
    assert asyncio.get_running_loop().time() < 10
    successor = Desk()
    async with running(log, successor):
        await until(lambda: successor.ended)
    assert successor.ended == [first(1)]


@in_virtual_time
async def test_a_failing_work_keeps_its_place_and_heals() -> None:
    log, desk = MemoryLog(), Desk()
    desk.failing = {first(1)}
    await fill(log, 3)
    async with running(log, desk) as stage:
        await until(lambda: stage.not_ready())
        assert "RuntimeError on sluice.router.interactive/0@1" in str(stage.not_ready())
        await fill(log, 3)
        await until(lambda: len(desk.ended) == 5)
        await until(lambda: (mark := committed(log)) and mark.offset == 1 and mark.metadata)
        desk.failing = set()
        await until(lambda: len(desk.ended) == 6)
        await until(lambda: committed(log) == Mark(6))
        assert stage.not_ready() is None


@in_virtual_time
async def test_after_an_hour_without_work_what_ends_then_is_committed() -> None:
    log, desk = MemoryLog(), Desk()
    await fill(log, 1)
    async with running(log, desk):
        await until(lambda: committed(log) == Mark(1))
        await asyncio.sleep(3600)
        await fill(log, 1)
        await until(lambda: committed(log) == Mark(2))


@in_virtual_time
async def test_a_commit_that_failed_is_tried_again_though_nothing_runs() -> None:
    log, desk = MemoryLog(), Desk()
    await fill(log, 1)
    stage, source = stage_of(log, desk)
    commit, refused = source.commit, list[object]()

    async def refuse_once(marks: Mapping[Partition, Mark]) -> None:
        if not refused:
            refused.append(marks)
            raise OSError("no broker")
        await commit(marks)

    source.commit = refuse_once
    await stage.start()
    await until(lambda: committed(log) == Mark(1))
    await stage.drain(0)
    await stage.stop()
    assert refused == [{Partition(TOPIC, 0): Mark(1)}]


@in_virtual_time
async def test_a_failing_work_is_not_committed_past() -> None:
    log, desk = MemoryLog(), Desk()
    desk.failing = {first(1)}
    await fill(log, 3)
    async with running(log, desk) as stage:
        await until(lambda: len(desk.ended) == 2 and stage.not_ready())
    successor = Desk()
    async with running(log, successor):
        await until(lambda: successor.ended)
    assert successor.ended == [first(1)]


@in_virtual_time
async def test_work_that_something_inside_it_cancels_is_not_silently_left_undone() -> None:
    async def cancelled(_: Incoming, __: bool) -> None:
        acknowledgement = asyncio.get_running_loop().create_future()
        acknowledgement.cancel()
        await acknowledgement

    log = MemoryLog()
    await fill(log, 1)
    stage = Stage("router", log.source("g", [TOPIC]), cancelled, total=10)
    await stage.start()
    await until(stage.not_ready)
    assert "CancelledError on sluice.router.interactive/0@0" in str(stage.not_ready())
    await stage.drain(0)
    await stage.stop()
    assert committed(log) == Mark(0)


@in_virtual_time
async def test_a_stage_is_ready_when_it_has_partitions() -> None:
    log = MemoryLog()
    stage, _ = stage_of(log, Desk())
    assert stage.not_ready() == "router: no partitions assigned yet"
    await stage.start()
    assert stage.not_ready() is None
    await stage.drain(0)
    assert stage.not_ready() == "router: its loop has ended"
    await stage.stop()


@in_virtual_time
async def test_batch_leaves_room_for_interactive_and_interactive_for_batch() -> None:
    for flood, trickle, share in ((BATCH_TOPIC, TOPIC, 10), (TOPIC, BATCH_TOPIC, 4)):
        log, desk = MemoryLog(), Desk()
        desk.hold_all()
        await fill(log, 100, topic=flood)
        async with running(log, desk, total=40):
            await until(lambda: len(desk.begun) == 40 - share)  # noqa: B023
            await fill(log, 100, topic=trickle)
            await until(lambda: len(desk.begun) == 40)  # noqa: B023
            assert [place[0] for place in desk.begun].count(trickle) == share
            await asyncio.sleep(5)
            assert len(desk.begun) == 40


@in_virtual_time
async def test_under_saturation_a_free_place_goes_to_interactive_and_batch_still_moves() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold_all()
    for topic in (BATCH_TOPIC, TOPIC):
        await fill(log, 500, topic=topic)
    async with running(log, desk, total=10):
        await until(lambda: len(desk.begun) == 10)
        for done in range(1, 101):
            desk.let_go(desk.busy[0])
            await until(lambda: len(desk.begun) == 10 + done)  # noqa: B023
            lanes = [place[0] for place in desk.busy]
            assert (lanes.count(TOPIC), lanes.count(BATCH_TOPIC)) == (9, 1)
    assert len(desk.begun) == len(set(desk.begun))


@in_virtual_time
async def test_a_log_that_fails_for_a_while_is_asked_again() -> None:
    failures = 3

    async def failing_at_first() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ConnectionError("the coordinator moves")

    log, desk = MemoryLog(), Desk()
    await fill(log, 3)
    log.pause = failing_at_first
    async with running(log, desk) as stage:
        await until(lambda: len(desk.ended) == 3)
        await until(lambda: committed(log) == Mark(3))
        assert stage.not_ready() is None


@in_virtual_time
async def test_a_log_that_stays_silent_makes_the_stage_not_ready() -> None:
    async def failing() -> None:
        raise ConnectionError("the coordinator is gone")

    log = MemoryLog(pause=failing)
    stage, _ = stage_of(log, Desk())
    await stage.start()
    assert "can't read what is committed" in str(stage.not_ready())
    await stage.drain(0)
    await stage.stop()


@pytest.mark.parametrize("lanes", [(TOPIC,), (BATCH_TOPIC,), (TOPIC, BATCH_TOPIC)])
def test_an_idle_stage_hears_of_a_record_at_once(lanes: tuple[str, ...]) -> None:
    @in_virtual_time
    async def idle() -> None:
        log, desk = MemoryLog(), Desk()
        async with running(log, desk):
            await asyncio.sleep(100)
            for topic in lanes:
                await fill(log, 1, topic=topic)
            await asyncio.sleep(0)
            await until(lambda: len(desk.ended) == len(lanes))
            assert asyncio.get_running_loop().time() < 100.1

    idle()


@in_virtual_time
async def test_half_of_the_places_are_lent_and_the_rest_is_for_kafka() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold_all()
    async with running(log, desk, total=10) as stage:
        assert [stage.lend(Lane.INTERACTIVE) for _ in range(6)] == [True] * 5 + [False]
        await fill(log, 20)
        await until(lambda: len(desk.begun) == 4)
        stage.take_back(Lane.INTERACTIVE)
        await until(lambda: len(desk.begun) == 5)
        assert not stage.lend(Lane.BATCH)


@in_virtual_time
async def test_a_stage_that_has_no_partitions_or_drains_lends_nothing() -> None:
    stage, _ = stage_of(MemoryLog(), Desk())
    assert not stage.lend(Lane.INTERACTIVE)
    await stage.start()
    assert stage.lend(Lane.INTERACTIVE)
    stage.take_back(Lane.INTERACTIVE)
    await stage.drain(0)
    assert not stage.lend(Lane.INTERACTIVE)
    await stage.stop()


async def fill_for(log: MemoryLog, team: bytes, count: int, partition: int) -> None:
    for n in range(count):
        await log.send(Outgoing(BATCH_TOPIC, team, b"%d" % n, (), partition))


@in_virtual_time
async def test_g19_a_team_with_a_long_queue_leaves_places_to_another() -> None:
    log, desk = MemoryLog(partitions=2), Desk()
    desk.hold_all()
    await fill_for(log, b"a", 500, 0)
    async with running(log, desk, total=40):
        await until(lambda: len(desk.begun) == 30)
        await fill_for(log, b"b", 20, 1)
        for _ in range(30):
            desk.let_go(desk.busy[0])
            await asyncio.sleep(0.1)
        begun = [place[1] for place in desk.begun[30:]]
        assert set(begun[1:8]) == {1}, "what the first team holds above its share goes to the other"
        assert begun.count(1) >= 15, "at least half of what is freed"
        assert len(desk.busy) == 30, "no place is left empty"


@in_virtual_time
async def test_what_waits_for_its_teams_share_is_given_up_with_its_partition_and_read_again() -> None:
    log, desk = MemoryLog(partitions=2), Desk()
    desk.hold_all()
    await fill_for(log, b"b", 1, 1)
    async with running(log, desk, total=8):
        await until(lambda: len(desk.begun) == 1)
        await fill_for(log, b"a", 20, 0)
        await until(lambda: len(desk.begun) > 3)
        await log.rebalance("g", 1)
        while len(desk.ended) < 21:
            for place in desk.busy:
                desk.let_go(place)
            await asyncio.sleep(0.1)
    assert len(desk.begun) == len(set(desk.begun)) == 21


@in_virtual_time
async def test_a_stage_tells_what_waits_for_it_and_for_how_long() -> None:
    log, desk = MemoryLog(), Desk()
    desk.hold_all()
    async with running(log, desk, total=2) as stage:
        partition = Partition(BATCH_TOPIC, 0)
        assert stage.loads(1_000)[partition] == (0, 0)
        await fill_for(log, b"a", 5, 0)
        await until(lambda: len(desk.begun) == 1)
        depth, wait_ms = stage.loads(9_000)[partition]
        assert depth == 4
        assert wait_ms >= 8_000
