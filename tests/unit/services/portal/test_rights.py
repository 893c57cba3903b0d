"""Every route of the admin API, asked by every role, about its own team and about another's.

What is expected stands in `ROUTES` as data; a route that isn't there, or is there no more, fails.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from infra.kafka.dead import Letter, Page
from infra.redis.tickets import Found
from schemas.control import Approval
from schemas.job import Api, Caller
from schemas.roles import Role
from schemas.ticket import Ticket
from schemas.topics import Lane
from services.portal.access import RIGHTS, Actor, Right
from services.portal.books import Books, EventShown, JobBooked
from services.portal.webhooks import Tried, Webhooks
from tests.fakes.portal import OTHER, OWN, House, house, secret_of

PLATFORM, ORGANIZATION, TEAM, MEMBER = Role.PLATFORM_ADMIN, Role.ORGANIZATION_ADMIN, Role.TEAM_ADMIN, Role.MEMBER
COLUMNS: Sequence[tuple[Role, str]] = (
    (PLATFORM, OWN),
    (ORGANIZATION, OWN),
    (Role.AUDITOR, OWN),
    (Role.FINANCE, OWN),
    (TEAM, OWN),
    (MEMBER, OWN),
    (TEAM, OTHER),
    (MEMBER, OTHER),
)
"""Who asks, about whose thing. Those of a team are in OWN."""

DONE, REFUSED, HIDDEN = "y", "-", "0"
"""In a row: done, refused (403), as if it weren't there (404). Where nothing is a team's, the last two are blank."""


@dataclass(frozen=True, slots=True)
class Try:
    """A route, what is sent to it (`{team}` stands for a team), who may, and the status of what is done."""

    route: str
    cells: str
    path: str = ""
    body: Any = None
    status: int = 200


JOB = "job_{digits}"
POLICY = {"policy": {"timeout_s": 5}}
BUDGET = {"policy": {"budgets": [{"usd": "5"}]}}
WANTED = {"what": "key", "team": "{team}", "wanted": {"project": "p"}, "why": "a test"}

ROUTES: Sequence[Try] = (
    #                                   P O A F T M  other team
    Try("GET /organization", "yyyy--"),
    Try("PATCH /organization", "y-----", body={"time_zone": "Europe/Berlin"}),
    Try("PATCH /organization", "yy-y--", body=BUDGET),
    Try("POST /teams", "yy----", body={"name": "new"}, status=201),
    Try("GET /teams", "yyyyyy"),
    Try("GET /teams/{name}", "yyyyyy00", "/teams/{team}"),
    Try("PATCH /teams/{name}", "yy----00", "/teams/{team}", POLICY),
    Try("PATCH /teams/{name}", "yy-y--00", "/teams/{team}", BUDGET),
    Try("PATCH /teams/{name}", "yy-y--00", "/teams/{team}", {}),
    Try("DELETE /teams/{name}", "yy----00", "/teams/{team}", status=400),
    Try("GET /teams/{name}/webhook_secret", "yy--y-00", "/teams/{team}/webhook_secret"),
    Try("POST /teams/{name}/webhook_secret/rotate", "yy--y-00", "/teams/{team}/webhook_secret/rotate"),
    Try("POST /teams/{name}/webhooks/test", "yy--y-00", "/teams/{team}/webhooks/test", {"url": "https://hooks.example/"}),
    Try("POST /projects", "yy--y-00", body={"team": "{team}", "name": "new"}, status=201),
    Try("POST /projects", "yy----00", body={"team": "{team}", "name": "new", **BUDGET}, status=201),
    Try("GET /projects", "yyyyyy"),
    Try("GET /projects/{ref}", "yyyyyy00", "/projects/{team}/p"),
    Try("GET /projects/{ref}", "yyyyyy00", "/projects/proj_{team}"),
    Try("PATCH /projects/{ref}", "yy--y-00", "/projects/{team}/p", POLICY),
    Try("PATCH /projects/{ref}", "yy-y--00", "/projects/{team}/p", BUDGET),
    Try("PATCH /projects/{ref}", "yy----00", "/projects/{team}/p", {"policy": {"guard": {"actions": {"card": "allow"}}}}),
    Try("PATCH /projects/{ref}", "yy----00", "/projects/{team}/p", {"policy": {"cache": {"namespace": "search"}}}),
    Try("DELETE /projects/{ref}", "yy--y-00", "/projects/{team}/idle"),
    Try("POST /environments", "yy--y-00", body={"team": "{team}", "project": "p", "name": "new"}, status=201),
    Try("GET /environments", "yyyyyy"),
    Try("GET /environments/{ref}", "yyyyyy00", "/environments/{team}/p/e"),
    Try("PATCH /environments/{ref}", "yy--y-00", "/environments/{team}/p/e", POLICY),
    Try("PATCH /environments/{ref}", "yy-y--00", "/environments/{team}/p/e", BUDGET),
    Try("DELETE /environments/{ref}", "yy--y-00", "/environments/{team}/p/idle"),
    Try("POST /users", "yy----", body={"name": "eve"}, status=201),
    Try("POST /users", "yy----", body={"name": "eve", "memberships": [{"role": "organization_admin"}]}, status=201),
    Try("POST /users", "y-----", body={"name": "eve", "memberships": [{"role": "platform_admin"}]}, status=201),
    Try("GET /users", "yyyy--"),
    Try("GET /users/{ref}", "yyyy--", "/users/ada"),
    Try("PATCH /users/{ref}", "yy----", "/users/ada", {"memberships": [{"role": "member", "team": "fraud"}]}),
    Try("PATCH /users/{ref}", "y-----", "/users/ada", {"memberships": [{"role": "platform_admin"}]}),
    Try("PATCH /users/{ref}", "yy-y--", "/users/ada", BUDGET),
    Try("DELETE /users/{ref}", "yy----", "/users/ada"),
    Try("POST /identity_providers", "y-----", body={"name": "n", "issuer": "https://n.example", "audiences": ["a"]}, status=201),
    Try("GET /identity_providers", "yyyy--"),
    Try("GET /identity_providers/{name}", "yyyy--", "/identity_providers/okta"),
    Try("PATCH /identity_providers/{name}", "y-----", "/identity_providers/okta", {"leeway_s": 5}),
    Try("DELETE /identity_providers/{name}", "y-----", "/identity_providers/okta"),
    Try("POST /keys", "yy--y-00", body={"team": "{team}"}, status=201),
    Try("POST /keys", "yy--y-00", body={"team": "{team}", "requests_per_minute": 5, "policy": {"models": ["a"]}}, status=201),
    Try("POST /keys", "yy----00", body={"team": "{team}", **BUDGET}, status=201),
    Try("POST /keys", "yy----00", body={"team": "{team}", "policy": {"weight": 9}}, status=201),
    Try("GET /keys", "yyyyyy"),
    Try("GET /keys/{id}", "yyyyyy00", "/keys/key_{team}"),
    Try("PATCH /keys/{id}", "yy--y-00", "/keys/key_{team}", {"name": "x"}),
    Try("PATCH /keys/{id}", "yy--y-00", "/keys/key_{team}", POLICY),
    Try("PATCH /keys/{id}", "yy-y--00", "/keys/key_{team}", BUDGET),
    Try(
        "PATCH /keys/{id}",
        "yy----00",
        "/keys/key_{team}",
        {"policy": {"granted_models": [{"model": "a", "until_ms": 9_000_000_000_000}]}},
    ),
    Try("DELETE /keys/{id}", "yy--y-00", "/keys/key_{team}"),
    Try("POST /keys/{id}/rotate", "yy--y-00", "/keys/key_{team}/rotate"),
    Try("POST /keys/{id}/revoke", "yy--y-00", "/keys/key_{team}/revoke"),
    Try("POST /keys/{id}/resume", "yy--y-00", "/keys/key_{team}/resume"),
    Try("POST /job_tokens", "yy--y-00", body={"team": "{team}"}, status=201),
    Try("POST /analysts", "y-----", body={"name": "x"}, status=201),
    Try("GET /analysts", "yyyy--"),
    Try("GET /analysts/{name}", "yyyy--", "/analysts/ann"),
    Try("POST /analysts/{name}/rotate", "y-----", "/analysts/ann/rotate"),
    Try("DELETE /analysts/{name}", "y-----", "/analysts/ann"),
    Try("POST /operators", "y-----", body={"name": "x", "role": "member", "team": "fraud"}, status=201),
    Try("POST /operators", "y-----", body={"name": "x", "role": "platform_admin"}, status=201),
    Try("GET /operators", "yyyy--"),
    Try("GET /operators/{id}", "yyyy--", "/operators/op_1"),
    Try("PATCH /operators/{id}", "y-----", "/operators/op_1", {"name": "x"}),
    Try("DELETE /operators/{id}", "y-----", "/operators/op_1"),
    Try("GET /whoami", "yyyyyy"),
    Try("PUT /budgets", "yy-y--00", body={"scope": {"team": "{team}"}, "usd": "5"}),
    Try("PUT /budgets", "yy-y--00", body={"scope": {"team": "{team}", "project": "new"}, "usd": "5"}),
    Try("PUT /budgets", "yy-y--00", body={"scope": {"key": "key_{team}"}, "usd": "5"}),
    Try("PUT /budgets", "yy-y--", body={"scope": {"user": "new"}, "usd": "5"}),
    Try("PUT /budgets", "yy-y--", body={"scope": {"organization": True}, "usd": "5"}),
    Try("GET /budgets", "yyyyyy"),
    Try("GET /budgets/explain", "yyyyyy"),
    Try("GET /budgets/explain", "yyyyyy00", "/budgets/explain?team={team}"),
    Try("DELETE /budgets", "yy-y--00", "/budgets?team={team}&project=rich"),
    Try("DELETE /budgets", "yy-y--", "/budgets?user=rich"),
    Try("PUT /limits", "yy----00", body={"scope": {"team": "{team}"}, "limits": {"concurrency": 5}}),
    Try("PUT /limits", "yy--y-00", body={"scope": {"team": "{team}", "project": "p"}, "limits": {"concurrency": 5}}),
    Try("PUT /limits", "yy--y-00", body={"scope": {"key": "key_{team}"}, "limits": {"concurrency": 5}}),
    Try("PUT /limits", "yy----", body={"scope": {"user": "ada"}, "limits": {"concurrency": 5}}),
    Try("PUT /limits", "y-----", body={"scope": {"organization": True}, "limits": {"concurrency": 5}}),
    Try("GET /limits", "yyyyyy"),
    Try("GET /models", "yyyyyy"),
    Try("GET /models/{name}", "yyyyyy", "/models/small"),
    Try("GET /deployments", "yyyyyy"),
    *(Try(f"GET /reports/{name}", "yyyyyy") for name in ("chargeback", "invoices", "forecast", "savings", "calls")),
    Try("GET /reports/chargeback", "yyyyyy00", "/reports/chargeback?team={team}&by=user"),
    Try("GET /reports/focus", "yyyyyy00", "/reports/focus?team={team}&day=2026-11-01"),
    Try("GET /live", "yyyyyy"),
    Try("GET /live", "yyyyyy00", "/live?team={team}"),
    Try("POST /deployments/{id}/drain", "y-----", "/deployments/d/drain", {"why": "a test"}),
    Try("POST /deployments/{id}/resume", "y-----", "/deployments/d/resume"),
    Try("GET /config", "yyyy--"),
    Try("PUT /config", "y-----", body={}),
    Try("POST /prices/reprice", "y-----", body={"from": "2026-10-01", "to": "2026-10-31", "dry_run": True}),
    Try("GET /jobs", "yyyyyy"),
    Try("GET /jobs", "yyyyyy00", "/jobs?team={team}"),
    Try("GET /jobs/{id}", "yyyyyy00", "/jobs/job_{team}"),
    Try("DELETE /jobs/{id}", "yy--y-00", "/jobs/job_{team}"),
    Try("GET /dead", "yyyy--"),
    Try("GET /dead/{id}", "yyyy--", "/dead/0@1", status=404),
    Try("POST /dead/replay", "yy----", body={"all": True, "team": "fraud"}),
    Try("POST /approvals", "yy--yy00", body=WANTED, status=201),
    Try("GET /approvals", "yyyyyy"),
    Try("GET /approvals/{id}", "yyyyyy00", "/approvals/apr_{team}"),
    Try("POST /approvals/{id}/grant", "yy----00", "/approvals/apr_{team}/grant", {"reason": "ok"}),
    Try("POST /approvals/{id}/refuse", "yy----00", "/approvals/apr_{team}/refuse", {"reason": "no"}),
    # Who asked collects, and nobody else, whatever his role.
    Try("POST /approvals/{id}/collect", "------00", "/approvals/apr_{team}/collect"),
    Try("GET /policy/explain", "yyyyyy00", "/policy/explain?team={team}"),
    Try("GET /policy/explain", "yyyyyy00", "/policy/explain?key=key_{team}"),
    Try("GET /events", "yyyyyy"),
    Try("GET /events", "yyyyyy00", "/events?team={team}"),
    Try("GET /audit", "yyy---", "/audit?job=job_1"),
    Try("GET /audit/heads", "yyyy--"),
    Try("GET /audit/erasures", "yyyy--"),
    Try("GET /audit/erasures/{id}", "yyyy--", "/audit/erasures/erasure_1", status=404),
    Try("POST /audit/erasures", "yy----", body={"user": "ada"}, status=202),
    Try("GET /alerts", "yyyyyy"),
    Try("GET /alerts", "yyyyyy00", "/alerts?team={team}"),
    Try("GET /alerts/{name}", "yyyyyy", "/alerts/alert_1", status=404),
    Try("GET /alert_channels", "yyyy--"),
    Try("POST /alert_channels/{name}/test", "y-----", "/alert_channels/ops/test", status=404),
)
EXPECTED = {DONE: None, REFUSED: 403, HIDDEN: 404}


def ticket(team: str) -> Ticket:
    caller = Caller(organization="default", team=team, key_id=f"key_{team}")
    return Ticket(
        job_id=f"job_{team}",
        api=Api.CHAT,
        lane=Lane.BATCH,
        model="small",
        caller=caller,
        partition=0,
        accepted_ms=1,
        deadline_ms=2,
    )


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What isn't on the control topic: a job of each team, and nothing in the books and among the dead."""

    async def find(_: object, job_id: str) -> Found | None:
        team = job_id.removeprefix("job_")
        return Found(ticket(team), None, "", 0) if team in (OWN, OTHER) else None

    async def older(_: object, teams: Sequence[str], *__: object) -> list[str]:
        return [f"job_{team}" for team in teams]

    async def no_letters(*_: object) -> Page:
        return Page([], None)

    async def no_letter(*_: object) -> Letter | None:
        return None

    async def no_events(*_: object) -> tuple[list[EventShown], str | None]:
        return [], None

    async def no_job(*_: object) -> JobBooked | None:
        return None

    async def no_rows(*_: object) -> list[dict[str, object]]:
        return []

    async def tried(*_: object) -> Tried:
        return Tried(id="evt_1", delivered=True, status=200, reason="")

    async def nothing(*_: object) -> None:
        return

    monkeypatch.setattr("infra.redis.tickets.Tickets.find", find)
    monkeypatch.setattr("services.portal.jobs.older_jobs", older)
    monkeypatch.setattr("infra.redis.jobs.JobRecords.abandon", nothing)
    monkeypatch.setattr("infra.kafka.post.Post.cancel", nothing)
    monkeypatch.setattr("infra.kafka.dead.DeadLetters.page", no_letters)
    monkeypatch.setattr("infra.kafka.dead.DeadLetters.find", no_letter)
    monkeypatch.setattr(Books, "events", no_events)
    monkeypatch.setattr(Books, "job", no_job)
    monkeypatch.setattr(Books, "ask", no_rows)
    monkeypatch.setattr("services.portal.erasure.Erasures._find", no_rows)
    monkeypatch.setattr("services.portal.erasure.Erasures._save", nothing)
    monkeypatch.setattr("services.portal.erasure.Erasures._patiently", nothing)
    monkeypatch.setattr(Webhooks, "try_out", tried)


def a_house(data_dir: Path) -> House:
    from schemas.budget import Budget
    from schemas.control import Project, User
    from schemas.policy import Policy

    rich = Policy(budgets=(Budget(tokens=5),))
    more: list[Any] = [User(id="user_rich", name="rich", policy=rich)]
    for team in (OWN, OTHER):
        more.append(Project(id=f"proj_rich_{team}", team=team, name="rich", policy=rich))
        asked = {"what": "key", "team": team, "requester": "user/eve", "wanted": {"project": "p"}, "expires_ms": 10**15}
        more.append(Approval.model_validate({"id": f"apr_{team}", **asked}))
    return House(data_dir, *house(), *more)


def filled(value: Any, team: str) -> Any:
    match value:
        case str():
            return value.replace("{team}", team)
        case dict():
            return {name: filled(member, team) for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def cells() -> Iterator[Any]:
    for one in ROUTES:
        for (role, team), cell in zip(COLUMNS, one.cells, strict=False):
            about = one.path or one.body or ""
            yield pytest.param(one, role, team, cell, id=f"{one.route} {role.value} {team} {about}")


@pytest.mark.parametrize(("one", "role", "team", "cell"), list(cells()))
async def test_who_may_do_what(tmp_path: Path, one: Try, role: Role, team: str, cell: str) -> None:
    method, _, path = one.route.partition(" ")
    there = a_house(tmp_path)
    before = len(there.control.topic.changes)
    async with there.client(secret_of(role.value)) as client:
        sent = filled(one.path or path, team)
        answer = await client.request(method, f"/admin/v1{sent}", json=filled(one.body, team))
    assert answer.status_code == (EXPECTED[cell] or one.status), answer.text
    if cell == DONE:
        changes = there.control.topic.changes[before:]
        assert {change.author.actor for change in changes} <= {f"operator/op_{role.value}"}
    else:
        assert there.control.topic.changes[before:] == []
        assert answer.json()["error"]["message"]
        refusals = [act for act in there.acts() if act["action"] == "refused"]
        assert len(refusals) == (cell == REFUSED)


@pytest.mark.parametrize("one", ROUTES, ids=lambda one: f"{one.route} {one.path}")
async def test_neither_virtual_keys_nor_strangers_get_in(tmp_path: Path, one: Try) -> None:
    method, _, path = one.route.partition(" ")
    sent = filled(one.path or path, OWN)
    there = a_house(tmp_path)
    statuses: list[int] = []
    for secret in (secret_of(OWN), "", "sk-sl-nobody", "a.b.c", secret_of("nobody")):
        async with there.client(secret) as client:
            answer = await client.request(method, f"/admin/v1{sent}", json=filled(one.body, OWN))
            statuses.append(answer.status_code)
    assert statuses == [403, 401, 401, 401, 401]
    (refusal,) = there.acts()
    assert (refusal["actor"], refusal["action"]) == (f"key/key_{OWN}", "refused")


def test_the_matrix_has_every_route(tmp_path: Path) -> None:
    routes = [route for route in a_house(tmp_path).portal.routes if isinstance(route, Route)]
    served = {
        f"{method} {re.sub(':path', '', route.path).removeprefix('/admin/v1')}"
        for route in routes
        if route.path.startswith("/admin/v1") and route.path != "/admin/v1/openapi.json"
        for method in (route.methods or set[str]()) - {"HEAD"}
    }
    assert served == {one.route for one in ROUTES}


def test_every_row_has_a_cell_for_everybody() -> None:
    assert {len(one.cells) for one in ROUTES} <= {6, 8}
    assert {cell for one in ROUTES for cell in one.cells} <= set(EXPECTED)


LISTS = ("teams", "projects", "environments", "keys", "budgets", "approvals", "jobs")


@pytest.mark.parametrize("name", LISTS)
async def test_lists_hold_what_is_ones_own(tmp_path: Path, name: str) -> None:
    there = a_house(tmp_path)
    for role, hidden in ((Role.AUDITOR, False), (TEAM, True), (MEMBER, True)):
        async with there.client(secret_of(role.value)) as client:
            text = (await client.get(f"/admin/v1/{name}")).text
        assert OWN in text
        assert (OTHER not in text) == hidden


async def test_another_teams_thing_is_refused_as_if_it_were_not_there(tmp_path: Path) -> None:
    """Word for word: nobody learns what there is."""
    there = a_house(tmp_path)
    async with there.client(secret_of(TEAM.value)) as client:
        for path in ("/keys/key_{}", "/projects/{}/p", "/teams/{}", "/budgets?team={}", "/jobs/job_{}", "/jobs?team={}"):
            method = "DELETE" if path.startswith("/budgets") else "GET"
            hidden = await client.request(method, "/admin/v1" + path.format(OTHER))
            absent = await client.request(method, "/admin/v1" + path.format("absent"))
            assert hidden.status_code == absent.status_code == 404
            assert hidden.text.replace(OTHER, "absent") == absent.text


ROLES_IN_A_TEAM = [(role, right) for role in Role for right in RIGHTS[role]]


@pytest.mark.parametrize(("role", "right"), ROLES_IN_A_TEAM)
def test_a_role_that_is_given_for_a_team_ends_there(role: Role, right: Right) -> None:
    actor = Actor("operator/op_1", ((role, OWN),))
    assert actor.may(right, OWN)
    assert not actor.may(right, OTHER)
    assert not actor.may(right)
    assert not actor.sees_all()


@pytest.mark.parametrize("role", [TEAM, MEMBER])
def test_a_team_role_without_a_team_is_none(role: Role) -> None:
    actor = Actor("user/x", ((role, ""),))
    assert not any(actor.may(right, team) for right in Right for team in ("", OWN))
