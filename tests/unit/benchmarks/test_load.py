"""The load generator against the mock provider: it counts right, and it ends."""

import pytest

from benchmarks.load import Plan, Target, chat_bodies, measure, quantiles
from benchmarks.mock_provider import MockProvider


async def _run(plan: Plan, model: str = "mock") -> tuple[dict[str, int], int, MockProvider]:
    async with MockProvider() as provider:
        report = await measure(Target(provider.base_url, "key", model), plan)
    assert report.requests == report.ok + sum(report.errors.values())
    assert (report.first_token_ms is not None) == plan.stream
    return report.errors, report.ok, provider


@pytest.mark.parametrize("stream", [False, True])
async def test_every_request_is_answered_once(stream: bool) -> None:
    errors, ok, provider = await _run(Plan(connections=8, requests=200, stream=stream))
    assert (errors, ok) == ({}, 200)
    assert provider.ledger.summary()["requests"] == 200


@pytest.mark.parametrize(
    ("model", "stream", "error"),
    [
        ("mock-500", False, "500"),
        ("mock-429", True, "429"),
        ("mock-cut", False, "connection lost"),
        ("mock-cut", True, "connection lost"),
        ("mock-truncate", True, "not whole"),
        ("mock-garbage", False, "not whole"),
    ],
)
async def test_errors_are_named(model: str, stream: bool, error: str) -> None:
    errors, ok, _ = await _run(Plan(connections=2, requests=6, stream=stream), model)
    assert (errors, ok) == ({error: 6}, 0)


async def test_who_never_answers_times_out() -> None:
    errors, ok, provider = await _run(Plan(connections=2, requests=2, timeout_s=0.1), "mock-hang")
    assert (errors, ok) == ({"timeout": 2}, 0)
    assert provider.ledger.summary()["by_outcome"] == {"client_gone": 2}


async def test_nobody_listens() -> None:
    report = await measure(Target("http://127.0.0.1:1/v1"), Plan(requests=1))
    assert report.errors == {"no connection": 1}


async def test_a_plan_needs_an_end() -> None:
    with pytest.raises(ValueError, match="requests or seconds"):
        await measure(Target("http://127.0.0.1:1/v1"), Plan())


def test_unique_prompts_are_unique_and_repeated_ones_are_not() -> None:
    unique, repeated = chat_bodies("mock", Plan()), chat_bodies("mock", Plan(unique=False))
    assert len({unique(n) for n in range(3000)}) == 3000
    assert len({repeated(n) for n in range(3000)}) == 1


def test_quantiles_are_milliseconds() -> None:
    q = quantiles([n / 1000 for n in range(1, 101)])
    assert (q.p50, q.p95, q.p99, q.max) == pytest.approx((51, 96, 100, 100))
    assert quantiles([]).max == 0
