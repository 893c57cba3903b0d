"""What the admin API does, beyond who may: versions, pages, keys and their secrets, budgets, and how it is documented."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from infra.credentials import key_hash, new_key, well_formed
from infra.redis.client import RedisUnavailable
from infra.redis.ledger import Settlement, open_ledger, settle
from schemas.control import GroupRule, Hold, Membership, User, VirtualKey
from schemas.event import H_ACTOR
from schemas.roles import Role
from services.portal.access import Actor
from services.portal.identities import actor_of
from tests.fakes.portal import OTHER, OWN, House, secret_of

DAY_S = 86_400
KEY = f"/keys/key_{OWN}"


@pytest.fixture
def there(tmp_path: Path) -> House:
    return House(tmp_path)


class Api:
    """Somebody who calls."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        return (await self.response(method, path, body, status, **headers)).json()

    async def response(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._client.request(method, f"/admin/v1{path}", json=body, headers=named)
        assert answer.status_code == status, answer.text
        return answer

    async def refused(self, method: str, path: str, body: Any = None, status: int = 400, **headers: str) -> dict[str, Any]:
        return (await self.ask(method, path, body, status, **headers))["error"]


@pytest.fixture
async def api(there: House) -> AsyncGenerator[Api]:
    async with there.client() as client:
        yield Api(client)


def standing(there: House, key_id: str = f"key_{OWN}") -> VirtualKey:
    return there.control.table.keys[key_id]


# Versions


async def test_a_version_is_its_etag(api: Api) -> None:
    seen = await api.response("GET", f"/teams/{OWN}")
    assert seen.headers["etag"] == '"1"'
    changed = await api.response("PATCH", f"/teams/{OWN}", {"policy": {"models": ["a"]}}, if_match='"1"')
    assert (changed.headers["etag"], changed.json()["version"]) == ('"2"', 2)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_who_saw_another_version_changes_nothing(api: Api, there: House, method: str) -> None:
    await api.ask("PATCH", f"/projects/{OWN}/idle", {"policy": {"models": ["a"]}})
    before = len(there.control.topic.changes)
    error = await api.refused(method, f"/projects/{OWN}/idle", {"policy": {}}, 412, if_match='"1"')
    assert (error["type"], error["code"]) == ("invalid_request_error", "version_conflict")
    assert len(there.control.topic.changes) == before


@pytest.mark.parametrize("tag", ['"1"', "*", '"7", "1"'])
async def test_who_saw_this_version_changes_it(api: Api, tag: str) -> None:
    assert (await api.ask("PATCH", KEY, {"name": "x"}, if_match=tag))["version"] == 2


@pytest.mark.parametrize("tag", ['"2"', "", 'W/"1"', "x"])
async def test_no_other_tag_fits(api: Api, tag: str) -> None:
    await api.refused("PATCH", KEY, {"name": "x"}, 412, if_match=tag)


async def test_what_changes_nothing_is_no_version(api: Api, there: House) -> None:
    before = len(there.control.topic.changes)
    assert (await api.ask("PATCH", KEY, {"name": ""}))["version"] == 1
    assert len(there.control.topic.changes) == before


async def test_budgets_and_limits_mind_the_version_too(api: Api) -> None:
    await api.refused("PUT", "/budgets", {"scope": {"team": OWN}, "usd": 5}, 412, if_match='"9"')
    await api.refused("PUT", "/limits", {"scope": {"team": OWN}, "limits": {"concurrency": 5}}, 412, if_match='"9"')


# Merge patches


async def test_a_patch_leaves_what_it_does_not_name(api: Api) -> None:
    await api.ask("PATCH", f"/teams/{OWN}", {"policy": {"models": ["a"], "limits": {"concurrency": 3, "tokens_per_day": 9}}})
    after = await api.ask("PATCH", f"/teams/{OWN}", {"policy": {"limits": {"tokens_per_day": None}, "timeout_s": 5}})
    assert after["policy"]["models"] == ["a"]
    assert (after["policy"]["limits"]["concurrency"], after["policy"]["limits"]["tokens_per_day"]) == (3, None)
    assert after["policy"]["timeout_s"] == 5


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (f"/teams/{OWN}", {"policy": {"modles": ["a"]}}, "policy.modles"),
        (f"/teams/{OWN}", {"policy": {"limits": {"rpm": 5}}}, "policy.limits.rpm"),
        (f"/teams/{OWN}", {"name": "other"}, "name"),
        (f"/teams/{OWN}", {"policy": {"limits": {"concurrency": 0}}}, "policy.limits.concurrency"),
        ("/organization", {"time_zone": "Mars/Olympus"}, "time_zone"),
        (KEY, {"team": OTHER}, "team"),
        (KEY, {"sha256": "x"}, "sha256"),
        (KEY, {"ip_ranges": ["10.0.0.1/8"]}, "ip_ranges.0"),
        ("/users/ada", {"memberships": [{"role": "king"}]}, "memberships.0.role"),
        ("/identity_providers/okta", {"algorithms": ["HS256"]}, "algorithms.0"),
    ],
)
async def test_what_cannot_be_is_named(api: Api, path: str, body: Any, param: str) -> None:
    assert (await api.refused("PATCH", path, body))["param"] == param


async def test_a_misspelt_filter_does_not_look_as_if_it_filtered(api: Api) -> None:
    assert (await api.refused("GET", "/keys?taem=fraud"))["param"] == "taem"


# Pages


async def test_lists_are_read_page_by_page(api: Api) -> None:
    for n in range(5):
        await api.ask("POST", "/teams", {"name": f"t{n}"}, 201)
    names: list[str] = []
    after, more = "", True
    while more:
        page = await api.ask("GET", f"/teams?limit=3&after={after}")
        assert page["object"] == "list"
        assert len(page["data"]) <= 3
        names += [team["name"] for team in page["data"]]
        after, more = page["last_id"], page["has_more"]
    assert names == [OWN, OTHER, "t0", "t1", "t2", "t3", "t4"]
    assert len((await api.ask("GET", "/teams"))["data"]) == 7
    for wrong in ("0", "1001", "x"):
        assert (await api.refused("GET", f"/teams?limit={wrong}"))["param"] == "limit"


async def test_keys_are_listed_by_where_they_are(api: Api) -> None:
    made = await api.ask("POST", "/keys", {"team": OWN, "project": "p", "environment": "dev", "user": "ada"}, 201)
    for query in ("environment=dev", "user=ada", f"team={OWN}&project=p&user=ada"):
        assert [key["id"] for key in (await api.ask("GET", f"/keys?{query}"))["data"]] == [made["id"]]
    assert (await api.ask("GET", "/keys?team=nobody"))["data"] == []


# Keys


async def test_a_key_makes_its_place_and_is_shown_once(api: Api, there: House) -> None:
    made = await api.response("POST", "/keys", {"team": OWN, "project": "new", "environment": "prod", "name": "ci"}, 201)
    assert made.headers["cache-control"] == "no-store"
    secret = made.json()["key"]
    assert well_formed(secret)
    table = there.control.table
    assert {f"{OWN}/new"} <= set(table.projects)
    assert {f"{OWN}/new/prod"} <= set(table.environments)
    assert table.keys_by_hash[key_hash(secret)].name == "ci"
    for path in ("/keys", f"/keys/{made.json()['id']}"):
        text = (await api.response("GET", path)).text
        assert secret not in text
        assert key_hash(secret) not in text
        assert "sha256" not in text


@pytest.mark.parametrize(
    ("body", "expires_ms"),
    [({}, 0), ({"expires_in": 60}, 60_000), ({"expires_at": 1_800_000_060}, 60_000)],
)
async def test_a_key_may_expire(api: Api, there: House, body: dict[str, int], expires_ms: int) -> None:
    made = await api.ask("POST", "/keys", {"team": OWN, **body}, 201)
    assert made["expires_ms"] == (there.clock() + expires_ms if expires_ms else 0)
    there.clock.move(60_000)
    assert (await api.ask("GET", f"/keys/{made['id']}"))["state"] == ("expired" if expires_ms else "valid")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_in": 60, "expires_at": 1_900_000_000}, None),
        ({"expires_at": 1_700_000_000}, "expires_at"),
        ({"ip_ranges": ["10.0.0.0/33"]}, "ip_ranges.0"),
        ({"project": "a/b"}, "project"),
        ({"requests_per_second": 1}, "requests_per_second"),
    ],
)
async def test_a_key_that_cannot_be_is_not_made(api: Api, there: House, body: dict[str, Any], param: str | None) -> None:
    before = len(there.control.topic.changes)
    assert (await api.refused("POST", "/keys", {"team": OWN, **body}))["param"] == param
    assert len(there.control.topic.changes) == before


async def test_addresses_are_networks(api: Api, there: House) -> None:
    made = await api.ask("POST", "/keys", {"team": OWN, "ip_ranges": ["10.1.0.0/16", "2001:db8::1"]}, 201)
    assert standing(there, made["id"]).ip_ranges == ("10.1.0.0/16", "2001:db8::1/128")


async def test_a_limit_beside_a_policy_leaves_its_others(api: Api, there: House) -> None:
    body = {"team": OWN, "requests_per_minute": 7, "policy": {"limits": {"concurrency": 2}}}
    made = await api.ask("POST", "/keys", body, 201)
    limits = standing(there, made["id"]).policy.limits
    assert (limits.requests_per_minute, limits.concurrency) == (7, 2)


async def test_a_rotated_key_takes_the_old_secret_for_a_while(api: Api, there: House) -> None:
    rotated = await api.response("POST", f"{KEY}/rotate", {"overlap_s": 3600})
    answer, key = rotated.json(), standing(there)
    assert rotated.headers["cache-control"] == "no-store"
    assert (answer["id"], answer["version"], answer["rotated_ms"]) == (key.id, 2, there.clock())
    assert answer["old_until_ms"] == there.clock() + 3_600_000
    by_hash = there.control.table.keys_by_hash
    assert by_hash[key_hash(answer["key"])] == by_hash[key_hash(secret_of(OWN))] == key
    shown = await api.ask("GET", KEY)
    assert shown["old"] == [{"until_ms": answer["old_until_ms"]}]
    there.clock.move(3_600_000)
    assert (await api.ask("GET", KEY))["old"] == []


async def test_rotating_again_within_the_overlap_replaces_the_newest(api: Api, there: House) -> None:
    first = await api.ask("POST", f"{KEY}/rotate")
    there.clock.move(1000)
    second = await api.ask("POST", f"{KEY}/rotate", {"overlap_s": 90 * DAY_S})
    by_hash = there.control.table.keys_by_hash
    assert key_hash(first["key"]) not in by_hash
    assert {key_hash(second["key"]), key_hash(secret_of(OWN))} <= set(by_hash)
    assert second["old_until_ms"] == first["old_until_ms"]
    assert second["rotated_ms"] == first["rotated_ms"] + 1000
    assert len(standing(there).old) == 1


async def test_rotating_without_an_overlap_drops_every_old_secret(api: Api, there: House) -> None:
    await api.ask("POST", f"{KEY}/rotate")
    answer = await api.ask("POST", f"{KEY}/rotate", {"overlap_s": 0})
    assert answer["old_until_ms"] is None
    assert [h for h, key in there.control.table.keys_by_hash.items() if key.id == f"key_{OWN}"] == [key_hash(answer["key"])]


async def test_after_the_overlap_the_next_old_secret_is_the_last_one(api: Api, there: House) -> None:
    first = await api.ask("POST", f"{KEY}/rotate", {"overlap_s": 60})
    there.clock.move(60_000)
    await api.ask("POST", f"{KEY}/rotate")
    assert [old.sha256 for old in standing(there).old] == [key_hash(first["key"])]


@pytest.mark.parametrize("method_path", [("POST", f"{KEY}/revoke"), ("DELETE", KEY)])
async def test_a_revoked_key_is_revoked_once(api: Api, there: House, method_path: tuple[str, str]) -> None:
    await api.ask("POST", f"{KEY}/rotate")
    for _ in range(2):
        shown = await api.ask(*method_path)
        assert (shown["revoked"], shown["state"], shown["version"], shown["old"]) == (True, "revoked", 3, [])
    assert (await api.refused("POST", f"{KEY}/rotate"))["code"] == "key_revoked"


async def test_a_held_key_is_resumed(api: Api, there: House) -> None:
    there.control.put(standing(there).model_copy(update={"held": Hold(reason="10 times its usual", since_ms=5), "version": 2}))
    assert (await api.ask("GET", KEY))["state"] == "paused"
    resumed = await api.ask("POST", f"{KEY}/resume")
    assert (resumed["held"], resumed["state"], resumed["version"]) == (None, "valid", 3)


async def test_when_a_key_was_used_last(api: Api, there: House) -> None:
    assert (await api.ask("GET", KEY))["last_used_ms"] is None
    await open_ledger(there.redis, "test", {}, {})
    for at_ms in (7_000, 5_000):
        await settle(there.redis, Settlement(used={f"key_{OWN}": at_ms}))
    assert [key["last_used_ms"] for key in (await api.ask("GET", "/keys"))["data"]] == [7_000, None]


async def test_keys_are_looked_at_and_revoked_while_redis_is_away(
    api: Api, there: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise RedisUnavailable("away")

    monkeypatch.setattr(there.redis, "run", away)
    assert (await api.ask("GET", "/keys"))["data"][0]["last_used_ms"] is None
    assert (await api.ask("DELETE", KEY))["revoked"]


async def test_a_job_token_is_of_a_key_that_is_good(api: Api, there: House) -> None:
    await api.ask("DELETE", KEY)
    await api.ask("POST", "/keys", {"team": OWN, "expires_in": 1}, 201)
    there.clock.move(1000)
    token = await api.ask("POST", "/job_tokens", {"team": OWN}, 201)
    (act,) = there.acts()
    key = there.control.table.get(act["resource"])
    assert (act["action"], act["actor"]) == ("job_token.minted", "admin")
    assert isinstance(key, VirtualKey)
    assert (key.user, key.revoked) == ("job-token", False)
    assert token["token"] not in json.dumps(act)


# Teams, projects, users


async def test_a_team_that_is_in_use_stays(api: Api) -> None:
    error = await api.refused("DELETE", f"/teams/{OWN}")
    assert error["code"] == "still_in_use"
    assert f"key_{OWN}" in error["message"]
    assert "op_team_admin" in error["message"]


async def test_a_team_goes_with_all_that_is_only_its_own(api: Api, there: House) -> None:
    await api.ask("DELETE", f"/keys/key_{OTHER}")
    await api.ask("DELETE", f"/teams/{OTHER}")
    table = there.control.table
    assert not [
        one
        for kind in (table.teams, table.projects, table.environments, table.keys)
        for name, one in kind.items()
        if OTHER in name
    ]
    assert {change.author.action for change in there.control.topic.by("team.deleted")} == {"team.deleted"}


async def test_a_project_goes_only_without_keys_and_takes_its_environments(api: Api, there: House) -> None:
    assert (await api.refused("DELETE", f"/projects/{OWN}/p"))["code"] == "still_in_use"
    assert (await api.refused("DELETE", f"/environments/{OWN}/p/e"))["code"] == "still_in_use"
    await api.ask("DELETE", KEY)
    await api.ask("DELETE", f"/projects/{OWN}/p")
    assert [name for name in there.control.table.environments if name.startswith(OWN)] == []


async def test_an_environment_without_a_project_has_a_name_too(api: Api) -> None:
    made = await api.ask("POST", "/environments", {"team": OWN, "name": "dev"}, 201)
    for ref in (f"{OWN}//dev", made["id"]):
        assert (await api.ask("GET", f"/environments/{ref}"))["id"] == made["id"]


async def test_a_name_is_given_once(api: Api) -> None:
    assert (await api.refused("POST", "/teams", {"name": OWN}))["code"] == "team_exists"
    assert (await api.refused("POST", "/projects", {"team": OWN, "name": "p"}))["code"] == "project_exists"
    assert (await api.refused("POST", "/users", {"name": "ada"}))["code"] == "user_exists"


async def test_a_user_is_named_as_his_provider_names_him(api: Api) -> None:
    name = "okta:auth0|https://corp.example/ada"
    await api.ask("POST", "/users", {"name": name, "memberships": [{"role": "member", "team": OWN}]}, 201)
    assert (await api.ask("GET", f"/users/{name}"))["memberships"] == [{"role": "member", "team": OWN}]


def test_who_comes_with_a_token_has_his_roles_and_those_of_his_groups() -> None:
    user = User(id="user_1", name="ada", memberships=(Membership(role=Role.MEMBER, team=OWN),))
    rules = [GroupRule(group="leads", team=OWN, role=Role.TEAM_ADMIN), GroupRule(group="all", team=OTHER)]
    assert actor_of("okta:ada", user, rules) == Actor("user/okta:ada", ((Role.MEMBER, OWN), (Role.TEAM_ADMIN, OWN)))
    assert actor_of("okta:bob", None, ()).roles == ()


async def test_nobody_takes_a_role_that_is_above_his(api: Api, there: House) -> None:
    await api.ask("PATCH", "/users/ada", {"memberships": [{"role": "platform_admin"}]})
    async with there.client(secret_of(Role.ORGANIZATION_ADMIN)) as client:
        lesser = Api(client)
        assert (await lesser.refused("PATCH", "/users/ada", {"memberships": None}, 403))["code"] == "not_admin"
        assert (await lesser.refused("DELETE", "/users/ada", None, 403))["code"] == "not_admin"


# Operators


async def test_an_operator_administrates_until_it_is_revoked(api: Api, there: House) -> None:
    made = await api.response("POST", "/operators", {"name": "ci", "role": "team_admin", "team": OWN, "expires_in": 60}, 201)
    assert made.headers["cache-control"] == "no-store"
    async with there.client(made.json()["key"]) as client:
        own = Api(client)
        assert (await own.ask("GET", "/whoami"))["actor"] == f"operator/{made.json()['id']}"
        there.clock.move(60_000)
        assert (await own.refused("GET", "/whoami", None, 401))["code"] == "invalid_api_key"
        await api.ask("PATCH", f"/operators/{made.json()['id']}", {"expires_ms": 0})
        await own.ask("GET", "/whoami")
        await api.ask("DELETE", f"/operators/{made.json()['id']}")
        assert "revoked" in (await own.refused("GET", "/whoami", None, 401))["message"]
    assert "sha256" not in (await api.response("GET", "/operators")).text


@pytest.mark.parametrize(
    "body", [{"role": "member"}, {"role": "team_admin", "team": ""}, {"role": "king"}, {"role": "member", "team": "nobody"}]
)
async def test_an_operator_that_cannot_be_is_not_made(api: Api, there: House, body: dict[str, str]) -> None:
    before = len(there.control.topic.changes)
    answer = await api.response("POST", "/operators", {"name": "x", **body}, 404 if body.get("team") == "nobody" else 400)
    assert answer.json()["error"]["message"]
    assert len(there.control.topic.changes) == before


# Budgets and limits


async def test_a_budget_replaces_that_of_its_period(api: Api, there: House) -> None:
    for usd, period in (("5.00", "month"), ("1", "day"), ("7.5", "month")):
        await api.ask("PUT", "/budgets", {"scope": {"team": OWN}, "usd": usd, "period": period, "alerts": [0.5, 0.8]})
    shown = (await api.ask("GET", f"/budgets?team={OWN}"))["data"]
    assert [(b["period"], b["usd"], b["hard"], b["alerts"]) for b in shown] == [
        ("day", "1", True, [0.5, 0.8]),
        ("month", "7.5", True, [0.5, 0.8]),
    ]
    assert [b["id"] for b in shown] == [f"team/{OWN}#day", f"team/{OWN}#month"]
    removed = await api.ask("DELETE", f"/budgets?team={OWN}&period=day")
    assert removed["usd"] == "1"
    assert [b.period for b in there.control.table.teams[OWN].policy.budgets] == ["month"]
    assert (await api.refused("DELETE", f"/budgets?team={OWN}&period=day", None, 404))["code"] == "not_found"


async def test_what_was_granted_besides_outlives_a_new_budget(api: Api, there: House) -> None:
    team = there.control.table.teams[OWN]
    budgets = [{"usd": "5", "increases": [{"usd": "3", "until_ms": 9_000_000_000_000, "approval": "apr_1"}]}]
    there.control.put(team.model_validate({**team.model_dump(), "policy": {"budgets": budgets}}))
    shown = await api.ask("PUT", "/budgets", {"scope": {"team": OWN}, "usd": "6"})
    assert [(one["usd"], one["approval"]) for one in shown["increases"]] == [("3", "apr_1")]


SCOPES = [
    ({"organization": True}, "organization/default"),
    ({"team": OWN}, f"team/{OWN}"),
    ({"team": OWN, "project": "new"}, f"project/{OWN}/new"),
    ({"team": OWN, "project": "new", "environment": "dev"}, f"environment/{OWN}/new/dev"),
    ({"team": OWN, "environment": "dev"}, f"environment/{OWN}//dev"),
    ({"key": f"key_{OWN}"}, f"key/key_{OWN}"),
    ({"user": "bob"}, "user/bob"),
]


@pytest.mark.parametrize(("scope", "resource"), SCOPES)
async def test_every_level_may_have_a_budget_and_limits(api: Api, there: House, scope: dict[str, Any], resource: str) -> None:
    shown = await api.ask("PUT", "/budgets", {"scope": scope, "tokens": 5})
    limits = await api.ask("PUT", "/limits", {"scope": scope, "limits": {"concurrency": 5}})
    assert (shown["resource"], shown["scope"]) == (resource, scope)
    assert (limits["id"], limits["limits"]["concurrency"]) == (resource, 5)
    stands: Any = there.control.table.get(resource)
    assert (stands.policy.budgets[0].tokens, stands.policy.limits.concurrency) == (5, 5)
    query = "&".join(f"{name}={value}" for name, value in scope.items())
    assert resource in [one["resource"] for one in (await api.ask("GET", f"/budgets?{query}"))["data"]]
    assert resource in [one["id"] for one in (await api.ask("GET", f"/limits?{query}"))["data"]]
    await api.ask("DELETE", f"/budgets?{query}")


@pytest.mark.parametrize(
    "body",
    [
        {"scope": {}, "usd": 5},
        {"scope": {"team": OWN, "user": "ada"}, "usd": 5},
        {"scope": {"project": "p"}, "usd": 5},
        {"scope": {"team": OWN}},
        {"scope": {"team": OWN}, "usd": -1},
        {"scope": {"team": OWN}, "usd": 5, "period": "year"},
        {"scope": {"team": OWN}, "usd": 5, "alerts": [1.5]},
        {"scope": {"team": OWN}, "dollars": 5},
    ],
)
async def test_a_budget_that_cannot_be_is_refused(api: Api, body: dict[str, Any]) -> None:
    await api.refused("PUT", "/budgets", body)


async def test_limits_are_set_one_by_one(api: Api) -> None:
    scope = {"team": OWN}
    await api.ask("PUT", "/limits", {"scope": scope, "limits": {"requests_per_minute": 60, "concurrency": 5}})
    shown = await api.ask("PUT", "/limits", {"scope": scope, "limits": {"concurrency": None, "tokens_per_day": 9}})
    limits = shown["limits"]
    assert (limits["requests_per_minute"], limits["concurrency"], limits["tokens_per_day"]) == (60, None, 9)


# Who did it


async def test_every_change_is_signed(there: House) -> None:
    async with there.client(secret_of(Role.TEAM_ADMIN)) as client:
        lead, before = Api(client), len(there.control.topic.changes)
        await lead.ask("POST", "/keys", {"team": OWN, "project": "new"}, 201)
        await lead.ask("POST", f"{KEY}/rotate")
        await lead.ask("POST", f"/teams/{OWN}/webhook_secret/rotate")
    changes = there.control.topic.changes[before:]
    assert {change.author.actor for change in changes} == {"operator/op_team_admin"}
    actions = [change.author.action for change in changes]
    assert actions == ["key.created", "project.created", "key.rotated", "team.webhook_secret_rotated"]


async def test_a_secret_that_is_shown_is_told(api: Api, there: House) -> None:
    shown = await api.ask("GET", f"/teams/{OWN}/webhook_secret")
    (act,) = there.acts()
    assert (act["actor"], act["action"], act["resource"]) == ("admin", "webhook_secret.shown", f"team/{OWN}")
    assert shown["secret"] not in json.dumps(act)


async def test_a_thousand_refused_tries_are_told_once_a_minute(there: House) -> None:
    async with there.client(secret_of(OWN)) as client:
        for minute in range(2):
            for _ in range(10):
                assert (await client.get(f"/admin/v1/keys/{minute}")).status_code == 403
            there.clock.move(60_000)
    assert [act["resource"] for act in there.acts()] == ["/admin/v1/keys/0", "/admin/v1/keys/1"]


def test_headers_name_the_actor() -> None:
    assert H_ACTOR == "sluice-actor"


# The document


async def test_every_route_is_documented(there: House) -> None:
    async with there.client("") as client:
        document = (await client.get("/admin/v1/openapi.json")).json()
    served = {
        (method.lower(), route.path.replace(":path", ""))
        for route in there.portal.routes
        if isinstance(route, Route) and route.path.startswith("/admin/v1") and route.path != "/admin/v1/openapi.json"
        for method in (route.methods or set[str]()) - {"HEAD"}
    }
    documented = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert documented == served
    for method, path in documented:
        told = document["paths"][path][method]
        assert told["summary"]
        named = {one["name"] for one in told.get("parameters", []) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert ("requestBody" in told) <= (method in ("post", "put", "patch"))


async def test_the_documents_references_lead_somewhere(there: House) -> None:
    async with there.client("") as client:
        text = (await client.get("/admin/v1/openapi.json")).text
    schemas = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert "sha256" not in json.dumps({name: schemas[name] for name in ("KeyShown", "OperatorShown", "KeyMade", "KeyRotated")})


# What is documented


def test_the_pattern_for_scanners_finds_keys() -> None:
    text = (Path(__file__).parents[4] / "docs" / "keys.md").read_text()
    (pattern,) = set(re.findall(r"sk-sl-\[.*\]\{6\}", text))
    for _ in range(100):
        assert re.fullmatch(pattern, new_key())
    (example,) = re.findall(r"^sk-sl-\w+$", text, re.MULTILINE)
    assert well_formed(example)


@pytest.mark.parametrize(
    "credentials",
    [
        {"api_key": "sk-CANARY"},
        {"aws": {"access_key_id": "env:A", "secret_access_key": "CANARY"}},
        {"vertex": {"credentials": '{"private_key": "CANARY"}'}},
    ],
)
async def test_a_credential_never_gets_into_the_configuration(there: House, api: Api, credentials: dict[str, object]) -> None:
    model = {"name": "m", "deployments": [{"id": "d", "provider": "acme", "model": "m", **credentials}]}
    error = await api.refused("PUT", "/config", {"models": [model]})
    assert (error["param"], "CANARY" in str(error)) == ("models", False)
    assert "m" not in there.control.table.models
    model["deployments"] = [{"id": "d", "provider": "acme", "model": "m", "api_key": "vault:secret/data/acme#key"}]
    assert "model/m" in (await api.ask("PUT", "/config", {"models": [model]}))["applied"]
