"""Traces across hops: one trace a job, a span a stage, a client span a provider call. What they tell: genai.py.

A *context* is what a hop is told of the trace: a W3C `traceparent`, and behind a space the `tracestate` if there is one. Whether
a trace is recorded is decided once, where it comes in; its flag tells everybody else. Without an endpoint nothing is recorded
(a recorded span costs some ten microseconds): the caller's context, or a fresh one, is still handed on.
"""

import random
import re
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from infra.telemetry import genai, wire
from infra.telemetry.wire import Kind

if TYPE_CHECKING:
    from infra.telemetry.export import Spans

CLOSE_S: Final = 2.0

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LATER = re.compile(r"(?!00|ff)[0-9a-f]{2}(-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?")
_SAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf](?: |\Z)")
_TRACESTATE = re.compile(r"[!-~]+(?:[ \t]*,[ \t]*[!-~]+)*")
_MOST_STATE = 512


class Span:
    """A span, or nothing but the context for what it causes."""

    __slots__ = ("_attributes", "_over", "context")

    def __init__(self, context: str, over: Callable[[genai.Attributes, int], None] | None = None) -> None:
        self.context = context
        self._over = over
        self._attributes: genai.Attributes = {}

    @property
    def recording(self) -> bool:
        """False: nobody wants its attributes, so don't make any."""
        return self._over is not None

    def set(self, attributes: genai.Attributes) -> None:
        """Adds attributes; an `error.type` among them marks the span as failed."""
        if self._over is not None:
            self._attributes |= attributes

    def fail(self, error: BaseException) -> None:
        """Marks it as failed."""
        self.set({genai.ERROR_TYPE: type(error).__name__})

    def end(self, ago_s: float = 0) -> None:
        """It is over, or was so long ago; once told, it stays so."""
        if self._over is not None:
            self._over(self._attributes, time.time_ns() - int(ago_s * 1e9))
            self._over = None


class Tracing:
    """Opens spans, if anybody wants them. `close` sends what is still held back."""

    def __init__(self, spans: "Spans | None", semconv: genai.Semconv = "v1.41") -> None:
        self._spans = spans
        self._names = genai.RENAMED[semconv]

    def open(self, name: str, parent: str, kind: Kind = "internal", sample: float | None = None) -> Span:
        """A span that its opener ends. `parent`: a context, or empty.

        `sample`: where a trace comes in, the share that is recorded of those whose caller hasn't decided it; 0: none at all.
        """
        if self._spans is None:
            return Span(parent or fresh_traceparent())
        if not _recorded(parent, sample):
            return Span(_unsampled(parent) if parent else fresh_traceparent())
        trace = parent[3:35] if parent else f"{random.getrandbits(128):032x}"
        context = f"00-{trace}-{random.getrandbits(64):016x}-01{parent[55:]}"
        return Span(context, partial(self._over, name, kind, context, parent, time.time_ns()))

    def _over(
        self, name: str, kind: Kind, context: str, parent: str, began_ns: int, attributes: genai.Attributes, ended_ns: int
    ) -> None:
        if self._names:
            attributes = {self._names.get(name, name): value for name, value in attributes.items()}
        if self._spans is not None:
            self._spans.add(wire.span(name, kind, context, parent, began_ns, ended_ns, attributes))

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
        if self._spans is not None:
            self._spans.close(CLOSE_S)


def open_tracing(service: str, otlp_endpoint: str, otlp_headers: str = "", semconv: genai.Semconv = "v1.41") -> Tracing:
    """Tracing that exports to `otlp_endpoint`, or that only hands the context on if it is empty."""
    if not otlp_endpoint:
        return Tracing(None)
    # Who exports nothing needn't carry requests and protobuf.
    from infra.telemetry.export import otlp

    return Tracing(otlp(service, otlp_endpoint, otlp_headers), semconv)


def fresh_traceparent() -> str:
    """A new W3C trace context, not sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def context_of(traceparent: str, tracestate: str = "") -> str:
    """The context that two headers tell; empty if the first is no traceparent."""
    if later := _LATER.fullmatch(traceparent):
        # Versions to come begin with what this one is (W3C Trace Context, 3.2.4).
        traceparent = f"00{later[1]}"
    if _TRACEPARENT.fullmatch(traceparent) is None:
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


def _recorded(parent: str, sample: float | None) -> bool:
    if parent:
        return sample != 0 and _SAMPLED.match(parent) is not None
    return sample is not None and random.random() < sample


def _unsampled(context: str) -> str:
    return f"{context[:53]}00{context[55:]}" if _SAMPLED.match(context) else context
