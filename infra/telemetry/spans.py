"""Traces across hops: one trace a job, a span a stage, a client span a provider call. What they tell: genai.py.

A *context* is what a hop is told of the trace: a W3C `traceparent`, and behind a space the `tracestate` if there is one. Whether
a trace is recorded is decided once, where it comes in; its flag tells everybody else. Without an endpoint nothing is recorded
(a recorded span costs tens of microseconds): the caller's context, or a fresh one, is still handed on.
"""

import random
import re
import secrets
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infra.telemetry import genai

Kind = Literal["server", "client", "consumer", "internal"]

CLOSE_S: Final = 2.0

_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[!-~]+(?:[ \t]*,[ \t]*[!-~]+)*")
_MOST_STATE = 512


class Span:
    """A span, or nothing but the context for what it causes."""

    __slots__ = ("_names", "_span", "context")

    def __init__(self, context: str, span: trace.Span | None = None, names: Mapping[str, str] | None = None) -> None:
        self.context = context
        self._span = span
        self._names = names

    @property
    def recording(self) -> bool:
        """False: nobody wants its attributes, so don't make any."""
        return self._span is not None

    def set(self, attributes: genai.Attributes) -> None:
        """Adds attributes; an `error.type` among them marks the span as failed."""
        if self._span is None:
            return
        for name, value in attributes.items():
            self._span.set_attribute(self._names.get(name, name) if self._names else name, value)
        if (error := attributes.get(genai.ERROR_TYPE)) is not None:
            self._span.set_status(Status(StatusCode.ERROR, str(error)))

    def fail(self, error: BaseException) -> None:
        """Marks it as failed."""
        self.set({genai.ERROR_TYPE: type(error).__name__})

    def end(self, ago_s: float = 0) -> None:
        """It is over, or was so long ago; once told, it stays so."""
        if self._span is not None:
            self._span.end(time.time_ns() - int(ago_s * 1e9))
            self._span = None


class Tracing:
    """Opens spans, if anybody wants them. `close` sends what is still held back."""

    def __init__(self, service: str, processor: SpanProcessor | None, semconv: genai.Semconv = "v1.41") -> None:
        self._processor = processor
        self._tracer: Tracer | None = None
        self._names = genai.RENAMED[semconv]
        if processor is not None:
            resource = Resource.create({"service.name": f"sluice-{service}"})
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(processor)
            self._tracer = provider.get_tracer("sluice")

    def open(self, name: str, parent: str, kind: Kind = "internal", sample: float | None = None) -> Span:
        """A span that its opener ends. `parent`: a context, or empty.

        `sample`: where a trace comes in, the share that is recorded of those whose caller hasn't decided it; 0: none at all.
        """
        if self._tracer is None:
            return Span(parent or fresh_traceparent())
        if not _recorded(parent, sample):
            return Span(_unsampled(parent) if parent else fresh_traceparent())
        traceparent, _, tracestate = parent.partition(" ")
        context = _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate})
        span = self._tracer.start_span(name, context, _KINDS[kind], record_exception=False)
        told = span.get_span_context()
        own = f"00-{told.trace_id:032x}-{told.span_id:016x}-01"
        return Span(f"{own} {tracestate}" if tracestate else own, span, self._names)

    @contextmanager
    def span(self, name: str, parent: str, kind: Kind = "internal", sample: float | None = None) -> Generator[Span]:
        """A span around the block. An exception marks it as failed and goes on."""
        span = self.open(name, parent, kind, sample)
        try:
            yield span
        except Exception as error:
            span.fail(error)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Returns within about two seconds, whatever the endpoint does."""
        if self._processor is not None:
            close = getattr(self._processor, "close", None)
            close(CLOSE_S) if close else self._processor.shutdown()


def open_tracing(service: str, otlp_endpoint: str, otlp_headers: str = "", semconv: genai.Semconv = "v1.41") -> Tracing:
    """Tracing that exports to `otlp_endpoint`, or that only hands the context on if it is empty."""
    if not otlp_endpoint:
        return Tracing(service, None)
    # Who exports nothing needn't carry requests and protobuf.
    from infra.telemetry.export import otlp

    return Tracing(service, otlp(otlp_endpoint, otlp_headers), semconv)


def fresh_traceparent() -> str:
    """A new W3C trace context, not sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def context_of(traceparent: str, tracestate: str = "") -> str:
    """The context that two headers tell; empty if the first is no traceparent."""
    if not is_traceparent(traceparent):
        return ""
    keeps = 0 < len(tracestate) <= _MOST_STATE and _TRACESTATE.fullmatch(tracestate)
    return f"{traceparent} {tracestate}" if keeps else traceparent


def traceparent_of(context: str) -> str:
    """The `traceparent` of a context."""
    return context.partition(" ")[0]


def tracestate_of(context: str) -> str:
    """The `tracestate` of a context; mostly empty."""
    return context.partition(" ")[2]


def trace_id(context: str) -> str:
    """The 32 hex digits of the trace; empty if it is no context."""
    parts = traceparent_of(context).split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""


def is_traceparent(text: str) -> bool:
    """True for a well-formed W3C traceparent of version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def _recorded(parent: str, sample: float | None) -> bool:
    if parent:
        return sample != 0 and _is_sampled(parent)
    return sample is not None and random.random() < sample


def _is_sampled(context: str) -> bool:
    flags = traceparent_of(context)[-2:]
    return is_traceparent(traceparent_of(context)) and bool(int(flags, 16) & 1)


def _unsampled(context: str) -> str:
    traceparent, space, tracestate = context.partition(" ")
    return f"{traceparent[:-2]}00{space}{tracestate}" if _is_sampled(context) else context
