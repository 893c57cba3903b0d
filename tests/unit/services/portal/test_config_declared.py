"""What is declared, and what of it has to be written."""

from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from infra.kafka.table import ControlTable
from schemas.budget import Budget, Increase
from schemas.control import Organization, Project, Team, User, resource_key
from schemas.errors import InvalidRequest
from schemas.policy import CachePolicy, ModelGrant, Policy
from services.portal.config import read
from services.portal.declared import Changes, Configuration, changes, keeping_grants, standing

ALL = """
model_list: [{model_name: a, litellm_params: {model: echo/a}}]
organization: {time_zone: Europe/Berlin, policy: {timeout_s: 60}}
teams:
  fraud:
    policy: {budgets: [{usd: 100, period: month}]}
    environments: {dev: {policy: {lanes: [batch]}}}
    projects:
      screening:
        policy: {models: [a]}
        environments: {prod: {policy: {limits: {tokens_per_minute: 1000}}}, staging: {}}
users:
  ada@corp.example: {memberships: [{role: team_admin, team: fraud}, {role: auditor}], policy: {max_output_tokens: 100}}
identity_providers:
  okta:
    issuer: https://corp.okta.example
    audiences: [sluice]
    groups: [{group: fraud-people, team: fraud, role: member, policy: {models: [a]}}]
"""
KEYS = [
    "organization/default",
    "team/fraud",
    "project/fraud/screening",
    "environment/fraud//dev",
    "environment/fraud/screening/prod",
    "environment/fraud/screening/staging",
    "user/ada@corp.example",
    "identity_provider/okta",
    "model/a",
]


@pytest.fixture
def table() -> ControlTable:
    table = ControlTable()
    table.put(Organization(id="org_1", name="default"))
    return table


def wanted(text: str) -> Configuration:
    return read([("f.yaml", text)]).over(Configuration())


def change(table: ControlTable, asked: Configuration) -> Changes:
    """What is to be written, and written."""
    numbers = count()
    found = changes(table, asked, 1000, lambda prefix: f"{prefix}_{next(numbers)}")
    for resource in found.writes:
        table.put(resource)
    for key in found.deletes:
        table.remove(key)
    return found


def written(found: Changes) -> list[str]:
    return [resource_key(resource) for resource in found.writes]


def test_everything_is_written_once(table: ControlTable) -> None:
    first = change(table, wanted(ALL))
    assert (written(first), first.deletes) == (KEYS, ())
    assert [team.name for team in first.new_teams()] == ["fraud"]
    assert table.teams["fraud"].id.startswith("team_")
    assert table.organizations["default"].time_zone == "Europe/Berlin"
    assert [m.team for m in table.users["ada@corp.example"].memberships] == ["fraud", ""]
    assert table.environments["fraud/screening/prod"].policy.limits.tokens_per_minute == 1000
    assert change(table, wanted(ALL)) == Changes((), ()), "and stays as it is"


def test_what_stands_says_the_same(table: ControlTable) -> None:
    change(table, wanted(ALL))
    now = standing(table)
    assert change(table, now) == Changes((), ())
    assert now.model_dump(exclude={"models", "identity_providers"}) == wanted(ALL).model_dump(
        exclude={"models", "identity_providers"}
    )


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("usd: 100", "usd: 200", "team/fraud"),
        ("lanes: [batch]", "lanes: []", "environment/fraud//dev"),
        ("role: auditor", "role: finance", "user/ada@corp.example"),
        ("audiences: [sluice]", "audiences: [sluice, other]", "identity_provider/okta"),
        ("timeout_s: 60", "timeout_s: 61", "organization/default"),
        ("Europe/Berlin", "UTC", "organization/default"),
        ("echo/a", "echo/b", "model/a"),
    ],
)
def test_what_changes_is_one_version_higher_and_nothing_else_is_written(
    table: ControlTable, before: str, after: str, key: str
) -> None:
    change(table, wanted(ALL))
    was = table.get(key)
    assert was is not None
    found = change(table, wanted(ALL.replace(before, after)))
    assert written(found) == [key]
    assert not found.new_teams()
    assert found.writes[0].version == was.version + 1
    assert getattr(found.writes[0], "id", "") == getattr(was, "id", "")


def test_what_is_not_named_stays(table: ControlTable) -> None:
    change(table, wanted(ALL))
    assert change(table, wanted("teams: {risk: {}}")).deletes == ()
    assert set(table.teams) == {"fraud", "risk"}
    assert set(table.models) == {"a"}
    assert table.organizations["default"].policy.timeout_s == 60
    assert change(table, wanted("model_list: []")).deletes == ("model/a",)


def test_members_of_the_organization_that_are_not_meant_stay(table: ControlTable) -> None:
    change(table, wanted("policy: {timeout_s: 5, lanes: [batch]}"))
    change(table, wanted("litellm_settings: {cache: true, cache_params: {ttl: 7}}"))
    policy = table.organizations["default"].policy
    assert (policy.timeout_s, policy.lanes, policy.cache) == (5, ("batch",), CachePolicy(ttl_s=7))
    change(table, wanted("policy: {lanes: [interactive]}"))
    assert table.organizations["default"].policy.timeout_s is None, "a policy that is written down holds as a whole"


REFERS = {
    "users: {ada: {memberships: [{role: member, team: nobody}]}}": "user 'ada': there is no team 'nobody'",
    "identity_providers: {o: {issuer: 'https://o', audiences: [s], groups: [{group: g, team: nobody}]}}": "group 'g'",
}


@pytest.mark.parametrize("text", REFERS)
def test_who_refers_to_a_team_that_is_not_there_is_told(table: ControlTable, text: str) -> None:
    with pytest.raises(InvalidRequest, match=REFERS[text]):
        change(table, wanted(text))


def test_an_environment_needs_its_project(table: ControlTable) -> None:
    asked = Configuration.model_validate(
        {"teams": [{"name": "a"}], "environments": [{"team": "a", "project": "p", "name": "dev"}]}
    )
    with pytest.raises(InvalidRequest, match="there is no project 'p' of team a"):
        change(table, asked)


def increase(usd: int, approval: str) -> Increase:
    return Increase(usd=Decimal(usd), until_ms=9000, approval=approval)


def budget(usd: int, *increases: Increase, **more: Any) -> Budget:
    return Budget(usd=Decimal(usd), increases=increases, **more)


def test_what_was_granted_stays_while_its_budget_stands() -> None:
    granted = Policy(
        budgets=(budget(100, increase(10, "apr_1")), budget(5, increase(1, "apr_2"), period="day")),
        granted_models=(ModelGrant(model="x", until_ms=9000, approval="apr_3"), ModelGrant(model="by-hand", until_ms=9000)),
    )
    kept = keeping_grants(Policy(budgets=(budget(200),), max_output_tokens=5), granted)
    assert kept == Policy(
        budgets=(budget(200, increase(10, "apr_1")),), max_output_tokens=5, granted_models=granted.granted_models[:1]
    )
    assert keeping_grants(kept, kept) == kept
    assert keeping_grants(Policy(), None) == Policy()


def test_a_grant_is_not_a_change(table: ControlTable) -> None:
    change(table, wanted(ALL))
    fraud = table.teams["fraud"]
    raised = fraud.policy.budgets[0].model_copy(update={"increases": (increase(10, "apr_1"),)})
    table.put(fraud.model_copy(update={"policy": fraud.policy.model_copy(update={"budgets": (raised,)}), "version": 2}))
    assert change(table, wanted(ALL)) == Changes((), ())
    change(table, wanted(ALL.replace("usd: 100", "usd: 300")))
    assert table.teams["fraud"].policy.budgets == (budget(300, increase(10, "apr_1")),)


def test_a_time_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="is no time zone"):
        Configuration(time_zone="Europe/Atlantis")


def test_names_that_stand_already_keep_their_ids(table: ControlTable) -> None:
    table.put(Team(id="team_old", name="fraud", organization="default", webhook_secret_version=3))
    table.put(Project(id="proj_old", team="fraud", name="screening"))
    table.put(User(id="user_old", name="ada@corp.example"))
    found = change(table, wanted(ALL))
    assert not found.new_teams()
    assert (table.teams["fraud"].id, table.teams["fraud"].webhook_secret_version) == ("team_old", 3)
    assert (table.projects["fraud/screening"].id, table.users["ada@corp.example"].id) == ("proj_old", "user_old")
