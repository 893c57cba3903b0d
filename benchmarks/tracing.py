"""What tracing costs a request, and that it costs no more when whoever collects traces is slow, hostile or gone.

    python -m benchmarks.tracing [--rounds 3] [--requests 400] [--sluice PATH]
    python -m benchmarks.tracing --cpu    only what a trace's five spans cost, without a system around them

Two systems by `sluice up` with the mock provider: one without an OTLP endpoint (`none`), one with a collector that changes its
manners: `fast`; `gone`: nobody listens; `hostile`: garbage, endless bodies, resets, redirects and 429 by turns; `slow`: 30 s an
answer. Rounds are interleaved. CPU is that of the process with all services, with what its spans cost until 1.5 s later.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, cast

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.load import Plan, Target
from benchmarks.load import measure as load
from benchmarks.processes import cpu_seconds
from benchmarks.subject import Gateway, gateway, mock_provider
from infra.telemetry import genai
from infra.telemetry.spans import Tracing, open_tracing
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Job
from tests.fakes.jobs import a_job, an_attempt
from tests.mocks.otlp import Manner, OtlpSink

MANNERS: Final = ("none", "fast", "gone", "hostile", "slow")
_LOADS: Final = (1, 32)
_SETTLE_S: Final = 1.5
_PATIENCE_S: Final = 40.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a request. `refused`: how many were, as an overloaded machine does."""

    p50_ms: float
    p99_ms: float
    cpu_us: float
    refused: int


Found = dict[tuple[str, int], list[Cost]]


async def measure(folder: Path, sluice: Path, rounds: int, requests: int) -> tuple[Found, str]:
    """What was found, by manner and connections; and what the system says of its spans."""
    found: Found = {}
    # No prompt twice: the cache would answer it.
    seeds = itertools.count(100)
    with Collector() as collector:
        async with AsyncExitStack() as stack:
            provider = await stack.enter_async_context(mock_provider(folder))
            systems: dict[str, Gateway] = {}
            for name, endpoint in (("none", ""), ("traced", collector.url)):
                os.environ["SLUICE_OTLP_ENDPOINT"] = endpoint
                own = folder / name
                own.mkdir()
                systems[name] = await stack.enter_async_context(gateway(sluice, own, provider.url, processes=False))
            for system in systems.values():
                await load(Target(system.url, system.key), Plan(connections=8, requests=400, seed=99))
            for _ in range(rounds):
                for manner in MANNERS:
                    system = systems["none" if manner == "none" else "traced"]
                    await collector.become(manner, system)
                    for connections in _LOADS:
                        plan = Plan(connections=connections, requests=requests, seed=next(seeds))
                        found.setdefault((manner, connections), []).append(await cost(system, plan))
                        print(manner, connections, found[manner, connections][-1], file=sys.stderr, flush=True)
            return found, await spans(systems["traced"])


async def cost(system: Gateway, plan: Plan) -> Cost:
    """Asks, and lets the spans of it be sent within what is measured."""
    pid = system.pids()["ingress"]
    before = cpu_seconds(pid)
    report = await load(Target(system.url, system.key), plan)
    await asyncio.sleep(_SETTLE_S)
    refused = report.requests - report.ok
    return Cost(report.latency_ms.p50, report.latency_ms.p99, (cpu_seconds(pid) - before) / report.requests * 1e6, refused)


async def spans(system: Gateway) -> str:
    """The lines of its metrics that tell of spans."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{system.url.removesuffix('/v1')}/metrics")).text
    return "\n".join(row for row in text.splitlines() if row.startswith("sluice_spans_"))


class Collector:
    """A collector of traces on a port that stays the same, also while nobody listens on it."""

    def __init__(self) -> None:
        self._sink = OtlpSink()
        self._sink.keeps = False
        self.url = self._sink.url

    async def become(self, manner: str, system: Gateway) -> None:
        """Changes its manners. What it did before may still hold the exporter: it must have let go of that."""
        if manner == "gone":
            self._sink.manner = "reset"
            self._sink.close_door()
        elif manner != "none":
            self._sink.open_door()
            self._sink.manner = cast("Manner", "well" if manner == "fast" else manner)
        if manner != "fast":
            return
        before = await spans(system)
        ends = asyncio.get_running_loop().time() + _PATIENCE_S
        while asyncio.get_running_loop().time() < ends and _sent(await spans(system)) == _sent(before):
            await load(Target(system.url, system.key), Plan(connections=1, requests=3, seed=7))
            await asyncio.sleep(1)

    def __enter__(self) -> "Collector":
        self._sink.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.__exit__(None, None, None)


def _sent(told: str) -> str:
    return next((row for row in told.splitlines() if row.startswith("sluice_spans_sent_total")), "")


def recorded(url: str, traces: int) -> float:
    """CPU of a trace in microseconds: to tell of it, put it into bytes and send it. `url`: where to, or empty."""
    tracings = [open_tracing(service, url) for service in ("ingress", "guard", "cache", "router")]
    job = a_job()
    began = time.process_time()
    for number in range(traces):
        trace(tracings, job, number)
        if number % 100 == 99:
            # As fast as a system may be; the threads send meanwhile.
            time.sleep(0.3)
    for tracing in tracings:
        tracing.close()
    return (time.process_time() - began) / traces * 1e6


def trace(tracings: Sequence[Tracing], job: Job, number: int) -> None:
    """What the services tell of a request."""
    door = tracings[0].open("POST /v1/chat/completions", "", "server", 1)
    if door.recording:
        door.set(genai.server("POST", "/v1/chat/completions", "chat", "small"))
    context = door.context
    for stage, tracing in zip(("guard", "cache", "router"), tracings[1:], strict=True):
        topic = f"sluice.{stage}.interactive"
        with tracing.span(f"process {topic}", context, "consumer") as span:
            context = span.context
            if span.recording:
                span.set(genai.job(job, stage) | genai.record(topic, 3, number, f"sluice-{stage}", "process"))
            if stage == "router":
                called(tracing, job, context, number)
            if span.recording:
                span.set(genai.passed(job))
    door.set({genai.HTTP_STATUS: 200})
    door.end()


def called(tracing: Tracing, job: Job, context: str, number: int) -> None:
    """What the router tells of a call."""
    span = tracing.open("chat m", context, "client")
    if span.recording:
        span.set(genai.call(job, _DEPLOYMENT, _BODY, 1, hedge=False))
        span.set(genai.answered(_ATTEMPT, genai.Facts(f"chatcmpl-{number}", "m-2026", ("stop",))))
    span.end()


_DEPLOYMENT: Final = Deployment(id="d", provider="openai", model="m")
_BODY: Final[JsonObject] = {"max_tokens": 100, "temperature": 0.5, "stream": True}
_ATTEMPT: Final = an_attempt()


@contextmanager
def collector_apart() -> Generator[str]:
    """The address of a collector whose CPU isn't this process's."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_collect, args=(there,))
    process.start()
    try:
        yield str(here.recv())
    finally:
        here.send(None)
        process.join()


def _collect(pipe: Connection) -> None:
    with OtlpSink() as sink:
        sink.keeps = False
        pipe.send(sink.url)
        pipe.recv()


def _table(found: Found, requests: int) -> Table:
    rounds = len(next(iter(found.values())))
    title = f"{rounds} rounds of {requests} requests, load {os.getloadavg()[0]:.1f}; median (least – greatest)"
    table = Table(title=title)
    for column in ("collector", "connections", "p50 ms", "p99 ms", "CPU µs a request", "refused"):
        table.add_column(column)
    for connections in _LOADS:
        for manner in MANNERS:
            costs = found[manner, connections]
            columns = ([c.p50_ms for c in costs], [c.p99_ms for c in costs], [c.cpu_us for c in costs])
            table.add_row(manner, str(connections), *map(_spread, columns), str(sum(c.refused for c in costs)))
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} – {max(values):.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--sluice", type=Path, default=Path(__file__).parents[1] / ".venv" / "bin" / "sluice")
    parser.add_argument("--cpu", action="store_true")
    asked = parser.parse_args()
    if asked.cpu:
        with collector_apart() as url:
            costs = [(recorded("", 1_000), recorded(url, 1_000)) for _ in range(asked.rounds)]
        print(f"CPU µs a trace: off {_spread([off for off, _ in costs])}, on {_spread([on for _, on in costs])}")
        return
    with tempfile.TemporaryDirectory() as folder:
        found, told = uvloop.run(measure(Path(folder), asked.sluice, asked.rounds, asked.requests))
    Console().print(_table(found, asked.requests))
    print(told)


if __name__ == "__main__":
    main()
