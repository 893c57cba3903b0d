"""Spans on their way out: never waited for. A thread sends them in batches; what it can't keep up with is dropped and counted."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from infra.telemetry import metrics

log = logging.getLogger(__name__)

QUEUE: Final = 2_048
"""Spans that may wait; then the oldest go."""

_BATCH, _EVERY_MS = 128, 1_000
"""Small ones: while a batch is put into bytes, the event loop shares the interpreter with it."""

_TIMEOUT_S: Final = 10.0
_MOST_ANSWER: Final = 64 * 1024

# Told below, once a change: the library tells it for each batch, in the words of whoever answers.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class Spans(SpanProcessor):
    """Batches of spans, and the count of those that were sent or dropped. Ends within the time that `close` gives it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._counted = _Counted(exporter)
        self._batches = BatchSpanProcessor(self._counted, QUEUE, _EVERY_MS, _BATCH)
        self._in = 0

    def on_end(self, span: ReadableSpan) -> None:
        # Each number has one writer: the loop this one, the thread the other.
        if self._in - self._counted.taken >= QUEUE:
            metrics.SPANS_DROPPED.labels("queue_full").inc()
        else:
            self._in += 1
        self._batches.on_end(span)

    def close(self, within_s: float) -> None:
        """Sends what is still here, as far as there is time; the rest is dropped and counted."""
        ending = threading.Thread(target=self._batches.shutdown, daemon=True)
        ending.start()
        ending.join(within_s)
        self._counted.over = True
        left = self._in - self._counted.done
        if left > 0:
            metrics.SPANS_DROPPED.labels("shutdown").inc(left)


class _Counted(SpanExporter):
    """An exporter that counts until it is `over`, and says when it no longer gets through."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._away = False
        self.taken = 0
        self.done = 0
        self.over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if self.over:
            return result
        self.done += len(spans)
        sent = result is SpanExportResult.SUCCESS
        if sent:
            metrics.SPANS_SENT.inc(len(spans))
        else:
            metrics.SPANS_DROPPED.labels("not_sent").inc(len(spans))
        if sent is self._away:
            self._away = not sent
            log.warning("spans are sent again" if sent else "spans can't be sent to SLUICE_OTLP_ENDPOINT and are dropped")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


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


def otlp(endpoint: str, headers: str) -> Spans:
    """To `endpoint` (OTLP over HTTP). `headers`: name=value,name=value, as in OTEL_EXPORTER_OTLP_HEADERS."""
    url, given = f"{endpoint.rstrip('/')}/v1/traces", dict(_headers(headers))
    return Spans(OTLPSpanExporter(endpoint=url, headers=given or None, timeout=_TIMEOUT_S, session=_Bounded()))


def _headers(written: str) -> Iterator[tuple[str, str]]:
    for part in written.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            yield name.strip().lower(), unquote(value.strip())
