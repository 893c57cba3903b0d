"""What holds wherever a job is sent, whatever models, policies, health, quotas and chance there are."""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal, get_args

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from infra.reachable import may_ask
from infra.redis.quota import Taken, Wish
from infra.tokens import prompt_tokens
from schemas.control import Capability, Deployment, Model, StrategyName
from schemas.job import Api, Job
from schemas.policy import DataPolicy, EffectivePolicy, RoutePolicy
from schemas.topics import Lane
from services.router.dispatch import Dispatcher
from services.router.gates.composite import Gates
from services.router.health import IN_A_ROW, Health
from services.router.needs import Needs
from services.router.places import Place, Places
from services.router.quota import Quotas
from services.router.strategies.composite import SLOWEST_FIRST_MS, Strategies
from services.router.strategies.fastest import Fastest, Latencies
from services.router.strategies.weighted import Weighted
from services.router.tally import Tally
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import START_MS, deployment, job, seeded, virtual_clock

# Any world

NAMES = "abcd"
PROMPT_TOKENS = prompt_tokens(Api.CHAT, job().body)

# More often than not nothing is in the way: otherwise hardly anybody would be asked.
SAYS = st.fixed_dictionaries(
    {
        "region": st.sampled_from(["eu", "eu", "us", None]),
        "hipaa": st.sampled_from([True, True, False]),
        "provider": st.sampled_from(["openai", "openai", "anthropic"]),
        "weight": st.floats(0.01, 100),
        "reserved": st.booleans(),
        "order": st.integers(-1, 1),
        "lanes": st.sampled_from([None, None, None, (Lane.BATCH,), (Lane.INTERACTIVE,)]),
        "capabilities": st.sampled_from([None, None, get_args(Capability), ("tools",), ("streaming",), ()]),
        "max_input_tokens": st.sampled_from([None, None, 10_000, PROMPT_TOKENS, PROMPT_TOKENS - 1]),
        "shutdown_date": st.sampled_from([None, None, date(2027, 1, 15), date(2027, 1, 14)]),
        "max_parallel_requests": st.sampled_from([None, 1, 2, 3]),
        "rpm": st.sampled_from([None, None, 1, 2]),
    }
)
LEADS = st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)
RULES = st.builds(
    EffectivePolicy,
    version=st.just("1"),
    data=st.builds(
        DataPolicy, regions=st.sampled_from([None, None, ("eu",), ("eu", "us"), ()]), hipaa=st.sampled_from([False, False, True])
    ),
    route=st.builds(RoutePolicy, providers=st.sampled_from([None, ("openai",), ("openai", "anthropic")])),
)


def asking_for(lane: Lane, stream: bool, tools: bool, rules: EffectivePolicy) -> Job:
    body = job().body | ({"tools": [{"type": "function"}]} if tools else {})
    return job(lane=lane, stream=stream, policy=rules, model="a", body=body)


ASKS = st.builds(asking_for, st.sampled_from(Lane), st.booleans(), st.booleans(), RULES)


@st.composite
def models(draw: st.DrawFn, strategy: StrategyName | None = None) -> dict[str, Model]:
    """Some models that lead to each other; deployments have names of their own."""
    found: dict[str, Model] = {}
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        said = draw(st.lists(SAYS, min_size=2, max_size=5))
        found[name] = Model(
            name=name,
            deployments=tuple(deployment(f"{name}{n}", **says) for n, says in enumerate(said)),
            strategy=strategy or draw(st.sampled_from(get_args(StrategyName))),
            fallbacks=draw(LEADS),
            context_window_fallbacks=draw(LEADS),
            content_policy_fallbacks=draw(LEADS),
        )
    return found


NAMED = st.sampled_from([f"{name}{n}" for name in NAMES for n in range(5)])
SICK = st.sets(NAMED, max_size=3)
Step = Literal["find", "find again", "hedge", "failed", "context", "content"]
STEPS = st.lists(st.sampled_from(get_args(Step)), max_size=8)


def allowed(model: Model, asking: Job) -> list[Deployment]:
    """Those that policy and request let a job ask."""
    needs, rules = Needs(asking, START_MS, prompt_tokens(Api.CHAT, asking.body)), asking.policy
    return [d for d in model.deployments if may_ask(d, rules.data, rules.route) and needs.met_by(d)]


@dataclass(frozen=True)
class Asked:
    """Who is asked for a model, and who was there to be asked instead: up, with a place, and with quota left."""

    taken: Deployment
    model: str
    candidates: Sequence[Deployment]


@dataclass
class World:
    """A dispatcher of one router, whose providers allow so many calls as they say, for good."""

    table: Mapping[str, Model]
    chance: Callable[[], float]
    health: Health = field(default_factory=Health)
    spent: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.places = Places(self.health, virtual_clock)
        self.strategies = Strategies(self.places.busy, lambda d, _: Decimal(len(d.id) % 3), virtual_clock)
        quotas = Quotas(self._ask, self._correct, self.places, virtual_clock)
        gates = Gates(lambda _: None, quotas.share, lambda _, now_ms: None)
        self.dispatcher = Dispatcher(
            self.health, self.places, quotas, gates, virtual_clock, self.chance, self.strategies, Tally(virtual_clock)
        )

    async def walk(self, asking: Job, steps: Sequence[Step]) -> list[Asked]:
        """Where a job is sent that goes this way. Whoever was asked in vain is known to the next step; no place is given back."""
        found: list[Asked] = []
        tried: list[str] = []
        route = await self.dispatcher.route(asking, self.table, self.table["a"])
        for step in steps:
            if step in ("failed", "context", "content"):
                route.move(step)
                continue
            before = {name: self._candidates(model, asking) for name, model in self.table.items()}
            again = () if step == "find" else tuple(tried)
            ask = self.dispatcher.find_now if step == "hedge" else self.dispatcher.find
            began_s = asyncio.get_running_loop().time()
            place = await ask(asking, route, again)
            if isinstance(place, Place):
                untried = [d for d in before[route.model.name] if d.id not in again]
                # Who waited was sent where somebody came up meanwhile, of whom nothing was known before.
                waited = asyncio.get_running_loop().time() > began_s
                candidates = [place.deployment] if waited else untried or before[route.model.name]
                found.append(Asked(place.deployment, route.model.name, candidates))
                assert step != "hedge" or place.deployment.id not in again
                tried.append(place.deployment.id)
        return found

    def _candidates(self, model: Model, asking: Job) -> list[Deployment]:
        return [d for d in allowed(model, asking) if self.places.room(d, asking.lane) and self._left(d)]

    def _left(self, deployment: Deployment) -> bool:
        return deployment.rpm is None or self.spent[deployment.id] < deployment.rpm

    async def _ask(self, deployment: Deployment, wish: Wish) -> Taken:
        if not self._left(deployment):
            return Taken(60_000, full_ms=60_000)
        self.spent[deployment.id] += 1
        return Taken(0, full_ms=0)

    async def _correct(self, deployment: Deployment, wish: Wish, tokens: int) -> None:
        raise AssertionError


def walked(
    table: Mapping[str, Model], asking: Job, steps: Sequence[Step], chance: random.Random, cooled: set[str], drained: set[str]
) -> list[Asked]:
    """Where a job is sent in a world where some are down."""
    found: list[Asked] = []

    @in_virtual_time
    async def check() -> None:
        world = World(table, chance.random)
        world.health.drained = drained
        for name in sorted(cooled):
            for _ in range(IN_A_ROW):
                world.health.failed(name, START_MS, virtual_clock())
        found.extend(await world.walk(asking, ["find", *steps]))
        for asked in found:
            name = asked.taken.id
            assert name not in drained
            assert name not in cooled or asyncio.get_running_loop().time() >= 5, "it cools for five seconds"

    check()
    event(f"{min(len(found), 3)} asked")
    return found


CHANCE = st.randoms(use_true_random=False)


@settings(max_examples=300)
@given(models(), ASKS, STEPS, CHANCE, SICK, SICK)
def test_nobody_is_asked_whom_policy_or_request_forbid_or_who_is_out(
    table: dict[str, Model], asking: Job, steps: list[Step], chance: random.Random, cooled: set[str], drained: set[str]
) -> None:
    rules = asking.policy
    for asked in walked(table, asking, steps, chance, cooled, drained):
        d = asked.taken
        assert rules.data.regions is None or d.region in rules.data.regions
        assert d.hipaa or not rules.data.hipaa
        assert rules.route.providers is None or d.provider in rules.route.providers
        assert d in allowed(table[asked.model], asking)


@settings(max_examples=200)
@given(models(), ASKS, STEPS, CHANCE, SICK, SICK)
def test_the_lowest_order_is_asked_first(
    table: dict[str, Model], asking: Job, steps: list[Step], chance: random.Random, cooled: set[str], drained: set[str]
) -> None:
    for asked in walked(table, asking, steps, chance, cooled, drained):
        assert asked.taken in asked.candidates
        assert asked.taken.order == min(d.order for d in asked.candidates)


@settings(max_examples=200)
@given(models("usage-priority"), ASKS, STEPS, CHANCE, SICK, SICK)
def test_nothing_is_paid_for_while_reserved_capacity_is_left(
    table: dict[str, Model], asking: Job, steps: list[Step], chance: random.Random, cooled: set[str], drained: set[str]
) -> None:
    for asked in walked(table, asking, steps, chance, cooled, drained):
        taken = asked.taken
        assert taken.reserved or not any(d.reserved and d.order == taken.order for d in asked.candidates)


@settings(max_examples=200)
@given(models(), ASKS, CHANCE, SICK, SICK)
def test_whoever_can_be_asked_is(
    table: dict[str, Model], asking: Job, chance: random.Random, cooled: set[str], drained: set[str]
) -> None:
    up = [d for d in allowed(table["a"], asking) if d.id not in cooled | drained]
    found = walked(table, asking, [], chance, cooled, drained)
    assert not up or [asked.taken in up for asked in found] == [True]


# Weights

CHI_SQUARE_OF_3 = 30.7
"""Exceeded by chance once in a million times, with three degrees of freedom."""


@pytest.mark.parametrize("seed", range(3))
def test_weights_hold(seed: int) -> None:
    weights, times, chance = [1, 2, 3, 10], 40_000, seeded(seed)
    deployments = [deployment(str(weight), weight=weight) for weight in weights]
    counts = Counter(Weighted().choose(deployments, chance).id for _ in range(times))
    expected = {str(weight): times * weight / sum(weights) for weight in weights}
    assert sum((counts[name] - n) ** 2 / n for name, n in expected.items()) < CHI_SQUARE_OF_3


def test_weights_hold_among_those_that_are_up() -> None:
    @in_virtual_time
    async def check() -> None:
        table = {"a": Model(name="a", deployments=tuple(deployment(f"a{n}", weight=n + 1) for n in range(4)))}
        world, asking, counts, times = World(table, seeded(7)), job(model="a"), Counter[str](), 20_000
        world.health.drained = ("a2",)
        route = await world.dispatcher.route(asking, table, table["a"])
        for _ in range(times):
            place = await world.dispatcher.find(asking, route)
            assert isinstance(place, Place)
            counts[place.deployment.id] += 1
            place.give_back()
        assert counts["a2"] == 0
        for name, share in (("a0", 1 / 7), ("a1", 2 / 7), ("a3", 4 / 7)):
            assert abs(counts[name] - times * share) < 5 * (times * share * (1 - share)) ** 0.5

    check()


# By how fast they are: routers that don't know of each other, and deployments that change

ROUTERS, SLOW_MS, FAST_MS = 3, 500.0, 50.0
MOST_IN_THE_FIRST_SECOND = 0.7
"""The share of all calls that whoever gets ten times as fast may have then, out of three; it had a third before."""


@dataclass(frozen=True, slots=True)
class Called:
    at_s: float
    deployment: str
    at_once: int


def simulated(ms: Callable[[str, float], float], seconds: float, per_second: float, seed: int) -> list[Called]:
    """Calls that routers make at random, each by what it has seen itself. `ms`: what a deployment takes about at a time."""
    chance, now_s, at_once = random.Random(seed), 0.0, Counter[str]()
    deployments = [deployment(name) for name in "abc"]

    def clock() -> int:
        return START_MS + int(now_s * 1000)

    busy = [Counter[str]() for _ in range(ROUTERS)]
    latencies = [Latencies(clock, SLOWEST_FIRST_MS) for _ in range(ROUTERS)]
    strategies = [Fastest(latencies[n].ms, lambda d, n=n: busy[n][d.id]) for n in range(ROUTERS)]
    under_way: list[tuple[float, int, int, int, float]] = []
    called: list[Called] = []
    while now_s < seconds:
        next_s = now_s + chance.expovariate(per_second)
        while under_way and under_way[0][0] <= next_s:
            now_s, _, router, which, took_ms = heapq.heappop(under_way)
            busy[router][deployments[which].id] -= 1
            at_once[deployments[which].id] -= 1
            latencies[router].add(deployments[which], took_ms)
        now_s, router = next_s, chance.randrange(ROUTERS)
        chosen = strategies[router].choose(deployments, chance.random)
        busy[router][chosen.id] += 1
        at_once[chosen.id] += 1
        took_ms = ms(chosen.id, now_s) * chance.lognormvariate(0, 0.5)
        heapq.heappush(under_way, (now_s + took_ms / 1000, len(called), router, deployments.index(chosen), took_ms))
        called.append(Called(now_s, chosen.id, at_once[chosen.id]))
    return called


def share(called: Sequence[Called], name: str, from_s: float, to_s: float) -> float:
    within = [call.deployment for call in called if from_s <= call.at_s < to_s]
    return within.count(name) / len(within)


def most_at_once(called: Sequence[Called], name: str, from_s: float, to_s: float) -> int:
    return max(call.at_once for call in called if call.deployment == name and from_s <= call.at_s < to_s)


def gets_fast(name: str, at_s: float) -> float:
    return FAST_MS if name == "c" and at_s >= 30 else SLOW_MS


def was_slow(name: str, at_s: float) -> float:
    """It is the fastest, but for half a minute."""
    return 5_000 if name == "c" and 30 <= at_s < 60 else 100 if name == "c" else SLOW_MS


SEEDS = pytest.mark.parametrize("seed", range(3))
PACES = pytest.mark.parametrize("per_second", [50, 200])


@SEEDS
@PACES
def test_who_gets_fast_is_not_flooded_and_gets_most_in_the_end(seed: int, per_second: float) -> None:
    called = simulated(gets_fast, 90, per_second, seed)
    assert share(called, "c", 20, 30) == pytest.approx(1 / 3, abs=0.1)
    assert share(called, "c", 30, 31) < MOST_IN_THE_FIRST_SECOND
    assert most_at_once(called, "c", 30, 31) <= 1.5 * most_at_once(called, "c", 20, 30)
    assert share(called, "c", 60, 90) > 0.8
    assert min(share(called, name, 60, 90) for name in "ab") > 0, "the others are still looked at"


@SEEDS
@PACES
def test_who_gets_slow_is_left_and_found_again_when_it_is_well(seed: int, per_second: float) -> None:
    called = simulated(was_slow, 150, per_second, seed)
    assert share(called, "c", 20, 30) > 0.6
    assert share(called, "c", 35, 60) < 0.1
    assert share(called, "c", 110, 150) > 0.6


@SEEDS
def test_where_little_is_asked_the_fastest_is_found_too(seed: int) -> None:
    called = simulated(lambda name, _: FAST_MS if name == "c" else SLOW_MS, 600, 0.5, seed)
    assert share(called, "c", 60, 600) > 0.6
