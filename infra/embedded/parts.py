"""Which parts there are, and how each is started: one entry a part."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import infra
from infra.embedded.kafka import start_kafka
from infra.embedded.probe import ask
from infra.embedded.process import Child, launch, log_path
from infra.embedded.redis import start_redis
from infra.secret_files import clickhouse_password, password_file


@dataclass(frozen=True, slots=True)
class Part:
    """`start` gets the data folder and one port for each name in `ports`; it returns when the part is ready.

    `address` is what clients are given, with the first port in place of `{port}`.
    """

    name: str
    ports: tuple[str, ...]
    address: str
    start: Callable[[Path, Sequence[int]], Awaitable[Child]]


async def start_clickhouse(data_dir: Path, port: int) -> Child:
    """Start our ClickHouse server on 127.0.0.1:`port` with its data in `data_dir/clickhouse`; ready at its /ping.

    Raises PartFailed.
    """
    path = (data_dir / "clickhouse").absolute()
    clickhouse_password(data_dir)
    words = ["-m", "infra.embedded.clickhouse", "--path", str(path), "--port", str(port)]
    words += ["--password-file", str(password_file(data_dir).absolute())]
    root = Path(infra.__file__).parents[1]
    child = Child("clickhouse", [sys.executable, *words], log=log_path(data_dir, "clickhouse"), cwd=root)
    return await launch(child, lambda: _pings(port))


async def _pings(port: int) -> bool:
    answer = await ask(port, b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return answer.startswith(b"HTTP/1.1 200")


KAFKA = Part(
    name="kafka",
    ports=("kafka", "kafka_controller"),
    address="127.0.0.1:{port}",
    start=lambda data_dir, ports: start_kafka(data_dir, ports[0], ports[1]),
)
REDIS = Part(
    name="redis",
    ports=("redis",),
    address="redis://127.0.0.1:{port}/0",
    start=lambda data_dir, ports: start_redis(data_dir, ports[0]),
)
CLICKHOUSE = Part(
    name="clickhouse",
    ports=("clickhouse",),
    address="http://127.0.0.1:{port}",
    start=lambda data_dir, ports: start_clickhouse(data_dir, ports[0]),
)
PARTS = (KAFKA, REDIS, CLICKHOUSE)
