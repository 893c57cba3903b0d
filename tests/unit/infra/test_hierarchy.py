"""The levels above a caller, and what applies after inheritance."""

from decimal import Decimal
from typing import Any

import pytest

from infra.hierarchy import Level, effective, group_rules, levels, plain, user_name
from infra.kafka.table import ControlTable
from schemas.budget import Budget
from schemas.control import Environment, GroupRule, IdentityProvider, Organization, Project, Team, User, VirtualKey
from schemas.job import Caller
from schemas.policy import Policy

CALLER = Caller(organization="acme", team="fraud", project="scores", environment="dev", key_id="key_1", user="ada")


def policy(*models: str) -> Policy:
    return Policy(models=models)


def table(*resources: Any) -> ControlTable:
    made = ControlTable()
    for resource in resources:
        made.put(resource)
    return made


HOUSE = (
    Organization(id="org_1", name="acme", version=2, policy=policy("a", "b", "c", "d", "e", "f")),
    Team(id="team_1", name="fraud", organization="acme", version=3, policy=policy("a", "b", "c", "d", "e")),
    Project(id="proj_1", team="fraud", name="scores", version=4, policy=policy("a", "b", "c", "d")),
    Environment(id="env_1", team="fraud", project="scores", name="dev", version=5, policy=policy("a", "b", "c")),
    Environment(id="env_2", team="fraud", project="", name="dev", version=8),
    VirtualKey(id="key_1", sha256="1", last4="1", team="fraud", version=6, policy=policy("a", "b")),
    User(id="user_1", name="ada", version=7, policy=policy("a")),
)


def test_all_levels_the_farthest_first() -> None:
    found = levels(table(*HOUSE), CALLER)
    assert [(level.scope, level.version) for level in found] == [
        ("organization/acme", 2),
        ("team/fraud", 3),
        ("project/fraud/scores", 4),
        ("environment/fraud/scores/dev", 5),
        ("key/key_1", 6),
        ("user/ada", 7),
    ]
    assert [len(level.policy.models or ()) for level in found] == [6, 5, 4, 3, 2, 1]


def test_the_effective_policy_names_each_document() -> None:
    found = effective(levels(table(*HOUSE), CALLER))
    assert (found.version, found.models) == ("2.3.4.5.6.7", ("a",))


def test_what_nobody_has_written_down_is_counted_all_the_same() -> None:
    found = levels(table(), CALLER)
    assert [level.scope for level in found] == [
        "organization/acme",
        "team/fraud",
        "project/fraud/scores",
        "environment/fraud/scores/dev",
        "key/key_1",
        "user/ada",
    ]
    assert {(level.version, level.policy) for level in found} == {(0, Policy())}
    assert effective(found).version == "0.0.0.0.0.0"


def test_a_level_that_a_caller_does_not_have_has_no_scope() -> None:
    """So that it is never counted."""
    bare = Caller(organization="acme", team="fraud", key_id="")
    found = levels(table(*HOUSE), bare)
    assert [level.scope for level in found] == ["organization/acme", "team/fraud", "", "", "", ""]
    assert effective(found).version == "2.3.0.0.0.0"


def test_an_environment_may_stand_under_no_project() -> None:
    found = levels(table(*HOUSE), CALLER.model_copy(update={"project": ""}))
    assert [(level.scope, level.version) for level in found[2:4]] == [("", 0), ("environment/fraud//dev", 8)]


def test_other_teams_have_projects_of_the_same_name() -> None:
    found = levels(table(*HOUSE), CALLER.model_copy(update={"team": "search"}))
    assert [level.version for level in found] == [2, 0, 0, 0, 6, 7]


def test_a_name_may_not_begin_a_line_of_its_own() -> None:
    found = levels(table(), CALLER.model_copy(update={"user": "ada\nspend:team/other:total"}))
    assert found[-1].scope == "user/ada%0aspend:team/other:total"
    assert plain("Grüße, 世界") == "Grüße, 世界"


def provider(name: str, *rules: GroupRule) -> IdentityProvider:
    return IdentityProvider(name=name, issuer=f"https://{name}.example", audiences=("sluice",), groups=rules, version=9)


def test_a_subject_is_a_name_only_where_nobody_else_may_give_it() -> None:
    one = table(provider("okta"))
    assert user_name(one, "okta:ada", "ada") == "ada"
    two = table(provider("okta"), provider("entra"))
    assert user_name(two, "okta:ada", "ada") == "okta:ada"
    written = table(provider("okta"), User(id="u", name="okta:ada"))
    assert user_name(written, "okta:ada", "ada") == "okta:ada"


def test_rules_of_the_groups_in_the_order_in_which_they_are_written() -> None:
    rules = tuple(GroupRule(group=name, team=name) for name in ("a", "b", "c"))
    assert group_rules(provider("okta", *rules), ["c", "x", "a"]) == (rules[0], rules[2])
    assert group_rules(provider("okta", *rules), []) == ()


def test_the_policies_of_groups_come_nearest_of_all() -> None:
    rule = GroupRule(group="a", policy=Policy(models=("a",), max_output_tokens=9))
    identity = provider("okta", rule)
    found = effective(levels(table(*HOUSE[:3]), CALLER), identity, (rule,))
    assert (found.version, found.models, found.max_output_tokens) == ("2.3.4.0.0.0.9", ("a",), 9)


@pytest.mark.parametrize("where", [0, 3, 5])
def test_limits_and_budgets_stay_at_their_level(where: int) -> None:
    budget = Budget(usd=Decimal(1))
    resources: list[Any] = list(HOUSE[:4]) + list(HOUSE[5:])
    resources[where] = resources[where].model_copy(update={"policy": Policy(budgets=(budget,))})
    found = levels(table(*resources), CALLER)
    assert [level.policy.budgets for level in found] == [(budget,) if n == where else () for n in range(6)]


def test_levels_of_one_document_are_told_apart() -> None:
    assert Level("user/ada", 1, Policy(), "@a") != Level("user/ada", 1, Policy(), "@b")
