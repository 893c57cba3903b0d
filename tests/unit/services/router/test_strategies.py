"""Which deployment is asked."""

import asyncio
import math
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
from schemas.topics import Lane
from schemas.usage import Usage
from services.router.strategies.base import Strategy
from services.router.strategies.cheapest import Cheapest
from services.router.strategies.composite import SLOWEST_FIRST_MS, Strategies
from services.router.strategies.durations import LAST, LEAST, Durations
from services.router.strategies.fastest import FADE_MS, FORGET_MS, SMOOTH_MS, Fastest, Latencies
from services.router.strategies.least_busy import LeastBusy
from services.router.strategies.least_used import LeastUsed, Used
from services.router.strategies.reserved_first import ReservedFirst
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


def test_what_is_reserved_goes_first_by_weight() -> None:
    r1, r2 = deployment("r1", reserved=True), deployment("r2", reserved=True, weight=3)
    strategy = ReservedFirst()
    assert {strategy.choose((A, r1, r2, C), partial(float, n / 20)).id for n in range(20)} == {"r1", "r2"}
    assert strategy.choose((A, r1, r2, C), lambda: 0.24) is r1
    assert strategy.choose((A, r1, r2, C), lambda: 0.26) is r2
    assert by_chance(strategy) == {"a", "b", "c"}


# By how fast they are


def shares(strategy: Strategy, *deployments: Deployment) -> dict[str, int]:
    """How often each is taken of a thousand times."""
    return Counter(strategy.choose(deployments, partial(float, (n + 0.5) / 1000)).id for n in range(1000))


def fastest(busy: Mapping[str, int] | None = None, **ms: float) -> Fastest:
    return Fastest(lambda d: ms.get(d.id), lambda d: (busy or {}).get(d.id, 0))


def test_by_weight_and_the_inverse_square_of_time_and_calls_at_work() -> None:
    d1, d2, heavy = deployment("d1"), deployment("d2"), deployment("heavy", weight=3)
    assert shares(fastest(d1=100, d2=100), d1, d2) == {"d1": 500, "d2": 500}
    assert shares(fastest(d1=100, d2=200), d1, d2) == {"d1": 800, "d2": 200}
    assert shares(fastest(d1=100, heavy=100), d1, heavy) == {"d1": 250, "heavy": 750}
    assert shares(fastest({"d1": 1}, d1=100, d2=200), d1, d2) == {"d1": 500, "d2": 500}, "before a slow call has ended"
    assert shares(fastest({"d1": 3}, d1=100, d2=200), d1, d2) == {"d1": 200, "d2": 800}


def test_who_is_not_measured_is_tried_first_by_one_call_at_a_time() -> None:
    assert by_chance(fastest(a=10, b=1)) == {"c"}
    assert by_chance(fastest({"c": 1}, a=10, b=1)) == {"a", "b"}
    assert by_chance(fastest({"c": 1}, b=1)) == {"a"}
    assert by_chance(fastest({"a": 1, "b": 1, "c": 1})) == {"a", "b", "c"}
    assert fastest({"c": 9}).choose((C,), lambda: 0.0) is C


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def latencies(time: Time) -> Latencies:
    return Latencies(time.now, SLOWEST_FIRST_MS)


def known(latencies: Latencies, *measured: float) -> float | None:
    for ms in measured:
        latencies.add(A, ms)
    return latencies.ms(A)


def test_a_slower_answer_is_believed_at_once_and_a_faster_one_bit_by_bit(time: Time, latencies: Latencies) -> None:
    assert latencies.ms(A) is None
    assert known(latencies, 100, 150) == 150
    assert known(latencies, 10) == 150, "in the same moment it says nothing yet"
    time.ms += SMOOTH_MS // 10
    faded = 150 * math.exp(-SMOOTH_MS / 10 / FADE_MS)
    assert known(latencies, 10) == pytest.approx(10 + (faded - 10) * math.exp(-0.1))


def test_no_answer_more_than_doubles_or_halves_what_is_believed(time: Time, latencies: Latencies) -> None:
    assert known(latencies, 100, 5_000) == 200
    time.ms += FADE_MS
    assert known(latencies, 0) == pytest.approx(200 / math.e / 2)


def test_what_nobody_measures_fades_and_is_forgotten(time: Time, latencies: Latencies) -> None:
    known(latencies, 100)
    time.ms += FADE_MS
    assert latencies.ms(A) == pytest.approx(100 / math.e)
    time.ms += FORGET_MS - FADE_MS - 1
    assert latencies.ms(A) is not None
    time.ms += 1
    assert latencies.ms(A) is None
    assert known(latencies, 5_000) == 5_000, "what is forgotten bounds nothing"


def test_a_failure_is_slow_however_soon_it_comes(latencies: Latencies) -> None:
    latencies.add_failure(B, 3)
    assert latencies.ms(B) == SLOWEST_FIRST_MS
    known(latencies, 100)
    latencies.add_failure(A, 3)
    assert latencies.ms(A) == 200
    latencies.add_failure(A, 600_000)
    assert latencies.ms(A) == SLOWEST_FIRST_MS


def test_who_was_given_up_was_as_slow_at_least(latencies: Latencies) -> None:
    latencies.add_at_least(A, 500)
    assert latencies.ms(A) is None
    known(latencies, 100)
    latencies.add_at_least(A, 50)
    assert latencies.ms(A) == 100
    latencies.add_at_least(A, 150)
    assert latencies.ms(A) == 150


def test_a_clock_that_goes_back_ages_nothing(time: Time, latencies: Latencies) -> None:
    known(latencies, 100)
    time.ms -= FORGET_MS
    assert latencies.ms(A) == 100


def ended(latency_ms: float, tokens: int = 0, ttft_ms: float | None = None, status: str = "completed", **more: object) -> Attempt:
    given = {"id": "x", "n": 1, "deployment": "", "provider": "", "provider_model": "", "started_ms": 0}
    usage = Usage(output_tokens=tokens)
    told = {"latency_ms": latency_ms, "ttft_ms": ttft_ms, "status": status, "usage": usage}
    return Attempt.model_validate(given | told | more)


def measured() -> Strategies:
    """Two were asked: `a` begins sooner, `b` ends sooner."""
    strategies = Strategies(lambda _: 0, lambda _, at_ms: None, lambda: START_MS)
    strategies.ended(A, ended(9_000, 100, ttft_ms=50))
    strategies.ended(B, ended(5_000, 100, ttft_ms=500))
    return strategies


BY_LATENCY = Model(name="m", deployments=(A, B), strategy="latency-based-routing")


def most(strategies: Strategies, stream: bool, lane: Lane = Lane.INTERACTIVE, model: Model = BY_LATENCY) -> str:
    """Who is taken most often where both have the same weight."""
    pair = [d.model_copy(update={"weight": 1}) for d in model.deployments]
    counts = shares(strategies.of(model, lane, stream), *pair)
    return max(counts, key=lambda name: counts[name])


def test_streams_go_by_the_first_token_and_whole_answers_by_the_time_of_each() -> None:
    assert (most(measured(), True), most(measured(), False)) == ("a", "b")


SLOWER: list[tuple[str, Attempt, bool]] = [
    ("it failed", ended(1, status="failed", http_status=500), False),
    ("it was throttled", ended(1, status="failed", http_status=429), False),
    ("it does not know its model", ended(1, status="failed", http_status=404), False),
    ("it was not there", ended(1, status="failed"), False),
    ("it hung", ended(600_000, status="failed"), True),
    ("it hung until the job's deadline", ended(600_000, status="cancelled"), True),
    ("it broke off", ended(100, 3, ttft_ms=20, status="failed"), False),
]
AS_BEFORE: list[tuple[str, Attempt, bool]] = [
    ("the request was wrong", ended(1, status="failed", http_status=400), False),
    ("the content was refused", ended(1, status="failed", http_status=200, error="content_filter"), False),
    ("nobody waited", ended(1, status="cancelled"), False),
]


@pytest.mark.parametrize(
    ("attempt", "hung", "stays"), [(a, h, False) for _, a, h in SLOWER] + [(a, h, True) for _, a, h in AS_BEFORE]
)
def test_what_a_call_that_did_not_end_well_says(attempt: Attempt, hung: bool, stays: bool) -> None:
    strategies = measured()
    for _ in range(8):
        strategies.ended(A, attempt, hung=hung)
    assert (most(strategies, True) == "a") is stays
    strategies = measured()
    for _ in range(8):
        strategies.ended(B, attempt, hung=hung)
    assert (most(strategies, False) == "b") is stays


def test_a_stream_that_was_given_up_without_a_token_was_as_slow_at_least() -> None:
    strategies = measured()
    for _ in range(8):
        strategies.ended(A, ended(5_000, status="cancelled"), stream=True)
    assert most(strategies, True) == "b"


def test_lane_aware_is_fast_for_interactive_and_cheap_for_batch() -> None:
    strategies = Strategies(lambda _: 0, lambda d, at_ms: {"a": Decimal(1), "b": Decimal(2)}[d.id], lambda: START_MS)
    strategies.ended(A, ended(9_000, 100))
    strategies.ended(B, ended(900, 100))
    model = BY_LATENCY.model_copy(update={"strategy": "lane-aware"})
    assert most(strategies, False, Lane.INTERACTIVE, model) == "b"
    assert shares(strategies.of(model, Lane.BATCH, False), A, B) == {"a": 1000}


# When a call is slow


def test_nineteen_of_twenty_calls_take_no_longer() -> None:
    durations = Durations()
    for ms in range(1, LEAST):
        durations.add(A, ms)
    assert durations.p95_ms(A) is None
    durations.add(A, LEAST)
    assert durations.p95_ms(A) == 19
    assert durations.p95_ms(B) is None


@given(st.lists(st.floats(0, 1e6), min_size=LEAST, max_size=3 * LAST))
def test_only_the_last_few_hundred_count(measured: list[float]) -> None:
    durations = Durations()
    for ms in measured:
        durations.add(A, ms)
    lately = sorted(measured[-LAST:])
    p95_ms = durations.p95_ms(A)
    assert p95_ms in lately
    assert p95_ms is not None
    assert sum(ms <= p95_ms for ms in lately) >= 0.95 * len(lately)
    assert sum(ms < p95_ms for ms in lately) < 0.95 * len(lately)


def test_streams_count_until_the_first_token_and_others_until_their_end() -> None:
    strategies = Strategies(lambda _: 0, lambda _, at_ms: None, lambda: START_MS)
    for n in range(1, 21):
        strategies.ended(A, ended(9_000, 5, ttft_ms=n))
        strategies.ended(A, ended(100 * n, 5))
        strategies.ended(A, ended(1, status="failed"))
    assert (strategies.p95_ms(A, True), strategies.p95_ms(A, False)) == (19, 1_900)


def test_the_slower_of_two_counts_though_it_was_given_up() -> None:
    strategies = Strategies(lambda _: 0, lambda _, at_ms: None, lambda: START_MS)
    for n in range(1, 101):
        strategies.ended(A, ended(n, 5, ttft_ms=n))
        strategies.ended(B, ended(n, 5))
    for _ in range(20):
        strategies.ended(A, ended(500, status="cancelled"), stream=True)
        strategies.ended(A, ended(1, status="cancelled"), stream=True)
        strategies.ended(B, ended(500, status="cancelled"))
        strategies.ended(B, ended(1, status="cancelled"))
    assert (strategies.p95_ms(A, True), strategies.p95_ms(B, False)) == (500, 500)
    assert (strategies.p95_ms(A, False), strategies.p95_ms(B, True)) == (None, None)


@given(
    st.sampled_from(get_args(StrategyName)),
    st.sampled_from(Lane),
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.floats(0, 1e6), st.integers(0, 5000), st.integers(0, 9))),
    st.sets(st.sampled_from("abc"), min_size=1),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_each_strategy_takes_one_of_those_that_may_be_asked(
    name: StrategyName, lane: Lane, known: dict[str, tuple[float, int, int]], up: set[str], stream: bool, chance: float
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
    assert strategies.of(model, lane, stream).choose(allowed, lambda: chance) in allowed


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
    table = of("latency-based-routing", hangs, B)
    on = Bench(Hangs(), *(answer() for _ in range(9)), table=table, clock=virtual_clock, chance=lambda: 0.2)
    assert await asked(on, 6) == ["b"] * 6
    assert [request.deployment.id for request in on.provider.asked] == ["hangs", *["b"] * 6]


@in_virtual_time
async def test_a_call_that_a_jobs_deadline_cut_was_slow() -> None:
    table = of("latency-based-routing", A, B)
    on = Bench(Hangs(), *(answer() for _ in range(3)), table=table, clock=virtual_clock, chance=lambda: 0.2)
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
