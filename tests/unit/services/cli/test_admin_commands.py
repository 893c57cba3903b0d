"""Commands over the admin API: what they send, and what they say."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.clock import now_ms
from tests.unit.services.cli.conftest import Invoke, Stub

POLICY = {"models": ["small"], "limits": {"concurrency": None}, "budgets": [{"usd": "5"}]}
THING: dict[str, Any] = {"id": "x_1", "name": "n", "team": "fraud", "project": "p", "version": 3, "policy": POLICY}
KEY = {"id": "key_1", "key": "sk-sl-new", "team": "fraud", "old_until_ms": 1_800_000_000_000, "state": "valid"}

SENT: list[tuple[str, str, str, object]] = [
    ("organization set --time-zone Europe/Berlin", "PATCH", "/organization", {"time_zone": "Europe/Berlin"}),
    ("teams create fraud --model a --model b", "POST", "/teams", {"name": "fraud", "policy": {"models": ["a", "b"]}}),
    ('teams set fraud --policy {"timeout_s":5}', "PATCH", "/teams/fraud", {"policy": {"timeout_s": 5}}),
    ("teams delete fraud", "DELETE", "/teams/fraud", None),
    ("projects create --team fraud scores", "POST", "/projects", {"team": "fraud", "name": "scores"}),
    ("projects set fraud/scores --model a", "PATCH", "/projects/fraud/scores", {"policy": {"models": ["a"]}}),
    ("projects delete fraud/scores", "DELETE", "/projects/fraud/scores", None),
    ("environments create --team fraud dev", "POST", "/environments", {"team": "fraud", "project": "", "name": "dev"}),
    ("environments show fraud//dev", "GET", "/environments/fraud//dev", None),
    (
        "users create okta:ada --role member:fraud --role auditor",
        "POST",
        "/users",
        {"name": "okta:ada", "memberships": [{"role": "member", "team": "fraud"}, {"role": "auditor", "team": ""}]},
    ),
    ("users set ada --no-role", "PATCH", "/users/ada", {"memberships": []}),
    ("users show auth0|x?y", "GET", "/users/auth0%7Cx%3Fy", None),
    (
        "keys create --team fraud --expires-in 90d --ip-range 10.0.0.0/8 --model a --name ci",
        "POST",
        "/keys",
        {
            "team": "fraud",
            "project": "",
            "environment": "",
            "user": "",
            "name": "ci",
            "expires_in": 90 * 86_400,
            "ip_ranges": ["10.0.0.0/8"],
            "policy": {"models": ["a"]},
        },
    ),
    ("keys show key_1", "GET", "/keys/key_1", None),
    (
        "keys set key_1 --name x --any-address --never-expires",
        "PATCH",
        "/keys/key_1",
        {"name": "x", "ip_ranges": [], "expires_ms": 0},
    ),
    ("keys rotate key_1", "POST", "/keys/key_1/rotate", {"overlap_s": 86_400}),
    ("keys rotate key_1 --overlap 0", "POST", "/keys/key_1/rotate", {"overlap_s": 0}),
    ("keys resume key_1", "POST", "/keys/key_1/resume", {}),
    (
        "operators create ci --role team_admin --team fraud --expires-in 1h",
        "POST",
        "/operators",
        {"name": "ci", "role": "team_admin", "team": "fraud", "expires_in": 3600},
    ),
    ("operators revoke op_1", "DELETE", "/operators/op_1", None),
    (
        "analysts create ann --team fraud --team search",
        "POST",
        "/analysts",
        {"name": "ann", "organization": "", "teams": ["fraud", "search"]},
    ),
    ("analysts rotate ann", "POST", "/analysts/ann/rotate", {}),
    ("analysts revoke ann", "DELETE", "/analysts/ann", None),
    (
        'identity-providers create okta --issuer https://o.example --audience a --set {"leeway_s":5}',
        "POST",
        "/identity_providers",
        {"name": "okta", "issuer": "https://o.example", "audiences": ["a"], "leeway_s": 5},
    ),
    ('identity-providers set okta --set {"leeway_s":null}', "PATCH", "/identity_providers/okta", {"leeway_s": None}),
    ("models show small", "GET", "/models/small", None),
    (
        "budgets set --team fraud --usd 5.00 --period month",
        "PUT",
        "/budgets",
        {"scope": {"team": "fraud"}, "period": "month", "hard": True, "usd": "5.00"},
    ),
    (
        "budgets set --team fraud --project p --environment dev --tokens 9 --period day --soft --alert 0.5 --alert 0.8",
        "PUT",
        "/budgets",
        {
            "scope": {"team": "fraud", "project": "p", "environment": "dev"},
            "period": "day",
            "hard": False,
            "tokens": 9,
            "alerts": [0.5, 0.8],
        },
    ),
    (
        "budgets set --organization --usd 9",
        "PUT",
        "/budgets",
        {"scope": {"organization": True}, "period": "month", "hard": True, "usd": "9"},
    ),
    (
        "limits set --key key_1 --requests-per-minute 60 --concurrency 0",
        "PUT",
        "/limits",
        {"scope": {"key": "key_1"}, "limits": {"requests_per_minute": 60, "concurrency": None}},
    ),
]


@pytest.mark.parametrize(("words", "method", "path", "body"), SENT, ids=[sent[0] for sent in SENT])
def test_what_is_sent(invoke: Invoke, stub: Stub, words: str, method: str, path: str, body: object) -> None:
    stub.on(method, f"/admin/v1{path}", 200, {**THING, **KEY, "scope": {"team": "fraud"}})
    result = invoke(*words.split())
    assert result.exit_code == 0, result.stderr
    (seen,) = stub.seen
    assert (seen.method, seen.path) == (method, f"/admin/v1{path}")
    assert (json.loads(seen.body) if seen.body else None) == body
    again = invoke(*words.split(), "--json")
    assert json.loads(again.stdout)["id"] == "key_1"


def test_a_version_is_asked_for(invoke: Invoke, stub: Stub) -> None:
    stub.on("PATCH", "/admin/v1/teams/fraud", 412, {"error": {"message": "It has been changed since."}})
    result = invoke("teams", "set", "fraud", "--model", "a", "--if-version", "3")
    assert (result.exit_code, result.stderr) == (1, "Error: It has been changed since.\n")
    assert stub.seen[0].if_match == '"3"'


def test_a_budget_is_removed_by_its_level(invoke: Invoke, stub: Stub) -> None:
    stub.on("DELETE", "/admin/v1/budgets", 200, {"scope": {"team": "fraud", "project": "p"}})
    result = invoke("budgets", "remove", "--team", "fraud", "--project", "p", "--period", "day")
    assert (result.exit_code, result.stderr) == (0, "fraud/p has no budget a day any more.\n")
    assert stub.seen[0].query == "team=fraud&project=p&period=day"


def test_secrets_are_alone_on_stdout(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/keys/key_1/rotate", 200, KEY)
    stub.on("POST", "/admin/v1/operators", 201, KEY)
    rotated = invoke("keys", "rotate", "key_1")
    made = invoke("operators", "create", "ci", "--role", "auditor")
    assert (rotated.stdout, made.stdout) == ("sk-sl-new\n", "sk-sl-new\n")
    assert "taken until 2027-01-15 08:00 UTC" in rotated.stderr


def test_a_policy_may_come_from_a_file(invoke: Invoke, stub: Stub, tmp_path: Path) -> None:
    stub.on("PATCH", "/admin/v1/teams/fraud", 200, THING)
    file = tmp_path / "policy.json"
    file.write_text('{"timeout_s": 5}')
    assert invoke("teams", "set", "fraud", "--policy", f"@{file}", "--model", "a").exit_code == 0
    assert stub.bodies("PATCH") == [{"policy": {"timeout_s": 5, "models": ["a"]}}]


def test_an_end_is_counted_from_now(invoke: Invoke, stub: Stub) -> None:
    stub.on("PATCH", "/admin/v1/keys/key_1", 200, THING)
    before = now_ms()
    invoke("keys", "set", "key_1", "--expires-in", "1h")
    (body,) = stub.bodies("PATCH")
    assert isinstance(body, dict)
    assert 0 <= body["expires_ms"] - before - 3_600_000 <= now_ms() - before


WRONG = [
    "budgets set --usd 5",
    "budgets set --team fraud --user ada --usd 5",
    "budgets set --project p --usd 5",
    "limits set --team fraud",
    "teams set fraud",
    "teams set fraud --policy nonsense",
    "teams set fraud --policy @/nowhere/at-all",
    "users create ada --role king",
    "keys create --team fraud --expires-in soon",
    "operators create ci --role king",
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use_is_2_and_says_what_to_do(invoke: Invoke, stub: Stub, words: str) -> None:
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert result.stderr
    assert stub.seen == []


def test_lists_are_read_to_their_end(invoke: Invoke, stub: Stub) -> None:
    """Each page is asked for with what the one before ended with; the stub would give the same one for ever."""
    stub.on("GET", "/admin/v1/projects", 200, {"data": [THING], "has_more": False, "last_id": None})
    assert json.loads(invoke("projects", "list", "--team", "fraud", "--json").stdout) == [THING]
    assert [seen.query for seen in stub.seen] == ["team=fraud"]


LISTS: list[tuple[str, str, object, str]] = [
    ("users list", "/users", {"name": "ada", "memberships": [{"role": "member", "team": "fraud"}]}, "member:fraud"),
    ("analysts list", "/analysts", {"name": "ann", "organization": "house", "teams": []}, "all"),
    ("operators list", "/operators", {"id": "op_1", "role": "auditor", "revoked": True}, "revoked"),
    (
        "identity-providers list",
        "/identity_providers",
        {"name": "okta", "issuer": "https://o", "audiences": ["a"], "groups": []},
        "a",
    ),
    ("models list", "/models", {"name": "small", "deployments": [{"provider": "echo", "model": "echo"}]}, "echo/echo"),
    ("budgets list", "/budgets", {"scope": {"team": "fraud"}, "usd": "5.00", "hard": True, "alerts": [0.8]}, "80%"),
    ("limits list", "/limits", {"scope": {"user": "ada"}, "limits": {"concurrency": 7}}, "user ada"),
    ("environments list", "/environments", {"team": "fraud", "project": "", "name": "dev"}, "fraud//dev"),
    ("keys list", "/keys", {"id": "key_1", "state": "paused", "last_used_ms": 1_800_000_000_000}, "paused"),
]


@pytest.mark.parametrize(("words", "path", "item", "shown"), LISTS)
def test_lists_for_people(invoke: Invoke, stub: Stub, words: str, path: str, item: object, shown: str) -> None:
    stub.on("GET", f"/admin/v1{path}", 200, {"data": [item]})
    result = invoke(*words.split())
    assert result.exit_code == 0, result.stderr
    assert shown in result.stdout


def test_what_is_shown_says_only_what_is_set(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/teams/fraud", 200, THING)
    shown = invoke("teams", "show", "fraud").stdout
    assert "policy.models" in shown
    assert "concurrency" not in shown


def test_whoami(invoke: Invoke, stub: Stub) -> None:
    stub.on(
        "GET", "/admin/v1/whoami", 200, {"actor": "admin", "roles": [{"role": "member", "team": "fraud", "rights": ["read"]}]}
    )
    result = invoke("whoami")
    assert (result.stdout, result.stderr) == ("admin\n", "member of team fraud: read\n")


def test_a_key_that_stays_revoked_was_not_resumed(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/keys/key_1/resume", 200, {**KEY, "state": "revoked"})
    assert invoke("keys", "resume", "key_1").exit_code == 1
