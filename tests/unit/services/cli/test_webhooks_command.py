"""`sluice webhooks`."""

import json

from tests.unit.services.cli.conftest import Invoke, Stub

SECRET = {"team": "fraud", "version": 2, "secret": "whsec_new", "previous": "whsec_old"}
PATH = "/admin/v1/teams/fraud/webhook_secret"


def test_a_secret_for_a_shell_is_alone_on_stdout(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, SECRET)
    result = invoke("webhooks", "secret", "--team", "fraud")
    assert (result.exit_code, result.stdout) == (0, "whsec_new\n")
    assert "whsec_old" not in result.stderr


def test_a_secret_is_rotated_only_where_it_is_asked_for(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", f"{PATH}/rotate", 200, SECRET)
    result = invoke("webhooks", "secret", "--team", "fraud", "--rotate", "--json")
    assert json.loads(result.stdout) == SECRET
    assert [seen.method for seen in stub.seen] == ["POST"]


def test_a_test_event_says_what_the_endpoint_answered(invoke: Invoke, stub: Stub) -> None:
    tried = {"id": "evt_1", "delivered": True, "status": 204, "reason": ""}
    stub.on("POST", "/admin/v1/teams/fraud/webhooks/test", 200, tried)
    result = invoke("webhooks", "test", "--team", "fraud", "https://hooks.example/")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "204" in result.stderr
    assert stub.bodies("POST") == [{"url": "https://hooks.example/"}]


def test_a_test_event_that_failed_is_no_success(invoke: Invoke, stub: Stub) -> None:
    tried = {"id": "evt_1", "delivered": False, "status": 500, "reason": "it answered 500"}
    stub.on("POST", "/admin/v1/teams/fraud/webhooks/test", 200, tried)
    result = invoke("webhooks", "test", "--team", "fraud", "https://hooks.example/", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, tried)
    assert "it answered 500" in result.stderr
