"""Everything that a running system has written, and all that it shows: where a secret might have got to."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import redis.asyncio
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from tests.system import System

KEPT = ("admin.key", "signing.key", "secrets", "sluice.yaml")
"""Where secrets lie, and the configuration in which one was written down."""

_SHOWN = (
    "/metrics",
    "/readyz",
    "/openapi.json",
    "/admin/v1/config",
    "/admin/v1/deployments?limit=1000",
    "/admin/v1/keys",
    "/admin/v1/alerts?limit=1000",
    "/admin/v1/dead",
)
_COMMANDS = (("doctor",), ("deployments", "list"), ("models", "list"), ("events", "--json"), ("alerts",), ("jobs", "list"))
_EMPTY = (".index", ".timeindex", ".snapshot")
"""Of Kafka's: numbers, in files that are long and hollow."""


async def found(system: System, secrets: Mapping[str, str], job_ids: Collection[str]) -> AsyncIterator[str]:
    """Names of secrets, and where each of them is; `job_ids`: jobs to be looked at."""
    async for place, data in _all(system, job_ids):
        for name in leaked(secrets, data):
            yield f"{name} in {place}"


def leaked(secrets: Mapping[str, str], data: bytes) -> list[str]:
    """The names of those that are in it."""
    return [name for name, secret in secrets.items() if secret.encode() in data]


async def _all(system: System, job_ids: Collection[str]) -> AsyncIterator[tuple[str, bytes]]:
    for parts in (_records(system), _rows(system), _values(system), _answers(system), _outputs(system, job_ids)):
        async for place, data in parts:
            yield place, data
    # Last: what was asked for until now is in the logs too.
    for path in await asyncio.to_thread(lambda: list(_files(system.data_dir))):
        yield str(path), await asyncio.to_thread(path.read_bytes)


async def _records(system: System) -> AsyncIterator[tuple[str, bytes]]:
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=system.kafka, auto_offset_reset="earliest")
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=system.kafka)
    await asyncio.gather(consumer.start(), admin.start())
    try:
        described = cast("list[Any]", await admin.describe_topics())
        partitions = [TopicPartition(topic["topic"], one["partition"]) for topic in described for one in topic["partitions"]]
        assert {"sluice.control", "sluice.alerts", "sluice.completions"} <= {partition.topic for partition in partitions}
        ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(partitions))
        begins = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(partitions))
        left = {partition for partition in partitions if begins[partition] < ends[partition]}
        consumer.assign(left)
        while left:
            batches = cast("dict[TopicPartition, list[Any]]", await consumer.getmany(timeout_ms=200))
            for partition, records in batches.items():
                for record in records:
                    yield partition.topic, b"\n".join([record.key or b"", record.value or b"", repr(record.headers).encode()])
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
    finally:
        await asyncio.gather(consumer.stop(), admin.close())


async def _rows(system: System) -> AsyncIterator[tuple[str, bytes]]:
    # A view with parameters can't be read without them, and reads others.
    query = "SELECT name FROM system.tables WHERE database = 'sluice' AND create_table_query NOT LIKE '%{%:%}%'"
    tables = [row["name"] for row in await system.query(query)]
    assert {"usage", "attempts", "events"} <= set(tables)
    for table in tables:
        yield f"the table {table}", repr(await system.query(f"SELECT * FROM {table}")).encode()


async def _values(system: System) -> AsyncIterator[tuple[str, bytes]]:
    address = system.endpoints["redis"]
    client: Any = redis.asyncio.from_url(address if "://" in address else f"redis://{address}")
    try:
        # A dump is compressed as files are.
        await client.config_set("rdbcompression", "no")
        keys = [key async for key in client.scan_iter(count=1000)]
        assert keys
        for key in keys:
            yield f"Redis' {key!r}", key + (await client.dump(key) or b"")
    finally:
        await client.aclose()


async def _answers(system: System) -> AsyncIterator[tuple[str, bytes]]:
    async with system.admin() as admin:
        for path in _SHOWN:
            answer = await admin.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text}"
            yield path, told_by(answer)


async def _outputs(system: System, job_ids: Collection[str]) -> AsyncIterator[tuple[str, bytes]]:
    for words in (*_COMMANDS, *(("trace", job_id) for job_id in job_ids)):
        result = await system.run(*words)
        assert result.out, result.err
        yield f"sluice {' '.join(words)}", (result.out + result.err).encode()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name not in KEPT and not path.is_symlink():
            if path.is_dir():
                yield from _files(path)
            elif path.is_file() and path.suffix not in _EMPTY:
                yield path


def told_by(response: httpx.Response) -> bytes:
    """All that the caller is told: status, headers, body."""
    return b"\n".join(
        [str(response.status_code).encode(), *(b": ".join(pair) for pair in response.headers.raw), response.content]
    )
