"""Policies of several levels, laid over one another."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.budget import Budget
from schemas.policy import (
    DEFAULT_GUARD,
    CachePolicy,
    Ceiling,
    DataPolicy,
    EffectivePolicy,
    FindingKind,
    GuardAction,
    GuardPolicy,
    Limits,
    ModelGrant,
    Policy,
    RoutePolicy,
    inherit,
)
from schemas.topics import Lane

ALLOW, FLAG, REDACT, BLOCK = GuardAction.ALLOW, GuardAction.FLAG, GuardAction.REDACT, GuardAction.BLOCK


def guard(**actions: GuardAction) -> Policy:
    return Policy.model_validate({"guard": {"actions": actions}})


def acts(*levels: Policy) -> dict[FindingKind, GuardAction]:
    return inherit(levels, "1").guard.actions


def test_who_says_nothing_gets_the_defaults() -> None:
    for levels in ([], [Policy()], [Policy(), Policy(), Policy()]):
        assert inherit(levels, "7") == EffectivePolicy(version="7", guard=DEFAULT_GUARD)


def test_a_rule_that_a_team_adds_keeps_the_organizations_others() -> None:
    organization, team = guard(card=BLOCK, iban=BLOCK), guard(email=REDACT)
    assert acts(organization, team) == {**DEFAULT_GUARD.actions, "card": BLOCK, "iban": BLOCK, "email": REDACT}


def test_the_nearer_level_decides_about_a_kind() -> None:
    assert acts(guard(card=BLOCK), guard(card=FLAG))["card"] is FLAG
    assert acts(guard(card=FLAG), Policy(), guard(card=BLOCK))["card"] is BLOCK


def test_what_is_allowed_is_not_looked_for() -> None:
    everything = GuardPolicy(actions=dict.fromkeys(DEFAULT_GUARD.actions, ALLOW))
    assert acts(Policy(guard=everything)) == {}
    assert acts(guard(card=ALLOW), guard(card=REDACT))["card"] is REDACT


MODELS: list[tuple[list[tuple[str, ...] | None], tuple[str, ...] | None]] = [
    ([], None),
    ([None, None], None),
    ([("a", "b"), None], ("a", "b")),
    ([None, ("a",)], ("a",)),
    ([("a", "b"), ("b", "c")], ("b",)),
    ([("a", "b"), ("c",), ("c", "a")], ()),
    ([(), ("a",)], ()),
]


@pytest.mark.parametrize(("said", "allowed"), MODELS)
def test_allowed_models(said: list[tuple[str, ...] | None], allowed: tuple[str, ...] | None) -> None:
    assert inherit([Policy(models=models) for models in said], "1").models == allowed


@given(st.lists(st.none() | st.lists(st.sampled_from("abcd"), unique=True).map(tuple), max_size=4))
def test_models_never_widen(said: list[tuple[str, ...] | None]) -> None:
    for level in range(len(said)):
        farther = inherit([Policy(models=models) for models in said[:level]], "1").models
        nearer = inherit([Policy(models=models) for models in said[: level + 1]], "1").models
        assert farther is None or (nearer is not None and set(nearer) <= set(farther))


def test_cache_and_time_out_are_taken_whole_from_the_nearest_level_that_says_them() -> None:
    far = Policy(cache=CachePolicy(enabled=False, ttl_s=60, namespace="far"), timeout_s=10)
    near = Policy(cache=CachePolicy(ttl_s=5), timeout_s=3)
    effective = inherit([far, near, Policy()], "1")
    assert effective.cache == CachePolicy(enabled=True, ttl_s=5, namespace=None)
    assert effective.timeout_s == 3
    assert inherit([far, Policy()], "1").cache.namespace == "far"


@pytest.mark.parametrize(
    "written", [{"timeout_s": 0}, {"timeout_s": 90_000}, {"cache": {"ttl_s": 0}}, {"limits": {"requests_per_minute": 0}}]
)
def test_a_policy_that_means_nothing_is_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Policy.model_validate(written)


def of(*levels: dict[str, Any]) -> EffectivePolicy:
    return inherit([Policy.model_validate(level) for level in levels], "1")


def test_lanes_providers_and_regions_narrow_like_models() -> None:
    assert of({"lanes": ["interactive", "batch"]}, {}, {"lanes": ["batch"]}).lanes == (Lane.BATCH,)
    assert of({"lanes": ["batch"]}, {"lanes": ["interactive"]}).lanes == ()
    assert of({"route": {"providers": ["openai", "azure"]}}, {"route": {"providers": ["azure", "mistral"]}}).route.providers == (
        "azure",
    )
    assert of({"data": {"regions": ["eu-1", "eu-2"]}}, {"data": {"regions": ["eu-2", "us-1"]}}).data.regions == ("eu-2",)
    assert of({"data": {"regions": ["eu-1"]}}, {"data": {}}).data.regions == ("eu-1",)


def test_the_fewest_attempts_count() -> None:
    assert of({"route": {"max_attempts": 2}}, {"route": {"max_attempts": 5}}).route.max_attempts == 2
    assert of({"route": {"max_attempts": 5}}, {"route": {"max_attempts": 2}}).route.max_attempts == 2
    assert of({"route": {"max_attempts": 3}}, {"route": {}}).route.max_attempts == 3
    assert of({}, {"route": {}}).route.max_attempts is None


def test_what_is_demanded_adds_up_and_nobody_nearer_takes_it_back() -> None:
    far: dict[str, object] = {"metadata_required": ["feature"], "identity": "required", "data": {"hipaa": True, "log": False}}
    near: dict[str, object] = {
        "metadata_required": ["segment", "feature"],
        "identity": "optional",
        "data": {"hipaa": False, "log": True},
    }
    nothing: dict[str, object] = {}
    for levels in ((far, near), (near, far), (far, nothing, near)):
        effective = of(*levels)
        assert set(effective.metadata_required) == {"feature", "segment"}
        assert len(effective.metadata_required) == 2
        assert effective.identity == "required"
        assert effective.data == DataPolicy(hipaa=True, log=False)
    assert of({"identity": "optional"}).identity == "optional"


def test_a_granted_model_is_granted_at_any_level_for_its_time() -> None:
    grant = {"model": "dear", "until_ms": 1_000, "approval": "apr_1"}
    for levels in (({"granted_models": [grant]}, {"models": ["small"]}), ({"models": ["small"]}, {"granted_models": [grant]})):
        effective = of(*levels)
        assert effective.models == ("small",)
        assert [effective.allows("dear", now) for now in (999, 1_000)] == [True, False]
        assert effective.allows("small", 5_000)
        assert not effective.allows("other", 0)


def test_grants_of_all_levels_count() -> None:
    first, second = ModelGrant(model="a", until_ms=1), ModelGrant(model="b", until_ms=2)
    both = inherit([Policy(granted_models=(first,)), Policy(granted_models=(second,))], "1")
    assert both.granted_models == (first, second)


def test_a_grant_narrows_nothing() -> None:
    assert of({"granted_models": [{"model": "dear", "until_ms": 1_000}]}).allows("any", 0)


NEAREST: list[tuple[str, Any, Any]] = [
    ("max_output_tokens", 100, 4_000),
    ("unpriced", Ceiling(input_usd=Decimal(1), output_usd=Decimal(2)), Ceiling(input_usd=Decimal(3), output_usd=Decimal(4))),
    ("when_redis_is_away", "closed", "open"),
    ("concurrency_wait_s", 0.0, 7.0),
    ("weight", 0.5, 3.0),
    ("keep_results_s", 60, 120),
    ("attach_retries", False, True),
]


@pytest.mark.parametrize(("name", "far", "near"), NEAREST)
def test_the_nearest_level_that_says_it_decides(name: str, far: Any, near: Any) -> None:
    assert getattr(of({name: far}, {name: near}, {}), name) == near
    assert getattr(of({name: near}, {name: far}), name) == far
    assert getattr(of({name: far}, {}), name) == far
    assert getattr(of({}), name) == getattr(EffectivePolicy(version="1"), name)


def test_limits_and_budgets_are_not_inherited() -> None:
    """Each holds where it stands (infra/charging.py)."""
    level = Policy(limits=Limits(requests_per_minute=1), budgets=(Budget(usd=Decimal(1)),))
    assert inherit([level], "1") == inherit([Policy()], "1")


def names(*of_what: str) -> st.SearchStrategy[list[str] | None]:
    return st.none() | st.lists(st.sampled_from(of_what), unique=True)


def written(**said: object) -> Policy:
    return Policy.model_validate({name: value for name, value in said.items() if value is not None})


levels = st.builds(
    written,
    models=names("a", "b", "c"),
    lanes=names("interactive", "batch"),
    route=st.none()
    | st.fixed_dictionaries({"providers": names("openai", "azure"), "max_attempts": st.none() | st.integers(1, 10)}),
    data=st.none() | st.fixed_dictionaries({"regions": names("eu", "us"), "hipaa": st.booleans(), "log": st.booleans()}),
    metadata_required=st.lists(st.sampled_from(["feature", "segment", "cost_center"]), unique=True),
    identity=st.sampled_from([None, "optional", "required"]),
    weight=st.none() | st.floats(1, 9),
)


def is_within(nearer: tuple[object, ...] | None, farther: tuple[object, ...] | None) -> bool:
    return farther is None or (nearer is not None and set(nearer) <= set(farther))


@given(st.lists(levels, min_size=1, max_size=6))
def test_a_nearer_level_never_widens_and_never_lets_off(said: list[Policy]) -> None:
    after = [inherit(said[:count], "1") for count in range(len(said) + 1)]
    for far, near in pairwise(after):
        assert is_within(near.models, far.models)
        assert is_within(near.lanes, far.lanes)
        assert is_within(near.route.providers, far.route.providers)
        assert is_within(near.data.regions, far.data.regions)
        assert far.route.max_attempts is None or (near.route.max_attempts or 99) <= far.route.max_attempts
        assert near.data.hipaa >= far.data.hipaa
        assert near.data.log <= far.data.log
        assert set(near.metadata_required) >= set(far.metadata_required)
        assert near.identity == "required" or far.identity == "optional"


@given(st.lists(levels, min_size=1, max_size=6))
def test_what_is_allowed_is_what_every_level_allows(said: list[Policy]) -> None:
    effective = inherit(said, "1")
    for model in "abc":
        assert effective.allows(model, 0) == all(level.models is None or model in level.models for level in said)
    for lane in Lane:
        assert (effective.lanes is None or lane in effective.lanes) == all(
            level.lanes is None or lane in level.lanes for level in said
        )


@given(st.lists(levels, max_size=5), st.integers(0, 5))
def test_a_level_that_says_nothing_changes_nothing(said: list[Policy], at: int) -> None:
    assert inherit([*said[:at], Policy(), *said[at:]], "1") == inherit(said, "1")


def test_a_route_that_says_nothing_is_as_the_model_says() -> None:
    assert inherit([Policy()], "1").route == RoutePolicy()
