"""Kafka as a batch team uses it: plain aiokafka, nothing of ours."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in a topic."""

    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    def json(self) -> Any:
        return json.loads(self.value)

    def text(self, header: str) -> str:
        return self.headers[header].decode()


async def publish(servers: str, topic: str, values: Iterable[bytes | None], headers: Headers) -> list[str]:
    """Publishes values with the same headers; gives where each stands, as `topic/partition@offset`."""
    producer: Any = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=2 * 1024 * 1024)
    await producer.start()
    try:
        # aiokafka refuses a record with neither value nor key.
        sent = [await producer.send(topic, value, b"key" if value is None else None, headers=headers) for value in values]
        await producer.flush()
        placed = [await future for future in sent]
    finally:
        await producer.stop()
    return [f"{place.topic}/{place.partition}@{place.offset}" for place in placed]


class Tail:
    """Everything that stands in a topic, from its beginning on."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.records: list[Record] = []

    async def read_until(self, enough: Callable[[], bool], timeout_s: float = 60) -> None:
        """Reads on until `enough` is true; fails after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not enough():
                    await self._read(200)
        except TimeoutError:
            raise AssertionError(f"not enough within {timeout_s:g} s: {len(self.records)} records") from None

    async def read_to_end(self) -> None:
        """Reads what stands there now."""
        for partition, end in (await self._consumer.end_offsets(self._consumer.assignment())).items():
            while await self._consumer.position(partition) < end:
                await self._read(50)

    async def _read(self, timeout_ms: int) -> None:
        batches = cast("dict[Any, list[Any]]", await self._consumer.getmany(timeout_ms=timeout_ms))
        self.records += [Record(r.key, r.value, dict(r.headers)) for batch in batches.values() for r in batch]


@asynccontextmanager
async def tail_of(servers: str, topic: str) -> AsyncGenerator[Tail]:
    """Opens a topic."""
    consumer: Any = AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", max_partition_fetch_bytes=4 * 1024 * 1024
    )
    await consumer.start()
    try:
        yield Tail(consumer)
    finally:
        await consumer.stop()


async def is_all_done(servers: str) -> bool:
    """Whether each group has committed whatever stands in the topics that it reads: nothing more will come of it."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=servers)
    await asyncio.gather(admin.start(), consumer.start())
    try:
        for group, *_ in await admin.list_consumer_groups():
            committed = cast("dict[TopicPartition, Any]", await admin.list_consumer_group_offsets(group))
            topics = cast("list[Any]", await admin.describe_topics(sorted({partition.topic for partition in committed})))
            read = [TopicPartition(topic["topic"], found["partition"]) for topic in topics for found in topic["partitions"]]
            ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(read))
            if any(end > (committed[partition].offset if partition in committed else 0) for partition, end in ends.items()):
                return False
        return True
    finally:
        await asyncio.gather(admin.close(), consumer.stop())


def bearer(token: str) -> Headers:
    """The header that says whose record it is."""
    return [("authorization", f"Bearer {token}".encode())]


def line(custom_id: str, body: object, url: str = "/v1/chat/completions") -> bytes:
    """A line of OpenAI's batch input."""
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode()
