"""What the router stage costs a request, beside LiteLLM's SDK making the same calls: CPU and memory of their processes.

    python -m benchmarks.router_cost [--runs 5] [--requests 3000] [--connections 64] [--json]

Sluice runs with a process for each service, asked over HTTP with prompts that no cache knows; counted is the process of the
router alone, from taking a job off Kafka to its acknowledged answer and completion. LiteLLM's SDK (`acompletion`, retries,
callbacks and telemetry off) runs in a process of its own, installed into a folder of its own, calls the same mock provider with
as many at once, and does nothing else: no queue, no lease, no price, no record. The two take turns, so that a slow minute of the
machine is on both.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.load import Plan, Target, measure
from benchmarks.processes import cpu_seconds, memory
from benchmarks.subject import MODEL, gateway, mock_provider

_LITELLM = "litellm==1.106.2"
_WORDS = 20

_SDK = """
import asyncio, json, sys, time
import litellm
litellm.telemetry = False
litellm.suppress_debug_info = True
litellm.num_retries = 0
url, at_once = sys.argv[1], int(sys.argv[2])

async def ask(number):
    messages = [{"role": "user", "content": f"say something about {number} " + "word " * 16}]
    answer = await litellm.acompletion(model="openai/mock", api_base=url, api_key="sk-mock", messages=messages, max_retries=0)
    assert answer.choices[0].message.content

async def main():
    numbers = iter(range(10**9))
    print("ready", flush=True)
    for line in sys.stdin:
        left, began = [int(line)], time.perf_counter()
        async def work():
            while left[0] > 0:
                left[0] -= 1
                await ask(next(numbers))
        await asyncio.gather(*(work() for _ in range(at_once)))
        print(json.dumps({"wall_s": time.perf_counter() - began}), flush=True)

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: microseconds of CPU a request (user and system, all threads), requests a second, megabytes resident."""

    cpu_us: float
    rps: float
    rss_mb: float


@dataclass(slots=True)
class Sdk:
    """LiteLLM's SDK in its process."""

    process: asyncio.subprocess.Process

    async def run(self, requests: int) -> Cost:
        """So many calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = cpu_seconds(self.process.pid)
        self.process.stdin.write(f"{requests}\n".encode())
        said = json.loads(await self.process.stdout.readline())
        cpu_s = cpu_seconds(self.process.pid) - before
        return Cost(1e6 * cpu_s / requests, requests / said["wall_s"], memory(self.process.pid).rss_mb)


def install(folder: Path) -> None:
    """LiteLLM, from the registry that uv uses."""
    uv, venv = Path(sys.executable).with_name("uv"), folder / "litellm"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", _LITELLM], check=True, env={**os.environ, "VIRTUAL_ENV": str(venv)})


@contextlib.asynccontextmanager
async def sdk(folder: Path, url: str, at_once: int) -> AsyncGenerator[Sdk]:
    """LiteLLM as it was installed there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LITELLM_"))}
    process = await asyncio.create_subprocess_exec(
        str(folder / "litellm" / "bin" / "python"),
        "-c",
        _SDK,
        url,
        str(at_once),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=kept | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    assert process.stdout is not None
    while (await process.stdout.readline()).strip() != b"ready":
        if process.returncode is not None:
            raise SystemExit("LiteLLM's SDK did not start")
    try:
        yield Sdk(process)
    finally:
        process.terminate()
        await process.wait()


async def compare(folder: Path, runs: int, requests: int, at_once: int) -> dict[str, list[Cost]]:
    """Both, in turns."""
    found: dict[str, list[Cost]] = {"sluice router": [], "litellm sdk": []}
    sluice = Path(sys.executable).with_name("sluice")
    async with (
        mock_provider(folder) as provider,
        sdk(folder, provider.url, at_once) as litellm,
        gateway(sluice, folder, provider.url, processes=True) as subject,
    ):
        target, pid = Target(subject.url, subject.key, MODEL), subject.pids()["router"]
        await measure(target, Plan(connections=at_once, requests=requests // 2, words=_WORDS, seed=1_000))
        await litellm.run(requests // 4)
        for number in range(runs):
            print(f"run {number + 1} of {runs}", file=sys.stderr)
            before = cpu_seconds(pid)
            report = await measure(target, Plan(connections=at_once, requests=requests, words=_WORDS, seed=number))
            if report.errors:
                raise SystemExit(f"not all requests were answered: {report.errors}")
            cost = Cost(1e6 * (cpu_seconds(pid) - before) / requests, report.rps, memory(pid).rss_mb)
            found["sluice router"].append(cost)
            found["litellm sdk"].append(await litellm.run(requests))
    return found


def _table(found: dict[str, list[Cost]], requests: int, at_once: int) -> Table:
    runs = len(next(iter(found.values())))
    title = f"{runs} runs of {requests} requests, {at_once} at once, load {os.getloadavg()[0]:.1f}; median (least – greatest)"
    table = Table(title=title)
    for column in ("process", "CPU µs a request", "requests/s", "RSS MB"):
        table.add_column(column)
    for name, costs in found.items():
        columns = ([c.cpu_us for c in costs], [c.rps for c in costs], [c.rss_mb for c in costs])
        table.add_row(name, *(f"{statistics.median(v):.0f} ({min(v):.0f} – {max(v):.0f})" for v in columns))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router_cost", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        found = uvloop.run(compare(Path(folder), asked.runs, asked.requests, asked.connections))
    Console(stderr=asked.json).print(_table(found, asked.requests, asked.connections))
    if asked.json:
        print(json.dumps({name: [asdict(cost) for cost in costs] for name, costs in found.items()}))


if __name__ == "__main__":
    main()
