"""Three stages in a row, in time that jumps, with delays at every await, rebalances and deaths chosen by a seed.

A seed that fails is in the test's name: `pytest tests/unit/infra/kafka/test_simulator.py -k "[17]"` runs it again, alike.
"""

import asyncio
from collections import Counter
from random import Random

import pytest

from infra.kafka.log import Incoming, Outgoing, Partition
from infra.kafka.offsets import decode
from infra.kafka.stage import Stage
from tests.fakes.clock import in_virtual_time
from tests.fakes.log import MemoryLog, MemorySource

WAY = ("sluice.guard.interactive", "sluice.cache.interactive", "sluice.router.interactive")
END = "sluice.completions"
PARTITIONS, JOBS = 3, 120


class Process:
    """A member of one stage's group: works on a record by sending it on. When it dies, it is never heard of again."""

    def __init__(self, world: "World", place: int) -> None:
        self.place = place
        self._world = world
        self._alive = True
        self._begun: set[tuple[Partition, int]] = set()
        self.source: MemorySource = world.log.source(WAY[place], [WAY[place]])
        self.stage = Stage(WAY[place], self.source, self._work, total=world.chance.choice((4, 20, 100)))

    async def die(self) -> None:
        self._alive = False
        await self.source.crash()

    async def _work(self, record: Incoming, suspect: bool) -> None:
        partition = Partition(record.topic, record.partition)
        self._world.check_begin(partition, record.offset, suspect)
        assert (partition, record.offset) not in self._begun, "the same process began a record twice"
        self._begun.add((partition, record.offset))
        await self._pause()
        onward = (*WAY, END)[self.place + 1]
        ack = await self._world.log.send(Outgoing(onward, record.value, record.value, ()))
        await self._pause()
        await ack
        await self._pause()
        self._world.ended[(partition, record.offset)] += 1

    async def _pause(self) -> None:
        await self._world.pause()
        if not self._alive:
            await asyncio.Event().wait()


class World:
    """The log, the processes, and what must hold of them."""

    def __init__(self, seed: int, disasters: int = 12) -> None:
        self.chance = Random(seed)
        self.log = MemoryLog(PARTITIONS, self.pause)
        self.ended: Counter[tuple[Partition, int]] = Counter()
        self.errors: list[str] = []
        self._longest_s = self.chance.choice((0.001, 0.05, 1.0))
        self._troubles = disasters and self.chance.randrange(disasters)
        self._processes: list[Process] = []

    async def pause(self) -> None:
        """Mostly a moment, sometimes much longer than the others."""
        await asyncio.sleep(self.chance.random() ** 6 * self._longest_s)

    def check_begin(self, partition: Partition, offset: int, suspect: bool) -> None:
        """What the group has committed as finished must not be begun; what was begun before must be suspected."""
        mark = self.log.marks(partition.topic).get(partition)
        if mark:
            unfinished, following = decode(*mark)
            if offset < following and offset not in unfinished:
                self.errors.append(f"{partition}@{offset} was begun although {mark} says it is finished")
        if self.ended[(partition, offset)] and not suspect:
            self.errors.append(f"{partition}@{offset} had ended before and was not suspected")

    async def run(self) -> None:
        for place in range(len(WAY)):
            for _ in range(2):
                await self._start(place)
        disasters = asyncio.create_task(self._disasters())
        for n in range(JOBS):
            await self.log.send(Outgoing(WAY[0], b"%d" % n, b"%d" % n, ()))
            await self.pause()
        await disasters
        async with asyncio.timeout(3600):
            while not self._all_is_committed():  # noqa: ASYNC110
                await asyncio.sleep(1)
        self._check_end()

    async def _start(self, place: int) -> None:
        process = Process(self, place)
        self._processes.append(process)
        await process.stage.start()

    async def _disasters(self) -> None:
        for _ in range(self._troubles):
            await asyncio.sleep(self.chance.random() * self._longest_s * 4)
            place = self.chance.randrange(len(WAY))
            if self.chance.random() < 0.5:
                await self.log.rebalance(WAY[place], self.chance.choice((None, self.chance.randrange(1000))))
                continue
            victim = self.chance.choice([p for p in self._processes if p.place == place])
            self._processes.remove(victim)
            await victim.die()
            await self._start(place)

    def _all_is_committed(self) -> bool:
        partitions = [Partition(topic, n) for topic in WAY for n in range(PARTITIONS)]
        marks = {p: self.log.marks(p.topic).get(p) for p in partitions}
        finished = all(mark is not None and mark.offset == self.log.end(p) for p, mark in marks.items() if self.log.end(p))
        return finished and bool(self.log.records(WAY[0]))

    def _check_end(self) -> None:
        for process in self._processes:
            assert process.stage.not_ready() is None or "no partitions" in str(process.stage.not_ready())
        assert self.errors == []
        assert {r.value for r in self.log.records(END)} == {b"%d" % n for n in range(JOBS)}, "a job was lost"
        for topic in WAY:
            for record in self.log.records(topic):
                assert self.ended[(Partition(topic, record.partition), record.offset)] >= 1


@pytest.mark.parametrize("seed", range(40))
def test_no_job_is_lost_and_nothing_finished_is_repeated(seed: int) -> None:
    @in_virtual_time
    async def run() -> None:
        await World(seed).run()

    run()


@in_virtual_time
async def test_without_deaths_and_rebalances_everything_happens_once() -> None:
    world = World(0, disasters=0)
    await world.run()
    assert set(world.ended.values()) == {1}
