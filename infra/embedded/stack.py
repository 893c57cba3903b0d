"""All parts of one machine: started together, started again when one dies, stopped together."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.embedded.parts import PARTS, Part
from infra.embedded.ports import choose_ports
from infra.embedded.process import Child, PartFailed, hold
from infra.secret_files import SERVICE, clickhouse_password

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
STEADY_S = 30.0


class Stack:
    """The parts on loopback, with their data, logs and ports in `data_dir`.

    A part that ends is started again on its data and port; `pids` then names the new process, and `changed` is called
    (in the event loop; it must not raise). Start it from the main thread. Several run side by side, each with a folder
    of its own.
    """

    def __init__(self, data_dir: Path, parts: Sequence[Part] = PARTS, changed: Callable[[], None] = lambda: None) -> None:
        self._data_dir = data_dir.absolute()
        self._parts = parts
        self._changed = changed
        self._ports: dict[str, int] = {}
        self._children: dict[str, Child] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._lock: int | None = None

    @property
    def kafka(self) -> str:
        """host:port. Like all addresses: known once `start` has begun, KeyError for a part that is not in the stack."""
        return self._address("kafka")

    @property
    def redis(self) -> str:
        """redis://host:port/0"""
        return self._address("redis")

    @property
    def clickhouse(self) -> str:
        """http://host:port"""
        return self._address("clickhouse")

    @property
    def clickhouse_for_services(self) -> str:
        """http://sluice:password@host:port"""
        return self.clickhouse.replace("://", f"://{SERVICE}:{clickhouse_password(self._data_dir)}@", 1)

    @property
    def pids(self) -> dict[str, int]:
        """Part name → process id."""
        return {name: child.pid for name, child in self._children.items()}

    async def start(self) -> None:
        """Start all parts at once; returns when each is ready. Raises PartFailed, with nothing left running."""
        self._lock = self._own_folder()
        try:
            self._ports = choose_ports(self._data_dir, [name for part in self._parts for name in part.ports])
            await self._start_all()
        except BaseException:
            await self.stop()
            raise
        self._watchers = [asyncio.create_task(self._watch(part), name=f"watch {part.name}") for part in self._parts]

    async def stop(self, grace_s: float = 10.0) -> None:
        """Stop all parts at once, each with `grace_s` before SIGKILL. Harmless when not started, or twice."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        await asyncio.gather(*(child.stop(grace_s) for child in self._children.values()))
        self._children = {}
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _own_folder(self) -> int:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        lock = hold(self._data_dir / "lock")
        if lock is None:
            raise PartFailed(f"Another run uses {self._data_dir}. Stop it first, or choose another --data-dir.")
        return lock

    def _address(self, name: str) -> str:
        part = {part.name: part for part in self._parts}[name]
        return part.address.format(port=self._ports[part.ports[0]])

    async def _start_all(self) -> None:
        failed: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts:
                    group.create_task(self._start(part))
        except* PartFailed as failures:
            failed.extend(failures.exceptions)
        if failed:
            raise failed[0]

    async def _start(self, part: Part) -> None:
        self._children[part.name] = await part.start(self._data_dir, [self._ports[name] for name in part.ports])

    async def _watch(self, part: Part) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            status = await self._children[part.name].exited()
            log.warning("%s ended with exit status %d; starting it again", part.name, status)
            if loop.time() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            pause_s = await self._revive(part, pause_s)
            self._changed()

    async def _revive(self, part: Part, pause_s: float) -> float:
        """Try until it runs. A pause comes before each try, longer each time; gives the one to begin with next time."""
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self._start(part)
            except (PartFailed, OSError) as failure:
                log.error("%s", failure)
            else:
                return pause_s
