"""`sluice up --processes`: each service a process of its own, started again when it dies.

They are forked off a server (multiprocessing's forkserver) that has imported everything before: a killed service is back at
work in a few tenths of a second, not after the 1.5 s and more that imports take, and what was imported is in memory once.
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from infra.embedded.ports import choose_ports
from infra.embedded.probe import ask
from infra.embedded.process import PartFailed, log_path, tail
from infra.settings import Settings
from services.cli.compose import SERVICES, ServiceName, listen, run, run_loop

log = logging.getLogger(__name__)

_PROBE = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_START_S = 60.0
_POLL_S = 0.02
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_PR_SET_PDEATHSIG = 1


class Children:
    """Services as processes. `changed` is called when one has a new process."""

    def __init__(self, settings: Settings, port: int, changed: Callable[[], None]) -> None:
        self._settings = settings
        # The admin API stands at the public address, in ingress' process.
        self._names: Sequence[ServiceName] = [name for name in SERVICES if name != "portal"]
        self._changed = changed
        self._port = port
        self._ports: Mapping[str, int] = {}
        self._processes: dict[ServiceName, BaseProcess] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload([f"services.{name}.app" for name in SERVICES] + ["infra.prices", "uvloop"])

    @property
    def pids(self) -> dict[str, int]:
        """Service → process id."""
        pids = {str(name): process.pid or 0 for name, process in self._processes.items()}
        return pids | ({"portal": pids["ingress"]} if "ingress" in pids else {})

    async def start(self) -> None:
        """Starts all of them; returns when each is ready. Raises PartFailed."""
        others = choose_ports(self._settings.data_dir, [f"{name}_http" for name in self._names if name != "ingress"])
        self._ports = {"ingress_http": self._port, **others}
        await asyncio.gather(*(self._start(name) for name in self._names))
        self._watchers = [asyncio.create_task(self._watch(name)) for name in self._names]

    async def stop(self) -> None:
        """Drains and stops them in the order of a job's way."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for name in self._names:
            if process := self._processes.get(name):
                await _stop(process, self._settings.drain_s + 5)

    async def _start(self, name: ServiceName) -> None:
        port, log_file = self._ports[f"{name}_http"], log_path(self._settings.data_dir, name)
        process = self._forks.Process(target=_serve, args=(name, port, self._settings, log_file), name=name)
        # The first waits until the server has imported everything.
        await asyncio.to_thread(process.start)
        self._processes[name] = process
        deadline = asyncio.get_running_loop().time() + _START_S
        while not await _is_ready(port):
            if not process.is_alive() or asyncio.get_running_loop().time() > deadline:
                await _stop(process, 0)
                raise PartFailed(f"{name} did not start; {log_file} ends with:\n{tail(log_file)}")
            await asyncio.sleep(_POLL_S)

    async def _watch(self, name: ServiceName) -> None:
        loop, pause_s = asyncio.get_running_loop(), _FIRST_PAUSE_S
        while True:
            began = loop.time()
            await _ended(self._processes[name])
            log.warning("%s ended with exit status %s; starting it again", name, self._processes[name].exitcode)
            pause_s = _FIRST_PAUSE_S if loop.time() - began > 10 else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            try:
                await self._start(name)
            except (PartFailed, OSError) as failure:
                log.error("%s", failure)
            self._changed()


def _serve(name: ServiceName, port: int, settings: Settings, log_file: Path) -> None:
    """What a forked process does: one service, its output in a file, its life no longer than that of `up` or of the server."""
    # The server's end reads as the end of every child: `up` would start each a second time.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_up, name="end with up", daemon=True).start()
    os.setpgid(0, 0)
    with log_file.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    names: list[ServiceName] = ["ingress", "portal"] if name == "ingress" else [name]

    async def ready() -> None:
        log.info("%s is ready", name)

    run_loop(lambda: run(names, settings, listen(settings.host, port), ready))


def _end_with_up() -> None:
    # The server can't be relied on for this: it lives as long as anybody whom it forked.
    if up := multiprocessing.parent_process():
        up.join()
    # Kafka and Redis died with `up`: there is nothing to drain into.
    os._exit(1)


async def _ended(process: BaseProcess) -> None:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def _stop(process: BaseProcess, grace_s: float) -> None:
    """SIGTERM, and SIGKILL after the grace."""
    process.terminate()
    try:
        async with asyncio.timeout(grace_s):
            await _ended(process)
    except TimeoutError:
        process.kill()
        await _ended(process)


async def _is_ready(port: int) -> bool:
    return (await ask(port, _PROBE)).startswith(b"HTTP/1.1 200")
