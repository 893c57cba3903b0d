"""`sluice top`, asked of a running system."""

from typing import Any, cast

from tests.system import System, until

CHAT = {"model": "mock", "messages": [{"role": "user", "content": "top"}]}


async def test_what_a_team_asked_a_moment_ago_is_seen_with_its_spend_and_the_lanes(system: System) -> None:
    team = await system.create_team("top")
    async with team.http() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200

    async def seen() -> dict[str, Any] | None:
        async with system.admin() as admin:
            answer = (await admin.get("/admin/v1/live", params={"team": team.name})).json()
        return answer if answer["traffic"] and answer["today"] else None

    assert await until(seen)
    shown = cast("dict[str, Any]", await system.json("top", "--team", team.name))
    (line,) = shown["traffic"]
    assert (line["team"], line["model"], line["jobs"], line["failed"]) == (team.name, "mock", 1, 0)
    assert [(one["team"], one["jobs"]) for one in shown["today"]] == [(team.name, 1)]
    assert line["cost_usd"] == shown["today"][0]["cost_usd"]
    assert [one["lane"] for one in shown["lanes"]] == ["interactive", "batch"]
    assert {"state", "calls"} <= set(shown["deployments"][0])
