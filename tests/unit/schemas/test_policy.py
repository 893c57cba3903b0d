"""Policies of several levels, laid over one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import DEFAULT_GUARD, CachePolicy, EffectivePolicy, FindingKind, GuardAction, GuardPolicy, Policy, inherit

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
