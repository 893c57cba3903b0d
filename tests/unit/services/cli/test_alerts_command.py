"""`sluice alerts`."""

import json

import pytest

from services.cli import alerts
from tests.unit.services.cli.conftest import Invoke, Stub

PATH = "/admin/v1/alerts"


def alert(n: int, message: str = "80 % are spent.") -> dict[str, object]:
    return {
        "id": f"alert_{n}",
        "at_ms": 1_800_000_000_000,
        "what": "budget_share",
        "scope": "team/fraud",
        "team": "fraud",
        "severity": "warning",
        "message": message,
        "facts": {},
    }


def test_alerts_are_asked_for_as_told(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, {"data": [alert(1)], "has_more": True, "last_id": "alert_1"})
    result = invoke("alerts", "--team", "fraud", "--what", "budget_share", "--limit", "1", "--after", "alert_2")
    assert result.exit_code == 0
    assert stub.seen[0].query == "limit=1&team=fraud&what=budget_share&after=alert_2"
    assert result.stdout.splitlines()[0].split() == ["at", "severity", "what", "team", "scope", "message"]
    assert "80 % are spent." in result.stdout
    assert "--after alert_1" in result.stderr


def test_alerts_for_programs(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, {"data": [alert(1)], "has_more": False, "last_id": None})
    assert json.loads(invoke("alerts", "--json").stdout) == [alert(1)]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_followed_comes_once_and_in_order(
    invoke: Invoke, stub: Stub, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    pages = [[2, 1], [2, 1], [4, 3, 2, 1], [5, 4, 3]]

    def show(page: list[int]) -> None:
        stub.on("GET", PATH, 200, {"data": [alert(n, f"number {n}\x1b") for n in page], "has_more": False, "last_id": None})

    def pause(_: float) -> None:
        if not pages:
            raise KeyboardInterrupt
        show(pages.pop(0))

    monkeypatch.setattr(alerts.time, "sleep", pause)
    show(pages.pop(0))
    result = invoke("alerts", "--follow", *(["--json"] if as_json else []))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    if as_json:
        assert [json.loads(line)["id"] for line in lines] == [f"alert_{n}" for n in range(1, 6)]
    else:
        assert [line.split("number ")[1] for line in lines] == [f"{n}\\x1b" for n in range(1, 6)]


CHANNELS = "/admin/v1/alert_channels"


@pytest.mark.parametrize("asked", ["alert_1", "https://sluice.example/admin/v1/alerts/alert_1"])
def test_an_alert_is_shown_by_its_id_or_its_link(invoke: Invoke, stub: Stub, asked: str) -> None:
    stub.on("GET", f"{PATH}/alert_1", 200, alert(1) | {"facts": {"share": 0.8}})
    result = invoke("alerts", "show", asked)
    assert result.exit_code == 0, result.stderr
    assert ["share", "0.8"] in [row.split() for row in result.stdout.splitlines()]


def test_channels_are_listed_with_what_they_get(invoke: Invoke, stub: Stub) -> None:
    only = {"kinds": None, "severities": ["critical"], "teams": ["fraud", "search"]}
    found = [{"name": "ops", "kind": "slack", "to": "env:SLACK", "only": only}]
    found += [{"name": "mail", "kind": "email", "to": "ada@corp.example", "only": dict.fromkeys(only)}]
    stub.on("GET", CHANNELS, 200, {"data": found, "has_more": False, "last_id": None})
    _, ops, mail = invoke("alerts", "channels").stdout.splitlines()
    assert "severities: critical; teams: fraud, search" in ops
    assert mail.split() == ["mail", "email", "ada@corp.example", "all"]


@pytest.mark.parametrize(("delivered", "status", "said"), [(True, 0, "Delivered"), (False, 1, "Not delivered: nobody answers")])
def test_a_channel_is_tried(invoke: Invoke, stub: Stub, delivered: bool, status: int, said: str) -> None:
    tried = {"id": "alert_1", "channel": "ops", "delivered": delivered, "reason": "" if delivered else "nobody answers"}
    stub.on("POST", f"{CHANNELS}/ops/test", 200, tried)
    result = invoke("alerts", "test", "ops")
    assert (result.exit_code, said in result.stderr) == (status, True)
