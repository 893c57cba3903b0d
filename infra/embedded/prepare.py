"""`python -m infra.embedded.prepare`: what a first start would have to wait for, done once a user by `make setup`.

Kafka's jars are fetched, and one training run of Kafka records Java's ahead-of-time cache (66 MB beside the jars).
Measured on 2 cores: a start takes 0.8 s and 1.0 s of CPU instead of 2.0 s and 2.4 s.
"""

import asyncio
import tempfile
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # pyright: ignore[reportMissingTypeStubs]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # pyright: ignore[reportMissingTypeStubs]

from infra.embedded.jars import kafka_jars
from infra.embedded.kafka import aot_cache, start_kafka
from infra.embedded.ports import choose_ports

RECORDING_S = 120.0
_TOPIC = "training"


async def prepare() -> None:
    """Make jars and cache, unless they are there. About 20 s the first time. Raises PartFailed."""
    cache = aot_cache(await asyncio.to_thread(kafka_jars))
    if cache.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
        recorded = Path(folder) / "kafka.aot"
        await _record(Path(folder), recorded)
        if recorded.exists():  # without it, starts are slower and nothing else
            recorded.replace(cache)


async def _record(data_dir: Path, recorded: Path) -> None:
    ports = choose_ports(data_dir, ["kafka", "controller"])
    kafka = await start_kafka(data_dir, ports["kafka"], ports["controller"], record=recorded)
    try:
        await _use(f"127.0.0.1:{ports['kafka']}")
    finally:
        await kafka.stop(RECORDING_S)


async def _use(servers: str) -> None:
    """What a day looks like to a broker, so that the cache holds the classes of it: topic, produce, group, commit."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(_TOPIC, bootstrap_servers=servers, group_id="training", auto_offset_reset="earliest")
    await admin.start()
    try:
        await admin.create_topics([NewTopic(_TOPIC, num_partitions=2, replication_factor=1)])
        await producer.start()
        await consumer.start()
        await producer.send_and_wait(_TOPIC, b"one")  # pyright: ignore[reportUnknownMemberType]
        await consumer.getone()  # pyright: ignore[reportUnknownMemberType]
        await consumer.commit()  # pyright: ignore[reportUnknownMemberType]
    finally:
        await consumer.stop()
        await producer.stop()
        await admin.close()


if __name__ == "__main__":
    asyncio.run(prepare())
