"""Somebody asks, somebody else decides, and what was granted works: keys, budgets, models, and tickets of an ITSM system."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from infra.webhooks.signing import signed_headers
from tests.system import ITSM_SECRET, Result, System, Team, chat, until

CHAT = "/v1/chat/completions"
PATH = "/admin/v1/approvals"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a credential for the admin API."""

    id: str
    secret: str
    system: System

    def http(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.secret}"}
        return httpx.AsyncClient(base_url=self.system.url, headers=headers, trust_env=False, timeout=30)

    async def post(self, path: str, body: dict[str, object]) -> httpx.Response:
        async with self.http() as client:
            return await client.post(f"{PATH}{path}", json=body)

    async def sluice(self, *words: str) -> Result:
        """A command, in this person's name."""
        return await self.system.run(*words, SLUICE_ADMIN_KEY=self.secret)


async def person(system: System, role: str, team: str = "") -> Person:
    async with system.admin() as admin:
        made = await admin.post("/admin/v1/operators", json={"name": f"{role} of {team or 'all'}", "role": role, "team": team})
    assert made.status_code == 201, made.text
    return Person(made.json()["id"], made.json()["key"], system)


@pytest.fixture
async def team(system: System) -> Team:
    """A team that may spend next to nothing, and ask for `echo` only."""
    return await system.create_team_under("asking", {"budgets": [{"usd": "0.0000001"}], "models": ["echo", "mock"]})


@pytest.fixture
async def member(system: System, team: Team) -> Person:
    return await person(system, "member", team.name)


@pytest.fixture
async def approver(system: System) -> Person:
    return await person(system, "organization_admin")


def made(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def works(system: System, key: str) -> bool:
    async with Team("", key, system.url).http() as client:
        return (await client.get("/v1/models")).status_code == 200


async def test_a_key_is_asked_for_granted_collected_and_works(
    system: System, team: Team, member: Person, approver: Person
) -> None:
    asked = await member.sluice(
        "approvals", "ask", "key", "--team", team.name, "--project", "scores", "--why", "a proof", "--for", "30d"
    )
    assert asked.status == 0, asked.err
    approval_id = asked.out.strip()
    own = await member.sluice("approvals", "grant", approval_id, "--reason", "why not")
    assert (own.status, "organization_admin" in own.err) == (1, True)
    granted = await approver.sluice("approvals", "grant", approval_id, "--reason", "within plan")
    assert granted.status == 0, granted.err
    assert (await approver.sluice("approvals", "collect", approval_id)).status == 1
    collected = await member.sluice("approvals", "collect", approval_id)
    assert collected.status == 0, collected.err
    key = collected.out.strip()
    assert await until(lambda: works(system, key))
    again = await member.sluice("approvals", "collect", approval_id)
    assert (again.status, again.out) == (1, "")
    assert "collected" in again.err
    listed = await member.sluice("approvals", "list", "--status", "collected")
    assert approval_id in listed.out
    assert key not in listed.out


async def test_an_increase_raises_the_limit_and_ends(system: System, team: Team, member: Person, approver: Person) -> None:
    async def admitted() -> bool:
        async with team.http() as client:
            answer = await client.post(CHAT, json=chat("mock", max_tokens=5))
        assert answer.status_code in (200, 429), answer.text
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "budget_exceeded"
        return answer.status_code == 200

    async def refused() -> bool:
        return not await admitted()

    assert not await admitted()
    wanted = {"usd": "1", "level": f"team/{team.name}"}
    asked = made(await member.post("", {"what": "budget", "team": team.name, "wanted": wanted, "why": "launch"}), 201)
    ends_ms = time.time_ns() // 1_000_000 + 4_000
    made(await approver.post(f"/{asked['id']}/grant", {"reason": "launch", "until_ms": ends_ms}))
    assert await until(admitted)
    assert await until(refused)
    assert time.time_ns() // 1_000_000 >= ends_ms


async def test_a_model_is_allowed_for_a_time(system: System, approver: Person) -> None:
    modest = await system.create_team_under("modest", {"models": ["echo"]})

    async def status() -> int:
        async with modest.http() as client:
            return (await client.post(CHAT, json=chat("mock"))).status_code

    assert await status() == 403
    helper = await person(system, "member", modest.name)
    wanted: dict[str, object] = {
        "what": "model",
        "team": modest.name,
        "wanted": {"model": "mock"},
        "why": "a test",
        "for_s": 3600,
    }
    asked = made(await helper.post("", wanted), 201)
    made(await approver.post(f"/{asked['id']}/grant", {"reason": "fine"}))

    async def allowed() -> bool:
        return await status() == 200

    assert await until(allowed)


async def test_another_team_sees_and_decides_nothing(system: System, team: Team, member: Person) -> None:
    asked = made(await member.post("", {"what": "key", "team": team.name, "why": "a proof"}), 201)
    other = await system.create_team("other")
    outsider = await person(system, "team_admin", other.name)
    for act in ("grant", "refuse"):
        assert (await outsider.post(f"/{asked['id']}/{act}", {"reason": "x"})).status_code == 404
    assert (await outsider.post(f"/{asked['id']}/collect", {})).status_code == 404
    async with outsider.http() as client:
        assert (await client.get(PATH)).json()["data"] == []
        assert (await client.get(PATH, params={"team": team.name})).status_code == 404
    async with team.http() as client:
        assert (await client.post(PATH, json={"what": "key", "team": team.name, "why": "x"})).status_code in (401, 403)


async def post_ticket(system: System, ticket: Mapping[str, object], event_id: str | None = None) -> httpx.Response:
    body = json.dumps(ticket).encode()
    headers = signed_headers([ITSM_SECRET], event_id or f"msg_{uuid.uuid4().hex}", int(time.time()), body)
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:
        return await client.post("/hooks/itsm", content=body, headers=headers)


async def test_a_ticket_approves_from_outside_and_its_replay_does_not(system: System, team: Team, member: Person) -> None:
    asked = made(await member.post("", {"what": "key", "team": team.name, "why": "a proof"}), 201)
    number = f"RITM{uuid.uuid4().int % 10**7:07}"
    ticket = {"number": number, "state": "approved", "approver": "grace", "comments": "ok", "u_sluice_request": asked["id"]}
    told = made(await post_ticket(system, ticket, "msg_once"))["approval"]
    assert (told["status"], told["decided_by"], told["ticket"]) == ("granted", "itsm/grace", number)
    replayed = await post_ticket(system, ticket, "msg_once")
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (409, "webhook_replayed")
    collected = made(await member.post(f"/{asked['id']}/collect", {}))
    assert await until(lambda: works(system, collected["key"]))


async def test_who_asked_what_and_who_decided_is_in_the_books(
    system: System, team: Team, member: Person, approver: Person
) -> None:
    asked = made(await member.post("", {"what": "key", "team": team.name, "why": "for the audit"}), 201)
    made(await approver.post(f"/{asked['id']}/refuse", {"reason": "not now"}))

    async def told() -> list[dict[str, Any]]:
        rows = await system.query(f"SELECT * FROM events WHERE resource = 'approval/{asked['id']}' ORDER BY version")
        return rows if len(rows) == 2 else []

    first, second = await until(told)
    assert (first["actor"], first["action"], first["reason"]) == (f"operator/{member.id}", "approval.asked", "for the audit")
    assert (second["actor"], second["action"], second["reason"]) == (f"operator/{approver.id}", "approval.refused", "not now")


async def test_what_is_not_signed_is_not_taken(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:
        answer = await client.post("/hooks/itsm", content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_signature")
