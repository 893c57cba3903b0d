"""A job goes on with another model: when, to which, and never after the first token; and never where its policy forbids."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.kafka.carriage import Finish, PutOff
from infra.reachable import reachable
from infra.redis.jobs import Lease
from schemas.control import Deployment, Model
from schemas.errors import Fault
from schemas.gates import WindowGate
from schemas.job import JobStatus
from schemas.kept import Kept
from schemas.policy import DataPolicy, EffectivePolicy, RoutePolicy
from schemas.reply import Answer, Failed, Opened
from schemas.topics import Lane
from services.router.health import IN_A_ROW
from services.router.policy import most_calls
from services.router.providers.base import ProviderFailure, ProviderRequest
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import (
    START_MS,
    STREAM,
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

TOO_LONG = "This model's maximum context length is 8192 tokens."
REFUSED = '{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}], "usage": {"prompt_tokens": 9}}'
STREAM_REFUSED = [[chunk("", role="assistant")], [chunk(finish="content_filter"), usage_chunk(9, 0), "[DONE]"]]


def said(status: int, code: str | None = None, message: str = "no") -> ProviderFailure:
    """What a provider refuses for good."""
    return ProviderFailure(
        "final", Fault(status=status, type="t", code=code, message=message, owner="provider"), http_status=status
    )


@dataclass
class Tree(ScriptedProvider):
    """Each deployment does what `does` says, always; what it doesn't know answers."""

    does: dict[str, object] = field(default_factory=dict[str, object])

    async def call(self, request: ProviderRequest) -> str:
        self.script.append(self.does.get(request.deployment.id, answer(request.deployment.id)))
        return await super().call(request)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        self.script.append(self.does.get(request.deployment.id, STREAM))
        async for batch in super().stream(request):
            yield batch

    @property
    def called(self) -> list[str]:
        return [request.deployment.id for request in self.asked]


def named(name: str, *deployments: Deployment, **changes: object) -> Model:
    """A model with the deployment `<name>1`, unless others are given."""
    return Model.model_validate({"name": name, "deployments": deployments or (deployment(f"{name}1"),), **changes})


def bench(*models: Model, chance: Callable[[], float] = lambda: 0.0, **does: object) -> tuple[Bench, Tree]:
    on = Bench(table=models[0], clock=virtual_clock, chance=chance)
    for model in models[1:]:
        on.control.put(model)
    on.provider = tree = Tree(does=does)
    return on, tree


def cool(on: Bench, *deployments: str) -> None:
    for name in deployments:
        for _ in range(IN_A_ROW):
            on.health.failed(name, START_MS, virtual_clock())


def finished(outcome: object) -> Finish:
    assert isinstance(outcome, Finish)
    return outcome


def fault_of(outcome: object) -> Fault:
    last = finished(outcome).last
    assert isinstance(last, Failed)
    return last.fault


def served(outcome: object) -> tuple[str, str]:
    """Model and deployment that answered."""
    last = finished(outcome).last
    assert isinstance(last, Answer)
    return last.served.model, last.served.deployment


LANES = pytest.mark.parametrize("lane", list(Lane))
ALIAS, B = named("alias", fallbacks=("b",)), named("b")


# When all deployments have failed, or are down


@LANES
def test_a_model_that_fails_is_followed_by_its_fallback_at_once(lane: Lane) -> None:
    @in_virtual_time
    async def check() -> None:
        on, tree = bench(ALIAS, B, alias1=failure())
        end = finished(await on.handle(job(lane=lane)))
        assert tree.called == ["alias1", "b1"]
        assert served(end) == ("b", "b1")
        assert [(a.n, a.deployment, a.status) for a in end.completion.attempts] == [
            (1, "alias1", "failed"),
            (2, "b1", "completed"),
        ]
        assert asyncio.get_running_loop().time() == 0
        assert end.completion.model == "alias"
        assert [ask["note"] for ask in on.records.asks] == [f"{START_MS} alias1", f"{START_MS} b1"]
        assert on.records.asks[1]["held"] == 1

    check()


@LANES
def test_a_model_that_is_down_is_not_asked(lane: Lane) -> None:
    @in_virtual_time
    async def check() -> None:
        on, tree = bench(ALIAS, B)
        cool(on, "alias1")
        assert served(await on.handle(job(lane=lane))) == ("b", "b1")
        assert tree.called == ["b1"]

    check()


@in_virtual_time
async def test_what_a_fallback_said_is_not_cached_for_those_who_ask_the_model() -> None:
    for stream in (False, True):
        on, _ = bench(ALIAS, B, alias1=failure())
        end = finished(await on.handle(job(stream=stream)))
        assert end.completion.cache_key is None
        assert Kept.model_validate_json(on.records.kept).completion == end.completion


@in_virtual_time
async def test_other_deployments_of_the_model_come_before_its_fallback_which_has_the_last_call() -> None:
    many = named("alias", *(deployment(f"d{n}") for n in range(4)), fallbacks=("b",))
    on, tree = bench(many, B, d0=failure(), d1=failure(), d2=failure(), d3=failure())
    assert served(await on.handle()) == ("b", "b1")
    assert tree.called == ["d0", "d1", "b1"]


@in_virtual_time
async def test_a_fallback_fails_over_to_its_own() -> None:
    on, tree = bench(ALIAS, named("b", fallbacks=("c",)), named("c"), alias1=failure(), b1=failure())
    assert served(await on.handle()) == ("c", "c1")
    assert tree.called == ["alias1", "b1", "c1"]


@in_virtual_time
async def test_when_all_have_failed_interactive_is_told_of_the_last() -> None:
    on, tree = bench(ALIAS, named("b", num_retries=0), alias1=failure(), b1=failure())
    end = finished(await on.handle())
    assert fault_of(end).code == "provider_error"
    assert tree.called == ["alias1", "b1"]
    assert end.completion.status is JobStatus.FAILED


@in_virtual_time
async def test_when_all_have_failed_batch_comes_again_and_begins_with_its_model() -> None:
    on, tree = bench(ALIAS, named("b", num_retries=0), alias1=failure(), b1=failure())
    outcome = await on.handle(job(lane=Lane.BATCH))
    assert isinstance(outcome, PutOff)
    assert [a.deployment for a in outcome.job.made] == ["alias1", "b1"]
    tree.does.clear()
    end = finished(await on.carry(outcome.job))
    assert served(end) == ("alias", "alias1")
    assert [a.n for a in end.completion.attempts] == [1, 2, 3]


@in_virtual_time
async def test_what_a_fallback_refuses_for_good_does_not_end_a_batch_job_whose_model_may_be_well_again() -> None:
    on, _ = bench(ALIAS, B, alias1=failure(), b1=said(400))
    assert isinstance(await on.handle(job(lane=Lane.BATCH)), PutOff)
    assert fault_of(await on.handle(job(id="job_018f00000000700080000000000000bb"))).code == "provider_error"


@in_virtual_time
async def test_while_all_are_down_batch_waits_for_the_first_that_may_be_up_and_interactive_is_told() -> None:
    on, tree = bench(ALIAS, B)
    cool(on, "b1")
    await asyncio.sleep(2)
    cool(on, "alias1")
    outcome = await on.handle(job(lane=Lane.BATCH))
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 5_000
    fault = fault_of(await on.handle())
    assert (fault.code, fault.retry_after_s) == ("provider_unavailable", 5)
    assert "`alias`" in fault.message
    assert not tree.called


@in_virtual_time
async def test_batch_does_not_wait_for_a_fallback_that_is_down_when_its_own_model_may_be_well_again_sooner() -> None:
    on, tree = bench(named("alias", num_retries=0, fallbacks=("b",)), B, alias1=failure())
    cool(on, "b1")
    outcome = await on.handle(job(lane=Lane.BATCH))
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS, "by chance at once; the fallback is down for 5 s"
    assert tree.called == ["alias1"]


@in_virtual_time
async def test_while_no_fallback_is_up_the_model_is_tried_again() -> None:
    on, tree = bench(ALIAS, B, alias1=failure())
    cool(on, "b1")
    assert fault_of(await on.handle()).code == "provider_error"
    assert tree.called == ["alias1"] * 3


@in_virtual_time
async def test_of_a_quota_in_use_interactive_falls_back_and_batch_waits() -> None:
    on, tree = bench(named("alias", deployment("alias1", rpm=60), fallbacks=("b",)), B)
    on.quota_waits += [30_000, 30_000]
    assert served(await on.handle()) == ("b", "b1")
    assert isinstance(await on.handle(job(lane=Lane.BATCH, deadline_ms=START_MS + 3_600_000)), PutOff)
    assert tree.called == ["b1"]


@in_virtual_time
async def test_batch_waits_at_the_gate_of_its_model_and_at_that_of_its_fallback() -> None:
    gate = (WindowGate(window="22:00-06:00"),)  # START_MS is 08:00
    later = job(lane=Lane.BATCH, deadline_ms=START_MS + 86_400_000)
    on, tree = bench(named("alias", fallbacks=("b",), gates=gate), B)
    assert isinstance(await on.handle(later), PutOff)
    on, tree = bench(ALIAS, named("b", gates=gate))
    cool(on, "alias1")
    outcome = await on.handle(later)
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 5_000, "when its own model may be up"
    assert not tree.called


@in_virtual_time
async def test_never_after_the_first_token() -> None:
    on, tree = bench(ALIAS, B, alias1=[[chunk("one two")], failure()])
    assert fault_of(await on.handle(job(stream=True))).code == "provider_error"
    assert tree.called == ["alias1"]


@in_virtual_time
async def test_before_the_first_token_a_stream_goes_on_with_the_fallback_and_says_so() -> None:
    on, _ = bench(ALIAS, B, alias1=[[chunk("", role="assistant")], failure()])
    finished(await on.handle(job(stream=True)))
    opened = on.post.sent[0][0]
    assert isinstance(opened, Opened)
    assert (opened.served.model, opened.served.deployment) == ("b", "b1")


@in_virtual_time
async def test_a_call_of_a_dead_life_at_a_fallback_is_told_with_what_it_may_cost() -> None:
    on, _ = bench(ALIAS, B)
    on.records.leases.append(Lease("granted", n=2, notes=(f"{START_MS - 5} b1",)))
    [unknown, _] = finished(await on.handle()).completion.attempts
    assert (unknown.status, unknown.deployment, unknown.provider) == ("unknown", "b1", "openai")
    assert unknown.cost_usd > 0


# Reasons of their own


CONTEXT = named("alias", context_window_fallbacks=("long",), content_policy_fallbacks=("free",), fallbacks=("b",))
OTHERS = (named("long"), named("free"), B)
REASONS: list[tuple[str, object, list[str]]] = [
    ("its code", said(400, "context_length_exceeded"), ["alias1", "long1"]),
    ("its words", said(400, None, TOO_LONG), ["alias1", "long1"]),
    ("a refused prompt", said(400, "content_filter"), ["alias1", "free1"]),
    ("a refused prompt, elsewhere", said(400, "content_policy_violation"), ["alias1", "free1"]),
    ("a refused answer", REFUSED, ["alias1", "free1"]),
    ("our credential", ProviderFailure("final", failure().fault, http_status=401), ["alias1", "b1"]),
    ("a model it doesn't have", said(404, "model_not_found"), ["alias1", "b1"]),
    ("throttled", failure("throttled", 429, retry_after_s=60.0), ["alias1", "b1"]),
    ("a request that is wrong anywhere", said(400, "invalid_value"), ["alias1"]),
    ("too large", said(413), ["alias1"]),
]


@LANES
@pytest.mark.parametrize(("does", "called"), [case[1:] for case in REASONS], ids=[case[0] for case in REASONS])
def test_each_reason_has_its_own_fallbacks(does: object, called: list[str], lane: Lane) -> None:
    @in_virtual_time
    async def check() -> None:
        on, tree = bench(CONTEXT, *OTHERS, alias1=does)
        end = finished(await on.handle(job(lane=lane)))
        assert tree.called == called
        assert (end.completion.status is JobStatus.COMPLETED) == (len(called) > 1)
        assert on.health.cools_until("alias1", virtual_clock()) == 0

    check()


@in_virtual_time
async def test_a_refused_answer_is_an_answer_where_nobody_else_is_to_be_asked() -> None:
    on, _ = bench(ALIAS, B, alias1=REFUSED)
    assert served(await on.handle()) == ("alias", "alias1")
    on, _ = bench(CONTEXT, *OTHERS, alias1=REFUSED)
    limited = EffectivePolicy(version="1", route=RoutePolicy(max_attempts=1))
    assert served(await on.handle(job(policy=limited))) == ("alias", "alias1")


@in_virtual_time
async def test_a_stream_that_is_refused_before_a_word_goes_on_and_what_it_cost_is_told() -> None:
    on, tree = bench(CONTEXT, *OTHERS, alias1=STREAM_REFUSED)
    end = finished(await on.handle(job(stream=True)))
    assert tree.called == ["alias1", "free1"]
    first, _ = end.completion.attempts
    assert (first.status, first.error, first.usage.input_tokens, first.usage.source) == (
        "failed",
        "content_filter",
        9,
        "provider",
    )


@in_virtual_time
async def test_a_stream_that_is_refused_after_a_word_ends_as_the_provider_ended_it() -> None:
    on, tree = bench(CONTEXT, *OTHERS, alias1=[[chunk("one")], [chunk(finish="content_filter"), "[DONE]"]])
    assert finished(await on.handle(job(stream=True))).completion.status is JobStatus.COMPLETED
    assert tree.called == ["alias1"]


@in_virtual_time
async def test_a_prompt_too_long_waits_for_the_model_that_can_take_it() -> None:
    on, _ = bench(CONTEXT, *OTHERS, alias1=said(400, "context_length_exceeded"))
    cool(on, "long1")
    outcome = await on.handle(job(lane=Lane.BATCH))
    assert isinstance(outcome, PutOff)
    assert outcome.job.not_before_ms == START_MS + 5_000
    fault = fault_of(await on.handle(job(id="job_018f00000000700080000000000000bb")))
    assert (fault.code, "`long`" in fault.message) == ("provider_unavailable", True)


# Retries


@in_virtual_time
async def test_retries_of_its_own_come_before_the_fallback() -> None:
    on, tree = bench(named("alias", num_retries=2, fallbacks=("b",)), B, alias1=failure())
    assert served(await on.handle()) == ("b", "b1")
    assert tree.called == ["alias1", "alias1", "alias1", "b1"]


@in_virtual_time
async def test_a_fallback_has_retries_of_its_own() -> None:
    on, tree = bench(named("alias", num_retries=1, fallbacks=("b",)), named("b", num_retries=1), alias1=failure(), b1=failure())
    fault_of(await on.handle(job(policy=EffectivePolicy(version="1", route=RoutePolicy(max_attempts=9)))))
    assert tree.called == ["alias1", "alias1", "b1", "b1"]


@in_virtual_time
async def test_no_retries_are_none_not_even_elsewhere() -> None:
    on, tree = bench(named("alias", deployment("d1"), deployment("d2"), num_retries=0), d1=failure())
    assert fault_of(await on.handle()).code == "provider_error"
    assert tree.called == ["d1"]


@in_virtual_time
async def test_more_retries_than_usual() -> None:
    on, tree = bench(named("alias", num_retries=5), alias1=failure())
    on.health.failed = lambda *_: None  # type: ignore[method-assign]
    fault_of(await on.handle())
    assert len(tree.called) == 6


@in_virtual_time
async def test_a_caller_may_be_allowed_fewer_calls() -> None:
    on, tree = bench(named("alias", num_retries=5, fallbacks=("b",)), B, alias1=failure(), b1=failure())
    fault_of(await on.handle(job(policy=EffectivePolicy(version="1", route=RoutePolicy(max_attempts=2)))))
    assert tree.called == ["alias1", "b1"]
    assert {ask["attempts"] for ask in on.records.asks} == {2}


@in_virtual_time
async def test_a_models_own_rules_say_when_its_deployment_cools() -> None:
    on, tree = bench(named("alias", num_retries=0, allowed_fails=1, cooldown_s=30, fallbacks=("b",)), B, alias1=failure())
    for n in range(3):
        assert served(await on.handle(job(id=f"job_018f0000000070008000{n:012x}"))) == ("b", "b1")
    assert tree.called == ["alias1", "b1", "alias1", "b1", "b1"]
    assert on.health.cools_until("alias1", virtual_clock()) == START_MS + 30_000


# Policies


def rules(data: DataPolicy | None = None, providers: tuple[str, ...] | None = None) -> EffectivePolicy:
    return EffectivePolicy(version="1", data=data or DataPolicy(), route=RoutePolicy(providers=providers))


EU = DataPolicy(regions=("eu",))
FORBIDDEN = [
    (rules(EU), "regions: eu"),
    (rules(DataPolicy(hipaa=True)), "health data"),
    (rules(providers=("azure",)), "providers: azure"),
]


@LANES
@pytest.mark.parametrize(("given_policy", "words"), FORBIDDEN)
def test_where_nothing_is_allowed_nobody_is_asked_and_the_rule_is_told(
    given_policy: EffectivePolicy, words: str, lane: Lane
) -> None:
    @in_virtual_time
    async def check() -> None:
        on, tree = bench(ALIAS, named("b", deployment("b1", region="us")))
        end = await on.handle(job(policy=given_policy, lane=lane))
        fault = fault_of(end)
        assert (fault.status, fault.code) == (403, "no_deployment_allowed")
        assert words in fault.message
        assert not tree.called
        assert on.records.asks[0]["attempts"] == 0

    check()


@in_virtual_time
async def test_only_what_is_allowed_is_asked_at_the_model_and_at_its_fallback() -> None:
    both = named("alias", deployment("us1", region="us"), deployment("eu1", region="eu"), fallbacks=("b", "c"))
    on, tree = bench(both, B, named("c", deployment("c1", region="eu")), eu1=failure(), us1=failure())
    assert served(await on.handle(job(policy=rules(EU)))) == ("c", "c1")
    assert tree.called == ["eu1", "c1"]


# Whatever happens


DOES = st.sampled_from(
    [answer(), failure(), failure("throttled", 429, retry_after_s=0.5), said(400), said(400, "context_length_exceeded"), REFUSED]
)
NAMES = ["alias", "b", "c"]


@st.composite
def models(draw: st.DrawFn) -> list[Model]:
    def one(name: str) -> Model:
        count = draw(st.integers(1, 3))
        of = [deployment(f"{name}{n}", region=draw(st.sampled_from(["eu", "us"]))) for n in range(count)]
        lists = {
            kind: tuple(draw(st.lists(st.sampled_from(NAMES), max_size=2)))
            for kind in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
        }
        retries, strategy = draw(st.none() | st.integers(0, 4)), draw(st.sampled_from(["simple-shuffle", "least-busy"]))
        return named(name, *of, num_retries=retries, strategy=strategy, **lists)

    return [one(name) for name in NAMES]


@settings(max_examples=300, deadline=None)
@given(
    models(),
    st.dictionaries(st.sampled_from([f"{name}{n}" for name in NAMES for n in range(3)]), DOES),
    st.sampled_from([None, EU]),
    st.none() | st.integers(1, 10),
    st.sampled_from(list(Lane)),
    st.integers(0, 1000),
)
def test_only_allowed_deployments_are_asked_and_never_more_often_than_so_many_times(
    table: list[Model], does: dict[str, object], data: DataPolicy | None, most: int | None, lane: Lane, seed: int
) -> None:
    @in_virtual_time
    async def check() -> None:
        on, tree = bench(*table, chance=seeded(seed), **does)
        route = RoutePolicy(max_attempts=most)
        given_job = job(lane=lane, policy=EffectivePolicy(version="1", data=data or DataPolicy(), route=route))
        outcome = await on.handle(given_job)
        allowed = {d.id for d in reachable(on.control.models, table[0], given_job.policy.data, route)}
        assert set(tree.called) <= allowed
        assert len(tree.called) <= most_calls(table[0], route)
        told = outcome.job.made if isinstance(outcome, PutOff) else finished(outcome).completion.attempts
        assert [a.deployment for a in told] == tree.called, "each call is on the books, in its order"
        assert [a.n for a in told] == list(range(1, len(told) + 1))
        if not allowed:
            assert fault_of(outcome).code == "no_deployment_allowed"
        elif not isinstance(outcome, PutOff) and isinstance(finished(outcome).last, Answer):
            name, by = served(outcome)
            assert by == tree.called[-1]
            assert by.startswith(name)
        for place in ("alias", "b", "c"):
            assert all(not on.places.busy(d) for d in on.control.models[place].deployments)

    check()
