"""How a connection is held: nobody may keep us waiting for his headers, and who doesn't read can be cut off.

uvicorn bounds how long a kept connection may be idle, and nothing else (RELIABILITY.md, "slow body holds memory for ever").
"""

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_S = 10.0
"""From the first byte of a request to the end of its headers."""

FIRST_BYTE_S = 75.0

_ABORT = "abort connection"


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with deadlines for what a client sends before there is a request."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(FIRST_BYTE_S)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_ABORT: {"call": self.transport.abort}}
        self._expect(HEADERS_S)

    def on_headers_complete(self) -> None:
        self._forget()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self, seconds: float) -> None:
        self._forget()
        self._late = self.loop.call_later(seconds, self.transport.abort)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def cut_off(scope: Scope) -> None:
    """Closes the connection of a request at once, with whatever wasn't read of it yet."""
    extension = scope.get("extensions", {}).get(_ABORT)
    if extension:
        extension["call"]()
