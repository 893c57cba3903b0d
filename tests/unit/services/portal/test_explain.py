"""Why a policy is as it is, which one decided a job, and what today's would do."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hierarchy import Level
from infra.kafka.table import ControlTable
from schemas.budget import Budget
from schemas.control import (
    RESOURCE,
    Deployment,
    Environment,
    Hold,
    IdentityProvider,
    Membership,
    Model,
    Organization,
    Project,
    Resource,
    Team,
    User,
    VirtualKey,
    resource_key,
)
from schemas.job import Caller
from schemas.policy import DEFAULT_GUARD, EffectivePolicy, Policy, inherit
from schemas.roles import Role
from services.portal.books import Document, JobBooked
from services.portal.explain import (
    Explanation,
    MemberShown,
    caller_of_key,
    decided,
    explain_caller,
    explain_job,
    versions_of,
)

NOW_MS = 1_800_000_000_000
JOB_MS = NOW_MS - 86_400_000


def policy(**members: Any) -> Policy:
    return Policy.model_validate(members)


def table(*resources: Resource) -> ControlTable:
    found = ControlTable()
    for resource in resources:
        found.put(resource)
    return found


ACME = Organization(id="org_1", name="acme", version=2, policy=policy(models=("small", "big"), timeout_s=60))
FRAUD = Team(id="team_1", name="fraud", organization="acme", version=5, policy=policy(models=("small",)))
KEY = VirtualKey(id="key_1", sha256="secret-hash", last4="abcd", team="fraud", project="p", environment="prod", user="ada")
SMALL = Model(name="small", deployments=(Deployment(id="a", provider="openai", model="m", region="eu"),))
BIG = Model(name="big", deployments=(Deployment(id="b", provider="anthropic", model="m", hipaa=True),))
HOUSE = table(ACME, FRAUD, KEY, SMALL, BIG)


def booked(**told: Any) -> JobBooked:
    known: dict[str, Any] = {
        "job_id": "job_1",
        "accepted_ms": JOB_MS,
        "status": "completed",
        "organization": "acme",
        "team": "fraud",
        "project": "p",
        "environment": "prod",
        "key_id": "key_1",
        "user": "ada",
        "model": "small",
        "lane": "batch",
        "metadata": {"case": "1"},
        "feature": "triage",
        "policy_version": "2.1.0.0.1.0",
    }
    rest = dict.fromkeys(("error_type", "identity", "segment"), "")
    return JobBooked.model_validate(rest | known | told)


def written(resource: Resource, at_ms: int) -> Document:
    return Document(resource_key(resource), resource.version, at_ms, "admin", "", RESOURCE.dump_json(resource).decode())


def member(explained: list[MemberShown], name: str) -> MemberShown:
    return next(one for one in explained if one.member == name)


def at(scope: str, version: int, **members: Any) -> Level:
    return Level(scope, version, policy(**members))


# Who decided


def test_where_all_levels_count_the_one_that_changed_it_last_has_the_word() -> None:
    levels = [at("organization/acme", 1, models=["a", "b"]), at("team/fraud", 3, models=["b"]), at("key/k", 1, models=["b", "c"])]
    found = member(decided(levels), "models")
    assert (found.value, found.decided_by, found.version, found.narrowed_from) == (
        ["b"],
        "team/fraud",
        3,
        ["organization/acme v1"],
    )


def test_where_the_nearest_counts_it_has_the_word_alone() -> None:
    found = member(decided([at("organization/acme", 1, timeout_s=60), at("team/fraud", 3, timeout_s=60)]), "timeout_s")
    assert (found.value, found.decided_by, found.narrowed_from) == (60, "team/fraud", [])


def test_a_demand_stays_though_somebody_nearer_would_drop_it() -> None:
    found = member(
        decided([at("organization/acme", 1, identity="required"), at("team/fraud", 1, identity="optional")]), "identity"
    )
    assert (found.value, found.decided_by) == ("required", "organization/acme")


def test_guard_data_and_route_are_explained_piece_by_piece() -> None:
    found = decided(
        [
            at("organization/acme", 1, guard={"actions": {"email": "block"}}, data={"regions": ["eu", "us"], "log": False}),
            at("team/fraud", 2, guard={"actions": {"card": "allow"}}, data={"regions": ["eu"]}, route={"max_attempts": 2}),
        ]
    )
    told = {one.member: (one.value, one.decided_by) for one in found}
    assert told["guard.email"] == ("block", "organization/acme")
    assert told["guard.card"] == ("allow", "team/fraud"), "what is let pass was somebody's decision too"
    assert told["guard.iban"] == ("redact", "")
    assert told["data.regions"] == (["eu"], "team/fraud")
    assert told["data.log"] == (False, "organization/acme")
    assert told["data.hipaa"] == (False, "")
    assert told["route.max_attempts"] == (2, "team/fraud")
    assert told["route.providers"] == (None, "")


def test_who_says_nothing_decides_nothing() -> None:
    found = decided([at("organization/acme", 1), at("team/fraud", 2)])
    assert {one.decided_by for one in found} == {""}
    assert {one.member for one in found if one.member.startswith("guard.")} == {f"guard.{kind}" for kind in DEFAULT_GUARD.actions}


models = st.none() | st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
policies = st.builds(
    Policy,
    models=models,
    timeout_s=st.none() | st.sampled_from([1.0, 2.0]),
    identity=st.sampled_from([None, "optional", "required"]),
    metadata_required=st.lists(st.sampled_from("xy"), unique=True).map(tuple),
)


@given(st.lists(policies, max_size=6))
def test_the_explained_values_are_those_of_the_effective_policy(levels: list[Policy]) -> None:
    found = {one.member: one for one in decided([Level(f"l/{n}", n, one) for n, one in enumerate(levels)])}
    effective = inherit(levels, "").model_dump(mode="json")
    for name in ("models", "timeout_s", "identity", "metadata_required"):
        assert found[name].value == effective[name]
        if not found[name].decided_by:
            assert effective[name] == EffectivePolicy(version="").model_dump(mode="json")[name]


# A caller


def test_a_caller_is_explained_level_by_level() -> None:
    limited = FRAUD.model_copy(update={"policy": policy(limits={"requests_per_minute": 5}, budgets=[{"usd": 10}])})
    house = table(ACME, limited, KEY, Project(id="p", team="fraud", name="p", version=3))
    told = explain_caller(house, caller_of_key(house, KEY), NOW_MS)
    assert [(one.level, one.version) for one in told.now.levels] == [
        ("organization/acme", 2),
        ("team/fraud", 5),
        ("project/fraud/p", 3),
        ("environment/fraud/p/prod", 0),
        ("key/key_1", 1),
        ("user/ada", 0),
    ]
    assert told.now.version == "2.5.3.0.1.0"
    (limits,) = told.now.limits
    assert (limits.level, limits.limits, len(limits.budgets)) == ("team/fraud", {"requests_per_minute": 5}, 1)
    assert (told.today, told.then, told.job) == ("admitted", None, None)
    assert "secret-hash" not in told.model_dump_json()


def test_of_a_person_only_the_policy_is_shown() -> None:
    ada = User(id="u", name="ada", policy=policy(timeout_s=5), memberships=(Membership(role=Role.AUDITOR, team="elsewhere"),))
    told = explain_caller(table(ACME, FRAUD, KEY, ada), caller_of_key(HOUSE, KEY), NOW_MS).now.levels[-1].document
    assert told is not None
    assert isinstance(told["policy"], dict)
    assert told["policy"]["timeout_s"] == 5
    assert "elsewhere" not in str(told)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"revoked": True}, "revoked"),
        ({"expires_ms": NOW_MS}, "expired"),
        ({"held": Hold(reason="it ran away", since_ms=1)}, "paused: it ran away"),
    ],
)
def test_a_key_that_is_no_good_is_refused(told: dict[str, Any], why: str) -> None:
    house = table(ACME, FRAUD, KEY.model_copy(update=told))
    explained = explain_caller(house, caller_of_key(house, KEY), NOW_MS)
    assert explained.today == "refused"
    assert why in explained.reasons[0]


def test_a_throttled_key_is_admitted_and_told_of() -> None:
    house = table(ACME, FRAUD, KEY.model_copy(update={"held": Hold(reason="it ran away", since_ms=1, requests_per_minute=3)}))
    explained = explain_caller(house, caller_of_key(house, KEY), NOW_MS)
    assert explained.today == "admitted"
    assert "throttled to 3 requests a minute" in explained.notes[0]


def test_a_key_says_more_than_who_asks() -> None:
    named = caller_of_key(HOUSE, KEY.model_copy(update={"environment": ""}), "other", "dev", "bob")
    assert (named.project, named.environment, named.user) == ("p", "dev", "ada")


# Versions


def test_a_version_names_its_documents() -> None:
    caller = Caller(organization="acme", team="fraud", environment="prod", key_id="key_1", identity="okta:00u1")
    named = {"organization/acme": 1, "team/fraud": 2, "environment/fraud//prod": 3, "key/key_1": 4}
    assert versions_of("1.2.0.3.4.0", caller) == named
    assert versions_of("1.2.0.3.4.0.9", caller) == {**named, "identity_provider/okta": 9}
    assert versions_of("1.2.4", caller) == {"organization/acme": 1, "team/fraud": 2, "key/key_1": 4}, "as before the hierarchy"


@pytest.mark.parametrize("version", ["", "x", "1.2.0.0.1.0.1.1", "1.2.0.0.1.0.1"])
def test_what_is_no_version_is_said_to_be_none(version: str) -> None:
    with pytest.raises(ValueError):
        versions_of(version, Caller(organization="acme", team="fraud", key_id="key_1"))
    told = explain_job(HOUSE, booked(policy_version=version), [], NOW_MS)
    assert "names no documents" in " ".join(told.notes)


# A job


FIRST = FRAUD.model_copy(update={"version": 1, "policy": policy(limits={"requests_per_minute": 9}, timeout_s=10)})


def explained(*documents: Document, house: ControlTable = HOUSE, **told: Any) -> Explanation:
    return explain_job(house, booked(**told), documents, NOW_MS)


def test_a_job_is_explained_by_the_documents_of_its_time() -> None:
    told = explained(written(FIRST, JOB_MS - 1), written(ACME, JOB_MS - 2), written(KEY, JOB_MS - 2))
    assert told.then is not None
    assert (told.then.version, told.now.version) == ("2.1.0.0.1.0", "2.5.0.0.1.0")
    assert member(told.then.members, "models").value == ["small", "big"]
    assert [(one.member, one.then, one.now) for one in told.differences] == [
        ("models", ["small", "big"], ["small"]),
        ("timeout_s", 10, 60),
        ("team/fraud requests_per_minute", 9, None),
    ]
    assert (told.today, told.reasons) == ("admitted", [])


def test_what_was_made_anew_is_not_taken_for_what_it_was() -> None:
    """Both are version 1: the job was decided by the one that stood when it came."""
    before = FIRST.model_copy(update={"policy": policy(timeout_s=1)})
    after = FIRST.model_copy(update={"policy": policy(timeout_s=3)})
    told = explained(written(before, JOB_MS - 9), written(FIRST, JOB_MS), written(after, JOB_MS + 9))
    assert told.then is not None
    assert member(told.then.members, "timeout_s").value == 10


def test_a_document_that_came_by_a_clock_ahead_is_still_its_document() -> None:
    told = explained(written(FIRST, JOB_MS + 2))
    assert told.then is not None
    assert member(told.then.members, "timeout_s").decided_by == "team/fraud"


def test_what_still_stands_needs_no_books_and_what_nobody_knows_is_told() -> None:
    told = explained()
    assert told.then is not None
    assert [(one.level, one.document is None) for one in told.then.levels if one.version] == [
        ("organization/acme", False),
        ("team/fraud", True),
        ("key/key_1", False),
    ]
    assert "team/fraud v1 is known no more: it is left out" in told.notes


def test_what_a_token_gave_is_told_to_be_unknown() -> None:
    okta = IdentityProvider(name="okta", issuer="https://okta", audiences=("sluice",), version=4)
    house = table(ACME, FRAUD, KEY, SMALL, okta)
    told = explained(written(FIRST, JOB_MS), house=house, identity="okta:00u1", policy_version="2.1.0.0.1.0.4")
    assert told.then is not None
    assert told.then.levels[-1].level == "identity_provider/okta"
    assert "groups" in told.notes[-1]
    assert told.now.version == "2.5.0.0.1.0.4"


def house(**members: Any) -> ControlTable:
    """The house as it stands, with this written at the user's level."""
    return table(ACME, FRAUD, KEY, SMALL, BIG, User(id="u", name="ada", policy=policy(**members)))


GRANT = {"model": "big", "until_ms": NOW_MS + 1}
REFUSED: dict[str, tuple[Callable[[], ControlTable], dict[str, Any], str]] = {
    "model not allowed": (house, {"model": "big"}, "the model big is not allowed, but small"),
    "model unknown": (house, {"model": "gone"}, "the model gone is not known"),
    "a grant that is over": (
        lambda: house(granted_models=[GRANT | {"until_ms": NOW_MS}]),
        {"model": "big"},
        "the model big is not allowed",
    ),
    "lane": (lambda: house(lanes=["interactive"]), {}, "the batch lane is not allowed"),
    "metadata": (lambda: house(metadata_required=["case", "feature", "cost_center"]), {}, "must have cost_center"),
    "identity": (lambda: house(identity="required"), {}, "an identity token is required"),
    "region": (lambda: house(data={"regions": ["us"]}), {}, "no deployment of small"),
    "health data": (lambda: house(data={"hipaa": True}), {}, "no deployment of small"),
    "provider": (lambda: house(route={"providers": ["anthropic"]}), {}, "no deployment of small"),
    "key gone": (lambda: table(ACME, FRAUD, SMALL), {}, "the key key_1 is gone"),
    "team gone": (lambda: table(ACME, KEY, SMALL), {}, "the team fraud is gone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_today_would_refuse(name: str) -> None:
    made, told, why = REFUSED[name]
    found = explained(house=made(), **told)
    assert found.today == "refused"
    assert any(why in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"granted_models": [GRANT]}, {"model": "big"}),
        ({"metadata_required": ["case", "feature"]}, {}),
        ({"identity": "required"}, {"identity": "okta:00u1"}),
        ({"data": {"regions": ["eu"]}, "route": {"providers": ["openai"]}}, {}),
        ({"budgets": [Budget(tokens=0).model_dump(mode="json")]}, {}),
    ],
)
def test_what_today_would_admit(made: dict[str, Any], told: dict[str, Any]) -> None:
    assert explained(house=house(**made), **told).reasons == []


def test_an_environment_without_a_project_is_a_level_too() -> None:
    prod = Environment(id="e", team="fraud", name="prod", version=8, policy=policy(timeout_s=5))
    found = explain_caller(table(ACME, FRAUD, prod), Caller(organization="acme", team="fraud", environment="prod", key_id=""), 0)
    assert (found.now.version, found.now.levels[-1].level) == ("2.5.0.8.0.0", "environment/fraud//prod")
