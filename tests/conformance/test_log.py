"""What a log promises (infra/kafka/log.py), asked of the one in memory and of Kafka."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import pytest

from infra.kafka.broker import Kafka
from infra.kafka.log import CommitRefused, Incoming, Mark, Outgoing, Partition, Sink, Source
from schemas.topics import Topic
from tests.fakes.log import MemoryLog

PARTITIONS = 4
PATIENCE_S = 30


class Subject(Protocol):
    """A log with a topic of four partitions."""

    @property
    def sink(self) -> Sink: ...
    @property
    def topic(self) -> str: ...
    def source(self, group: str, topics: Collection[str], slot: str | None = None) -> Source: ...


@dataclass
class Memory:
    topic: str = "things"
    sink: MemoryLog = field(default_factory=lambda: MemoryLog(PARTITIONS))

    def source(self, group: str, topics: Collection[str], slot: str | None = None) -> Source:
        return self.sink.source(group, topics, slot)


@dataclass
class Real:
    sink: Kafka
    topic: str

    def source(self, group: str, topics: Collection[str], slot: str | None = None) -> Source:
        return self.sink.source(group, topics, slot)


@pytest.fixture
async def real(kafka: Kafka) -> Real:
    topic = Topic(f"things-{secrets.token_hex(4)}", "", PARTITIONS, 3_600_000, "", (), (), "")
    await kafka.create([topic], 1)
    return Real(kafka, topic.name)


@pytest.fixture(params=["memory", "kafka"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return Memory() if request.param == "memory" else cast("Real", request.getfixturevalue("real"))


class Seen:
    """A listener that remembers what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.owned: set[Partition] = set()
        self.assignments = 0
        self._changed = asyncio.Condition()

    async def revoked(self, partitions: Collection[Partition]) -> None:
        self.owned -= set(partitions)
        await self._tell()

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self.owned |= set(partitions)
        self.assignments += 1
        await self._tell()

    async def until(self, holds: Callable[["Seen"], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def member(subject: Subject, group: str, slot: str | None = None) -> AsyncGenerator[tuple[Source, Seen]]:
    source, seen = subject.source(group, [subject.topic], slot), Seen()
    await source.start(seen)
    await seen.until(lambda s: s.assignments > 0)
    try:
        yield source, seen
    finally:
        await source.stop()


async def send(subject: Subject, partition: int, *values: bytes) -> None:
    for value in values:
        headers = (("ce_type", b"x"),)
        await (await subject.sink.send(Outgoing(subject.topic, b"k", value, headers, partition)))


async def read(source: Source, partitions: Collection[Partition], count: int, limit: int = 100) -> list[Incoming]:
    records: list[Incoming] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(records) < count:
            records += await source.poll(partitions, limit, 1)
    return records


def all_of(subject: Subject) -> list[Partition]:
    return [Partition(subject.topic, n) for n in range(PARTITIONS)]


async def test_a_record_comes_as_it_was_sent(subject: Subject) -> None:
    async with member(subject, subject.topic) as (source, _):
        await send(subject, 2, b"value")
        (record,) = await read(source, all_of(subject), 1)
    assert (record.topic, record.partition, record.offset) == (subject.topic, 2, 0)
    assert (record.key, record.value) == (b"k", b"value")
    assert ("ce_type", b"x") in tuple(record.headers)


async def test_records_of_a_partition_come_in_order_from_the_first(subject: Subject) -> None:
    values = [b"%d" % n for n in range(50)]
    await asyncio.gather(*(send(subject, n, *values) for n in range(2)))
    async with member(subject, subject.topic) as (source, _):
        records = await read(source, all_of(subject), 100, limit=7)
    for n in range(2):
        own = [r for r in records if r.partition == n]
        assert [r.value for r in own] == values
        assert [r.offset for r in own] == list(range(50))


async def test_a_poll_gives_at_most_its_limit_and_only_what_was_asked(subject: Subject) -> None:
    await send(subject, 0, *[b"a"] * 10)
    await send(subject, 1, *[b"b"] * 10)
    one = [Partition(subject.topic, 1)]
    async with member(subject, subject.topic) as (source, _):
        first = await read(source, one, 1, limit=3)
        assert 0 < len(first) <= 3
        rest = await read(source, one, 10 - len(first), limit=3)
        assert {r.partition for r in first + rest} == {1}
        assert await source.poll(one, 3, 0) == []
        left = await read(source, all_of(subject), 10)
    assert {r.partition for r in left} == {0}


async def test_an_empty_poll_returns(subject: Subject) -> None:
    async with member(subject, subject.topic) as (source, _):
        assert await source.poll(all_of(subject), 5, 0.05) == []
        assert await source.poll(all_of(subject), 5, 0) == []


async def test_a_cancelled_poll_loses_nothing(subject: Subject) -> None:
    async with member(subject, subject.topic) as (source, _):
        got: list[Incoming] = []
        for n in range(20):
            poll = asyncio.create_task(source.poll(all_of(subject), 10, 10))
            await send(subject, 0, b"%d" % n)
            poll.cancel()
            done = await asyncio.gather(poll, return_exceptions=True)
            got += [record for records in done if isinstance(records, list) for record in records]
        if len(got) < 20:
            got += await read(source, all_of(subject), 20 - len(got))
    assert [r.value for r in got] == [b"%d" % n for n in range(20)]


async def test_what_was_committed_is_told_with_its_metadata(subject: Subject) -> None:
    await send(subject, 0, b"a", b"b", b"c")
    first, second = all_of(subject)[:2]
    async with member(subject, subject.topic) as (source, _):
        assert await source.committed([first, second]) == {}
        await source.commit({first: Mark(1, "1:AQE=")})
        assert await source.committed([first, second]) == {first: Mark(1, "1:AQE=")}
        assert await source.end([first, second]) == {first: 3, second: 0}
        await source.commit({first: Mark(2)})
    async with member(subject, subject.topic) as (source, _):
        assert await source.committed([first]) == {first: Mark(2, "")}
        assert [r.value for r in await read(source, [first], 1)] == [b"c"]
    async with member(subject, "another") as (source, _):
        assert await source.committed([first]) == {}


async def test_the_longest_metadata_is_kept_whole(subject: Subject) -> None:
    longest = "1:" + "A" * 4094
    first = all_of(subject)[0]
    async with member(subject, subject.topic) as (source, _):
        await source.commit({first: Mark(0, longest)})
        assert await source.committed([first]) == {first: Mark(0, longest)}


async def test_a_new_member_takes_its_share_and_the_old_one_commits_no_more_for_it(subject: Subject) -> None:
    async with member(subject, subject.topic) as (old, seen):
        assert seen.owned == set(all_of(subject))
        async with member(subject, subject.topic) as (new, other):
            await other.until(lambda s: len(s.owned) == 2)
            await seen.until(lambda s: len(s.owned) == 2)
            assert seen.owned | other.owned == set(all_of(subject))
            with pytest.raises(CommitRefused):
                await old.commit(dict.fromkeys(other.owned, Mark(1)))
            assert await new.committed(other.owned) == {}
            await new.commit(dict.fromkeys(other.owned, Mark(0, "mine")))
        await seen.until(lambda s: len(s.owned) == 4)
        assert len(await old.committed(all_of(subject))) == 2


async def test_after_a_rebalance_unfinished_records_come_again_to_whoever_keeps_the_partition(subject: Subject) -> None:
    for n in range(PARTITIONS):
        await send(subject, n, b"a", b"b", b"c")
    async with member(subject, subject.topic) as (old, seen):
        assert len(await read(old, all_of(subject), 12)) == 12
        await old.commit({p: Mark(1) for p in all_of(subject)})
        async with member(subject, subject.topic) as (new, other):
            await other.until(lambda s: len(s.owned) == 2)
            await seen.until(lambda s: len(s.owned) == 2)
            for source, owned in ((old, seen.owned), (new, other.owned)):
                again = await read(source, owned, 4)
                assert {(r.partition, r.value) for r in again} == {(p.partition, v) for p in owned for v in (b"b", b"c")}


class Slow(Seen):
    """A listener that asks before it knows what to do, as the stage does."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.told: list[str] = []
        self._source = source

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self.told.append("assigning")
        for _ in range(20):
            await self._source.committed(partitions)
        self.told.append("assigned")
        await super().assigned(partitions)


async def test_a_poll_gives_nothing_of_an_assignment_before_the_listener_knows_it(subject: Subject) -> None:
    everything = all_of(subject)
    source = subject.source(subject.topic, [subject.topic])
    seen = Slow(source)
    await source.start(seen)
    await seen.until(lambda s: s.assignments > 0)
    for n in range(PARTITIONS):
        await send(subject, n, b"a")
    await read(source, everything, PARTITIONS)
    poll = asyncio.create_task(source.poll(everything, 10, PATIENCE_S))
    poll.add_done_callback(lambda _: seen.told.append("polled"))
    async with member(subject, subject.topic):
        await seen.until(lambda s: s.assignments > 1)
    await seen.until(lambda s: len(s.owned) == 4)
    assert await poll
    assert seen.told[seen.told.index("polled") - 1] == "assigned"
    await source.stop()


async def test_who_leaves_leaves_his_partitions_to_others_at_once_and_may_commit_only_if_there_are_none(subject: Subject) -> None:
    mark = {Partition(subject.topic, 0): Mark(0, "kept")}
    async with member(subject, subject.topic, "0") as (last, seen):
        source = subject.source(subject.topic, [subject.topic], "1")
        await source.start(first := Seen())
        await first.until(lambda s: len(s.owned) == 2)
        await source.stop()
        await seen.until(lambda s: len(s.owned) == 4)
        with pytest.raises(CommitRefused):
            await source.commit(mark)
    await last.commit(mark)
    assert await last.committed(mark) == mark
