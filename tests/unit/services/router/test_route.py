"""Which model follows on which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.reachable import reachable
from schemas.control import Model
from schemas.policy import DataPolicy, EffectivePolicy, RoutePolicy
from services.router.policy import MAX_ATTEMPTS, most_calls
from services.router.providers.failures import Why
from services.router.route import Route
from tests.unit.services.router.doubles import deployment

FREE = EffectivePolicy(version="1")
EU_ONLY = EffectivePolicy(version="1", data=DataPolicy(regions=("eu",)))
WHYS: tuple[Why, ...] = ("failed", "context", "content")


def named(name: str, region: str = "us", **changes: object) -> Model:
    """A model with a deployment of its name there."""
    return Model.model_validate({"name": name, "deployments": (deployment(f"of {name}", region=region),), **changes})


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
    assert route.known().keys() == {"us1", "eu1", "of b", "of c"}


def test_an_asked_model_without_any_leads_on_at_once() -> None:
    models = table(named("a", fallbacks=("b",)), named("b", region="eu"))
    assert Route(models, models["a"], EU_ONLY).model.name == "b"
    alone = table(named("a"))
    assert Route(alone, alone["a"], EU_ONLY).model.deployments == ()


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
    fallbacks=LEADS,
    context_window_fallbacks=LEADS,
    content_policy_fallbacks=LEADS,
)


@given(st.lists(MODEL, min_size=1, max_size=5), st.lists(st.sampled_from(WHYS), max_size=12), st.sampled_from([FREE, EU_ONLY]))
def test_a_route_stays_within_what_is_reachable_and_never_turns_back(
    models: list[Model], failures: list[Why], rules: EffectivePolicy
) -> None:
    known = table(*models)
    asked = known[models[0].name]
    route = Route(known, asked, rules)
    allowed = reachable(known, asked, rules.data, rules.route)
    been = [route.model.name]
    for why in failures:
        following = names(route.ahead(why))
        assert names(route.ahead(why)) == following, "to look is not to move"
        if route.move(why):
            assert route.model.name == following[0]
            been.append(route.model.name)
        assert all(d in allowed for d in route.model.deployments)
        assert route.model.deployments or len(been) == 1
    assert len(been) == len(set(been))
