"""`sluice approvals`."""

import json

import pytest

from services.cli.approvals import seconds
from services.cli.output import Failed
from tests.unit.services.cli.conftest import Invoke, Stub

PATH = "/admin/v1/approvals"
APPROVAL = {
    "kind": "approval",
    "id": "apr_1",
    "what": "budget",
    "team": "fraud",
    "wanted": {"level": "team/fraud", "period": "month", "usd": "500", "tokens": 0},
    "why": "launch",
    "requester": "user/ada@corp.example",
    "status": "pending",
    "created_ms": 1_800_000_000_000,
    "expires_ms": 1_800_604_800_000,
    "until_ms": 0,
}


def test_a_key_is_asked_for(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", PATH, 201, APPROVAL)
    options = ("--project", "scores", "--models", "small, large", "--usd", "5", "--for", "30d", "--within", "12h")
    result = invoke("approvals", "ask", "key", "--team", "fraud", "--why", "a proof", *options)
    assert (result.exit_code, result.stdout) == (0, "apr_1\n"), result.stderr
    (body,) = stub.bodies("POST")
    assert body == {
        "what": "key",
        "team": "fraud",
        "wanted": {
            "project": "scores",
            "environment": "",
            "user": "",
            "name": "",
            "models": ["small", "large"],
            "budget": {"usd": "5", "period": "month"},
        },
        "why": "a proof",
        "for_s": 30 * 86_400,
        "expires_in": 43_200,
    }


def test_more_budget_is_asked_for(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", PATH, 201, APPROVAL)
    options = ("--usd", "500", "--tokens", "7", "--period", "day", "--level", "key/key_1")
    result = invoke("approvals", "ask", "budget", "--team", "fraud", "--why", "launch", *options, "--json")
    assert json.loads(result.stdout) == APPROVAL
    (body,) = stub.bodies("POST")
    assert isinstance(body, dict)
    assert body["wanted"] == {"usd": "500", "tokens": 7, "level": "key/key_1", "period": "day"}
    assert "for_s" not in body


def test_a_model_is_asked_for(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", PATH, 201, APPROVAL)
    result = invoke("approvals", "ask", "model", "dear", "--team", "fraud", "--why", "a test", "--for", "90m")
    assert result.exit_code == 0, result.stderr
    assert stub.bodies("POST") == [
        {"what": "model", "team": "fraud", "wanted": {"model": "dear"}, "why": "a test", "for_s": 5400}
    ]


def test_a_list_is_narrowed_and_says_how_to_go_on(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, {"object": "list", "data": [APPROVAL], "has_more": True, "last_id": "apr_1"})
    result = invoke("approvals", "list", "--status", "pending", "--team", "fraud", "--limit", "1")
    assert "level=team/fraud, period=month, usd=500" in result.stdout
    assert "--after apr_1" in result.stderr
    assert stub.seen[0].query == "limit=1&team=fraud&status=pending"


@pytest.mark.parametrize("word", ["grant", "refuse"])
def test_a_decision_has_a_reason(invoke: Invoke, stub: Stub, word: str) -> None:
    stub.on("POST", f"{PATH}/apr_1/{word}", 200, APPROVAL | {"status": "granted", "decided_by": "operator/op_1"})
    assert invoke("approvals", word, "apr_1").exit_code == 2
    result = invoke("approvals", word, "apr_1", "--reason", "fine")
    assert "operator/op_1" in result.stdout
    assert stub.bodies("POST") == [{"reason": "fine"}]


def test_a_grant_may_last_otherwise_than_was_asked(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", f"{PATH}/apr_1/grant", 200, APPROVAL | {"what": "key", "status": "granted"})
    result = invoke("approvals", "grant", "apr_1", "--reason", "fine", "--for", "1w")
    assert stub.bodies("POST") == [{"reason": "fine", "for_s": 604_800}]
    assert "sluice approvals collect apr_1" in result.stderr


def test_a_collected_key_for_a_shell_is_alone_on_stdout(invoke: Invoke, stub: Stub) -> None:
    key = {"id": "key_1", "key": "sk-sl-x", "team": "fraud", "last4": "l-xx", "expires_ms": 0, "approval": "apr_1"}
    stub.on("POST", f"{PATH}/apr_1/collect", 200, key)
    result = invoke("approvals", "collect", "apr_1")
    assert (result.exit_code, result.stdout) == (0, "sk-sl-x\n")
    assert "only this once" in result.stderr


def test_what_became_of_a_request_is_shown(invoke: Invoke, stub: Stub) -> None:
    decided = {"status": "refused", "reason": "too much", "ticket": "RITM1", "decided_ms": 1_800_000_001_000}
    stub.on("GET", f"{PATH}/apr_1", 200, APPROVAL | decided)
    shown = invoke("approvals", "show", "apr_1").stdout
    for part in ("refused", "too much", "RITM1", "user/ada@corp.example", "launch"):
        assert part in shown
    assert "to be decided by" not in shown


@pytest.mark.parametrize(("text", "given"), [("90s", 90), ("45m", 2700), ("12h", 43_200), ("30d", 2_592_000), ("2W", 1_209_600)])
def test_durations(text: str, given: int) -> None:
    assert seconds(text) == given


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "1.5h", "1y", "1d2h", "9" * 12 + "s"])
def test_what_is_no_duration(invoke: Invoke, text: str) -> None:
    with pytest.raises(Failed, match="30d, 12h"):
        seconds(text)
    assert invoke("approvals", "grant", "apr_1", "--reason", "x", f"--for={text}").exit_code == 2
