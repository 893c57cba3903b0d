"""What holds of every job that is sent out, whatever providers, Redis, brokers, callers and other routers do meanwhile.

Leases and money are the real scripts'. Time is virtual, and the order of events fixed: an example that fails, fails again.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, cast

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from infra.kafka.carriage import Booked, Finish, Nothing, Outcome, PutOff
from infra.redis import ledger
from infra.redis.admission import Admitted, Charge, Limits, admit
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.jobs import Lease
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.budget import NANO, Budget, Period, nano
from schemas.completion import Completion
from schemas.control import Hedge, Model, Organization, Team
from schemas.ids import attempt_id
from schemas.job import Estimate, Job, JobStatus
from schemas.policy import EffectivePolicy, Policy, RoutePolicy
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from schemas.topics import Lane
from services.router.policy import most_calls, status_of
from services.router.providers.base import DONE, Kind, ProviderRequest
from tests.fakes.clock import in_virtual_time
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import (
    START_MS,
    Bench,
    ScriptedProvider,
    answer,
    chunk,
    deployment,
    failure,
    job,
    seeded,
    usage_chunk,
    virtual_clock,
)

SLOWEST_CLOSE_S, BOUND_S = 0.3, 1.0
ESTIMATE = Estimate(input_tokens=10, output_tokens=6, usd_nano=NANO)
"""Too little for some: then streams ask for more, and are cut where there is no more."""

# What a world is like


End = Literal["well", "cut", "garbage", "hangs", "crashes"] | Kind
ENDS: tuple[End, ...] = ("well",) * 5 + ("cut", "garbage", "hangs", "crashes", "unavailable", "throttled", "denied", "final")


@dataclass(frozen=True)
class Part:
    """What one call does: so many words, each after a while, and how it ends. `thinks` before it says anything."""

    pauses: tuple[float, ...]
    end: End
    usage: bool
    thinks: bool
    with_the_last: bool
    billable: bool
    closes_s: float


PAUSES = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.7, 1.5, 4.0])
PARTS = st.builds(
    Part,
    pauses=st.lists(PAUSES, min_size=1, max_size=4).map(tuple),
    end=st.sampled_from(ENDS),
    usage=st.booleans(),
    thinks=st.booleans(),
    with_the_last=st.booleans(),
    billable=st.booleans(),
    closes_s=st.sampled_from([0.0, 0.0, SLOWEST_CLOSE_S]),
)


@dataclass(frozen=True)
class Away:
    """A server is away for so long, from then on."""

    at_s: float
    for_s: float


AWAY = st.builds(Away, st.sampled_from([0.0, 0.0, 0.3, 1.0, 4.0]), st.sampled_from([0.1, 0.5, 2.0, 12.0]))


@dataclass(frozen=True)
class Asks:
    """A job that comes, and what becomes of who sent it. `stolen_s`: when another router would have the job too."""

    at_s: float
    stream: bool
    include_usage: bool
    deadline_s: float
    rules: EffectivePolicy
    lane: Lane
    cancelled_s: float | None
    stolen_s: float | None


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.none(), values)


RULES = st.builds(
    EffectivePolicy,
    version=st.just("1"),
    route=st.builds(
        RoutePolicy,
        on_broken_stream=st.sampled_from([None, "continue", "continue"]),
        max_attempts=st.sampled_from([None, None, 1, 2, 5]),
    ),
    when_redis_is_away=st.sampled_from(["closed", "open"]),
)


def asks(stream: st.SearchStrategy[bool], rules: st.SearchStrategy[EffectivePolicy]) -> st.SearchStrategy[Asks]:
    return st.builds(
        Asks,
        at_s=st.sampled_from([0.0, 0.0, 0.5]),
        stream=stream,
        include_usage=st.sampled_from([True, True, False]),
        deadline_s=st.sampled_from([60.0, 60.0, 8.0, 1.0]),
        rules=rules,
        lane=st.sampled_from([Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.BATCH]),
        cancelled_s=maybe(st.floats(0, 8)),
        stolen_s=maybe(st.sampled_from([0.0, 1.0, 13.0])),
    )


ASKS = asks(st.booleans(), RULES)
SAYS = st.fixed_dictionaries(
    {
        "timeout_s": st.sampled_from([None, 3.0]),
        "first_token_timeout_s": st.sampled_from([None, 1.0]),
        "silence_timeout_s": st.sampled_from([None, 1.0]),
        "on_disconnect": st.sampled_from(["abort", "drain"]),
        "max_parallel_requests": st.sampled_from([None, None, 1]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Model, ...]:
    """The model that is asked for, and perhaps one that it falls back on."""
    said = draw(st.lists(SAYS, min_size=1, max_size=4))
    leads = draw(st.booleans())
    first = Model(
        name="alias",
        deployments=tuple(deployment(f"d{n}", **says) for n, says in enumerate(said)),
        hedge=draw(st.sampled_from([None, Hedge(after_s=0.5, most_share=1), Hedge(after_s=0.5, most_share=1)])),
        num_retries=draw(st.sampled_from([None, None, 0, 2])),
        fallbacks=("other",) if leads else (),
    )
    other = Model(name="other", deployments=(deployment("o1"), deployment("o2")), hedge=first.hedge)
    return (first, other) if leads else (first,)


@dataclass(frozen=True)
class Setting:
    """A whole world. `budget_usd`: of the team; None: nobody counts. `loses`: of Redis' answers, which are lost on their way."""

    table: tuple[Model, ...]
    parts: tuple[Part, ...]
    asks: tuple[Asks, ...]
    redis_away: Away | None
    loses: frozenset[int]
    brokers_away: Away | None
    renewed: frozenset[str]
    budget_usd: int | None
    leaves_s: float | None
    seed: int


WELL = st.none()
SETTINGS = {
    "table": tables(),
    "parts": st.lists(PARTS, min_size=1, max_size=6).map(tuple),
    "asks": st.lists(ASKS, min_size=1, max_size=3).map(tuple),
    "redis_away": st.one_of(WELL, AWAY),
    "loses": st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 12), max_size=3)),
    "brokers_away": st.one_of(WELL, AWAY),
    "renewed": st.frozensets(st.sampled_from(["d0", "d1"])),
    "budget_usd": st.sampled_from([None, None, 1, 2, 5, 1000]),
    "leaves_s": st.one_of(WELL, WELL, WELL, st.floats(0, 6)),
    "seed": st.integers(0, 99),
}
PATIENT = EffectivePolicy(version="1", route=RoutePolicy(on_broken_stream="continue", max_attempts=5))
FAIL_OPEN = EffectivePolicy(version="1", when_redis_is_away="open")


# The world


class SickRedis(LuaRedis):
    """Once it is `sick`, it is away for a while, and some answers are lost on their way."""

    def __init__(self, world: Setting) -> None:
        super().__init__(virtual_clock)
        self._away, self._loses, self._asked = world.redis_away, world.loses, -1
        self.sick = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        if not self.sick:
            return self.now(script, keys, args)
        await asyncio.sleep(0.001)
        if _is(self._away):
            raise RedisUnavailable("away")
        self._asked += 1
        said = self.now(script, keys, args)
        if self._asked in self._loses:
            raise RedisUnavailable("the answer was lost")
        return said


def _is(away: Away | None) -> bool:
    now_s = asyncio.get_running_loop().time()
    return away is not None and away.at_s <= now_s < away.at_s + away.for_s


@dataclass
class Made:
    """A call that came to a provider, and what it said. `held_nano`: what was held for its job then; `at_once`: it and others."""

    id: str
    deployment: str
    part: Part
    said: list[str] = field(default_factory=list[str])
    open: bool = True
    held_nano: int = 0
    at_once: int = 1
    goes_on_from: str | None = None

    @property
    def job_id(self) -> str:
        return f"job_{self.id.removeprefix('att_').rpartition('_')[0]}"

    @property
    def n(self) -> int:
        return int(self.id.rpartition("_")[2])


@dataclass
class Providers(ScriptedProvider):
    """All providers: each call does the next part."""

    parts: deque[Part] = field(default_factory=deque[Part])
    made: list[Made] = field(default_factory=list[Made])
    redis: LuaRedis = field(kw_only=True)

    def _begin(self, request: ProviderRequest) -> Made:
        self.parts.rotate(-1)
        made = Made(request.id, request.deployment.id, self.parts[-1])
        made.held_nano = int(self.redis.keys.hget(f"hold:{made.job_id}".encode(), b"u") or 0)
        before = cast("list[JsonObject]", request.body["messages"])[1:]
        made.goes_on_from = str(before[0]["content"]) if before else None
        made.at_once += sum(one.open for one in self.made if one.job_id == made.job_id)
        self.made.append(made)
        return made

    async def _end(self, made: Made) -> None:
        match made.part.end:
            case "hangs":
                await asyncio.Event().wait()
            case "crashes":
                raise KeyError("a bug")
            case "unavailable" | "throttled" | "denied" | "final" as kind:
                raise failure(kind, 500, billable=made.part.billable)
            case _:
                return

    async def call(self, request: ProviderRequest) -> str:
        made = self._begin(request)
        try:
            await asyncio.sleep(sum(made.part.pauses))
            await self._end(made)
            made.said.append(f"{made.n}.0 ")
            usage: JsonObject | None = None if made.part.usage else {}
            return answer(made.said[0], usage) if made.part.end == "well" else "<html>"
        finally:
            await _close(made)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        made = self._begin(request)
        part = made.part
        last = [*([usage_chunk(7, 3)] if part.usage else []), DONE]
        end = {"well": [chunk(finish="stop"), *last], "garbage": ["<html>"]}.get(part.end, [])
        try:
            yield [chunk("", role="assistant")]
            for n, pause in enumerate(part.pauses):
                await asyncio.sleep(pause)
                if part.thinks and n == 0:
                    yield ['{"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}']
                    continue
                made.said.append(f"{made.n}.{len(made.said)} ")
                yield [chunk(made.said[-1]), *(end if part.with_the_last and n == len(part.pauses) - 1 else [])]
            if not part.with_the_last or (part.thinks and len(part.pauses) == 1):
                yield end
            await self._end(made)
        finally:
            await _close(made)


async def _close(made: Made) -> None:
    try:
        await asyncio.sleep(made.part.closes_s)
    finally:
        made.open = False


_REFUSED = ("failed", "denied")


class World:
    """A router in this world, and everything that happens to it."""

    def __init__(self, world: Setting) -> None:
        self.setting = world
        self.redis = SickRedis(world)
        on = self.on = Bench(table=world.table[0], clock=virtual_clock, chance=seeded(world.seed), redis=self.redis)
        for model in world.table[1:]:
            on.control.put(model)
        self.providers = on.provider = Providers(parts=deque(world.parts), redis=self.redis)
        self.holding: set[str] = set()
        on.renewed.extend(world.renewed)
        self.granted: dict[str, list[int]] = {}
        self._leased(on.sender)
        self.events: dict[str, list[tuple[Event, int, int]]] = {}
        self._posted(on)
        self.stolen: set[str] = set()
        self.ended_s: dict[str, float] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.jobs = [self._job(n, asks) for n, asks in enumerate(world.asks)]

    def _leased(self, sender: Any) -> None:
        lease = sender.lease

        async def noted(of: Job, *args: Any, **more: Any) -> Lease:
            said = cast("Lease", await lease(of, *args, **more))
            if said.state == "granted":
                self.granted.setdefault(of.id, []).append(said.n)
            return said

        sender.lease = noted

    def _posted(self, on: Bench) -> None:
        async def begin(of: Job, told: Event, attempt: int, seq: int, _: str) -> Awaitable[object]:
            while _is(self.setting.brokers_away):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            self.events.setdefault(of.id, []).append((told, attempt, seq))
            return asyncio.ensure_future(asyncio.sleep(0.01))

        setattr(on.post, "begin_reply", begin)  # noqa: B010

    def _job(self, n: int, asks: Asks) -> Job:
        accepted_ms = START_MS + int(asks.at_s * 1000)
        return job(
            id=f"job_{n:032x}",
            stream=asks.stream and asks.lane is Lane.INTERACTIVE,
            include_usage=asks.include_usage,
            lane=asks.lane,
            policy=asks.rules,
            accepted_ms=accepted_ms,
            deadline_ms=accepted_ms + int(asks.deadline_s * 1000),
            estimate=ESTIMATE,
        )

    async def live(self) -> None:
        if self.setting.budget_usd is not None:
            await self._counts(self.setting.budget_usd)
        self.redis.sick = True
        await self.on.running.start()
        pairs = list(zip(self.jobs, self.setting.asks, strict=True))
        asked = [asyncio.create_task(self._ask(*pair)) for pair in pairs]
        others = [asyncio.create_task(trouble(*pair)) for pair in pairs for trouble in (self._cancel, self._steal)]
        if self.setting.leaves_s is not None:
            await asyncio.sleep(self.setting.leaves_s)
            self.on.running.stop_draining()
            for task in asked:
                task.cancel()
        for ended in await asyncio.gather(*asked, return_exceptions=True):
            assert not isinstance(ended, Exception), repr(ended)
        await asyncio.gather(*others)
        await self.on.running.stop()

    async def _counts(self, budget_usd: int) -> None:
        """The team has so much, of which each job that somebody waits for holds what it may cost."""
        on = self.on
        on.control.put(Organization(id="o", name="org"))
        budgets = (Budget(usd=Decimal(budget_usd), period=Period.TOTAL),)
        on.control.put(Team(id="t", name="team", organization="org", policy=Policy(budgets=budgets)))
        await ledger.open_ledger(self.redis, "first", {}, {})
        for of in self.jobs:
            account = on.purse._account(of)  # pyright: ignore[reportPrivateUsage]
            limits = Limits(allowances=account.allowances(of.accepted_ms))
            charge = Charge(limits, 30, NANO, of.deadline_ms - START_MS + 60_000)
            if of.lane is Lane.INTERACTIVE and isinstance(await admit(self.redis, charge, job_id=of.id), Admitted):
                self.holding.add(of.id)

    async def _ask(self, of: Job, asks: Asks) -> None:
        await asyncio.sleep(asks.at_s)
        self.outcomes[of.id] = await self.on.handle(of)
        self.ended_s[of.id] = asyncio.get_running_loop().time()

    async def _cancel(self, of: Job, asks: Asks) -> None:
        if asks.cancelled_s is not None:
            await asyncio.sleep(asks.at_s + asks.cancelled_s)
            self.on.running.cancel(of.id)

    async def _steal(self, of: Job, asks: Asks) -> None:
        """Another router takes the job, if it can, and ends it."""
        if asks.stolen_s is None:
            return
        await asyncio.sleep(asks.at_s + asks.stolen_s)
        keys = [f"job:{of.id}", f"answer:{of.id}"]
        said = self.redis.now(Script.load("lease"), keys, ("thief", "1", 10_000, 60_000, 9, "1", 0, "", 0, 0))
        if cast("list[bytes]", said)[0] in (b"granted", b"interrupted"):
            self.stolen.add(of.id)
            self.redis.now(Script.load("mark"), keys, ("done", 60_000, "", 0))

    # What must hold

    def check(self) -> None:
        running, places = self.on.running, self.on.places
        assert not len(running)
        assert not running.retrying
        for model in self.setting.table:
            for one in model.deployments:
                assert not places.busy(one), f"a place of {one.id} was never given back"
                assert not places.share(one)
        assert not [made.id for made in self.providers.made if made.open], "calls that were never closed"
        for of in self.jobs:
            self._check_calls(of)
            self._check_told(of)
            if of.id in self.outcomes:
                self._check_end(of, self.outcomes[of.id])
        self._check_hedges()

    @property
    def _redis_is_well(self) -> bool:
        return self.setting.redis_away is None and not self.setting.loses

    def _made(self, of: Job) -> list[Made]:
        return [made for made in self.providers.made if made.job_id == of.id]

    def _check_calls(self, of: Job) -> None:
        made = self._made(of)
        numbers = [one.n for one in made]
        assert len(set(numbers)) == len(numbers), "an attempt was called twice"
        granted = self.granted.get(of.id, [])
        assert len(set(granted)) == len(granted), "a number was of twice"
        assert set(numbers) <= set(granted)
        assert len(granted) <= most_calls(self.setting.table[0], of.policy.route)
        if of.id in self.holding and self._redis_is_well and of.id not in self.stolen:
            assert all(one.held_nano >= one.at_once * NANO for one in made), "calls that were never covered"

    def _check_end(self, of: Job, outcome: Outcome) -> None:
        event(type(outcome).__name__)
        self._check_time(of)
        match outcome:
            case PutOff(job=waits):
                assert of.lane is Lane.BATCH
                self._check_attempts(of, waits.made)
                if self._redis_is_well:
                    held = int(self.redis.keys.hget(f"hold:{of.id}".encode(), b"u") or 0)
                    assert held == (self.setting.budget_usd is not None) * sum(nano(one.cost_usd) for one in waits.made)
            case Nothing():
                assert of.id in self.stolen
            case Booked(completion=completion):
                assert of.id in self.stolen
                self._check_attempts(of, completion.attempts)
            case Finish(completion=completion):
                self._check_attempts(of, completion.attempts)
                self._check_finish(of, outcome)
            case _:
                raise AssertionError(outcome)

    def _check_time(self, of: Job) -> None:
        """Nobody may wait for longer than the deadline, or until servers are back without which nothing can be told."""
        aways = [away for away in (self.setting.redis_away, self.setting.brokers_away) if away]
        back_s = max((away.at_s + away.for_s for away in aways), default=0)
        deadline_s = (of.deadline_ms - START_MS) / 1000
        # Calls of a job that was cancelled are let end, but not beyond its deadline.
        assert self.ended_s[of.id] <= max(deadline_s, back_s) + BOUND_S

    def _check_attempts(self, of: Job, attempts: Sequence[Attempt]) -> None:
        made = {one.n: one for one in self._made(of)}
        numbers = [one.n for one in attempts]
        assert numbers == sorted(self.granted.get(of.id, [])), "one attempt for each number"
        if of.id not in self.stolen:
            assert numbers == list(range(1, len(numbers) + 1)), "numbers without a gap"
        assert [one.id for one in attempts] == [attempt_id(of.id, n) for n in numbers]
        for one in attempts:
            self._check_attempt(one, made.get(one.n))
        # What was given up before it came to its end refused nothing: only an answer has a status.
        told = [one for one in attempts if one.n in made and one.http_status == 500]
        refused = Counter(one.deployment for one in told if (one.status, made[one.n].part.end) == _REFUSED)
        for name, times in refused.items():
            assert times <= 1 + (name in self.setting.renewed), "who has refused our credential was asked again"
        if len({one.model for one in attempts if one.hedge}) and not of.policy.route.max_attempts:
            event("hedged")

    def _check_attempt(self, attempt: Attempt, made: Made | None) -> None:
        usage = attempt.usage
        assert attempt.cost_usd == Decimal("0.001") * usage.input_tokens + Decimal("0.002") * usage.output_tokens
        if made is None:
            assert (attempt.status, attempt.error, usage.source) == ("cancelled", "hedged", "none"), "it was never called"
            return
        assert attempt.deployment == made.deployment
        match attempt.status:
            case "completed":
                assert made.part.end == "well"
                assert usage.source == ("provider" if made.part.usage else "estimated")
            case "failed":
                assert made.part.end != "well" or attempt.error == "provider_error" or attempt.error == "internal_error"
                if made.part.end in ("denied", "throttled") and not made.part.billable and attempt.http_status == 500:
                    assert usage.source in ("none", "provider")
            case _:
                assert usage.input_tokens > 0, "it was asked"

    def _check_finish(self, of: Job, end: Finish) -> None:
        completion, told = end.completion, self.events.get(of.id, [])
        event(completion.status.value)
        assert (completion.status is JobStatus.COMPLETED) == isinstance(end.last, Answer | Closed)
        if isinstance(end.last, Failed):
            assert completion.status in (status_of(end.last.fault), JobStatus.INCOMPLETE)
            assert completion.fault == end.last.fault
        else:
            assert of.stream == isinstance(end.last, Closed)
            assert any(one.status == "completed" for one in completion.attempts)
        if isinstance(end.last, Answer):
            [winner] = [one for one in self._made(of) if one.n == end.attempt]
            assert winner.said[0] in end.last.body
            assert end.last.served.deployment == winner.deployment
        assert end.seq == len(told), "the last event has the next number"
        if told:
            assert end.attempt == told[0][1]
        assert {one.status for one in completion.attempts} <= {"completed", "failed", "cancelled"}
        if isinstance(end.last, Closed):
            self._check_whole(of, completion)

    def _check_told(self, of: Job) -> None:
        """One attempt's text from its beginning; behind a mark, that of another one."""
        told = self.events.get(of.id, [])
        assert [seq for _, _, seq in told] == list(range(len(told)))
        assert len({n for _, n, _ in told}) <= 1
        assert all(isinstance(one, Opened) == (seq == 0) for one, _, seq in told)
        said = {one.n: one.said for one in self._made(of)}
        for n, words in self._pieces(of):
            assert words == said[n][: len(words)], "words are missing, doubled or mixed"
        for made in self._made(of):
            has = "".join(word for n, words in self._pieces(of) if n < made.n for word in words)
            assert made.goes_on_from in (None, has), "who goes on has to know what the reader has"

    def _chunks(self, of: Job) -> list[JsonObject]:
        return [from_json(data) for one, _, _ in self.events.get(of.id, []) if isinstance(one, Delta) for data in one.data]

    def _pieces(self, of: Job) -> list[tuple[int, list[str]]]:
        """The words that the reader has of each attempt, in order; only a mark comes between two of them."""
        pieces: list[tuple[int, list[str]]] = []
        marked = True
        for told in self._chunks(of):
            if "sluice" in told:
                assert of.policy.route.on_broken_stream == "continue"
                event("continued")
                marked = True
            for choice in cast("list[JsonObject]", told["choices"]):
                word = cast("JsonObject", choice["delta"]).get("content")
                if not isinstance(word, str) or not word:
                    continue
                n = int(word.partition(".")[0])
                if not pieces or pieces[-1][0] != n:
                    assert marked, "another call's words, and nobody says so"
                    assert not pieces or pieces[-1][0] < n
                    pieces.append((n, []))
                marked = False
                pieces[-1][1].append(word)
        return pieces

    def _check_whole(self, of: Job, completion: Completion) -> None:
        """A stream that ended well: its last call's text is whole, and the usage that is told is that of all it is made of."""
        pieces, made = self._pieces(of), {one.n: one for one in self._made(of)}
        last = max(one.n for one in completion.attempts if one.status == "completed")
        words = dict(pieces).get(last, [])
        assert words == made[last].said
        usages = [cast("JsonObject", told["usage"]) for told in self._chunks(of) if told.get("usage")]
        if of.include_usage and made[last].part.usage:
            first = self.events[of.id][0][1]
            chain = [one.usage for one in completion.attempts if one.n == first or (one.n > first and not one.hedge)]
            assert [(u["prompt_tokens"], u["completion_tokens"]) for u in usages] == [
                (sum(u.input_tokens for u in chain), sum(u.output_tokens for u in chain))
            ]
        else:
            assert not usages

    def _check_hedges(self) -> None:
        hedge = self.setting.table[0].hedge
        hedges = [
            attempt
            for outcome in self.outcomes.values()
            if isinstance(outcome, Finish | Booked)
            for attempt in outcome.completion.attempts
            if attempt.hedge
        ]
        assert not hedges or hedge
        if hedge:
            calls = len(self.providers.made)
            assert len([one for one in hedges if one.error != "hedged" or one.usage.source != "none"]) <= hedge.most_share * calls


def lives(world: Setting) -> None:
    @in_virtual_time
    async def run() -> None:
        lived = World(world)
        await lived.live()
        lived.check()

    # What the router says of all that goes wrong here is long, and writing it costs more than the work.
    logging.disable(logging.CRITICAL)
    try:
        run()
    finally:
        logging.disable(logging.NOTSET)


anything = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@anything
@given(st.builds(Setting, **SETTINGS))
def test_whatever_happens(world: Setting) -> None:
    lives(world)


BREAKS = st.builds(
    Part,
    pauses=st.lists(st.sampled_from([0.0, 0.1]), min_size=1, max_size=3).map(tuple),
    end=st.sampled_from(["well", "cut", "garbage", "unavailable"]),
    usage=st.sampled_from([True, True, False]),
    thinks=st.sampled_from([False, False, True]),
    with_the_last=st.booleans(),
    billable=st.booleans(),
    closes_s=st.just(0.0),
)


@anything
@given(
    st.builds(
        Setting,
        **SETTINGS
        | {
            "parts": st.lists(BREAKS, min_size=2, max_size=4).map(tuple),
            "asks": st.tuples(asks(st.just(True), st.just(PATIENT))),
            "redis_away": WELL,
            "leaves_s": WELL,
        },
    )
)
def test_streams_that_break(world: Setting) -> None:
    lives(world)


@anything
@given(
    st.builds(
        Setting,
        **SETTINGS | {"redis_away": AWAY, "asks": st.tuples(asks(st.booleans(), st.just(FAIL_OPEN))), "leaves_s": WELL},
    )
)
def test_while_redis_is_away_and_nobody_waits_for_it(world: Setting) -> None:
    lives(world)


SLOW = st.builds(
    Part,
    pauses=st.lists(st.sampled_from([0.0, 0.4, 0.5, 0.6, 1.0]), min_size=1, max_size=3).map(tuple),
    end=st.sampled_from(["well", "well", "unavailable", "denied", "final", "hangs"]),
    usage=st.booleans(),
    thinks=st.booleans(),
    with_the_last=st.booleans(),
    billable=st.booleans(),
    closes_s=st.sampled_from([0.0, SLOWEST_CLOSE_S]),
)
TWO = Model(name="alias", deployments=(deployment("d0"), deployment("d1")), hedge=Hedge(after_s=0.5, most_share=1))


@anything
@given(
    st.builds(
        Setting,
        **SETTINGS | {"table": st.just((TWO,)), "parts": st.lists(SLOW, min_size=2, max_size=4).map(tuple), "leaves_s": WELL},
    )
)
def test_races(world: Setting) -> None:
    lives(world)
