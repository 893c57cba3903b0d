"""A storm: jobs flow through every door while services, Redis and the broker are killed, stopped and told to leave, by a seed.

    python -m tests.faults.storm --jobs 10000 --seed 7

Then four histories are compared: what clients were told, the provider's ledger, completions in Kafka, rows in ClickHouse.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from rich.console import Console
from rich.live import Live

from tests.faults.books import Verdict, compare
from tests.faults.doors import Clients, DoorName, KafkaDoor, by_async, by_batch, by_http
from tests.system import Provider, System, config, running_provider

DOORS: tuple[DoorName, ...] = ("http", "async", "kafka", "batch")
QUIET_S = 60.0
"""So long after the last fault everything has ended."""

_BATCH = 25
_LONGEST_STOP_S = 3.0
_FIRST_S, _EVERY_S = 2.0, (2.0, 5.0)

Blow = Literal["KILL", "STOP", "TERM"]
Sending = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a storm is to be. `rate`: jobs a second."""

    jobs: int
    seed: int
    rate: float = 20.0
    doors: tuple[DoorName, ...] = DOORS
    spared: frozenset[str] = frozenset()


@dataclass(slots=True)
class Faults:
    """Strikes one process after another; `struck` says when, whom and how."""

    system: System
    chance: Random
    spared: frozenset[str]
    struck: list[tuple[float, str, Blow]] = field(default_factory=list[tuple[float, str, Blow]])

    async def go_on(self) -> None:
        """Until it is cancelled; nobody is left stopped then."""
        await asyncio.sleep(_FIRST_S)
        while True:
            await self._strike()
            await asyncio.sleep(self.chance.uniform(*_EVERY_S))

    async def _strike(self) -> None:
        # Known by name, so that the same seed strikes the same; ingress is also called portal.
        names = sorted(name for name in self.system.pids if name not in {"portal", "up", *self.spared})
        name, blow = self.chance.choice(names), self.chance.choice(("KILL", "STOP", "TERM"))
        stopped_s = self.chance.uniform(0.2, _LONGEST_STOP_S)
        pid = self.system.pids.get(name, 0)
        if not pid or pid == self.system.child.pid:
            return
        self.struck.append((time.time(), name, blow))
        with suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, f"SIG{blow}"))
            if blow == "STOP":
                try:
                    await asyncio.sleep(stopped_s)
                finally:
                    os.kill(pid, signal.SIGCONT)


class Storm:
    """One run. `run` gives the verdict; `line` says how it stands."""

    def __init__(self, system: System, provider: Provider, plan: Plan) -> None:
        self._system, self._provider, self._plan = system, provider, plan
        self._chance = Random(plan.seed)
        self._clients: Clients | None = None
        self._faults = Faults(system, Random(plan.seed + 1), plan.spared)
        self._last_fault = 0.0

    async def run(self) -> Verdict:
        team = await self._system.create_team(f"storm-{self._plan.seed}")
        first = await self._provider.last()
        async with team.http() as http:
            clients = self._clients = Clients(self._system, team, http, await self._system.job_token(team))
            kafka = KafkaDoor(clients)
            await kafka.start()
            try:
                unended_s = await self._flow(clients, kafka)
                return await compare(clients, self._provider, first, unended_s)
            finally:
                await kafka.stop()

    def line(self) -> str:
        """How it stands."""
        told = list(self._clients.told.values()) if self._clients else []
        ended, struck = sum(one.status > 0 for one in told), len(self._faults.struck)
        return f"{len(told)} sent, {ended} ended, {struck} faults, the last {self._faults.struck[-1:]}"

    async def _flow(self, clients: Clients, kafka: KafkaDoor) -> float:
        """Sends everything while faults strike, then waits; gives how long after the last fault the last job ended."""
        reading, striking = asyncio.create_task(kafka.read()), asyncio.create_task(self._faults.go_on())
        sending: list[asyncio.Task[None]] = []
        try:
            for send in self._sendings(clients, kafka):
                sending.append(asyncio.create_task(send()))
                await asyncio.sleep(self._chance.expovariate(self._plan.rate))
        finally:
            striking.cancel()
            await asyncio.gather(striking, return_exceptions=True)
        began = time.monotonic()
        try:
            async with asyncio.timeout(QUIET_S):
                await asyncio.gather(*sending)
                while any(one.accepted and not one.status for one in clients.told.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        finally:
            reading.cancel()
            await asyncio.gather(reading, *sending, return_exceptions=True)
        return time.monotonic() - began

    def _sendings(self, clients: Clients, kafka: KafkaDoor) -> Sequence[Sending]:
        doors: dict[DoorName, Sending] = {
            "http": lambda: by_http(clients),
            "async": lambda: by_async(clients),
            "kafka": kafka.send,
            "batch": lambda: by_batch(clients, _BATCH),
        }
        left, chosen = self._plan.jobs, list[Sending]()
        names: list[DoorName] = [name for name in self._plan.doors if name != "batch"]
        if "batch" in self._plan.doors:
            batches = left // len(self._plan.doors) // _BATCH
            chosen += [doors["batch"]] * batches
            left -= batches * _BATCH
        chosen += [doors[names[n % len(names)]] for n in range(left)]
        self._chance.shuffle(chosen)
        return chosen


async def storm(folder: Path, plan: Plan) -> Verdict:
    """Starts a system of its own and has a storm over it."""
    async with running_provider(folder) as provider:
        system = await System.start(folder, config(provider), "--processes")
        try:
            running = Storm(system, provider, plan)
            with Live(console=Console(stderr=True), refresh_per_second=2) as live:
                showing = asyncio.create_task(_show(live, running))
                try:
                    return await running.run()
                finally:
                    showing.cancel()
        finally:
            await system.stop()


async def _show(live: Live, running: Storm) -> None:
    while True:
        live.update(running.line())
        await asyncio.sleep(0.5)


def main() -> None:
    """Prints the verdict; ends with 1 if something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=DOORS)
    parser.add_argument("--spare", nargs="*", default=(), help="processes that are left alone")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept, logs too")
    asked = parser.parse_args()
    plan = Plan(asked.jobs, asked.seed, asked.rate, tuple(asked.doors), frozenset(asked.spare))
    print(plan, flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-storm-", ignore_cleanup_errors=True) as folder:
        verdict = asyncio.run(storm(asked.folder or Path(folder), plan))
    print(verdict)
    sys.exit(bool(verdict.wrong))


if __name__ == "__main__":
    main()
