"""What `sluice doctor` says of systems that are well, and of those that aren't."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.cli import checks
from services.cli.checks import Check
from services.cli.client import System, find
from services.portal.config import Configuration, read
from tests.unit.services.cli.conftest import Invoke, Stub


@pytest.fixture
def system(data_dir: Path) -> System:
    return find(data_dir)


def _config(stub: Stub, text: str) -> None:
    stub.on("GET", "/admin/v1/config", 200, read([("f", text)]).over(Configuration()).model_dump(mode="json"))


def states(found: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in found}


def test_nothing_there(invoke: Invoke, data_dir: Path) -> None:
    (data_dir / "endpoints.json").unlink()
    result = invoke("doctor", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    wrong = {check["name"]: check["advice"] for check in report["checks"] if check["state"] == "failed"}
    assert set(wrong) == {"gateway", "kafka", "redis", "clickhouse"}
    assert all("sluice up" in advice for advice in wrong.values())


def test_gateway_that_is_ready(stub: Stub, system: System) -> None:
    stub.on("GET", "/readyz", 200, {"ready": True, "reasons": []})
    assert states(list(checks.gateway(system))) == {"gateway": "ok", "clock": "ok"}


def test_gateway_that_is_not_ready_says_why(stub: Stub, system: System) -> None:
    stub.on("GET", "/readyz", 503, {"ready": False, "reasons": ["control topic not read"]})
    found = list(checks.gateway(system))
    assert (found[0].state, found[0].detail) == ("failed", "not ready: control topic not read")


def test_clock_that_is_off(stub: Stub, system: System) -> None:
    stub.on("GET", "/readyz", 200, {"ready": True})
    assert states(list(checks.gateway(system, lambda: time.time() + 3600)))["clock"] == "failed"


def test_processes(data_dir: Path, stub: Stub) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for pids, state in ({"up": os.getpid()}, "ok"), ({"up": os.getpid(), "kafka": child.pid}, "failed"):
        (data_dir / "endpoints.json").write_text(json.dumps({"http": stub.url, "pids": pids}))
        assert states(list(checks.processes(find(data_dir)))) == {"processes": state}


def test_keys_that_others_can_read(data_dir: Path, system: System) -> None:
    (data_dir / "admin.key").chmod(0o644)
    found = {check.name: check for check in checks.folder(system)}
    assert found["admin.key"].advice == f"chmod 600 {data_dir / 'admin.key'}"


@pytest.mark.parametrize(("status", "body", "state"), [(200, "1\n", "ok"), (200, "0\n", "failed"), (500, "Code: 1", "failed")])
def test_clickhouse(stub: Stub, system: System, status: int, body: str, state: str) -> None:
    stub.on("POST", "/", status, body)
    assert states(list(checks.clickhouse(system))) == {"clickhouse": state}


def test_models_without_price_and_credential(stub: Stub, system: System) -> None:
    _config(
        stub,
        """
        model_list:
          - {model_name: own, litellm_params: {model: vllm/own, api_base: 'http://h/v1', api_key: sk-literal}}
          - {model_name: gpt, litellm_params: {model: openai/gpt-4o, api_key: os.environ/SURELY_NOT_SET}}
        """,
    )
    found = list(checks.configuration(system))
    assert [(check.name, check.state) for check in found] == [
        ("models", "ok"),
        ("price", "warning"),
        ("credential", "failed"),
        ("credential", "warning"),
    ]
    assert "sk-literal" not in str(found)


def test_wrong_admin_key(stub: Stub, system: System) -> None:
    stub.on("GET", "/admin/v1/config", 401, {"error": {"message": "This needs the admin key"}})
    assert states(list(checks.configuration(system))) == {"configuration": "failed"}
