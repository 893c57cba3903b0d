"""A key that runs away is told of and held, and one command lets it go on."""

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from tests.kafka_client import publish
from tests.system import System, Team, chat, prompt, until

CHAT = "/v1/chat/completions"
ALERTS = "/admin/v1/alerts"


class Key:
    """A key of a new team, looked at by an administrator."""

    def __init__(self, system: System, admin: httpx.AsyncClient, team: str, made: dict[str, Any]) -> None:
        self.id, self.team = str(made["id"]), Team(team, made["key"], system.url)
        self._admin = admin

    @classmethod
    async def create(cls, system: System, admin: httpx.AsyncClient, runaway: dict[str, object]) -> "Key":
        team = f"runaway-{uuid.uuid4().hex[:6]}"
        assert (await admin.post("/admin/v1/teams", json={"name": team})).status_code == 201
        made = await admin.post("/admin/v1/keys", json={"team": team, "policy": {"runaway": runaway}})
        assert made.status_code == 201, made.text
        return cls(system, admin, team, made.json())

    async def shown(self) -> dict[str, Any]:
        """As the admin API shows it."""
        listed = (await self._admin.get("/admin/v1/keys", params={"team": self.team.name})).json()["data"]
        return next(key for key in listed if key["id"] == self.id)

    async def held(self) -> dict[str, Any] | None:
        return (await self.shown())["held"]

    async def alerts(self) -> list[dict[str, Any]]:
        answer = await self._admin.get(ALERTS, params={"team": self.team.name})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def an_alert(key: Key, action: str, version: int, usual: float) -> bytes:
    """As accounting raises it."""
    facts = {"action": action, "pattern": "requests", "reason": "too many", "key_id": key.id, "key_version": version}
    alert = {
        "id": f"alert_{uuid.uuid4().hex}",
        "at_ms": 1_800_000_000_000,
        "what": "runaway",
        "scope": f"key/{key.id}",
        "team": key.team.name,
        "message": "It runs away.",
        "facts": facts | {"usual_requests_per_minute": usual},
    }
    return json.dumps(alert).encode()


async def ask_until_held(key: Key, client: httpx.AsyncClient) -> dict[str, Any]:
    """Equal requests, 25 at a time: where the first lie in two minutes, the next don't."""
    body = chat("mock", prompt("again"))

    async def asked() -> dict[str, Any] | None:
        await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(25)))
        try:
            return await until(key.held, 5)
        except AssertionError:
            return None

    return await until(asked, 60)


async def test_equal_requests_pause_a_key_until_it_is_resumed(system: System) -> None:
    async with system.admin() as admin:
        key = await Key.create(system, admin, {"action": "pause", "same_prompt": 20})
        async with key.team.http() as client:
            assert (await client.post(CHAT, json=chat("mock"))).status_code == 200
            held = await ask_until_held(key, client)
            assert held["reason"] == "20 equal requests within a minute"
            assert held["requests_per_minute"] is None
            (alert,) = await key.alerts()
            assert (alert["what"], alert["scope"], alert["severity"]) == ("runaway", f"key/{key.id}", "critical")
            assert f"sluice keys resume {key.id}" in alert["message"]

            async def is_refused() -> httpx.Response | None:
                answer = await client.post(CHAT, json=chat("mock"))
                return answer if answer.status_code != 200 else None

            refused = await until(is_refused)
            assert refused.status_code in (403, 429), refused.text
            message = refused.json()["error"]["message"]
            assert held["reason"] in message
            assert f"sluice keys resume {key.id}" in message
            resumed = await system.run("keys", "resume", key.id)
            assert resumed.status == 0, resumed.err

            async def is_served() -> bool:
                return (await client.post(CHAT, json=chat("mock"))).status_code == 200

            assert await until(is_served)
            body = chat("mock", prompt("fewer"))
            answers = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(10)))
            assert {answer.status_code for answer in answers} == {200}
        assert await key.held() is None


@pytest.mark.parametrize(("action", "pace"), [("throttle", 12), ("pause", None)])
async def test_an_alert_holds_the_key_that_it_is_about_once(system: System, action: str, pace: int | None) -> None:
    async with system.admin() as admin:
        key = await Key.create(system, admin, {})
        version = (await key.shown())["version"]
        told = an_alert(key, action, version, 125)
        await publish(system.kafka, "sluice.alerts", [told], [])
        assert (await until(key.held))["requests_per_minute"] == pace
        assert (await admin.post(f"/admin/v1/keys/{key.id}/resume")).status_code == 200
        # The same again, and what is no alert at all; then one about another key, by which those have been read.
        other = await Key.create(system, admin, {})
        last = an_alert(other, action, (await other.shown())["version"], 125)
        await publish(system.kafka, "sluice.alerts", [told, b"junk", last], [])
        assert await until(other.held)
        assert await key.held() is None
        assert len(await key.alerts()) == 2


async def test_who_did_it_stands_in_the_events(system: System) -> None:
    async with system.admin() as admin:
        key = await Key.create(system, admin, {})
        await publish(system.kafka, "sluice.alerts", [an_alert(key, "pause", (await key.shown())["version"], 0)], [])
        assert await until(key.held)

        async def told() -> dict[str, Any] | None:
            events = (await admin.get("/admin/v1/events", params={"resource": f"key/{key.id}"})).json()["data"]
            return next((event for event in events if event["action"] == "key.held"), None)

        event = await until(told)
        assert (event["actor"], event["reason"]) == ("runaway detector", "too many")
        assert event["before"]["held"] is None
        assert event["after"]["held"]["reason"] == "too many"


async def test_alerts_are_shown_by_the_command_line_and_page_by_page(system: System) -> None:
    async with system.admin() as admin:
        key = await Key.create(system, admin, {})
        await publish(system.kafka, "sluice.alerts", [an_alert(key, "alert", 1, 0) for _ in range(3)], [])

        async def all_there() -> bool:
            return len(await key.alerts()) == 3

        assert await until(all_there)
        shown = await system.run("alerts", "--team", key.team.name)
        assert shown.status == 0, shown.err
        assert shown.out.count("It runs away.") == 3
        params = {"team": key.team.name, "what": "runaway", "limit": 2}
        first = (await admin.get(ALERTS, params=params)).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = (await admin.get(ALERTS, params=params | {"after": first["last_id"]})).json()
        assert (len(rest["data"]), rest["has_more"]) == (1, False)
        ids = [alert["id"] for alert in first["data"] + rest["data"]]
        assert ids == [alert["id"] for alert in await system.json("alerts", "--team", key.team.name)]
        assert (await admin.get(ALERTS, params={"what": "weather"})).status_code == 400
        assert await key.held() is None
