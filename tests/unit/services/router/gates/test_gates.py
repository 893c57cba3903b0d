"""What holds batch jobs back, and for how long."""

import asyncio
import json
import math
from decimal import Decimal

import httpx
import pytest

from schemas.control import Price as DeploymentPrice
from schemas.gates import PriceGate, PrometheusGate, PrometheusRule, QuotaGate, WindowGate
from schemas.topics import Lane
from services.router.gates.prometheus import REFRESH_S, STALE_MS, Metrics, Prometheus, Reading, value_of
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import START_MS, Bench, deployment, model, virtual_clock

RULE = PrometheusRule(url="http://prometheus:9090/", query="busy", below=0.8)


def test_a_metric_opens_and_closes() -> None:
    for value, is_open in ((0.79, True), (0.8, False), (5.0, False), (math.inf, False)):
        closed_until = Prometheus(RULE, lambda _, value=value: Reading(value, START_MS)).closed_until(START_MS)
        assert (closed_until == 0) == is_open
        assert closed_until in (0, START_MS + 5_000)


def test_what_nobody_knows_is_closed_unless_the_rule_says_open() -> None:
    stale = Reading(0.1, START_MS - STALE_MS - 1)
    for last in (None, stale):
        assert Prometheus(RULE, lambda _, last=last: last).closed_until(START_MS)
        assert not Prometheus(RULE.model_copy(update={"on_error": "open"}), lambda _, last=last: last).closed_until(START_MS)
    assert not Prometheus(RULE, lambda _: Reading(0.1, START_MS - STALE_MS)).closed_until(START_MS)


def vector(*values: str) -> bytes:
    result = [{"metric": {"n": str(n)}, "value": [1.0, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_the_highest_value_counts() -> None:
    assert value_of(vector("0.5", "0.9", "NaN")) == 0.9
    assert value_of(vector()) is None
    assert value_of(vector("NaN")) is None
    assert value_of(b'{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}') == 7


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status":"error"}', vector("many")])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        value_of(body)


@in_virtual_time
async def test_metrics_are_read_every_few_seconds_and_a_failure_leaves_the_last_one() -> None:
    answers = [httpx.Response(200, content=vector("0.2")), httpx.Response(500), httpx.Response(200, content=vector("0.3"))]
    asked: list[httpx.URL] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return answers.pop(0) if answers else httpx.Response(200, content=b"x" * 2_000_000)

    rules = [RULE]
    metrics = Metrics(lambda: rules, virtual_clock, httpx.MockTransport(answer))
    await metrics.start()
    seen: list[float | None] = []
    for _ in range(4):
        await asyncio.sleep(REFRESH_S - 0.1)
        reading = metrics.reading(RULE)
        seen.append(reading.value if reading else None)
        await asyncio.sleep(0.1)
    assert seen == [0.2, 0.2, 0.3, 0.3]
    assert str(asked[0]) == "http://prometheus:9090/api/v1/query?query=busy"
    rules.clear()
    await metrics.refresh()
    assert metrics.reading(RULE) is None, "what no rule asks for is forgotten"
    await metrics.stop()


def test_all_gates_must_be_open() -> None:
    bench = Bench()
    noon_only, cheap = WindowGate(window="12:00-13:00"), PriceGate(price_below_usd_per_mtok=Decimal("2000"))
    gates = bench.dispatcher.gates
    # START_MS is 08:00 UTC; the model costs 1000 USD a million tokens.
    assert gates.closed_until(model().model_copy(update={"gates": (cheap,)}), START_MS) == 0
    assert gates.closed_until(model().model_copy(update={"gates": (cheap, noon_only)}), START_MS) == START_MS + 4 * 3_600_000
    metric = PrometheusGate(prometheus=RULE)
    assert gates.closed_until(model().model_copy(update={"gates": (metric,)}), START_MS) == START_MS + 5_000
    bench.reading = Reading(0.1, START_MS)
    assert gates.closed_until(model().model_copy(update={"gates": (metric,)}), START_MS) == 0


def test_the_cheapest_deployment_counts_and_without_a_price_it_is_closed() -> None:
    gate = PriceGate(price_below_usd_per_mtok=Decimal("0.5"))
    cheap = DeploymentPrice(input_usd=Decimal("0.0000004"), output_usd=Decimal("0.1"))
    gates = Bench().dispatcher.gates
    both = model(deployment("dear"), deployment("cheap", price=cheap)).model_copy(update={"gates": (gate,)})
    assert gates.closed_until(both, START_MS) == 0
    nobody_knows = model(deployment(provider="nobody", price=None)).model_copy(update={"gates": (gate,)})
    assert gates.closed_until(nobody_knows, START_MS) == START_MS + 60_000


def test_the_least_used_deployment_counts() -> None:
    bench = Bench()
    a, b = deployment("a", max_parallel_requests=4), deployment("b", max_parallel_requests=4)
    both = model(a, b).model_copy(update={"gates": (QuotaGate(quota_share=0.5),)})
    for _ in range(2):
        bench.places.take(a, Lane.INTERACTIVE)
    assert bench.dispatcher.gates.closed_until(both, START_MS) == 0
    bench.places.take(b, Lane.INTERACTIVE)
    assert bench.dispatcher.gates.closed_until(both, START_MS) == 0
    bench.places.take(b, Lane.INTERACTIVE)
    assert bench.dispatcher.gates.closed_until(both, START_MS) == START_MS + 5_000
