"""Kafka by FastStream and aiokafka: connection, producer, sources, readers. Nothing but this and `fetches` knows either library.

FastStream gives the connection and consumers without handlers; taking records is the stage's own loop, and aiokafka's producer
sends them as they are (docs/decisions/0001 has the measurements). Set once here, and read back by a test: no topics by accident,
acks from all replicas, an idempotent producer, no auto-commit.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import TopicPartition as AioPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, TopicAlreadyExistsError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, TopicPartition

from infra.kafka.fetches import FETCH_MS, Fetches
from infra.kafka.log import CommitRefused, Incoming, Listener, Mark, Outgoing, Partition, Sink, Source
from schemas.topics import DAY_MS, Topic

_REQUEST_MS = 15_000
"""A request that a broker took just before it died, or just before it was there again, is never answered; by default it is
waited for for 40 s. Joining a group may take as long as a rebalance, 10 s."""

PRODUCER_SETTINGS: Mapping[str, object] = {
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 0,
    "max_request_size": 2 * 1024 * 1024,
    # Replies of one ingress share a partition: with 16 kB, the default, 500 streams waited for each other (196/s, now 600).
    "max_batch_size": 256 * 1024,
    "request_timeout_ms": _REQUEST_MS,
}
CONSUMER_SETTINGS: dict[str, object] = {
    "ack_policy": AckPolicy.MANUAL,
    "no_reply": True,
    "auto_offset_reset": "earliest",
    "fetch_max_wait_ms": FETCH_MS,
    "max_partition_fetch_bytes": 2 * 1024 * 1024,
    # A full stage doesn't poll, so being busy must never look like being dead: the heartbeat tells that.
    "max_poll_interval_ms": 3_600_000,
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 1_000,
    "rebalance_timeout_ms": 10_000,
}


class Kafka(Sink):
    """A connection to the brokers: one producer, any number of sources and readers."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._broker = KafkaBroker(
            bootstrap, allow_auto_create_topics=False, logger=None, graceful_timeout=5, request_timeout_ms=_REQUEST_MS
        )
        self._producer: Any = AIOKafkaProducer(bootstrap_servers=bootstrap, **cast("Any", PRODUCER_SETTINGS))
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
        self._asker: Any = None
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        """Connects. Raises ConnectionError if no broker answers."""
        try:
            await self._broker.start()
            await self._producer.start()
            await self._admin.start()
        except KafkaError as error:
            raise ConnectionError(f"no Kafka broker answers at {self._bootstrap}: {error}") from error

    async def stop(self) -> None:
        """Sends what is still in the producer's buffer and closes all connections."""
        if self._asker is not None:
            await self._asker.stop()
        await self._admin.close()
        await self._producer.stop()
        await self._broker.stop()

    async def ping(self, timeout_s: float = 5) -> bool:
        """True if a broker answers."""
        return await self._broker.ping(timeout_s)

    async def send(self, record: Outgoing) -> Awaitable[object]:
        return await self._producer.send(record.topic, record.value, record.key, record.partition, headers=[*record.headers])

    async def topics(self) -> set[str]:
        """The names of all topics that there are."""
        return set(await self._admin.list_topics())

    async def create(self, topics: Iterable[Topic], replication: int) -> None:
        """Creates the topics that are missing."""
        await self._create([(name, topic) for topic in topics for name in topic.names()], replication)

    async def create_for_team(self, topic: Topic, team: str, replication: int) -> None:
        """Creates a topic of which each team has its own."""
        await self._create([(topic.name.format(team=team), topic)], replication)

    async def _create(self, named: list[tuple[str, Topic]], replication: int) -> None:
        existing = await self.topics()
        missing = [
            NewTopic(
                name=name,
                num_partitions=topic.partitions,
                replication_factor=replication,
                topic_configs=_topic_configs(topic),
            )
            for name, topic in named
            if name not in existing
        ]
        if missing:
            try:
                await cast("Any", self._admin.create_topics)(missing)
            except TopicAlreadyExistsError:
                # Another service was faster with one of them; ours for the rest.
                for topic in missing:
                    await self._create_one(topic)

    async def _create_one(self, topic: NewTopic) -> None:
        try:
            await cast("Any", self._admin.create_topics)([topic])
        except TopicAlreadyExistsError:
            return

    def source(self, group: str, topics: Collection[str], slot: str | None, may_wait_ms: int = 0) -> Source:
        """A member of `group`. `slot`: its fixed place (static membership), or None.

        `may_wait_ms`: for so long records may wait for others, to come many at once.
        """
        return _KafkaSource(self._bootstrap, self._broker, self._admin, self.ends, group, topics, slot, may_wait_ms)

    async def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The next offset to be written in each partition, by a connection of its own.

        On one that reads the answer would stand behind its fetch, which waits for records.
        """
        async with self._asking:
            if self._asker is None:
                asker: Any = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, request_timeout_ms=_REQUEST_MS)
                await asker.start()
                self._asker = asker
        found = cast("dict[AioPartition, int]", await self._asker.end_offsets([AioPartition(*p) for p in partitions]))
        return {Partition(p.topic, p.partition): offset for p, offset in found.items()}

    async def committed(self, group: str, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        """What a group has committed; a partition without a commit is missing."""
        return await committed(self._admin, group, partitions)

    async def reader(self, partitions: Collection[Partition]) -> "Reader":
        """Reads partitions assigned by hand, without a group."""
        subscriber: Any = cast("Any", self._broker).subscriber(
            partitions=[TopicPartition(p.topic, p.partition) for p in partitions],
            # Else the broker would hold every reader that there ever was.
            persistent=False,
            **CONSUMER_SETTINGS,
        )
        await subscriber.start()
        return Reader(subscriber.consumer, partitions, subscriber.stop)


async def committed(admin: AIOKafkaAdminClient, group: str, partitions: Collection[Partition]) -> dict[Partition, Mark]:
    """What a group has committed; a partition without a commit is missing."""
    found = await admin.list_consumer_group_offsets(group, partitions=[AioPartition(*p) for p in partitions])
    return {
        Partition(p.topic, p.partition): Mark(mark.offset, mark.metadata or "") for p, mark in found.items() if mark.offset >= 0
    }


class Reader:
    """Reads some partitions from a place of its own choice."""

    def __init__(self, consumer: Any, partitions: Collection[Partition], stop: Any) -> None:
        self._consumer = consumer
        self._fetches = Fetches(consumer)
        self._partitions = [AioPartition(*p) for p in partitions]
        self._stop = stop

    async def seek_to_beginning(self) -> None:
        await self._consumer.seek_to_beginning(*self._partitions)

    async def seek_to_end(self) -> None:
        """Fixes the position: what is written after this returns will be read, what was before won't.

        Not by aiokafka's own `seek_to_end`, which a reset to the beginning that is on its way overrules (seen in tests).
        """
        for partition, end in (await self.ends()).items():
            self.seek(partition, end)

    async def ends(self) -> dict[Partition, int]:
        """The next offset to be written in each partition."""
        found = cast("dict[AioPartition, int]", await self._consumer.end_offsets(self._partitions))
        return {Partition(p.topic, p.partition): offset for p, offset in found.items()}

    async def starts(self) -> dict[Partition, int]:
        """The first offset that is still there in each partition."""
        found = cast("dict[AioPartition, int]", await self._consumer.beginning_offsets(self._partitions))
        return {Partition(p.topic, p.partition): offset for p, offset in found.items()}

    def seek(self, partition: Partition, offset: int) -> None:
        self._consumer.seek(AioPartition(*partition), offset)

    async def _position(self, partition: Partition) -> int:
        return cast("int", await self._consumer.position(AioPartition(*partition)))

    async def poll(self, timeout_s: float, limit: int | None = None) -> list[Incoming]:
        """The next records, in order within a partition; empty after `timeout_s`."""
        return await self._fetches.take((), limit, timeout_s)

    async def seek_to_time(self, unix_ms: int) -> None:
        """To the first record of that time or later."""
        starts = await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, unix_ms))
        for partition, end in (await self.ends()).items():
            start = starts[AioPartition(*partition)]
            self.seek(partition, end if start is None else start.offset)

    async def rest(self, poll_s: float) -> AsyncGenerator[list[Incoming]]:
        """What stands between here and the end as it is now, as it comes."""
        async for records in self.up_to(await self.ends(), poll_s):
            yield records

    async def up_to(self, ends: Mapping[Partition, int], poll_s: float) -> AsyncGenerator[list[Incoming]]:
        """What stands between here and these offsets, as it comes; of the last poll there may be more."""
        while any([await self._position(partition) < end for partition, end in ends.items()]):
            yield await self.poll(poll_s)

    async def stop(self) -> None:
        await self._stop()


class _KafkaSource(Source):
    def __init__(
        self,
        bootstrap: str,
        broker: KafkaBroker,
        admin: AIOKafkaAdminClient,
        ends: Callable[[Collection[Partition]], Awaitable[dict[Partition, int]]],
        group: str,
        topics: Collection[str],
        slot: str | None,
        may_wait_ms: int,
    ) -> None:
        self._bootstrap, self._broker, self._admin, self._ends = bootstrap, broker, admin, ends
        self._group, self._topics, self._slot, self._may_wait_ms = group, list(topics), slot, may_wait_ms
        self._consumer: Any = None
        self._fetches: Any = None
        self._stop: Any = None
        self._left = False
        self._settled = asyncio.Event()
        self._held: list[Incoming] = []

    async def start(self, listener: Listener) -> None:
        subscriber: Any = cast("Any", self._broker).subscriber(
            *self._topics,
            group_id=self._group,
            group_instance_id=f"{self._group}-{self._slot}" if self._slot is not None else None,
            # By topic, so that every member has a part of each lane; the sticky one gave each of two a lane of its own.
            partition_assignment_strategy=(RangePartitionAssignor,),
            listener=_Rebalances(listener, self._settle),
            **CONSUMER_SETTINGS,
        )
        await subscriber.start()
        self._consumer, self._stop = subscriber.consumer, subscriber.stop
        self._fetches = Fetches(self._consumer, self._may_wait_ms)

    async def poll(self, partitions: Collection[Partition], limit: int, timeout_s: float) -> list[Incoming]:
        if not self._held:
            self._held = await self._fetches.take([AioPartition(*p) for p in partitions], limit, timeout_s)
        # aiokafka gives records of a new assignment while the listener is still being told of it (measured).
        await self._settled.wait()
        held, self._held = self._held, []
        return held

    def _settle(self, settled: bool) -> None:
        if settled:
            self._settled.set()
        else:
            self._settled.clear()
            self._held = []

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        offsets = {AioPartition(*p): (m.offset, m.metadata) for p, m in marks.items()}
        try:
            if self._left:
                await self._commit_for_nobody(offsets)
            else:
                await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise CommitRefused(str(error)) from error

    async def _commit_for_nobody(self, offsets: Mapping[AioPartition, tuple[int, str]]) -> None:
        """A group without members takes commits from anybody, and from nobody else."""
        consumer: Any = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, group_id=self._group, enable_auto_commit=False)
        consumer.assign(list(offsets))
        await consumer.start()
        try:
            await consumer.commit(offsets)
        finally:
            await consumer.stop()

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        return await committed(self._admin, self._group, partitions)

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return await self._ends(partitions)

    def high_water(self, partition: Partition) -> int | None:
        if self._consumer is None or self._left:
            return None
        try:
            return cast("int | None", self._consumer.highwater(AioPartition(*partition)))
        except IllegalStateError:
            return None

    async def stop(self) -> None:
        if self._left or self._consumer is None:
            return
        self._left = True
        # aiokafka lets a static member go without a word, and its partitions would wait for its session to end.
        self._consumer._coordinator._group_instance_id = None
        await self._stop()


class _Rebalances(ConsumerRebalanceListener):
    def __init__(self, listener: Listener, settle: Callable[[bool], None]) -> None:
        self._listener, self._settle = listener, settle

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, revoked: Iterable[AioPartition]
    ) -> None:
        self._settle(False)
        await self._listener.revoked([Partition(p.topic, p.partition) for p in revoked])

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, assigned: Iterable[AioPartition]
    ) -> None:
        await self._listener.assigned([Partition(p.topic, p.partition) for p in assigned])
        self._settle(True)


def _topic_configs(topic: Topic) -> dict[str, str]:
    configs = {"retention.ms": str(topic.retention_ms), "max.message.bytes": str(2 * 1024 * 1024)}
    if topic.compacted:
        configs |= {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.1",
            "segment.ms": "86400000",
            # What accounting hasn't written down yet must not be compacted away: every version of a policy is kept there.
            "min.compaction.lag.ms": str(7 * DAY_MS),
        }
    return configs
