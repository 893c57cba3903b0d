"""Server-sent events (WHATWG HTML, section 9.2): how a job's events look on the wire.

Each event of a stream carries an `id`, `<job>:<number>` from 1, so that a client that lost its connection can go on behind the
last one it has seen (`Last-Event-ID`), at any instance.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.http import cut_off
from infra.telemetry.spans import Span
from schemas.errors import Fault, InternalError, SluiceError
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from services.ingress.handler import CallerGone

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment keeps proxies from cutting a silent connection."""

_DONE = b"data: [DONE]\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_STUCK_S = 60.0
"""A client that takes nothing for so long is cut off."""


class EventStream(Response):
    """A stream of server-sent events. The parts end, or raise CallerGone, when the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self._parts = parts
        self.span = Span("")
        self.init_headers({**headers, **_HEADERS})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send(scope, send)
        finally:
            self.span.end()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts):
            with suppress(CallerGone):
                async for part in self._parts:
                    if part and not await _sent(part, send):
                        cut_off(scope)
                        return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(part: bytes, send: Send) -> bool:
    """False if the client has taken nothing for too long."""
    try:
        async with asyncio.timeout(_STUCK_S):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        return False
    return True


class Numbered:
    """The events of one job on the wire, in OpenAI's framing; those up to `after` are left out.

    `told`: what becomes of the chunks of a chat where something else was asked for.
    """

    def __init__(self, job_id: str, after: int = 0, told: Callable[[str], str] | None = None) -> None:
        self._job_id = job_id
        self._after = after
        self._told = told
        self._number = 0

    def part(self, event: Event | None) -> bytes:
        """The bytes of an event; None is silence."""
        match event:
            case Delta(data=data):
                return b"".join(map(self._data, data))
            case Closed():
                return _DONE
            case Failed(fault=fault):
                return self.error(fault)
            case None | Opened():
                return KEEP_ALIVE
            case Answer():
                raise InternalError("a stream was answered by a whole body")

    def error(self, fault: Fault) -> bytes:
        """An error in the middle of a stream: OpenAI's error object, and no `[DONE]` after it."""
        return b"data: %s\n\n" % json.dumps(fault.openai()).encode()

    def _data(self, text: str) -> bytes:
        self._number += 1
        if self._number <= self._after:
            return b""
        told = self._told(text) if self._told else text
        return f"id: {self._job_id}:{self._number}\ndata: {told}\n\n".encode()


async def chat_stream(events: AsyncGenerator[Event | None], numbered: Numbered) -> AsyncGenerator[bytes]:
    """The events of a job as they come, to its last or an error. Raises CallerGone."""
    yield KEEP_ALIVE
    async with aclosing(events):
        try:
            async for event in events:
                yield numbered.part(event)
        except SluiceError as error:
            yield numbered.error(error.fault())


def last_seen(header: str | None, job_id: str) -> int:
    """The number of the last event that a client has seen, by its `Last-Event-ID`; 0: none, or not of this job."""
    job, _, number = (header or "").rpartition(":")
    return int(number) if job == job_id and number.isdecimal() and len(number) < 10 else 0
