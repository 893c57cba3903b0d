"""Metrics stay few, and say what they mean."""

from decimal import Decimal

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from infra.telemetry import meters, metrics, reference
from schemas.attempt import Attempt
from schemas.job import Api
from schemas.usage import Usage
from tests.fakes.jobs import an_attempt


def series() -> int:
    return sum(len(family.samples) for family in metrics.REGISTRY.collect())


def value(metric: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(metric, labels) or 0


def a_call(model: str = "fast") -> Attempt:
    return an_attempt(
        provider="echo",
        latency_ms=1_500,
        ttft_ms=500,
        usage=Usage(input_tokens=7, output_tokens=11, source="provider"),
        cost_usd=Decimal("0.25"),
        model=model,
    )


def test_a_call_is_counted_in_tokens_money_and_time() -> None:
    of_echo = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "echo"}
    counted: tuple[tuple[str, dict[str, str], float], ...] = (
        ("sluice_tokens_total", {"team": "acme", "model": "fast", "direction": "input"}, 7),
        ("sluice_tokens_total", {"team": "acme", "model": "fast", "direction": "output"}, 11),
        ("sluice_cost_usd_total", {"team": "acme", "model": "fast", "provider": "echo"}, 0.25),
        ("gen_ai_client_operation_time_to_first_chunk_seconds_sum", of_echo, 0.5),
        ("gen_ai_client_operation_time_per_output_chunk_seconds_sum", of_echo, 0.25),
        ("gen_ai_server_time_per_output_token_seconds_sum", {"gen_ai_operation_name": "chat"}, 0.1),
    )
    # The registry is the process's: other tests count in it, too.
    before = [value(name, **labels) for name, labels, _ in counted]
    meters.attempted(Api.CHAT, "acme", a_call(), 5)
    after = [value(name, **labels) for name, labels, _ in counted]
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([by for _, _, by in counted])


def test_teams_and_models_beyond_the_most_are_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("team", 20), ("model", 20), ("_pairs", 100)):
        monkeypatch.setattr(meters, name, meters.Capped(most))
    before = series()
    for number in range(10_000):
        meters.attempted(Api.CHAT, f"junk-team-{number % 60}", a_call(f"junk-{number}"), 1)
    grown = series() - before
    assert 0 < grown <= 100 * 3 * 2 + 20
    assert value("sluice_tokens_total", team="other", model="other", direction="input") >= 7 * 9_900


def test_a_budget_is_shown_for_teams_alone() -> None:
    meters.budget("team/acme", "month", 0.5)
    meters.budget("user/alice", "month", 0.7)
    assert value("sluice_budget_spent_ratio", team="acme", period="month") == 0.5
    assert "alice" not in metrics.exposition().decode()


def test_requests_are_counted_by_the_template_of_their_path() -> None:
    async def found(request: Request) -> Response:
        if request.path_params["id"] == "bad":
            raise RuntimeError("ours")
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/things/{id}", found)], middleware=[Middleware(meters.Counted)])
    client = TestClient(app, raise_server_exceptions=False)
    for number in range(50):
        client.get(f"/things/{number}")
        client.get(f"/nowhere-{number}")
        client.request(f"JUNK{number}", "/things/1")
    client.get("/things/bad")
    told = {"route": "/things/{id}", "method": "GET"}
    assert value("sluice_http_requests_total", **told, status="2xx") == 50
    assert value("sluice_http_requests_total", **told, status="5xx") == 1
    assert value("sluice_http_requests_total", route="other", method="GET", status="4xx") == 50
    assert value("sluice_http_requests_total", route="/things/{id}", method="other", status="4xx") == 50
    assert "nowhere-" not in metrics.exposition().decode()


def test_the_page_of_metrics_is_that_of_the_code() -> None:
    assert reference.PAGE.read_text() == reference.page(), "python -m infra.telemetry.reference writes it"


def test_every_metric_says_what_it_means() -> None:
    lines = reference.page().splitlines()
    assert [line for line in lines if line.startswith("| `") and line.endswith("|  |")] == []
