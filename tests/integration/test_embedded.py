"""The embedded parts: real processes, killed and started again. ClickHouse has tests of its own."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # pyright: ignore[reportMissingTypeStubs]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # pyright: ignore[reportMissingTypeStubs]

from infra.embedded.kafka import start_kafka
from infra.embedded.parts import KAFKA, REDIS, Part
from infra.embedded.ports import choose_ports
from infra.embedded.probe import ask
from infra.embedded.process import Child, PartFailed, launch
from infra.embedded.stack import Stack

ROOT = Path(__file__).parents[2]
TOPIC = "things"

PARENT = """
import asyncio, sys
from pathlib import Path
from infra.embedded.parts import KAFKA, REDIS
from infra.embedded.stack import Stack

async def main():
    stack = Stack(Path(sys.argv[1]), [KAFKA, REDIS])
    await stack.start()
    print(*stack.pids.values(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def running(data_dir: Path, *parts: Part, changed: Callable[[], None] = lambda: None) -> AsyncGenerator[Stack]:
    stack = Stack(data_dir, parts or (KAFKA, REDIS), changed)
    await stack.start()
    try:
        yield stack
    finally:
        await stack.stop()


async def produce(servers: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(TOPIC, value)  # pyright: ignore[reportUnknownMemberType]
    finally:
        await producer.stop()


async def make_topic(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def consume(servers: str, count: int) -> list[bytes]:
    """The first `count` values of the topic, read by a new group."""
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=servers, group_id="g", auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]  # pyright: ignore
    finally:
        await consumer.stop()


async def redis(stack: Stack, *words: bytes) -> bytes:
    port = int(stack.redis.rpartition(":")[2].removesuffix("/0"))
    return (await ask(port, b" ".join(words) + b"\r\n")).strip()


async def gone(pid: int) -> None:
    """Wait until the process has ended; it need not be a child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_data_and_ports_are_there_again_after_a_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        kafka, pids = stack.kafka, stack.pids
        await make_topic(kafka)
        await produce(kafka, b"one", b"two")
        assert await redis(stack, b"SET", b"spent", b"7") == b"+OK"
    assert not any(is_running(pid) for pid in pids.values())
    async with running(tmp_path) as stack:
        assert stack.kafka == kafka
        assert await consume(kafka, 2) == [b"one", b"two"]
        assert await redis(stack, b"GET", b"spent") == b"$1\r\n7"


async def test_a_killed_part_comes_back_with_its_data(tmp_path: Path) -> None:
    changed = asyncio.Event()
    async with running(tmp_path, changed=changed.set) as stack:
        await make_topic(stack.kafka)
        await produce(stack.kafka, b"kept")
        await redis(stack, b"SET", b"spent", b"7")
        for name in ("redis", "kafka"):
            killed = stack.pids[name]
            os.kill(killed, signal.SIGKILL)
            await changed.wait()
            changed.clear()
            assert stack.pids[name] != killed
        assert await consume(stack.kafka, 1) == [b"kept"]
        assert await redis(stack, b"GET", b"spent") == b"$1\r\n7"


async def test_parts_die_with_a_killed_parent_and_start_again(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(word) for word in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()
    await asyncio.gather(*(gone(pid) for pid in pids))
    async with running(tmp_path):
        pass


async def test_two_copies_run_side_by_side_but_not_in_one_folder(tmp_path: Path) -> None:
    async with running(tmp_path / "a", REDIS) as a, running(tmp_path / "b", REDIS) as b:
        assert a.redis != b.redis
        await redis(a, b"SET", b"whose", b"a")
        assert await redis(b, b"GET", b"whose") == b"$-1"
        with pytest.raises(PartFailed, match="Another run uses"):
            await Stack(tmp_path / "a", [REDIS]).start()


async def test_a_half_formatted_folder_is_formatted_again(tmp_path: Path) -> None:
    half = tmp_path / "kafka" / "data.new"
    half.mkdir(parents=True)
    (half / "meta.properties").write_text("version=")
    ports = choose_ports(tmp_path, ["kafka", "controller"])
    kafka = await start_kafka(tmp_path, ports["kafka"], ports["controller"])
    await kafka.stop()
    assert not half.exists()


async def test_a_failed_start_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    started: list[Child] = []

    async def start_failing(data_dir: Path, _ports: object) -> Child:
        child = Child("failing", ["/bin/sh", "-c", "echo no disk left; exit 3"], log=data_dir / "x.log", cwd=data_dir)
        return await launch(child, never)

    async def start_good(data_dir: Path, _ports: object) -> Child:
        child = Child("good", ["/bin/sleep", "1000"], log=data_dir / "y.log", cwd=data_dir)
        started.append(child)
        return await launch(child, always)

    stack = Stack(tmp_path, [Part("good", (), "", start_good), Part("failing", (), "", start_failing)])
    with pytest.raises(PartFailed, match=r"failing ended with exit status 3(.|\n)*no disk left"):
        await stack.start()
    assert [child.returncode for child in started] == [-signal.SIGTERM]
    assert stack.pids == {}


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; exec sleep 1000"
    child = Child("deaf", ["/bin/sh", "-c", script], log=tmp_path / "deaf.log", cwd=tmp_path)

    async def is_deaf() -> bool:
        return ready.exists()

    await launch(child, is_deaf)
    await child.stop(grace_s=0.1)
    assert await child.exited() == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_a_failed_part(tmp_path: Path) -> None:
    child = Child("absent", [tmp_path / "absent"], log=tmp_path / "absent.log", cwd=tmp_path)
    with pytest.raises(PartFailed, match="absent cannot be run"):
        await child.start()
    await child.stop()


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    first = choose_ports(tmp_path, ["a", "b"])
    assert choose_ports(tmp_path, ["a", "b"]) == first
    with socket.socket() as taken:
        with suppress(OSError):  # Tests beside this one take ports, too: then somebody else has it already.
            taken.bind(("127.0.0.1", first["a"]))
            taken.listen()
        second = choose_ports(tmp_path, ["a", "b"])
    assert second["a"] not in first.values()
    assert second["b"] == first["b"]


def test_a_broken_ports_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"a": 20')
    assert choose_ports(tmp_path, ["a"]).keys() == {"a"}


async def always() -> bool:
    return True


async def never() -> bool:
    return False
