"""`sluice policy explain` and `sluice events`: what they ask for, what they say."""

import json

import pytest

from tests.unit.services.cli.conftest import Invoke, Stub

JOB = "job_019b76daa8007000800000000000002a"
PATH = "/admin/v1/policy/explain"
POLICY: dict[str, object] = {
    "version": "1.3.0.0.1.0",
    "levels": [
        {"level": "organization/acme", "version": 1, "document": {"policy": {"models": ["small", "big"], "limits": {"a": None}}}},
        {"level": "team/fraud", "version": 3, "document": {"policy": {"models": ["small"]}}},
        {"level": "user/ada", "version": 0, "document": None},
        {"level": "key/key_1", "version": 1, "document": None},
    ],
    "members": [
        {
            "member": "models",
            "value": ["small"],
            "decided_by": "team/fraud",
            "version": 3,
            "narrowed_from": ["organization/acme v1"],
        },
        {"member": "identity", "value": "optional", "decided_by": "", "version": 0, "narrowed_from": []},
    ],
    "limits": [{"level": "team/fraud", "version": 3, "limits": {"requests_per_minute": 60}, "budgets": []}],
}
CALLER = {"organization": "acme", "team": "fraud", "key_id": "key_1", "user": "ada", "project": "", "environment": ""}
OF_A_KEY: dict[str, object] = {
    "caller": CALLER,
    "now": POLICY,
    "then": None,
    "differences": [],
    "today": "admitted",
    "reasons": [],
    "notes": [],
}
OF_A_JOB: dict[str, object] = OF_A_KEY | {
    "job": {"job_id": JOB, "model": "big", "lane": "batch", "accepted_ms": 1_800_000_000_000, "status": "completed"},
    "then": POLICY | {"version": "1.1.0.0.1.0"},
    "differences": [
        {"member": "models", "then": None, "now": ["small"]},
        {"member": "timeout_s", "then": 60, "now": None},
    ],
    "today": "refused",
    "reasons": ["the model big is not allowed, but small"],
    "notes": ["budgets are not looked at"],
}
EVENT = {
    "id": "evt_1",
    "at_ms": 1_800_000_000_000,
    "actor": "",
    "action": "written",
    "resource": "team/fraud",
    "version": 3,
    "reason": "new contract",
}


def words(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_a_key_is_explained(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, OF_A_KEY)
    shown = invoke("policy", "explain", "--key", "key_1", "--user", "ada")
    assert (shown.exit_code, stub.seen[0].query) == (0, "key=key_1&user=ada")
    assert "policy 1.3.0.0.1.0" in shown.stdout
    assert words(shown.stdout, "models") == [
        "models",
        "small",
        "team/fraud",
        "v3,",
        "narrowed",
        "from",
        "organization/acme",
        "v1",
    ]
    assert words(shown.stdout, "identity") == ["identity", "optional", "default"]
    assert words(shown.stdout, "organization/acme") == ["organization/acme", "1", "models"]
    assert words(shown.stdout, "user/ada") == ["user/ada", "nothing", "written"]
    assert words(shown.stdout, "key/key_1") == ["key/key_1", "1", "known", "no", "more"]
    assert '{"requests_per_minute": 60}' in shown.stdout
    assert "today" not in shown.stdout
    assert json.loads(invoke("policy", "explain", "--team", "fraud", "--json").stdout) == OF_A_KEY


def test_a_key_that_is_refused_is_said_to_be(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, OF_A_KEY | {"today": "refused", "reasons": ["the key key_1 is revoked"]})
    assert "today: refused: the key key_1 is revoked" in invoke("policy", "explain", "--key", "key_1").stdout


def test_a_job_is_explained_then_and_now(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, OF_A_JOB)
    shown = invoke("policy", "explain", "--job", JOB.replace("job_", "resp_"))
    assert stub.seen[0].query == f"job={JOB}"
    assert "decided by policy 1.1.0.0.1.0" in shown.stdout
    assert "Today, policy 1.3.0.0.1.0: different in" in shown.stdout
    assert [line.split() for line in shown.stdout.splitlines()[-5:-2]] == [
        ["member", "then", "now"],
        ["models", "all", "small"],
        ["timeout_s", "60"],
    ]
    assert shown.stdout.rstrip().endswith("today: refused: the model big is not allowed, but small")
    assert "budgets are not looked at" in shown.stderr


@pytest.mark.parametrize("asked", [(), ("--key", "key_1", "--team", "a"), ("--key", "sk-sl-abc")])
def test_wrong_use_asks_nobody(invoke: Invoke, stub: Stub, asked: tuple[str, ...]) -> None:
    """A secret least of all: it would stand in the server's log."""
    result = invoke("policy", "explain", *asked)
    assert result.exit_code == 2
    assert "sk-sl-abc" not in result.stderr
    assert stub.seen == []


def test_events_are_listed(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/events", 200, {"data": [EVENT], "has_more": True, "last_id": "evt_1"})
    shown = invoke("events", "--resource", "team/fraud", "--limit", "1")
    assert stub.seen[0].query == "limit=1&resource=team%2Ffraud"
    assert shown.stdout.splitlines()[1].split() == [
        *("2027-01-15", "08:00", "unknown", "written", "team/fraud", "3", "new", "contract", "evt_1"),
    ]
    assert "--after evt_1" in shown.stderr
    assert json.loads(invoke("events", "--json").stdout) == [EVENT]
