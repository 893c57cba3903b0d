"""HTTP/1.1 for the mock provider: bytes to a `Request`, a `Reply` to bytes, at a few microseconds each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import responses
from typing import Protocol, cast

import httptools

from benchmarks.mock_answers import Behaviour, error_body
from benchmarks.mock_ledger import Entry, Outcome

_PLAIN = Behaviour()
_MAX_BODY = 64 * 1024 * 1024
_END_OF_CHUNKS = b"0\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(slots=True)
class Request:
    """One request; header names in lower case."""

    method: bytes
    target: bytes
    headers: Mapping[bytes, bytes]
    body: bytes

    def header(self, name: bytes) -> str | None:
        """A header's value, or None."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None


@dataclass(slots=True)
class Reply:
    """What to write: `head`, then `pieces`, each after `behaviour.chunk_ms` when that is set.

    `behaviour` says how long to wait first, and whether to hang or to cut; `entry` is closed when it is over.
    """

    head: bytes
    pieces: Sequence[bytes]
    end: bytes = b""
    behaviour: Behaviour = _PLAIN
    entry: Entry | None = None


class Host(Protocol):
    """Who answers."""

    def reply(self, request: Request) -> Reply: ...

    def joined(self, connection: "Connection") -> None: ...

    def left(self, connection: "Connection") -> None: ...

    def finished(self, entry: Entry, outcome: Outcome, pieces_sent: int) -> None: ...


def json_reply(
    status: int, body: bytes, behaviour: Behaviour | None = None, entry: Entry | None = None, extra: str = ""
) -> Reply:
    """A whole JSON body. `extra` is header lines, each ended by CRLF."""
    head = (
        f"HTTP/1.1 {status} {responses.get(status, 'Error')}\r\ncontent-type: application/json\r\n"
        f"{extra}content-length: {len(body)}\r\n\r\n"
    ).encode()
    behaviour = behaviour or _PLAIN
    sent = body[: len(body) // 2] if behaviour.ending == "cut" else body
    return Reply(head, (sent,), b"", behaviour, entry)


def refusal(behaviour: Behaviour, entry: Entry) -> Reply:
    """The error a behaviour asks for, with its retry-after."""
    extra = f"retry-after: {behaviour.retry_after_s}\r\n" if behaviour.retry_after_s is not None else ""
    body = error_body(behaviour.status, f"fault {behaviour.status} as asked")
    return json_reply(behaviour.status, body, behaviour, entry, extra)


def stream_reply(events: Sequence[bytes], behaviour: Behaviour, entry: Entry) -> Reply:
    """A stream of SSE events, each in a chunk of its own."""
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return Reply(_STREAM_HEAD, chunks, _END_OF_CHUNKS, behaviour, entry)


class Connection(asyncio.Protocol):
    """One client. One request at a time: who pipelines is disconnected."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)
        self._timer: asyncio.TimerHandle | None = None
        self._reply: Reply | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._host.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._over("client_gone")
        self._host.left(self)

    def abort(self) -> None:
        """Drop the client."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        if len(self._body) > 1 and sum(map(len, self._body)) > _MAX_BODY:
            self._transport.abort()

    def on_message_complete(self) -> None:
        if self._reply is not None:
            self._transport.abort()
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        reply = self._host.reply(Request(self._parser.get_method(), self._target, self._headers, body))
        self._reply, self._sent = reply, 0
        if reply.behaviour.latency_ms:
            self._later(reply.behaviour.latency_ms, reply)
        else:
            self._write(reply)

    def _later(self, delay_ms: int, reply: Reply) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._write, reply)

    def _write(self, reply: Reply) -> None:
        if reply.behaviour.ending == "hang":
            return
        step = 1 if reply.behaviour.chunk_ms else len(reply.pieces)
        pieces = reply.pieces[self._sent : self._sent + step]
        head = b"" if self._sent else reply.head
        self._sent += len(pieces)
        whole = self._sent == len(reply.pieces)
        cut = reply.behaviour.ending == "cut"
        self._transport.write(b"".join((head, *pieces, reply.end if whole and not cut else b"")))
        if not whole:
            self._later(reply.behaviour.chunk_ms, reply)
        elif cut:
            self._over("cut")
            self._transport.close()
        else:
            self._over("finished")
            if not self._parser.should_keep_alive():
                self._transport.close()

    def _over(self, outcome: Outcome) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and reply.entry is not None:
            self._host.finished(reply.entry, outcome, self._sent)
