"""Which deployment is asked."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.carriage import Finish
from schemas.attempt import Attempt
from schemas.control import Deployment, Model, StrategyName
from schemas.reply import Answer
from schemas.usage import Usage
from services.router.strategies.base import Strategy
from services.router.strategies.cheapest import Cheapest
from services.router.strategies.composite import Strategies
from services.router.strategies.fastest import FORGET_MS, NEARLY, SAMPLES, Fastest, Latencies
from services.router.strategies.least_busy import LeastBusy
from services.router.strategies.least_used import LeastUsed, Used
from services.router.strategies.weighted import Weighted
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import START_MS, STREAM, Bench, Hangs, answer, deployment, job, virtual_clock

A, B, C = deployment("a", weight=1), deployment("b", weight=3), deployment("c", weight=6)
CASES = [
    (0.0, "a"),
    (0.0999, "a"),
    (0.1, "b"),
    (0.3999, "b"),
    (0.4, "c"),
    (0.9999, "c"),
]


@pytest.mark.parametrize(("chance", "chosen"), CASES)
def test_in_proportion_to_the_weights(chance: float, chosen: str) -> None:
    assert Weighted().choose((A, B, C), lambda: chance).id == chosen


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_always_one_of_them(weights: list[float], chance: float) -> None:
    deployments = [deployment(str(n), weight=weight) for n, weight in enumerate(weights)]
    assert Weighted().choose(deployments, lambda: chance) in deployments


# By what is at work, used, paid, and measured


def by_chance(strategy: Strategy) -> set[str]:
    """Whom of a, b and c it takes, whatever chance says."""
    return {strategy.choose((A, B, C), partial(float, number / 20)).id for number in range(20)}


def chosen(counts: Mapping[str, int]) -> set[str]:
    """Among a, b and c, by calls at work."""
    strategy = LeastBusy(lambda d: counts[d.id])
    return by_chance(strategy)


def test_the_least_busy_and_among_equals_by_weight() -> None:
    assert chosen({"a": 2, "b": 1, "c": 3}) == {"b"}
    assert chosen({"a": 1, "b": 2, "c": 1}) == {"a", "c"}
    busy = LeastBusy(lambda _: 0)
    assert busy.choose((A, B), lambda: 0.24).id == "a"
    assert busy.choose((A, B), lambda: 0.26).id == "b"


def test_the_cheapest_and_the_unpriced_last() -> None:
    prices = {"a": Decimal("0.02"), "b": Decimal("0.01"), "c": None}
    cheapest = Cheapest(lambda d: prices[d.id])
    assert cheapest.choose((A, B, C), lambda: 0.0).id == "b"
    assert cheapest.choose((A, C), lambda: 0.99).id == "a"
    assert cheapest.choose((C,), lambda: 0.0).id == "c"


class Time:
    def __init__(self) -> None:
        self.ms = START_MS

    def now(self) -> int:
        return self.ms


def test_the_least_used_by_the_larger_of_its_shares_then_by_tokens() -> None:
    time = Time()
    used = Used(time.now)
    d1, d2, free = deployment("d1", rpm=10, tpm=1_000), deployment("d2", rpm=100, tpm=10_000), deployment("free")
    strategy = LeastUsed(used.share)
    for one in (d1, d2):
        used.add(one, calls=4)
    assert strategy.choose((d1, d2), lambda: 0.0).id == "d2"
    used.add(d2, tokens=9_000)
    assert (used.share(d1)[0], used.share(d2)[0]) == (0.4, 0.9)
    assert strategy.choose((d1, d2), lambda: 0.0).id == "d1"
    assert strategy.choose((d1, d2, free), lambda: 0.0).id == "free"
    other = deployment("other")
    used.add(free, tokens=5)
    assert strategy.choose((free, other), lambda: 0.0).id == "other"
    time.ms += 600_000
    assert used.share(d2)[0] < 0.001, "a minute later it is as good as forgotten"


def test_a_clock_that_goes_back_makes_nothing_grow() -> None:
    time = Time()
    used = Used(time.now)
    used.add(A, tokens=100)
    time.ms -= 3_600_000
    assert used.share(A)[1] == 100


def fastest(**ms: float) -> Fastest:
    """By these means; nothing is at work."""
    return Fastest(lambda d: ms.get(d.id), lambda _: 0)


def test_the_fastest_and_those_nearly_as_fast() -> None:
    assert by_chance(fastest(a=10 * NEARLY, b=10, c=11.01)) == {"a", "b"}


def test_who_is_not_measured_is_tried_first_by_one_call_at_a_time() -> None:
    assert fastest(a=10, b=1).choose((A, B, C), lambda: 0.0).id == "c"
    at_work = {"c": 1}
    strategy = Fastest(lambda d: {"a": 10.0, "b": 1.0}.get(d.id), lambda d: at_work.get(d.id, 0))
    assert strategy.choose((A, B, C), lambda: 0.99).id == "b"
    assert strategy.choose((C,), lambda: 0.0).id == "c"
    assert by_chance(Fastest(lambda _: None, lambda _: 1)) == {"a", "b", "c"}


def test_the_mean_of_the_last_few_of_the_last_minutes() -> None:
    time = Time()
    latencies = Latencies(time.now)
    assert latencies.mean_ms(A) is None
    for ms in (1_000.0, *[10.0] * SAMPLES):
        latencies.add(A, ms)
    assert latencies.mean_ms(A) == 10
    time.ms += FORGET_MS - 1
    latencies.add(A, 30)
    assert latencies.mean_ms(A) == 12
    time.ms += 1
    assert latencies.mean_ms(A) == 30
    time.ms += FORGET_MS
    assert latencies.mean_ms(A) is None


def ended(latency_ms: float, tokens: int, ttft_ms: float | None = None, status: str = "completed") -> Attempt:
    given = {"id": "x", "n": 1, "deployment": "", "provider": "", "provider_model": "", "started_ms": 0}
    usage = Usage(output_tokens=tokens)
    return Attempt.model_validate({**given, "latency_ms": latency_ms, "ttft_ms": ttft_ms, "status": status, "usage": usage})


def test_streams_go_by_the_first_token_and_whole_answers_by_the_time_of_each() -> None:
    strategies = Strategies(lambda _: 0, lambda _, at_ms: None, lambda: START_MS)
    fast_start, fast_end = deployment("start"), deployment("end")
    strategies.ended(fast_start, ended(9_000, 100, ttft_ms=50))
    strategies.ended(fast_end, ended(5_000, 100, ttft_ms=500))
    model = Model(name="m", deployments=(fast_start, fast_end), strategy="latency-based-routing")
    assert strategies.of(model, stream=True).choose(model.deployments, lambda: 0.5) is fast_start
    assert strategies.of(model, stream=False).choose(model.deployments, lambda: 0.5) is fast_end
    for _ in range(5):
        strategies.ended(fast_start, ended(1, 0, status="failed"))
    assert strategies.of(model, stream=False).choose(model.deployments, lambda: 0.0) is fast_end, "failures are not fast"
    strategies.ended(fast_end, ended(600_000, 0, status="failed"), hung=True)
    assert strategies.of(model, stream=False).choose(model.deployments, lambda: 0.0) is fast_start
    strategies.ended(fast_start, ended(600_000, 0, status="cancelled"), hung=True)
    assert strategies.of(model, stream=True).choose(model.deployments, lambda: 0.5) is fast_end


@given(
    st.sampled_from(get_args(StrategyName)),
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.floats(0, 1e6), st.integers(0, 5000), st.integers(0, 9))),
    st.sets(st.sampled_from("abc"), min_size=1),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_each_strategy_takes_one_of_those_that_may_be_asked(
    name: StrategyName, known: dict[str, tuple[float, int, int]], up: set[str], stream: bool, chance: float
) -> None:
    allowed = tuple(d for d in (A, B, C) if d.id in up)
    strategies = Strategies(
        lambda d: known.get(d.id, (0, 0, 0))[2], lambda d, _: Decimal(known[d.id][1]) if d.id in known else None, lambda: START_MS
    )
    for d in (A, B, C):
        if d.id in known:
            strategies.begun(d)
            strategies.ended(d, ended(known[d.id][0], known[d.id][1], known[d.id][0] / 2))
    model = Model(name="m", deployments=(A, B, C), strategy=name)
    assert strategies.of(model, stream).choose(allowed, lambda: chance) in allowed


# In the router


def slow(ms: int) -> object:
    async def done() -> str:
        await asyncio.sleep(ms / 1000)
        return answer()

    return done


def of(name: StrategyName, *deployments: Deployment) -> Model:
    return Model(name="alias", deployments=deployments, strategy=name)


def named(number: int) -> str:
    return f"job_018f0000000070008000{number:012x}"


async def asked(on: Bench, times: int, stream: bool = False) -> list[str]:
    """Who answers jobs that come one after another."""
    names: list[str] = []
    for n in range(times):
        end = await on.handle(job(id=named(n), stream=stream))
        assert isinstance(end, Finish)
        names.append(end.completion.attempts[-1].deployment)
    return names


@in_virtual_time
async def test_least_busy_spreads_calls_that_are_at_work() -> None:
    on = Bench(*(Hangs() for _ in range(6)), table=of("least-busy", A, B, C), clock=virtual_clock)
    tasks = [asyncio.create_task(on.handle(job(id=named(n)))) for n in range(6)]
    await asyncio.sleep(0.1)
    assert Counter(request.deployment.id for request in on.provider.asked) == {"a": 2, "b": 2, "c": 2}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not any(on.places.busy(d) for d in (A, B, C))


@in_virtual_time
async def test_usage_based_goes_where_most_is_left() -> None:
    small, large = deployment("small", rpm=10), deployment("large", rpm=40)
    on = Bench(*(answer() for _ in range(50)), table=of("usage-based-routing", small, large), clock=virtual_clock)
    assert Counter(await asked(on, 25)) == {"small": 5, "large": 20}


@in_virtual_time
async def test_cost_based_takes_the_cheapest_that_is_up() -> None:
    cheap = deployment("cheap").model_copy(update={"price": A.price and A.price.model_copy(update={"output_usd": Decimal(0)})})
    on = Bench(*(answer() for _ in range(9)), table=of("cost-based-routing", A, cheap), clock=virtual_clock)
    assert set(await asked(on, 5)) == {"cheap"}


@in_virtual_time
async def test_a_hanging_deployment_is_left_by_latency_based_routing_after_one_call() -> None:
    hangs = deployment("hangs", timeout_s=5)
    on = Bench(Hangs(), *(answer() for _ in range(9)), table=of("latency-based-routing", hangs, B), clock=virtual_clock)
    assert await asked(on, 6) == ["b"] * 6
    assert [request.deployment.id for request in on.provider.asked] == ["hangs", *["b"] * 6]


@in_virtual_time
async def test_a_call_that_a_jobs_deadline_cut_was_slow() -> None:
    on = Bench(Hangs(), *(answer() for _ in range(3)), table=of("latency-based-routing", A, B), clock=virtual_clock)
    await on.handle(job(id=named(9), deadline_ms=START_MS + 1_000))
    assert await asked(on, 3) == ["b"] * 3


@in_virtual_time
async def test_a_streams_first_token_is_measured() -> None:
    on = Bench(*(STREAM for _ in range(4)), table=of("latency-based-routing", A, B), clock=virtual_clock)
    assert set(await asked(on, 2, stream=True)) == {"a", "b"}, "each once, to know"


@in_virtual_time
async def test_an_answer_tells_the_model_that_was_asked_where_nothing_else_was() -> None:
    on = Bench(slow(5), table=of("latency-based-routing", A), clock=virtual_clock)
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert end.last.served.model == "alias"
