"""What tracing costs a request, and that it costs no more when whoever collects traces is slow, hostile or gone.

    python -m benchmarks.tracing [--rounds 3] [--requests 400] [--sluice PATH]

Two systems by `sluice up` with the mock provider: one without an OTLP endpoint (`none`), one with a collector that changes its
manners: `fast`; `gone`: nobody listens; `hostile`: garbage, endless bodies, resets, redirects and 429 by turns; `slow`: 30 s an
answer. Rounds are interleaved. CPU is that of the process with all services, with what its spans cost until 1.5 s later.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
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
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, told = uvloop.run(measure(Path(folder), asked.sluice, asked.rounds, asked.requests))
    Console().print(_table(found, asked.requests))
    print(told)


if __name__ == "__main__":
    main()
