"""What Sluice costs: latency it adds, requests a second, CPU and memory by process. See `README.md`.

    python -m benchmarks.bench [--runs 3] [--processes | --both] [--quick] [--check] [--out FILE]

It starts the mock provider and `sluice up` in a temporary folder on free ports, measures, stops what it started
and removes the folder. The last line of a mode's output is JSON with everything in the table.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.scenarios import Bench, Size
from benchmarks.subject import StartError, gateway, mock_provider

_LIMIT_S = 1800.0
_CALLS = "provider_calls_per_answer"
_QUICK = Size(single=100, streams=40, busy_s=3.0, quiet=3)


@dataclass(frozen=True, slots=True)
class Bar:
    """A number that has to be reached now, and the one that has to be reached later."""

    now: float
    later: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.now if self.at_least else value <= self.now

    def text(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.now:g} (later {self.later:g})"


BARS: Mapping[str, Bar] = {
    "added_p50_ms": Bar(6, 5),
    "busy_rps": Bar(500, 1300, at_least=True),
    "quiet_added_p50_ms": Bar(15, 15),
    "errors": Bar(0, 0),
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over all runs."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """One mode, measured."""

    mode: str
    runs: int
    at: str
    machine: dict[str, str]
    size: Size
    metrics: dict[str, Spread]
    errors: dict[str, int]
    missed: list[str]


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Median, least and greatest of each metric, over the runs that have it (a process may have been replaced)."""
    names = dict.fromkeys(name for run in runs for name in run)
    values = {name: [run[name] for run in runs if name in run] for name in names}
    return {name: Spread(statistics.median(v), min(v), max(v)) for name, v in values.items()}


def missed_bars(metrics: Mapping[str, Spread]) -> list[str]:
    """Names of the bars that the medians miss; a bar that was not measured is not missed.

    One is implied: answers that the provider never gave, or gave twice, make every other figure worthless.
    """
    calls = metrics.get(_CALLS)
    untrue = [_CALLS] if calls and abs(calls.median - 1) > 0.01 else []
    return untrue + [name for name, bar in BARS.items() if name in metrics and not bar.met(metrics[name].median)]


async def bench(sluice: Path, folder: Path, *, processes: bool, runs: int, size: Size) -> Result:
    """Start both systems in `folder`, measure `runs` times, stop them. StartError when one does not start."""
    numbers: list[dict[str, float]] = []
    async with mock_provider(folder) as provider:
        begun = time.monotonic()
        async with gateway(sluice, folder, provider.url, processes=processes) as subject:
            started_s = time.monotonic() - begun
            measured = Bench(subject, provider, size)
            await measured.warm_up()
            for number in range(runs):
                print(f"run {number + 1} of {runs}", file=sys.stderr)
                numbers.append(await measured.run())
    metrics = spreads(numbers)
    failed = float(sum(measured.errors.values()))
    metrics |= {"errors": Spread(failed, failed, failed), "start_s": Spread(started_s, started_s, started_s)}
    return _result("processes" if processes else "one process", runs, size, metrics, measured.errors)


def _result(mode: str, runs: int, size: Size, metrics: dict[str, Spread], errors: Counter[str]) -> Result:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Result(mode, runs, at, _machine(), size, metrics, dict(errors), missed_bars(metrics))


def _machine() -> dict[str, str]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": model.partition(":")[2].strip() or platform.processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.2f}",
        "commit": _commit(),
    }


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        root = Path(__file__).parent
        return subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def show(result: Result, console: Console) -> None:
    """The table, what went wrong, and the JSON line."""
    about = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    table = Table(title=f"sluice up, {result.mode}, {result.runs} runs", min_width=100)
    for column in ("metric", "median", "min - max", "bar", ""):
        table.add_column(column, justify="left" if column in ("metric", "bar", "") else "right")
    for name, spread in result.metrics.items():
        bar = BARS.get(name)
        verdict = "missed" if name in result.missed else "met" if bar else ""
        span = f"{spread.low:.2f} - {spread.high:.2f}"
        table.add_row(name, f"{spread.median:.2f}", span, bar.text() if bar else "", verdict)
    console.print(table)
    console.print(f"errors: {result.errors or 'none'}\n{result.at}; {about}", highlight=False, soft_wrap=True)
    if _CALLS in result.missed:
        console.print(f"{_CALLS} is not 1: a cache or retries answered, these figures are not of the whole way")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="What Sluice costs.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--processes", action="store_true", help="each service in a process of its own")
    mode.add_argument("--both", action="store_true", help="one process, then a process each")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all works; no figures")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--out", type=Path, default=None, help="append the JSON lines to a file")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with its logs")
    parser.add_argument("--sluice", type=Path, default=Path(sys.executable).with_name("sluice"))
    return parser.parse_args()


def _subfolder(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


async def _main(asked: argparse.Namespace, folder: Path) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    size = _QUICK if asked.quick else Size()
    modes = (False, True) if asked.both else (asked.processes,)
    missed: list[str] = []
    async with asyncio.timeout(_LIMIT_S):
        for processes in modes:
            place = _subfolder(folder, "processes" if processes else "one")
            result = await bench(asked.sluice, place, processes=processes, runs=asked.runs, size=size)
            show(result, Console(width=None if sys.stdout.isatty() else 120))
            line = json.dumps(asdict(result))
            print(line, flush=True)
            if asked.out:
                with asked.out.open("a", encoding="utf-8") as out:
                    out.write(line + "\n")
            missed += result.missed
    return 1 if missed and asked.check else 0


def main() -> None:
    """Measure; exit 0, 1 (a bar missed, with --check), 2 (a system did not start), 130 (interrupted)."""
    asked = _arguments()
    if not asked.sluice.exists():
        sys.exit(f"{asked.sluice} is not there: run `make setup` first")
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    code = 2
    try:
        code = uvloop.run(_main(asked, folder))
    except StartError as error:
        print(error, file=sys.stderr)
    except asyncio.CancelledError:
        code = 130
    finally:
        if asked.keep:
            print(f"kept {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
