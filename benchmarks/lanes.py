"""What a long batch queue of one team does to everybody else: to interactive requests, and to another team's small batch.

    python -m benchmarks.lanes [--jobs 50000] [--rate 20] [--seconds 20] [--latency-ms 200] [--processes] [--runs 3]

Each run starts a fresh system and measures first with empty queues, then while `--jobs` jobs of one team wait: interactive
requests at a fixed rate (an open loop: a slow answer delays no other request), and a batch of 100 of another team by the Kafka
door. The load, the provider and Sluice share the machine.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from benchmarks.subject import MODEL, Gateway, command, gateway, mock_provider

_SMALL = 100
_QUIET_S = 8
_console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is measured."""

    jobs: int
    rate: float
    seconds: float
    latency_ms: int
    processes: bool


@dataclass(frozen=True, slots=True)
class Team:
    """A team and what it shows: a virtual key over HTTP, a job token in Kafka."""

    name: str
    key: str
    token: str


class Subject:
    """A running gateway as its users reach it."""

    def __init__(self, sluice: Path, gateway: Gateway) -> None:
        self._sluice, self._gateway = sluice, gateway
        self._kafka = json.loads((gateway.data_dir / "endpoints.json").read_text())["kafka"]

    async def team(self, name: str) -> Team:
        options = ["--data-dir", str(self._gateway.data_dir)]
        await command(self._sluice, "teams", "create", name, *options)
        key = json.loads(await command(self._sluice, "keys", "create", "--team", name, "--json", *options))["key"]
        token = json.loads(await command(self._sluice, "keys", "job-token", "--team", name, "--json", *options))["token"]
        return Team(name, key, token)

    async def interactive(self, team: Team, rate: float, seconds: float) -> list[float]:
        """Latencies in ms of requests sent at a fixed rate. Raises RuntimeError for one that isn't answered by 200."""
        headers, limits = {"authorization": f"Bearer {team.key}"}, httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self._gateway.url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as http:
            tasks: list[asyncio.Task[float]] = []
            begin = time.perf_counter()
            for n in range(int(rate * seconds)):
                await asyncio.sleep(max(0, begin + n / rate - time.perf_counter()))
                tasks.append(asyncio.create_task(_ask(http)))
            return await asyncio.gather(*tasks)

    async def publish(self, team: Team, jobs: int) -> None:
        """Jobs on the batch door, keyed by team."""
        producer: Any = AIOKafkaProducer(bootstrap_servers=self._kafka, acks="all", linger_ms=5, max_batch_size=256 * 1024)
        await producer.start()
        headers = [("authorization", f"Bearer {team.token}".encode())]
        try:
            sent = [await producer.send("sluice.jobs.batch", _line(n), team.name.encode(), headers=headers) for n in range(jobs)]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def small_batch(self, team: Team) -> float:
        """Seconds from publishing a batch of 100 to its last result."""
        consumer: Any = AIOKafkaConsumer(f"sluice.results.{team.name}", bootstrap_servers=self._kafka, auto_offset_reset="latest")
        await consumer.start()
        await consumer.seek_to_end()
        try:
            began = time.perf_counter()
            await self.publish(team, _SMALL)
            results = 0
            async with asyncio.timeout(600):
                while results < _SMALL:
                    results += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
            return time.perf_counter() - began
        finally:
            await consumer.stop()

    async def results(self, team: Team) -> int:
        """How many results a team has got."""
        consumer: Any = AIOKafkaConsumer(bootstrap_servers=self._kafka)
        await consumer.start()
        try:
            from aiokafka import TopicPartition

            partition = TopicPartition(f"sluice.results.{team.name}", 0)
            return int((await consumer.end_offsets([partition]))[partition])
        finally:
            await consumer.stop()


async def measure(sluice: Path, asked: Asked) -> dict[str, float]:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="sluice-lanes-") as folder:
        async with (
            mock_provider(Path(folder), asked.latency_ms) as provider,
            gateway(sluice, Path(folder), provider.url, processes=asked.processes) as running,
        ):
            subject = Subject(sluice, running)
            flood, small, chats = [await subject.team(name) for name in ("flood", "small", "chats")]
            await subject.interactive(chats, asked.rate, 3)
            await subject.small_batch(small)
            empty = await subject.interactive(chats, asked.rate, asked.seconds)
            alone_s = min([await subject.small_batch(small) for _ in range(3)])
            _console.print(f"publishing {asked.jobs} jobs")
            await subject.publish(flood, asked.jobs)
            before, began = await subject.results(flood), time.perf_counter()
            deep = await subject.interactive(chats, asked.rate, asked.seconds)
            done, took_s = await subject.results(flood) - before, time.perf_counter() - began
            # Batch runs at a walk for some seconds after the last interactive request; it was measured alone without any.
            await asyncio.sleep(_QUIET_S)
            beside_s = min([await subject.small_batch(small) for _ in range(3)])
            left = asked.jobs - await subject.results(flood)
    return {
        "interactive p50 empty (ms)": _quantile(empty, 50),
        "interactive p50 deep (ms)": _quantile(deep, 50),
        "interactive p99 empty (ms)": _quantile(empty, 99),
        "interactive p99 deep (ms)": _quantile(deep, 99),
        "interactive p99 deep / empty": _quantile(deep, 99) / _quantile(empty, 99),
        "batch jobs/s meanwhile": done / took_s,
        "small batch alone (s)": alone_s,
        "small batch beside (s)": beside_s,
        "small batch beside / alone": beside_s / alone_s,
        "jobs still queued at the end": left,
    }


async def _ask(http: httpx.AsyncClient) -> float:
    began = time.perf_counter()
    answer = await http.post("/chat/completions", json=_body())
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")
    return (time.perf_counter() - began) * 1000


def _body() -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Tell me about {uuid.uuid4().hex}"}]}


def _line(n: int) -> bytes:
    return json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": _body()}).encode()


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def main() -> None:
    """Measures and prints a table: the median of the runs, and their range."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=20, help="interactive requests per second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--latency-ms", type=int, default=200, help="of the provider")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    asked = Asked(given.jobs, given.rate, given.seconds, given.latency_ms, given.processes)
    sluice = Path(__file__).parents[1] / ".venv" / "bin" / "sluice"
    runs = [asyncio.run(measure(sluice, asked)) for _ in range(given.runs)]
    table = Table(title=f"{asked}, {given.runs} runs")
    for column in ("", "median", "least", "most"):
        table.add_column(column, justify="left" if not column else "right")
    for name in runs[0]:
        values = [run[name] for run in runs]
        table.add_row(name, *(f"{value:,.2f}" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
