"""Endpoints of teams on loopback: one that remembers what it was sent, and one that nobody may reach."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Posted:
    """One request as it came; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """Answers with `statuses` in turn, then 200."""

    port: int = 0
    statuses: list[int] = field(default_factory=list[int])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    posted: list[Posted] = field(default_factory=list[Posted])

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posted.append(Posted(request.path_qs, headers, await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, headers=self.headers)


@asynccontextmanager
async def receiving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncGenerator[Receiver]:
    """An endpoint."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    receiver.port = int(runner.addresses[0][1])
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Trap:
    """Counts who connects."""

    port: int = 0
    connections: int = 0


@asynccontextmanager
async def trapping(host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[Trap]:
    """A listener that must never hear anything."""
    trap = Trap()

    async def caught(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trap.connections += 1
        writer.close()

    server = await asyncio.start_server(caught, host, port)
    trap.port = int(server.sockets[0].getsockname()[1])
    async with server:
        yield trap
