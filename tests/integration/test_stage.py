"""The stage on a real Kafka: rebalances, deaths, and the settings that everything else rests on."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from infra.kafka.broker import Kafka
from infra.kafka.log import Incoming, Outgoing, Partition, Source
from infra.kafka.stage import Stage
from schemas.topics import Topic

PARTITIONS, RECORDS = 4, 200
PATIENCE_S = 60

Place = tuple[int, int]


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = f"sluice.test-{secrets.token_hex(4)}.interactive"
    await kafka.create([Topic(name, "", PARTITIONS, 3_600_000, "", (), (), "")], 1)
    return name


class Crew:
    """The members of the group that bears the topic's name. Every fourth record waits until all may end."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.may_end = asyncio.Event()
        self._kafka, self._topic = kafka, topic
        self._changed = asyncio.Condition()

    def member(self, slot: str | None = None) -> "Member":
        return Member(self, self._kafka.source(self._topic, [self._topic], slot))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(holds)

    async def note(self, change: Callable[[], None]) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()


class Member:
    """A stage, and what it has worked on."""

    def __init__(self, crew: Crew, source: Source) -> None:
        self.begun: Counter[Place] = Counter()
        self.ended: set[Place] = set()
        self.suspect: set[Place] = set()
        self.source = source
        self.stage = Stage("test", source, self._work, total=1000)
        self._crew = crew

    async def _work(self, record: Incoming, suspect: bool) -> None:
        place = record.partition, record.offset
        await self._crew.note(lambda: self.begun.update([place]))
        if suspect:
            self.suspect.add(place)
        if record.offset % 4 == 0:
            await self._crew.may_end.wait()
        await self._crew.note(lambda: self.ended.add(place))


@asynccontextmanager
async def running(member: Member) -> AsyncGenerator[Member]:
    await member.stage.start()
    try:
        yield member
    finally:
        await member.stage.drain(PATIENCE_S)
        await member.stage.stop()


async def send(kafka: Kafka, topic: str, count: int) -> None:
    acks = [await kafka.send(Outgoing(topic, b"k", b"%d" % n, (), n % PARTITIONS)) for n in range(count)]
    await asyncio.gather(*acks)


def places(first: int, last: int) -> set[Place]:
    return {(n % PARTITIONS, n // PARTITIONS) for n in range(first, last)}


async def test_a_member_that_comes_and_goes_costs_no_repetition_where_work_runs_on(kafka: Kafka, topic: str) -> None:
    crew = Crew(kafka, topic)
    await send(kafka, topic, RECORDS)
    async with running(crew.member()) as first:
        await crew.until(lambda: len(first.begun) == RECORDS)
        async with running(crew.member()) as second:
            # What is still unfinished in the partitions that moved is begun there too: a lease would make it wait.
            await crew.until(lambda: len({partition for partition, _ in second.begun}) == 2)
            await send(kafka, topic, RECORDS)
            await crew.until(lambda: len(first.begun | second.begun) == 2 * RECORDS)
            assert all(offset % 4 == 0 for _, offset in second.suspect)
            crew.may_end.set()
        await send(kafka, topic, RECORDS)
        everything = places(0, 3 * RECORDS)
        await crew.until(lambda: first.ended | second.ended == everything)
        assert first.stage.not_ready() is None
    for member in (first, second):
        assert set(member.begun.values()) == {1}
    async with running(crew.member()) as last:
        await send(kafka, topic, 4)
        await crew.until(lambda: len(last.ended) == 4)
    assert set(last.begun) == places(3 * RECORDS, 3 * RECORDS + 4), "all else was committed as finished"


async def test_a_death_repeats_only_what_was_unfinished(kafka: Kafka, topic: str) -> None:
    before, after = Crew(kafka, topic), Crew(kafka, topic)
    after.may_end.set()
    await send(kafka, topic, RECORDS)
    dying = before.member()
    await dying.stage.start()
    unfinished = {place for place in places(0, RECORDS) if place[1] % 4 == 0}
    await before.until(lambda: dying.ended == places(0, RECORDS) - unfinished)
    await until_committed(dying.source, topic, all_but_each_fourth)
    await dying.source.stop()
    async with running(after.member()) as successor:
        await after.until(lambda: successor.ended == unfinished)
        await send(kafka, topic, 4)
        await after.until(lambda: len(successor.ended) == len(unfinished) + 4)
    assert set(successor.begun) == unfinished | places(RECORDS, RECORDS + 4)
    assert successor.suspect == unfinished
    await dying.stage.drain(0)


def all_but_each_fourth(metadata: str) -> bool:
    """As `encode` writes 50 offsets of which each fourth is unfinished: 13 unfinished, 12 times 3 finished, one left."""
    return metadata == "1:AQMBAwEDAQMBAwEDAQMBAwEDAQMBAwEDAQE="


async def until_committed(source: Source, topic: str, holds: Callable[[str], bool]) -> None:
    partitions = [Partition(topic, n) for n in range(PARTITIONS)]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            marks = await source.committed(partitions)
            if len(marks) == PARTITIONS and all(mark.offset == 0 and holds(mark.metadata) for mark in marks.values()):
                return


async def test_a_restarted_slot_is_back_at_its_partitions_and_repeats_nothing(kafka: Kafka, topic: str) -> None:
    crew = Crew(kafka, topic)
    crew.may_end.set()
    async with running(crew.member("0")) as neighbour:
        async with running(crew.member("1")) as before:
            await send(kafka, topic, RECORDS)
            await crew.until(lambda: len(neighbour.ended | before.ended) == RECORDS)
        async with running(crew.member("1")) as after:
            await send(kafka, topic, RECORDS)
            await crew.until(lambda: len(neighbour.ended | before.ended | after.ended) == 2 * RECORDS)
    assert {partition for partition, offset in before.ended if offset >= 50} == set()
    assert len({partition for partition, _ in after.ended}) == 2
    assert set((neighbour.begun + before.begun + after.begun).values()) == {1}


async def test_the_library_was_told_what_everything_rests_on(kafka: Kafka, topic: str) -> None:
    async with running(Crew(kafka, topic).member()) as member:
        producer = cast("Any", kafka)._producer
        consumer = cast("Any", member.source)._consumer
        assert producer._sender._acks == -1
        assert producer._txn_manager is not None, "it is not idempotent"
        assert consumer._enable_auto_commit is False
        assert consumer._max_poll_interval_ms == 3_600_000
