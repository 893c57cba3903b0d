"""`sluice deployments`."""

import json

import pytest

from tests.unit.services.cli.conftest import Invoke, Stub

PATH = "/admin/v1/deployments"
ONE = {
    "id": "azure/gpt-5#2",
    "model": "big",
    "provider": "azure",
    "provider_model": "gpt-5",
    "region": "eu",
    "state": "quarantined",
    "why": "credential",
    "until_ms": 1_800_000_000_000,
    "calls": 20,
    "errors": 3,
    "p50_ms": 812.5,
    "p95_ms": None,
    "limit": None,
    "in_flight": 4,
    "shutdown_date": "2027-03-01",
}


def test_deployments_are_listed(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, {"data": [ONE], "has_more": False, "last_id": None})
    result = invoke("deployments", "list", "--model", "big")
    assert result.exit_code == 0, result.stderr
    assert stub.seen[0].query == "model=big"
    head, row = result.stdout.splitlines()
    columns = "model deployment provider region state why until calls errors p50 p95 limit in flight shut down"
    assert " ".join(head.split()) == columns
    cells = "big azure/gpt-5#2 azure eu quarantined credential 2027-01-15 08:00 20 3 0.81 s 4 2027-03-01"
    assert " ".join(row.split()) == cells


def test_deployments_for_programs(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", PATH, 200, {"data": [ONE], "has_more": False, "last_id": None})
    assert json.loads(invoke("deployments", "list", "--json").stdout) == [ONE]


@pytest.mark.parametrize(
    ("words", "path", "body", "said"),
    [
        (["drain", "azure/gpt-5#2", "--why", "too dear"], "/azure/gpt-5%232/drain", {"why": "too dear"}, "gets no new calls"),
        (["drain", "d"], "/d/drain", {}, "gets no new calls"),
        (["resume", "d"], "/d/resume", {}, "is asked again"),
    ],
)
def test_one_is_taken_out_and_put_back(invoke: Invoke, stub: Stub, words: list[str], path: str, body: object, said: str) -> None:
    stub.on("POST", PATH + path, 200, ONE)
    result = invoke("deployments", *words)
    assert result.exit_code == 0, result.stderr
    assert stub.bodies("POST") == [body]
    assert said in result.stderr
    assert json.loads(invoke("deployments", *words, "--json").stdout) == ONE


def test_why_it_cannot_be_is_said(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", f"{PATH}/d/drain", 403, {"error": {"message": "Draining a deployment needs one of the roles …"}})
    result = invoke("deployments", "drain", "d")
    assert result.exit_code == 1
    assert "needs one of the roles" in result.stderr
