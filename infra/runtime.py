"""Start, readiness, signals and the ordered drain of the services in one process. The only signal handler."""

import asyncio
import contextlib
import hmac
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from infra.faults import on_error
from infra.http import Connection
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.telemetry import meters, metrics
from schemas.errors import InvalidKey, SluiceError

log = logging.getLogger(__name__)

_HANDLED: tuple[type[Exception], ...] = (SluiceError, RedisUnavailable, HTTPException, Exception)
_ACCEPTS = 16
"""New connections in one turn of the loop: libuv accepts one for each listener, and 1,000 that came at once waited for 8.8 s."""


class Service(Protocol):
    """One of the services. `drain` takes nothing new and ends what runs; `stop` closes. Either may come without `start`."""

    @property
    def name(self) -> str: ...
    @property
    def routes(self) -> Sequence[BaseRoute]: ...
    async def start(self) -> None: ...
    def not_ready(self) -> str | None: ...
    async def drain(self) -> None: ...
    async def stop(self) -> None: ...


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the runtime's."""
        yield


class Runtime:
    """Runs services, which stand in the order of a job's way, until a signal comes."""

    def __init__(self, platform: Platform, services: Sequence[Service], listener: socket.socket) -> None:
        self._platform = platform
        self._services = services
        self._listener = listener
        self._stopping = asyncio.Event()
        self._server = _Server(self._uvicorn_config())

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Starts everything, awaits `ready` when it is, and returns when all is drained after SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # Those who answer stand at the end of the way: they start first and drain last.
        for service in reversed(self._services):
            await service.start()
        listeners = [self._listener, *(self._listener.dup() for _ in range(_ACCEPTS - 1))]
        serving = asyncio.create_task(self._server.serve(sockets=listeners))
        try:
            await self._until_ready(serving)
            await ready()
            await self._until_stopped(serving)
        finally:
            await self._drain(serving)

    def stop(self) -> None:
        """As SIGTERM does."""
        self._stopping.set()

    def not_ready(self) -> list[str]:
        """Why this process isn't ready; empty if it is."""
        if self._stopping.is_set():
            return ["draining"]
        reasons = [self._platform.not_ready(), *(service.not_ready() for service in self._services)]
        return [reason for reason in reasons if reason]

    async def _until_ready(self, serving: "asyncio.Task[None]") -> None:
        while (self.not_ready() or not self._server.started) and not self._stopping.is_set():
            if serving.done():
                raise RuntimeError("the HTTP server ended before it was ready")
            await asyncio.sleep(0.01)

    async def _until_stopped(self, serving: "asyncio.Task[None]") -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _drain(self, serving: "asyncio.Task[None]") -> None:
        self._stopping.set()
        # The doors close first: requests under way still need every stage behind them.
        self._server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        for service in self._services:
            await service.drain()
        for service in self._services:
            await service.stop()

    def _uvicorn_config(self) -> uvicorn.Config:
        routes: list[BaseRoute] = [
            Route("/healthz", _healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]
        for service in self._services:
            routes += service.routes
        counted = [Middleware(meters.Counted)]
        app = Starlette(routes=routes, middleware=counted, exception_handlers=dict.fromkeys(_HANDLED, on_error))
        # Redirects would name a host and a scheme that only a proxy in front of us knows.
        app.router.redirect_slashes = False
        return uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            http=Connection,
            ws="none",
            server_header=False,
            proxy_headers=False,
            date_header=True,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(self._platform.settings.drain_s),
        )

    async def _metrics(self, request: Request) -> Response:
        key = self._platform.settings.metrics_key.get_secret_value()
        given = request.headers.get("authorization", "").encode()
        if key and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            raise InvalidKey("The metrics of this gateway need its metrics key: send it as `Authorization: Bearer …`.")
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _readyz(self, _: Request) -> Response:
        reasons = self.not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})
