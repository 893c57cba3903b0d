"""What memory a flood costs: many jobs that wait, and many clients that read slowly.

    python -m benchmarks.flood [--jobs 50000] [--readers 500] [--seconds 60] [--processes]

The jobs wait in the batch lane behind a slow provider; each reader asks for a stream of about 1 MB and takes 10 bytes a second of
it. Once a second the resident memory of every process is read; printed is the most that each had, and the bound it must keep.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.lanes import Subject, Team
from benchmarks.processes import labels, memory
from benchmarks.subject import MODEL, Gateway, gateway, mock_provider

LONG = "mock-words-5000-chunkms-2"
BOUND_MB = 1_000
"""For any process of Sluice; Kafka's Java heap and ClickHouse's engine included."""

_BYTES_A_SECOND = 10


class Watch:
    """The most resident memory of each process so far, in MB."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.before: Mapping[str, float] = self._now()
        self.most: defaultdict[str, float] = defaultdict(float)

    def look(self) -> None:
        for label, rss_mb in self._now().items():
            self.most[label] = max(self.most[label], rss_mb)

    def _now(self) -> dict[str, float]:
        labelled = labels(self._gateway.pid, self._gateway.pids())
        return {label: memory(pid).rss_mb for pid, label in labelled.items()}


async def read_slowly(gateway: Gateway, team: Team, number: int, until: float) -> int:
    """Asks for a long stream and reads it a few bytes at a time; gives how many."""
    address = urlsplit(gateway.url)
    body = {"model": LONG, "stream": True, "messages": [{"role": "user", "content": f"reader {number}"}]}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {team.key}", f"Content-Length: {len(data)}")
    writer.write("\r\n".join((*lines, "", "")).encode() + data)
    read = 0
    with suppress(OSError, asyncio.IncompleteReadError):
        while time.monotonic() < until and (piece := await reader.read(_BYTES_A_SECOND)):
            read += len(piece)
            await asyncio.sleep(1)
    writer.transport.abort()
    return read


async def measure(sluice: Path, jobs: int, readers: int, seconds: float, *, processes: bool) -> Table:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="sluice-flood-") as folder:
        async with (
            mock_provider(Path(folder), 1000) as provider,
            gateway(sluice, Path(folder), provider.url, processes=processes, models=(MODEL, LONG)) as running,
        ):
            subject = Subject(sluice, running)
            flood, slow = await subject.team("flood"), await subject.team("slow")
            watch = Watch(running)
            publishing = asyncio.create_task(subject.publish(flood, jobs))
            until = time.monotonic() + seconds
            reading = [asyncio.create_task(read_slowly(running, slow, n, until)) for n in range(readers)]
            with Progress(console=Console(stderr=True)) as progress:
                task = progress.add_task("flooding", total=seconds)
                while (left := until - time.monotonic()) > 0:
                    await asyncio.sleep(1)
                    watch.look()
                    progress.update(task, completed=seconds - left)
            await publishing
            read = await asyncio.gather(*reading)
            queued = jobs - await subject.results(flood)
    table = Table(title=f"{jobs} jobs ({queued} still queued), {readers} slow readers ({sum(read)} bytes read), {seconds:g} s")
    for column in ("process", "RSS before (MB)", "most (MB)", "within the bound"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for label, most in sorted(watch.most.items(), key=lambda item: -item[1]):
        table.add_row(label, f"{watch.before.get(label, 0):.0f}", f"{most:.0f}", "yes" if most <= BOUND_MB else f"NO: {BOUND_MB}")
    return table


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", action="store_true")
    given = parser.parse_args()
    sluice = Path(__file__).parents[1] / ".venv" / "bin" / "sluice"
    Console().print(asyncio.run(measure(sluice, given.jobs, given.readers, given.seconds, processes=given.processes)))


if __name__ == "__main__":
    main()
