"""Which deployments a job may reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.reachable import NoDeploymentAllowed, chain, may_ask, none_allowed, reachable
from schemas.control import Deployment, Model
from schemas.policy import DataPolicy, RoutePolicy

ANY, ANYWHERE = RoutePolicy(), DataPolicy()


def deployment(name: str, provider: str = "openai", region: str | None = None, hipaa: bool = False) -> Deployment:
    return Deployment(id=name, provider=provider, model="m", region=region, hipaa=hipaa)


def model(name: str, *deployments: Deployment, **fallbacks: tuple[str, ...]) -> Model:
    return Model.model_validate({"name": name, "deployments": deployments or (deployment(f"of {name}"),), **fallbacks})


def table(*models: Model) -> dict[str, Model]:
    return {one.name: one for one in models}


def test_a_models_own_deployments_come_first_then_those_of_all_it_may_lead_to() -> None:
    first = model("a", fallbacks=("b", "nobody"), context_window_fallbacks=("c",), content_policy_fallbacks=("b",))
    models = table(first, model("b", fallbacks=("d", "a")), model("c"), model("d"), model("stranger"))
    assert [d.id for d in reachable(models, first, ANYWHERE, ANY)] == ["of a", "of b", "of c", "of d"]


EU, US, HEALTH = (
    deployment("eu", region="eu-1"),
    deployment("us", region="us-1"),
    deployment("health", "azure", "eu-1", hipaa=True),
)
UNKNOWN = deployment("somewhere")
CASES: list[tuple[DataPolicy, RoutePolicy, list[str]]] = [
    (ANYWHERE, ANY, ["eu", "us", "health", "somewhere"]),
    (DataPolicy(regions=("eu-1",)), ANY, ["eu", "health"]),
    (DataPolicy(regions=("us-1", "eu-1")), ANY, ["eu", "us", "health"]),
    (DataPolicy(regions=()), ANY, []),
    (DataPolicy(hipaa=True), ANY, ["health"]),
    (ANYWHERE, RoutePolicy(providers=("openai",)), ["eu", "us", "somewhere"]),
    (DataPolicy(hipaa=True), RoutePolicy(providers=("openai",)), []),
]


@pytest.mark.parametrize(("data", "route", "expected"), CASES)
def test_what_a_policy_lets_through(data: DataPolicy, route: RoutePolicy, expected: list[str]) -> None:
    one = model("a", EU, US, HEALTH, UNKNOWN)
    assert [d.id for d in reachable(table(one), one, data, route)] == expected


def test_the_error_says_which_rules() -> None:
    error = none_allowed("a", DataPolicy(regions=("eu-1", "eu-2"), hipaa=True), RoutePolicy(providers=("azure",)))
    fault = error.fault()
    assert isinstance(error, NoDeploymentAllowed)
    assert (fault.status, fault.code, fault.param) == (403, "no_deployment_allowed", "model")
    assert "regions: eu-1, eu-2, and only deployments for health data (hipaa), and only these providers: azure" in fault.message
    assert "hipaa" not in none_allowed("a", DataPolicy(regions=()), ANY).fault().message


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.tuples(st.lists(NAMES), st.lists(NAMES), st.lists(NAMES)), min_size=1), st.data())
def test_it_ends_and_no_model_comes_twice(leads: dict[str, tuple[list[str], ...]], data: st.DataObject) -> None:
    models = table(
        *(
            model(name, fallbacks=tuple(f), context_window_fallbacks=tuple(w), content_policy_fallbacks=tuple(c))
            for name, (f, w, c) in leads.items()
        )
    )
    asked = models[data.draw(st.sampled_from(sorted(models)))]
    names = [one.name for one in chain(models, asked)]
    assert names[0] == asked.name
    assert len(names) == len(set(names))
    for one in chain(models, asked):
        led = {*one.fallbacks, *one.context_window_fallbacks, *one.content_policy_fallbacks}
        assert led & models.keys() <= set(names)
    assert all(may_ask(d, ANYWHERE, ANY) for d in reachable(models, asked, ANYWHERE, ANY))
