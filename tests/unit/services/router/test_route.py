"""Which model follows on which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.reachable import reachable
from schemas.control import Model
from schemas.errors import Fault
from schemas.policy import DataPolicy, EffectivePolicy, RoutePolicy
from services.router.needs import Needs
from services.router.policy import MAX_ATTEMPTS, most_calls
from services.router.providers.failures import Why
from services.router.route import Route
from tests.unit.services.router.doubles import START_MS, deployment, job

FREE = EffectivePolicy(version="1")
EU_ONLY = EffectivePolicy(version="1", data=DataPolicy(regions=("eu",)))
WHYS: tuple[Why, ...] = ("failed", "context", "content")


def named(name: str, region: str = "us", tokens: int | None = None, **changes: object) -> Model:
    """A model with a deployment of its name there, which takes prompts of so many tokens."""
    own = deployment(f"of {name}", region=region, max_input_tokens=tokens)
    return Model.model_validate({"name": name, "deployments": (own,), **changes})


def table(*models: Model) -> dict[str, Model]:
    return {model.name: model for model in models}


def names(models: list[Model]) -> list[str]:
    return [model.name for model in models]


ASKED = named("a", fallbacks=("b", "c"), context_window_fallbacks=("long",), content_policy_fallbacks=("free",))
MODELS = table(ASKED, named("b", fallbacks=("d", "a")), named("c"), named("d"), named("long", fallbacks=("c",)), named("free"))


def test_each_reason_has_its_fallbacks() -> None:
    route = Route(MODELS, ASKED, FREE)
    assert [names(route.ahead(why)) for why in WHYS] == [["b", "c"], ["long"], ["free"]]
    assert route.model is ASKED


def test_a_fallbacks_own_come_before_the_next_and_none_twice() -> None:
    route, been = Route(MODELS, ASKED, FREE), list[str]()
    while route.move("failed"):
        been.append(route.model.name)
    assert been == ["b", "d", "c"]
    assert not route.move("failed")
    assert route.model.name == "c", "it stays where it is"


def test_after_another_reason_those_that_were_ahead_still_are() -> None:
    route = Route(MODELS, ASKED, FREE)
    assert route.move("failed")
    assert names(route.ahead("context")) == ["c"]


def test_what_the_policy_forbids_is_not_there_and_a_model_without_more_is_passed_over() -> None:
    mixed = Model(name="a", deployments=(deployment("us1", region="us"), deployment("eu1", region="eu")), fallbacks=("b",))
    models = table(mixed, named("b", fallbacks=("c",)), named("c", region="eu"))
    route = Route(models, mixed, EU_ONLY)
    assert [d.id for d in route.model.deployments] == ["eu1"]
    assert names(route.ahead("failed")) == ["c"]


def test_an_asked_model_without_any_leads_on_at_once() -> None:
    models = table(named("a", fallbacks=("b",)), named("b", region="eu"))
    assert Route(models, models["a"], EU_ONLY).model.name == "b"
    alone = table(named("a"))
    assert Route(alone, alone["a"], EU_ONLY).model.deployments == ()


# What a request needs


def needing(*models: Model, prompt_tokens: int = 100, rules: EffectivePolicy = FREE, stream: bool = False) -> Route:
    """The route of a prompt that asks for the first of these."""
    return Route(table(*models), models[0], rules, Needs(job(stream=stream), START_MS, prompt_tokens))


def refusal(route: Route) -> Fault:
    assert route.model.deployments == ()
    return route.refusal()


def test_only_deployments_that_can_serve_the_request_are_there() -> None:
    model = named("a", deployments=(deployment("d1", max_input_tokens=99), deployment("d2", max_input_tokens=100)))
    assert [d.id for d in needing(model).model.deployments] == ["d2"]


def test_a_prompt_that_is_too_long_goes_to_a_larger_context_before_anybody_is_called() -> None:
    short = named("a", "eu", 99, fallbacks=("b",), context_window_fallbacks=("c", "d"))
    route = needing(
        short, named("b", "eu"), named("c", "eu", 99, context_window_fallbacks=("e",)), named("d", "eu"), named("e", "eu", 100)
    )
    assert route.model.name == "e", "past one that is too short as well"
    assert names(route.ahead("failed")) == ["d"]
    assert route.asked.name == "a"


def test_without_a_larger_context_the_prompt_is_too_long() -> None:
    fault = refusal(needing(named("a", "eu", 99, fallbacks=("b",)), named("b", "eu")))
    assert (fault.status, fault.code) == (400, "context_length_exceeded")


def test_a_fallback_that_is_too_short_leads_to_its_larger_context() -> None:
    route = needing(
        named("a", "eu", fallbacks=("b", "c")),
        named("b", "eu", 9, context_window_fallbacks=("d",)),
        named("c", "eu"),
        named("d", "eu", 100),
    )
    assert names(route.ahead("failed")) == ["d", "c"]


def test_what_a_model_cannot_do_its_fallback_does() -> None:
    deaf = named("a", deployments=(deployment("d1", capabilities=("tools",)),), fallbacks=("b",), context_window_fallbacks=("c",))
    route = needing(deaf, named("b"), named("c"), stream=True)
    assert route.model.name == "b"
    fault = refusal(needing(deaf, stream=True))
    assert (fault.status, fault.code, fault.param) == (400, "unsupported_capability", "stream")


def test_a_policy_that_leaves_nobody_is_told_before_what_the_request_needs() -> None:
    short = named("a", "eu", 99, context_window_fallbacks=("b",))
    fault = refusal(needing(short, named("b", region="us"), rules=EU_ONLY))
    assert fault.code == "context_length_exceeded", "a larger context elsewhere is none"
    fault = refusal(needing(named("a", region="us"), rules=EU_ONLY))
    assert (fault.status, fault.code) == (403, "no_deployment_allowed")


CASES = [
    (named("a"), None, MAX_ATTEMPTS),
    (named("a", num_retries=0), None, MAX_ATTEMPTS),
    (named("a", num_retries=5), None, 6),
    (named("a", num_retries=2, fallbacks=("b",)), None, 4),
    (named("a", num_retries=5, fallbacks=("b",)), 2, 2),
    (named("a"), 7, 7),
]


@pytest.mark.parametrize(("model", "told", "expected"), CASES)
def test_how_many_calls_there_may_be(model: Model, told: int | None, expected: int) -> None:
    assert most_calls(model, RoutePolicy(max_attempts=told)) == expected


NAMES = st.sampled_from("abcde")
LEADS = st.lists(NAMES, max_size=3).map(tuple)
MODEL = st.builds(
    named,
    NAMES,
    st.sampled_from(["eu", "us"]),
    tokens=st.sampled_from([None, 99, 100]),
    fallbacks=LEADS,
    context_window_fallbacks=LEADS,
    content_policy_fallbacks=LEADS,
)


@given(
    st.lists(MODEL, min_size=1, max_size=5),
    st.lists(st.sampled_from(WHYS), max_size=12),
    st.sampled_from([FREE, EU_ONLY]),
    st.sampled_from([None, Needs(job(), START_MS, prompt_tokens=100)]),
)
def test_a_route_stays_within_what_is_reachable_and_never_turns_back(
    models: list[Model], failures: list[Why], rules: EffectivePolicy, needs: Needs | None
) -> None:
    known = table(*models)
    asked = known[models[0].name]
    route = Route(known, asked, rules, needs)
    allowed = reachable(known, asked, rules.data, rules.route)
    been = [route.model.name]
    for why in failures:
        following = names(route.ahead(why))
        assert names(route.ahead(why)) == following, "to look is not to move"
        if route.move(why):
            assert route.model.name == following[0]
            been.append(route.model.name)
        assert all(d in allowed and (needs is None or needs.met_by(d)) for d in route.model.deployments)
        assert route.model.deployments or len(been) == 1
    assert len(been) == len(set(been))
