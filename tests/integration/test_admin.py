"""The admin API: teams and keys come and go, and nobody gets in without its key."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from tests.system import System, Team, chat, until

CHAT = "/v1/chat/completions"


@pytest.fixture
def name() -> str:
    """A team that isn't there yet."""
    return f"admin-{uuid.uuid4().hex[:8]}"


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error in an answer, which has OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


async def test_a_team_and_its_keys_are_listed_without_their_secrets(system: System, name: str) -> None:
    async with system.admin() as admin:
        team = await admin.post("/admin/v1/teams", json={"name": name, "requests_per_minute": 600})
        assert (team.status_code, team.json()["name"]) == (201, name)
        made = await admin.post("/admin/v1/keys", json={"team": name, "project": "search", "user": "ada"})
        assert (made.status_code, made.json()["team"]) == (201, name)
        teams = (await admin.get("/admin/v1/teams")).json()
        listed = await admin.get("/admin/v1/keys", params={"team": name})
    assert teams["object"] == "list"
    (found,) = [team for team in teams["data"] if team["name"] == name]
    assert found["policy"]["limits"]["requests_per_minute"] == 600
    (key,) = listed.json()["data"]
    assert (key["id"], key["team"], key["project"], key["user"]) == (made.json()["id"], name, "search", "ada")
    assert key["last4"] == made.json()["key"][-4:]
    assert key["revoked"] is False
    assert "sha256" not in key
    assert made.json()["key"] not in listed.text


async def test_a_revoked_key_stops_working(system: System, name: str) -> None:
    async with system.admin() as admin:
        await admin.post("/admin/v1/teams", json={"name": name})
        made, other = [(await admin.post("/admin/v1/keys", json={"team": name})).json() for _ in range(2)]
        async with Team(name, made["key"], system.url).http() as client:
            assert (await client.post(CHAT, json=chat("mock"))).status_code == 200
            revoked = await admin.delete(f"/admin/v1/keys/{made['id']}")
            assert (revoked.status_code, revoked.json()["revoked"]) == (200, True)

            async def is_refused() -> bool:
                return (await client.get("/v1/models")).status_code == 401

            assert await until(is_refused)
            assert refused(await client.post(CHAT, json=chat("mock")), 401)["code"] == "invalid_api_key"
            assert refused(await client.get("/admin/v1/teams"), 401)["code"] == "invalid_api_key"
        listed = (await admin.get("/admin/v1/keys", params={"team": name})).json()["data"]
    assert {key["id"]: key["revoked"] for key in listed} == {made["id"]: True, other["id"]: False}
    async with Team(name, other["key"], system.url).http() as client:
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200


ROUTES = [
    ("GET", "/teams"),
    ("POST", "/teams"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("DELETE", "/keys/key_x"),
    ("POST", "/job_tokens"),
    ("GET", "/config"),
    ("PUT", "/config"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_gets_in_without_the_admin_key(system: System, method: str, path: str) -> None:
    team = await system.create_team_under("outsider", {})
    wrong = ["", "Bearer", "Bearer x", f"Bearer {team.key}x", f"Bearer {system.admin_key}x", "Bearer \xe9"]
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:

        async def ask(**headers: str) -> httpx.Response:
            encoded = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
            return await client.request(method, f"/admin/v1{path}", headers=encoded, content=b"{}")

        for answer in [await ask(), await ask(x_api_key="x"), *[await ask(authorization=header) for header in wrong]]:
            error = refused(answer, 401)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        for answer in [await ask(x_api_key=team.key), await ask(authorization=f"Bearer {team.key}")]:
            error = refused(answer, 403)
            assert (error["type"], error["code"]) == ("permission_error", "not_admin")


WRONG: dict[str, tuple[str, str, object, int, str | None, str | None]] = {
    "a key of an unknown team": ("POST", "/keys", {"team": "nobody"}, 404, "team", "not_found"),
    "a job token of an unknown team": ("POST", "/job_tokens", {"team": "nobody"}, 404, "team", "not_found"),
    "an unknown key": ("DELETE", "/keys/key_nobody", None, 404, None, "not_found"),
    "a team without a name": ("POST", "/teams", {}, 400, "name", None),
    "a name that no topic can have": ("POST", "/teams", {"name": "../x"}, 400, "name", None),
    "a limit of nothing": ("POST", "/teams", {"name": "never", "requests_per_minute": 0}, 400, "requests_per_minute", None),
    "an unknown policy": ("POST", "/teams", {"name": "never", "policy": {"models": 7}}, 400, "policy.models", None),
    "a token for ever": ("POST", "/job_tokens", {"team": "nobody", "expires_in": 10**9}, 400, "expires_in", None),
    "no object": ("POST", "/teams", [], 400, None, None),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_cannot_be_is_named(system: System, what: str) -> None:
    method, path, body, status, param, code = WRONG[what]
    async with system.admin() as admin:
        error = refused(await admin.request(method, f"/admin/v1{path}", json=body), status)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


async def test_a_team_is_not_made_twice(system: System, name: str) -> None:
    async with system.admin() as admin:
        assert (await admin.post("/admin/v1/teams", json={"name": name, "requests_per_minute": 7})).status_code == 201
        error = refused(await admin.post("/admin/v1/teams", json={"name": name}), 400)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "name", "team_exists")
        (found,) = [team for team in (await admin.get("/admin/v1/teams")).json()["data"] if team["name"] == name]
    assert found["policy"]["limits"]["requests_per_minute"] == 7, "the first one stays as it was"


async def test_an_operator_of_a_team_gets_no_further_than_his_team(system: System, name: str) -> None:
    await system.json("teams", "create", name)
    await system.json("teams", "create", f"{name}-other")
    made = await system.json("operators", "create", "lead", "--role", "team_admin", "--team", name)
    who = await system.run("whoami", SLUICE_URL=system.url, SLUICE_ADMIN_KEY=made["key"])
    assert (who.status, who.out) == (0, f"operator/{made['id']}\n")
    async with httpx.AsyncClient(base_url=system.url, headers={"x-api-key": made["key"]}, trust_env=False) as lead:
        assert (await lead.get("/admin/v1/whoami")).json()["actor"] == f"operator/{made['id']}"
        assert (await lead.post("/admin/v1/keys", json={"team": name})).status_code == 201
        assert refused(await lead.post("/admin/v1/keys", json={"team": f"{name}-other"}), 404)["code"] == "not_found"
        assert refused(await lead.post("/admin/v1/teams", json={"name": "mine"}), 403)["code"] == "not_admin"
        budget = {"scope": {"team": name}, "usd": "1000"}
        assert refused(await lead.put("/admin/v1/budgets", json=budget), 403)["code"] == "not_admin"
        assert {team["name"] for team in (await lead.get("/admin/v1/teams")).json()["data"]} == {name}
        assert (await system.json("operators", "revoke", made["id"]))["revoked"]
        assert refused(await lead.get("/admin/v1/teams"), 401)["code"] == "invalid_api_key"


async def test_a_rotated_key_works_by_both_secrets_for_a_while(system: System, name: str) -> None:
    await system.json("teams", "create", name)
    made = await system.json("keys", "create", "--team", name, "--project", "p", "--environment", "dev")
    rotated = await system.json("keys", "rotate", made["id"], "--overlap", "1h")
    assert (rotated["id"], rotated["key"] != made["key"]) == (made["id"], True)
    for secret in (made["key"], rotated["key"]):
        async with Team(name, secret, system.url).http() as client:
            assert (await client.post(CHAT, json=chat("mock"))).status_code == 200
    assert {p["name"] for p in await system.json("projects", "list", "--team", name)} == {"p"}
    assert {e["name"] for e in await system.json("environments", "list", "--team", name)} == {"dev"}
    await system.json("keys", "rotate", made["id"], "--overlap", "0")
    for secret in (made["key"], rotated["key"]):
        async with Team(name, secret, system.url).http() as client:
            assert refused(await client.get("/v1/models"), 401)["code"] == "invalid_api_key"


async def test_two_who_edit_at_once_do_not_overwrite_each_other(system: System, name: str) -> None:
    async with system.admin() as admin:
        await admin.post("/admin/v1/teams", json={"name": name})
        seen = await admin.get(f"/admin/v1/teams/{name}")
        tag = {"if-match": seen.headers["etag"]}
        path, wanted = f"/admin/v1/teams/{name}", [{"policy": {"models": [one]}} for one in ("a", "b", "c")]
        answers = await asyncio.gather(*(admin.patch(path, json=body, headers=tag) for body in wanted))
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412]
        (won,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert (await admin.get(path)).json() == won
        for answer in answers:
            if answer.status_code == 412:
                assert refused(answer, 412)["code"] == "version_conflict"


async def test_a_budget_is_set_by_one_command(system: System, name: str) -> None:
    await system.json("teams", "create", name)
    made = await system.json("budgets", "set", "--team", name, "--usd", "5.00", "--period", "month")
    assert (made["resource"], made["usd"], made["period"], made["hard"]) == (f"team/{name}", "5.00", "month", True)
    (listed,) = await system.json("budgets", "list", "--team", name)
    assert listed == made
    await system.json("limits", "set", "--team", name, "--concurrency", "5")
    assert (await system.json("limits", "list", "--team", name))[0]["limits"]["concurrency"] == 5


async def test_the_document_is_there_for_everybody(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:
        document = (await client.get("/admin/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert "post" in document["paths"]["/admin/v1/keys/{id}/rotate"]
