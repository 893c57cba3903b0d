"""The composition root: which services, in which process. It knows everybody, and nobody knows it."""

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, get_args

from infra import dumps
from infra.platform import Platform, open_platform
from infra.runtime import Runtime, Service
from infra.settings import Settings
from infra.telemetry import logs

ServiceName = Literal["ingress", "guard", "cache", "router", "accounting", "portal"]
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)
"""In the order of a job's way."""

PUBLIC: frozenset[ServiceName] = frozenset({"ingress", "portal"})
"""Those that answer people: they share the public address."""


def build(name: ServiceName, platform: Platform) -> Service:
    """One service. Each is imported only where it runs, so that a process starts fast and stays small."""
    match name:
        case "ingress":
            from services.ingress import app as ingress

            return ingress.build(platform)
        case "guard":
            from services.guard import app as guard

            return guard.build(platform)
        case "cache":
            from services.cache import app as cache

            return cache.build(platform)
        case "router":
            from services.router import app as router

            return router.build(platform)
        case "accounting":
            from services.accounting import app as accounting

            return accounting.build(platform)
        case "portal":
            from services.portal import app as portal

            return portal.build(platform)


async def run(
    names: Sequence[ServiceName], settings: Settings, listener: socket.socket, ready: Callable[[], Awaitable[None]]
) -> None:
    """Runs services in this process until SIGTERM; `ready` is awaited when all of them are."""
    logs.configure(settings.log_level)
    if "router" in names:
        # It has the providers' keys in memory.
        dumps.forbid()
    platform = await open_platform(settings, "+".join(names))
    try:
        services = [build(name, platform) for name in SERVICES if name in names]
        # What was imported lives as long as the process: the collector needn't look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 20)
        await Runtime(platform, services, listener).run(ready)
    finally:
        await platform.close()


def run_loop(main: Callable[[], Awaitable[None]]) -> None:
    """Runs `main` on uvloop."""
    import uvloop

    async def awaited() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(awaited())


def listen(host: str, port: int, *, or_free: bool = False) -> socket.socket:
    """A listening socket. `or_free`: any free port if this one is taken. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        if not or_free:
            listener.close()
            raise
        listener.bind((host, 0))
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def base_url(listener: socket.socket) -> str:
    """The URL at which a listener can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"


def own_pids(names: Sequence[ServiceName]) -> dict[str, int]:
    return {name: os.getpid() for name in names}
