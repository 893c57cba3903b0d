"""A collector of traces, as bad as it is told to be: `with OtlpSink() as sink: ... sink.spans`."""

import itertools
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Manner = Literal["well", "slow", "garbage", "endless", "reset", "redirect", "busy", "hostile"]

_WICKED: tuple[Manner, ...] = ("garbage", "endless", "reset", "redirect", "busy")


@dataclass(frozen=True, slots=True)
class Told:
    """A span as it was told."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, object]
    error: str
    service: str


class OtlpSink:
    """Listens on loopback. `manner`: how it answers; `hostile`: in all bad ways by turns. `slow_s`: how slow it is."""

    def __init__(self, manner: Manner = "well", slow_s: float = 30) -> None:
        self.manner: Manner = manner
        self.slow_s = slow_s
        self.keeps = True
        self._bodies: list[bytes] = []
        self._spans: list[Told] = []
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.stopping = threading.Event()
        turns = itertools.cycle(_WICKED)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answer(self, next(turns) if sink.manner == "hostile" else sink.manner, sink, body)

            def log_message(self, format: str, *args: object) -> None: ...

        self._handler = Handler
        self._port = 0
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def take(self, body: bytes) -> None:
        """Keeps an export."""
        if self.keeps:
            self._bodies.append(body)

    def close_door(self) -> None:
        """Nobody listens on its port any more."""
        self.__exit__(None, None, None)

    def open_door(self) -> None:
        """Listens again, if it doesn't."""
        if self.stopping.is_set():
            self.stopping.clear()
            self._listen(self._port)
            self.__enter__()

    @property
    def spans(self) -> list[Told]:
        """All that have come."""
        while self._bodies:
            self._spans += decoded(self._bodies.pop(0))
        return self._spans

    def trace(self, trace: str) -> list[Told]:
        """The spans of a trace, as far as they have come."""
        return [span for span in self.spans if span.trace == trace]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.stopping.is_set():
            return
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(http: BaseHTTPRequestHandler, manner: Manner, sink: OtlpSink, body: bytes) -> None:
    """Answers in a manner."""
    match manner:
        case "well":
            sink.take(body)
            _say(http, 200)
        case "slow":
            sink.stopping.wait(sink.slow_s)
            http.close_connection = True
        case "garbage":
            http.wfile.write(b"\x00\xff not HTTP at all \r\n" * 100)
            http.close_connection = True
        case "endless":
            _endless(http, sink)
        case "reset":
            http.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            http.close_connection = True
        case "redirect":
            _say(http, 307, location=f"{sink.url}/elsewhere")
        case _:
            _say(http, 429, **{"retry-after": "86400"})


def decoded(body: bytes) -> list[Told]:
    """The spans of an export."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, str(_values(resource.resource.attributes).get("service.name")))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: trace_pb2.Span, service: str) -> Told:
    kind = trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Told(
        span.name,
        kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _values(span.attributes),
        span.status.message if failed else "",
        service,
    )


def _values(given: Iterable[KeyValue]) -> dict[str, object]:
    return {one.key: _value(one.value) for one in given}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def _say(http: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
    http.send_response(status)
    for name, value in headers.items():
        http.send_header(name, value)
    http.send_header("content-length", "0")
    http.end_headers()


def _endless(http: BaseHTTPRequestHandler, sink: OtlpSink) -> None:
    http.send_response(200)
    http.send_header("transfer-encoding", "chunked")
    http.end_headers()
    try:
        while not sink.stopping.wait(0.001):
            http.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    except OSError:
        http.close_connection = True
