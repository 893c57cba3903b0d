"""`sluice up --processes`: each service a process of its own, started again when it dies."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import infra
from infra.embedded.ports import choose_ports
from infra.embedded.probe import ask
from infra.embedded.process import Child, PartFailed, launch, log_path
from infra.settings import Settings
from services.cli.compose import ServiceName

log = logging.getLogger(__name__)

_PROBE = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_START_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0


class Children:
    """Services as children of this process. `changed` is called when one has a new process."""

    def __init__(self, settings: Settings, port: int, names: Sequence[ServiceName], changed: Callable[[], None]) -> None:
        self._settings = settings
        self._names = names
        self._changed = changed
        self._ports: Mapping[str, int] = {}
        self._port = port
        self._children: dict[ServiceName, Child] = {}
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> dict[str, int]:
        """Service → process id. The admin API stands in ingress' process."""
        pids: dict[str, int] = {name: child.pid for name, child in self._children.items()}
        return pids | ({"portal": pids["ingress"]} if "ingress" in pids else {})

    async def start(self) -> None:
        """Starts all of them; returns when each is ready. Raises PartFailed."""
        data_dir = self._settings.data_dir
        others = choose_ports(data_dir, [f"{name}_http" for name in self._names if name != "ingress"])
        self._ports = {"ingress_http": self._port, **others}
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self._start(name))
        self._watchers = [asyncio.create_task(self._watch(name)) for name in self._names]

    async def stop(self) -> None:
        """Drains and stops them in the order of a job's way."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for name in self._names:
            if name in self._children:
                await self._children[name].stop(self._settings.drain_s + 5)

    async def _start(self, name: ServiceName) -> None:
        port = self._ports[f"{name}_http"]
        root = Path(infra.__file__).parents[1]
        words = ["-m", "services.cli", "serve", name, "--port", str(port), "--data-dir", str(self._settings.data_dir.absolute())]
        child = Child(
            name, [sys.executable, *words], log=log_path(self._settings.data_dir, name), cwd=root, env=self._environment()
        )
        self._children[name] = child
        await launch(child, lambda: _ready(port), timeout_s=_START_S)

    def _environment(self) -> dict[str, str]:
        given = self._settings
        ours = {
            "SLUICE_KAFKA": given.kafka,
            "SLUICE_REDIS": given.redis,
            "SLUICE_CLICKHOUSE": given.clickhouse,
            "SLUICE_SLOT": given.slot or "0",
            "SLUICE_HOST": given.host,
        }
        return {**os.environ, **ours}

    async def _watch(self, name: ServiceName) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began = asyncio.get_running_loop().time()
            status = await self._children[name].exited()
            log.warning("%s ended with exit status %d; starting it again", name, status)
            pause_s = _FIRST_PAUSE_S if asyncio.get_running_loop().time() - began > 10 else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            try:
                await self._start(name)
            except (PartFailed, OSError) as failure:
                log.error("%s", failure)
            self._changed()


async def _ready(port: int) -> bool:
    answer = await ask(port, _PROBE)
    return answer.startswith(b"HTTP/1.1 200")
