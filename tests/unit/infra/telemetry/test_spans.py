"""Spans that are sent out, and those that aren't."""

import pytest

from infra.telemetry import export, genai, metrics, spans
from infra.telemetry.spans import Tracing, context_of, fresh_traceparent, open_tracing, trace_id, traceparent_of, tracestate_of
from tests.mocks.otlp import Manner, OtlpSink

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


def count(metric: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(metric, labels) or 0


def test_spans_arrive_with_their_headers() -> None:
    before = count("sluice_spans_sent_total")
    with OtlpSink() as sink:
        tracing = open_tracing("test", f"{sink.url}/api/public/otel/", "authorization=Basic cGs6c2s=, x-other=a%20b,")
        with tracing.span("chat fast", "", sample=1):
            pass
        tracing.close()
    [(path, headers)] = sink.requests
    assert (path, headers["authorization"], headers["x-other"]) == ("/api/public/otel/v1/traces", "Basic cGs6c2s=", "a b")
    assert [(span.name, span.service) for span in sink.spans] == [("chat fast", "sluice-test")]
    assert count("sluice_spans_sent_total") == before + 1


def test_a_span_has_the_parent_it_was_told_of_and_is_the_parent_of_what_it_causes() -> None:
    with OtlpSink() as sink:
        tracing = open_tracing("test", sink.url)
        with tracing.span("outer", f"{PARENT} vendor=1", "server", sample=1) as outer, tracing.span("inner", outer.context):
            assert tracestate_of(outer.context) == "vendor=1"
        tracing.close()
    by_name = {span.name: span for span in sink.spans}
    assert {span.trace for span in sink.spans} == {trace_id(PARENT)}
    assert by_name["outer"].parent == "b7ad6b7169203331"
    assert (by_name["inner"].parent, by_name["outer"].kind) == (by_name["outer"].id, "server")


def test_a_failure_is_told_by_its_kind_alone() -> None:
    with OtlpSink() as sink:
        tracing = open_tracing("test", sink.url)
        with pytest.raises(ValueError, match="secret"), tracing.span("fails", "", sample=1):
            raise ValueError("secret")
        tracing.close()
    [span] = sink.spans
    assert (span.error, span.attributes) == ("ValueError", {"error.type": "ValueError"})


@pytest.mark.parametrize(
    ("parent", "sample", "recorded"),
    [
        ("", 1.0, True),
        ("", 0.0, False),
        ("", None, False),
        (PARENT, None, True),
        (PARENT, 0.001, True),
        (PARENT, 0.0, False),
        (UNSAMPLED, 1.0, False),
        (UNSAMPLED, None, False),
    ],
)
def test_the_caller_decides_what_is_recorded_unless_policy_forbids_it(parent: str, sample: float | None, recorded: bool) -> None:
    with OtlpSink() as sink:
        tracing = open_tracing("test", sink.url)
        with tracing.span("one", parent, sample=sample) as span:
            assert span.recording is recorded
            assert span.context.endswith("-01") is recorded
            assert not parent or trace_id(span.context) == trace_id(parent)
        tracing.close()
    assert bool(sink.spans) is recorded


def test_without_an_endpoint_the_callers_context_is_handed_on() -> None:
    tracing = Tracing(None)
    with tracing.span("one", f"{PARENT} a=b", sample=1) as span:
        assert (span.context, span.recording) == (f"{PARENT} a=b", False)
    with tracing.span("two", "", sample=1) as span:
        assert span.context.endswith("-00")
        assert trace_id(span.context)


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "context"),
    [
        (PARENT, "", PARENT),
        (PARENT, "a=1,b=2", f"{PARENT} a=1,b=2"),
        (PARENT, "a=1\r\nx: y", PARENT),
        (PARENT, "a=" + "x" * 600, PARENT),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "", ""),
        (PARENT.upper(), "", ""),
        (f"{PARENT}\n", "", ""),
        ("", "a=1", ""),
        (f"01{PARENT[2:]}", "a=1", f"{PARENT} a=1"),
        (f"cc{PARENT[2:]}-what-may-come", "", PARENT),
        (f"cc{PARENT[2:]}.what-may-not", "", ""),
        (f"ff{PARENT[2:]}", "", ""),
        (f"{PARENT}-more", "", ""),
        ("01-" + "0" * 32 + "-b7ad6b7169203331-01", "", ""),
    ],
)
def test_a_context_is_what_w3c_allows(traceparent: str, tracestate: str, context: str) -> None:
    assert context_of(traceparent, tracestate) == context
    assert traceparent_of(context) in (PARENT, "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "CLOSE_S", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("manner", ["garbage", "endless", "reset", "redirect", "busy"])
def test_a_hostile_endpoint_costs_nothing_but_the_spans(manner: Manner) -> None:
    before = count("sluice_spans_dropped_total", why="not_sent") + count("sluice_spans_dropped_total", why="shutdown")
    with OtlpSink(manner) as sink:
        tracing = open_tracing("test", sink.url)
        with tracing.span("lost", "", sample=1):
            pass
        tracing.close()
    assert sink.spans == []
    assert all(path == "/v1/traces" for path, _ in sink.requests), "nobody is sent elsewhere with our credential"
    after = count("sluice_spans_dropped_total", why="not_sent") + count("sluice_spans_dropped_total", why="shutdown")
    assert after == before + 1


@pytest.mark.usefixtures("impatient")
def test_what_an_endpoint_does_not_keep_up_with_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "QUEUE", 256)
    before = count("sluice_spans_dropped_total", why="queue_full")
    with OtlpSink("slow") as sink:
        tracing = open_tracing("test", sink.url)
        for _ in range(1_000):
            tracing.open("one", "", sample=1).end()
        dropped = count("sluice_spans_dropped_total", why="queue_full") - before
        sink.stopping.set()
        tracing.close()
    assert 1_000 - 256 - 256 <= dropped < 1_000


def test_each_span_is_sent_or_counted_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "QUEUE", 1_000)
    why = ("queue_full", "not_sent", "shutdown")
    sent, dropped = count("sluice_spans_sent_total"), [count("sluice_spans_dropped_total", why=one) for one in why]
    with OtlpSink() as sink:
        tracing = open_tracing("test", sink.url)
        for _ in range(5_000):
            tracing.open("one", "", sample=1).end()
        tracing.close()
    arrived = count("sluice_spans_sent_total") - sent
    lost = sum(count("sluice_spans_dropped_total", why=one) - before for one, before in zip(why, dropped, strict=True))
    assert (len(sink.spans), arrived + lost) == (arrived, 5_000)
    assert len(sink.requests) < 50, "they go in batches"


@pytest.mark.usefixtures("impatient")
def test_waiting_spans_have_a_limit_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST_BYTES", 100_000)
    before = count("sluice_spans_dropped_total", why="queue_full")
    with OtlpSink("slow") as sink:
        tracing = open_tracing("test", sink.url)
        for number in range(50):
            with tracing.span(str(number), "", sample=1) as span:
                span.set({"gen_ai.input.messages": "x" * 10_000})
        dropped = count("sluice_spans_dropped_total", why="queue_full") - before
        sink.stopping.set()
        tracing.close()
    assert 50 - 9 - 9 <= dropped <= 50 - 9


def test_the_newer_names_are_there_for_who_wants_them() -> None:
    with OtlpSink() as sink:
        for semconv in genai.RENAMED:
            tracing = open_tracing("test", sink.url, semconv=semconv)
            with tracing.span(semconv, "", sample=1) as span:
                span.set({"gen_ai.usage.cache_creation.input_tokens": 5})
            tracing.close()
    assert {span.name: list(span.attributes) for span in sink.spans} == {
        "v1.41": ["gen_ai.usage.cache_creation.input_tokens"],
        "latest": ["gen_ai.usage.cache_write.input_tokens"],
    }


def test_a_fresh_trace_is_not_recorded_by_anybody() -> None:
    assert fresh_traceparent().endswith("-00")
