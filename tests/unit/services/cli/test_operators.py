"""`sluice trace`, `jobs` and `dead`: what they ask for, what they say, how they end."""

import json

import pytest

from services.cli import trace
from tests.unit.services.cli.conftest import Invoke, Stub

DIGITS = "019b76daa8007000800000000000002a"
JOB = f"job_{DIGITS}"
STORED = {
    "id": JOB,
    "status": "in_progress",
    "api": "chat.completions",
    "lane": "interactive",
    "model": "small",
    "caller": {"team": "fraud", "key_id": "key_1"},
    "labels": {},
    "accepted_ms": 1_800_000_000_000,
    "deadline_ms": 1_800_000_120_000,
    "not_before_ms": 0,
    "ended_ms": None,
    "attempts": 2,
    "cost_usd": None,
    "error": None,
}
UNKNOWN = {"error": {"message": "No job is kept.", "type": "invalid_request_error", "code": "not_found", "param": None}}
LETTER = {"id": "0@12", "at_ms": 1_800_000_000_000, "reason": "no_token", "stage": "ingress", "origin": "a/0@1", "became": ""}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(trace, "PATIENCE_S", 0)


def test_a_running_job_is_traced_from_the_store(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, "[]", x_clickhouse_format="JSONEachRow")
    stub.on("GET", f"/admin/v1/jobs/{JOB}", 200, STORED)
    traced = json.loads(invoke("trace", f"att_{DIGITS}_2", "--json").stdout)
    assert (traced["source"], traced["status"], traced["attempts"]) == ("store", "in_progress", 2)
    assert f"job_id = '{JOB}'" in stub.seen[0].body
    assert "2 attempts so far" in invoke("trace", JOB).stderr


def test_an_unknown_job_is_a_failure_in_the_servers_words(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, "[]", x_clickhouse_format="JSONEachRow")
    stub.on("GET", f"/admin/v1/jobs/{JOB}", 404, UNKNOWN)
    result = invoke("trace", JOB)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: No job is kept.\n")


@pytest.mark.parametrize("name", ["", "chatcmpl-1", "job_1", f"job_{DIGITS}'; DROP", f"{JOB}_1"])
@pytest.mark.parametrize("words", [("trace",), ("jobs", "show"), ("jobs", "cancel")])
def test_what_is_no_id_reaches_no_server(invoke: Invoke, stub: Stub, words: tuple[str, ...], name: str) -> None:
    result = invoke(*words, name)
    assert result.exit_code == 1
    assert "not the id of a job" in result.stderr
    assert stub.seen == []


def test_jobs_are_asked_for_as_told(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/jobs", 200, {"data": [STORED], "has_more": True, "last_id": JOB})
    result = invoke("jobs", "list", "--team", "fraud", "--status", "in_progress", "--lane", "batch")
    assert stub.seen[0].query == "limit=20&team=fraud&status=in_progress&lane=batch"
    assert result.stdout.splitlines()[1].split()[:5] == [JOB, "in_progress", "fraud", "small", "interactive"]
    assert f"--after {JOB}" in result.stderr


def test_a_cancel_that_came_too_late_is_a_failure(invoke: Invoke, stub: Stub) -> None:
    stub.on("DELETE", f"/admin/v1/jobs/{JOB}", 200, STORED | {"status": "completed"})
    result = invoke("jobs", "cancel", f"resp_{DIGITS}")
    assert result.exit_code == 1
    assert "too late" in result.stderr
    stub.on("DELETE", f"/admin/v1/jobs/{JOB}", 200, STORED | {"status": "cancelled"})
    assert invoke("jobs", "cancel", JOB).exit_code == 0


def test_dead_letters_are_listed_and_shown(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/dead", 200, {"data": [LETTER], "has_more": False})
    assert invoke("dead", "list", "--reason", "no_token").stdout.splitlines()[1].split()[2:] == [
        "0@12",
        "no_token",
        "ingress",
        "a/0@1",
    ]
    opened = {"letter": LETTER, "headers": {"content-type": "x\x1b[2J"}, "value": '{"a": "\x9b2J"}', "encoding": "text"}
    stub.on("GET", "/admin/v1/dead/a/0@1", 200, opened)
    shown = invoke("dead", "show", "a/0@1")
    assert '"a"' in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "\x9b" not in shown.stdout


def test_a_body_that_is_gone_is_said_to_be(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/dead/0@12", 200, {"letter": LETTER, "headers": {}, "value": None})
    assert "gone" in invoke("dead", "show", "0@12").stderr


@pytest.mark.parametrize("words", [(), ("--all", "--reason", "x"), ("--id", "0@1", "--all")])
def test_replay_wants_to_know_which(invoke: Invoke, stub: Stub, words: tuple[str, ...]) -> None:
    assert invoke("dead", "replay", *words).exit_code == 2
    assert stub.seen == []


def test_a_named_letter_that_is_left_alone_is_a_failure(invoke: Invoke, stub: Stub) -> None:
    left = {"id": "0@1", "origin": "a/0@1", "result": "left", "became": "", "why": "no use"}
    done = {"id": "0@2", "origin": "a/0@2", "result": "replayed", "became": "job_2", "why": ""}
    stub.on("POST", "/admin/v1/dead/replay", 200, {"data": [left, done], "has_more": False})
    result = invoke("dead", "replay", "--id", "0@1", "--id", "0@2", "--team", "fraud")
    assert result.exit_code == 1
    assert "1 replayed, 1 left" in result.stderr
    assert stub.bodies("POST") == [
        {"all": False, "reason": None, "team": "fraud", "dry_run": False, "force": False, "ids": ["0@1", "0@2"]}
    ]
    assert invoke("dead", "replay", "--reason", "x").exit_code == 0, "nobody named that one"
