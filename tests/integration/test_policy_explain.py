"""Who changed what, and which policy decided a job that is older than three changes. The whole system, Kafka and ClickHouse."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.system import System, Team, chat, until

CHAT = "/v1/chat/completions"


@pytest.fixture
async def team(system: System) -> Team:
    return await system.create_team_under("explained", {"models": ["mock", "echo"], "timeout_s": 50})


async def change(system: System, team: Team, policy: Mapping[str, object]) -> int:
    """Makes a team's policy another; gives the version."""
    async with system.admin() as admin:
        answer = await admin.patch(f"/admin/v1/teams/{team.name}", json={"policy": policy})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


async def events_of(system: System, resource: str, at_least: int) -> list[dict[str, Any]]:
    """The events of a resource, the latest first, once there are so many."""

    async def found() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = await system.json("events", "--resource", resource)
        return events if len(events) >= at_least else []

    return await until(found)


async def operator(system: System, role: str, team: str = "") -> httpx.AsyncClient:
    """Somebody with one role."""
    async with system.admin() as admin:
        made = await admin.post("/admin/v1/operators", json={"name": f"{role} {team}", "role": role, "team": team})
    assert made.status_code == 201, made.text
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    return httpx.AsyncClient(base_url=system.url, headers=headers, trust_env=False, timeout=30)


async def test_a_job_older_than_four_changes_is_explained_by_the_policy_of_its_time(system: System, team: Team) -> None:
    async with team.http() as client:
        answer = await client.post(CHAT, json=chat("mock"))
    assert answer.status_code == 200, answer.text
    job_id = answer.headers["x-sluice-job"]
    for policy in (
        {"timeout_s": 40},
        {"models": ["echo"]},
        {"models": ["echo"], "metadata_required": ["case"]},
        {"models": ["echo"], "metadata_required": ["case"], "limits": {"requests_per_minute": 7}, "timeout_s": None},
    ):
        version = await change(system, team, policy)
    assert version == 5

    await system.job(job_id)
    assert [event["version"] for event in await events_of(system, f"team/{team.name}", 5)] == [5, 4, 3, 2, 1]
    told = await system.json("policy", "explain", "--job", job_id)
    then = {one["member"]: one for one in told["then"]["members"]}
    (level,) = [one for one in told["then"]["levels"] if one["level"] == f"team/{team.name}"]
    assert (level["version"], level["document"]["policy"]["models"]) == (1, ["mock", "echo"])
    assert (then["models"]["value"], then["models"]["decided_by"]) == (["mock", "echo"], f"team/{team.name}")
    assert then["timeout_s"]["value"] == 50
    assert told["then"]["version"] == told["job"]["policy_version"]

    (now,) = [one for one in told["now"]["levels"] if one["level"] == f"team/{team.name}"]
    assert now["version"] == 5
    changed = {one["member"]: (one["then"], one["now"]) for one in told["differences"]}
    assert changed == {
        "models": (["mock", "echo"], ["echo"]),
        "timeout_s": (50, None),
        "metadata_required": ([], ["case"]),
        f"team/{team.name} requests_per_minute": (None, 7),
    }
    assert told["today"] == "refused"
    assert told["reasons"] == ["the model mock is not allowed, but echo", "x-sluice-metadata must have case"]

    shown = await system.run("policy", "explain", "--job", job_id)
    assert shown.status == 0, shown.err
    assert "today: refused: the model mock is not allowed" in shown.out


async def test_a_change_has_its_author_and_what_stood_before_and_after(system: System, team: Team) -> None:
    await change(system, team, {"timeout_s": 30})
    latest, first = await events_of(system, f"team/{team.name}", 2)
    assert (latest["actor"], latest["kind"], latest["team"], latest["version"]) == ("admin", "team", team.name, 2)
    assert latest["before"] == first["after"]
    assert (latest["before"]["policy"]["timeout_s"], latest["after"]["policy"]["timeout_s"]) == (50, 30)
    assert (first["version"], first["before"]) == (1, None)
    rows = await system.sql(f"SELECT before, after FROM events WHERE resource = 'team/{team.name}' AND version = 2")
    assert [json.loads(rows[0][side]) for side in ("before", "after")] == [latest["before"], latest["after"]]


async def test_an_act_that_changes_nothing_is_kept_too(system: System, team: Team) -> None:
    assert (await system.run("webhooks", "secret", "--team", team.name)).status == 0
    latest, _ = await events_of(system, f"team/{team.name}", 2)
    assert (latest["action"], latest["actor"], latest["team"]) == ("webhook_secret.shown", "admin", team.name)
    assert "whsec_" not in str(latest)


async def test_a_key_is_explained_and_its_hash_is_told_nobody(system: System, team: Team) -> None:
    (key,) = [one for one in await system.json("keys", "list", "--team", team.name)]
    told = await system.json("policy", "explain", "--key", key["id"])
    assert (told["caller"]["team"], told["today"]) == (team.name, "admitted")
    members = {one["member"]: one for one in told["now"]["members"]}
    assert (members["models"]["value"], members["models"]["decided_by"]) == (["mock", "echo"], f"team/{team.name}")
    events = await events_of(system, f"key/{key['id']}", 1)
    assert "sha256" not in f"{told} {events}"
    await system.run("keys", "revoke", key["id"])
    told = await system.json("policy", "explain", "--key", key["id"])
    assert (told["today"], told["reasons"]) == ("refused", [f"the key {key['id']} is revoked"])


async def test_who_sees_one_team_sees_its_past_alone(system: System, team: Team) -> None:
    other = await system.create_team("elsewhere")
    await events_of(system, f"team/{other.name}", 1)
    await events_of(system, f"team/{team.name}", 1)
    path = "/admin/v1/policy/explain"
    async with await operator(system, "member", team.name) as member, await operator(system, "auditor") as auditor:
        own = (await member.get("/admin/v1/events")).json()["data"]
        assert {event["team"] for event in own} == {team.name}
        assert (await member.get("/admin/v1/events", params={"team": other.name})).status_code == 404
        assert (await member.get("/admin/v1/events", params={"resource": f"team/{other.name}"})).json()["data"] == []
        assert (await member.get(path, params={"team": team.name})).status_code == 200
        assert (await member.get(path, params={"team": other.name})).status_code == 404
        everything = (await auditor.get("/admin/v1/events", params={"limit": 1000})).json()["data"]
        assert {team.name, other.name} <= {event["team"] for event in everything}
        assert (await auditor.get(path, params={"team": other.name})).status_code == 200

        async with other.http() as client:
            job_id = (await client.post(CHAT, json=chat("echo"))).headers["x-sluice-job"]
        await system.job(job_id)
        assert (await member.get(path, params={"job": job_id})).status_code == 404
        assert (await auditor.get(path, params={"job": job_id})).status_code == 200


async def test_events_are_paged(system: System, team: Team) -> None:
    for timeout_s in (1, 2, 3):
        await change(system, team, {"timeout_s": timeout_s})
    await events_of(system, f"team/{team.name}", 4)
    found: list[int] = []
    asked = {"resource": f"team/{team.name}", "limit": "3"}
    async with system.admin() as admin:
        for more in (True, False):
            page = (await admin.get("/admin/v1/events", params=asked)).json()
            assert (page["has_more"], page["last_id"] is not None) == (more, more)
            found += [event["version"] for event in page["data"]]
            asked["after"] = page["last_id"]
        assert found == [4, 3, 2, 1]
        unknown = await admin.get("/admin/v1/events", params={"after": "evt_none"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "after")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 400),
        ({"key": "key_1", "team": "a"}, 400),
        ({"key": "key_none"}, 404),
        ({"team": "none"}, 404),
        ({"job": "none"}, 404),
        ({"job": "job_019b76daa8007000800000000000002a"}, 404),
    ],
)
async def test_what_cannot_be_explained_is_refused(system: System, params: dict[str, str], status: int) -> None:
    async with system.admin() as admin:
        answer = await admin.get("/admin/v1/policy/explain", params=params)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
