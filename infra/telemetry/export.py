"""Spans on their way out: never waited for. A thread sends them in batches; what it can't keep up with is dropped and counted."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import unquote

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from infra.telemetry import metrics, wire
from infra.telemetry.genai import Value

log = logging.getLogger(__name__)

QUEUE: Final = 2_048
"""Spans that may wait; then the oldest go."""

MOST_BYTES: Final = 64 * 2**20
"""So much may they be together: with content, a span may have hundreds of kilobytes."""

_BATCH, _BATCH_BYTES, _EVERY_S = 512, 4 * 2**20, 1.0
_TIMEOUT_S: Final = 10.0
_MOST_ANSWER: Final = 64 * 1024

# Told below, once a change: the library tells it for each batch, in the words of whoever answers.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class Spans:
    """Spans that wait, as bytes, and the count of those that were sent or dropped.

    Who tells of a span makes its bytes: a thread that made them would keep the interpreter from the event loop.
    """

    def __init__(self, exporter: "Exporter", resource: bytes) -> None:
        self._exporter = exporter
        self._resource = resource
        self._waiting = deque[bytes]()
        # Bytes that came and were taken, and spans in between. Each has one writer: the loop the first, the thread the others.
        self._came = self._taken = self._flying = 0
        self._away = self._closing = self._over = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, span: bytes) -> None:
        """Never waits."""
        self._waiting.append(span)
        self._came += len(span)
        # The thread may have taken the last one just now.
        with suppress(IndexError):
            while len(self._waiting) > QUEUE or self._came - self._taken > MOST_BYTES:
                self._came -= len(self._waiting.popleft())
                metrics.SPANS_DROPPED.labels("queue_full").inc()
        if len(self._waiting) == _BATCH:
            self._wake.set()

    def close(self, within_s: float) -> None:
        """Sends what is still here, as far as there is time; the rest is dropped and counted."""
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)
        self._over = True
        self._exporter.shutdown()
        if left := self._flying + len(self._waiting):
            metrics.SPANS_DROPPED.labels("shutdown").inc(left)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            # What comes meanwhile is for the next round: else a fast endpoint would get them one by one.
            left = len(self._waiting)
            while left > 0 and (gone := self._export()):
                left -= gone
        while not self._over and self._export():
            pass

    def _export(self) -> int:
        spans, size = list[bytes](), 0
        # The loop may have dropped the last one just now.
        with suppress(IndexError):
            while len(spans) < _BATCH and size < _BATCH_BYTES:
                spans.append(self._waiting.popleft())
                size += len(spans[-1])
        self._taken += size
        self._flying = len(spans)
        if spans:
            self._tell(len(spans), self._exporter.send(wire.request(self._resource, spans)))
        return len(spans)

    def _tell(self, spans: int, sent: bool) -> None:
        if self._over:
            return
        self._flying = 0
        if sent:
            metrics.SPANS_SENT.inc(spans)
        else:
            metrics.SPANS_DROPPED.labels("not_sent").inc(spans)
        if sent is self._away:
            self._away = not sent
            log.warning("spans are sent again" if sent else "spans can't be sent to SLUICE_OTLP_ENDPOINT and are dropped")


class Exporter(OTLPSpanExporter):
    """The library's, with its retries, certificates and compression, for spans that are bytes already."""

    def send(self, request: bytes) -> bool:
        """Whether it has arrived, at last."""
        try:
            return self._client.export(request).success
        except Exception:
            # Whatever it stumbled over: the thread must live.
            return False


class _Bounded(requests.Session):
    """Takes no more of an answer, in bytes or in time, than an OTLP answer may have; goes nowhere else."""

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        ends = time.monotonic() + min(_TIMEOUT_S, options.pop("timeout", None) or _TIMEOUT_S)
        options |= {"stream": True, "allow_redirects": False, "timeout": max(0.01, ends - time.monotonic())}
        response = super().request(method, url, **options)
        try:
            if 300 <= response.status_code < 400:
                raise requests.TooManyRedirects("the endpoint redirects")
            got = 0
            # By what there is, not by full chunks: a body that trickles would never fill one.
            while (part := response.raw.read1(8192)) and got <= _MOST_ANSWER and time.monotonic() < ends:
                got += len(part)
            # As if it had been read: nobody looks into it.
            response._content = b""  # pyright: ignore[reportPrivateUsage]
            if part:
                raise requests.exceptions.ContentDecodingError("the answer is too long, or comes too slowly")
            return response
        except BaseException:
            response.close()
            raise


def otlp(service: str, endpoint: str, headers: str) -> Spans:
    """To `endpoint` (OTLP over HTTP). `headers`: name=value,name=value, as in OTEL_EXPORTER_OTLP_HEADERS."""
    url, given = f"{endpoint.rstrip('/')}/v1/traces", dict(_headers(headers))
    exporter = Exporter(endpoint=url, headers=given or None, timeout=_TIMEOUT_S, session=_Bounded())
    # Also what OTEL_RESOURCE_ATTRIBUTES says; its values are such as spans have.
    of = cast("Mapping[str, Value]", Resource.create({"service.name": f"sluice-{service}"}).attributes)
    return Spans(exporter, wire.resource(of))


def _headers(written: str) -> Iterator[tuple[str, str]]:
    for part in written.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            yield name.strip().lower(), unquote(value.strip())
