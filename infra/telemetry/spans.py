"""Traces across hops: one trace a job, a span a stage, a client span a provider call.

Names are those of OpenTelemetry's GenAI and messaging conventions v1.41, from this module only. Without an endpoint nothing is
recorded (a recorded span costs tens of microseconds): the caller's `traceparent`, or a fresh one, is still handed on.
"""

import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["server", "client", "consumer", "internal"]

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_PARTITION = "messaging.destination.partition.id"
MESSAGING_OFFSET = "messaging.kafka.offset"
SLUICE_STAGE = "sluice.stage"
SLUICE_LANE = "sluice.lane"
SLUICE_JOB = "sluice.job"

_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}


class Tracing:
    """Opens spans, if anybody wants them. `close` sends what is still held back."""

    def __init__(self, service: str, processor: SpanProcessor | None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if processor is not None:
            self._provider = TracerProvider(resource=Resource.create({"service.name": f"sluice-{service}"}))
            self._provider.add_span_processor(processor)
            self._tracer = self._provider.get_tracer("sluice")

    @contextmanager
    def span(self, name: str, parent: str, kind: Kind = "internal", attributes: Attributes | None = None) -> Generator[str]:
        """A span around the block; gives the `traceparent` for what the block causes.

        `parent` is a traceparent or empty. An exception marks the span as failed and goes on.
        """
        if self._tracer is None:
            yield parent or fresh_traceparent()
            return
        context = _PROPAGATOR.extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name, context=context, kind=_KINDS[kind], attributes=attributes, record_exception=False
        ) as span:
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier)
            try:
                yield carrier["traceparent"]
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                span.set_attribute("error.type", type(error).__name__)
                raise

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()


def open_tracing(service: str, otlp_endpoint: str, otlp_headers: str = "") -> Tracing:
    """Tracing that exports to `otlp_endpoint` (OTLP over HTTP), or that only hands the context on if it is empty.

    `otlp_headers` (name=value,name=value; values percent-encoded, as in OTEL_EXPORTER_OTLP_HEADERS) go with each export.
    """
    if not otlp_endpoint:
        return Tracing(service, None)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint, headers = f"{otlp_endpoint.rstrip('/')}/v1/traces", dict(_headers(otlp_headers))
    return Tracing(service, BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, headers=headers or None)))


def _headers(written: str) -> Iterator[tuple[str, str]]:
    for part in written.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            yield name.strip().lower(), unquote(value.strip())


def fresh_traceparent() -> str:
    """A new W3C trace context, not sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def trace_id(traceparent: str) -> str:
    """The 32 hex digits of the trace; empty if it is no traceparent."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""


def is_traceparent(text: str) -> bool:
    """True for a well-formed W3C traceparent of version 00."""
    parts = text.split("-")
    return (
        len(parts) == 4
        and parts[0] == "00"
        and [len(p) for p in parts[1:]] == [32, 16, 2]
        and all(c in "0123456789abcdef-" for c in text)
        and set(parts[1]) != {"0"}
        and set(parts[2]) != {"0"}
    )
