"""Bytes that OpenTelemetry's own decoder reads as what was told."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from infra.telemetry import wire
from infra.telemetry.genai import Value
from tests.mocks.otlp import decoded

TRACE, ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", "b7ad6b7169203331"
CONTEXT, ABOVE = f"00-{TRACE}-{ID}-01", f"00-{TRACE}-{PARENT}-01"
OF = wire.resource({"service.name": "sluice-test"})
TEXTS = st.text(max_size=300)
VALUES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXTS, max_size=3),
    st.lists(TEXTS, max_size=3).map(tuple),
)


def a_span(
    name: str = "chat fast",
    kind: wire.Kind = "client",
    context: str = CONTEXT,
    parent: str = ABOVE,
    attributes: Mapping[str, Value] | None = None,
) -> bytes:
    return wire.span(name, kind, context, parent, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, attributes or {})


def read(*spans: bytes) -> list[trace_pb2.Span]:
    request = ExportTraceServiceRequest.FromString(wire.request(OF, spans))
    return list(request.resource_spans[0].scope_spans[0].spans)


def test_a_span_is_read_as_it_was_told() -> None:
    [span] = read(a_span(context=f"{CONTEXT} vendor=1", attributes={"error.type": "429"}))
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, ID, PARENT)
    assert (span.name, span.trace_state, span.flags) == ("chat fast", "vendor=1", 0x300)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_700_000_000_000_000_001, 1_700_000_000_000_000_002)
    assert (span.status.code, span.status.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "429")


def test_a_span_without_a_parent_is_the_root() -> None:
    [span] = read(a_span(parent=""))
    assert (span.parent_span_id, span.flags, span.trace_state, span.HasField("status")) == (b"", 0x100, "", False)


@pytest.mark.parametrize("kind", ["server", "client", "consumer", "internal"])
def test_each_kind_has_its_number(kind: wire.Kind) -> None:
    [span] = read(a_span(kind=kind))
    assert trace_pb2.Span.SpanKind.Name(span.kind) == f"SPAN_KIND_{kind.upper()}"


@given(st.lists(st.dictionaries(st.text(max_size=200), VALUES, max_size=9), max_size=5))
def test_whatever_is_told_is_read(told: list[dict[str, Value]]) -> None:
    spans = decoded(wire.request(OF, [a_span(str(n), attributes=one) for n, one in enumerate(told)]))
    assert [span.attributes for span in spans] == [
        {name: list(value) if isinstance(value, tuple) else value for name, value in one.items()} for one in told
    ]
    assert {span.service for span in spans} <= {"sluice-test"}
    assert [span.name for span in spans] == [str(n) for n in range(len(told))]


def test_values_that_python_calls_equal_stay_what_they_are() -> None:
    told: dict[str, Value] = {"a": 1, "b": 1.0, "c": True, "d": "1"}
    [span] = decoded(wire.request(OF, [a_span(attributes=told)]))
    assert [(value, type(value)) for value in span.attributes.values()] == [(1, int), (1.0, float), (True, bool), ("1", str)]


def test_what_is_no_number_and_no_unicode_spoils_no_request() -> None:
    [span] = decoded(wire.request(OF, [a_span("\ud800", attributes={"half": "a\udfff", "none": math.nan})]))
    assert (span.name, span.attributes["half"]) == ("?", "a?")
    assert math.isnan(float(str(span.attributes["none"])))
