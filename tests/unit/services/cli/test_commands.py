"""Teams and keys, failures, start-up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import COMMANDS, app
from tests.unit.services.cli.conftest import Invoke, Stub

TEAM = {"id": "team_1", "name": "fraud", "created_ms": 1_800_000_000_000, "policy": {"limits": {"requests_per_minute": 60}}}
KEY = {"id": "key_1", "key": "sk-sl-x", "team": "fraud", "last4": "abcd"}
LISTED = {"id": "key_1", "last4": "abcd", "team": "fraud", "project": "p", "environment": "dev", "user": "u", "revoked": True}


def test_team_is_created(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/teams", 201, TEAM)
    result = invoke("teams", "create", "fraud", "--rpm", "60")
    assert (result.exit_code, result.stdout) == (0, "fraud\n")
    assert stub.bodies("POST") == [{"name": "fraud", "requests_per_minute": 60}]
    assert stub.seen[0].authorization == "Bearer sk-admin"


def test_key_as_json_is_what_the_server_said(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/keys", 201, KEY)
    result = invoke("keys", "create", "--team", "fraud", "--environment", "dev", "--json")
    assert json.loads(result.stdout) == KEY
    assert stub.bodies("POST") == [{"team": "fraud", "project": "", "environment": "dev", "user": ""}]


def test_key_for_a_shell_is_alone_on_stdout(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/keys", 201, KEY)
    result = invoke("keys", "create", "--team", "fraud")
    assert result.stdout == "sk-sl-x\n"
    assert "only this once" in result.stderr


def test_lists_for_people_show_everything(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/teams", 200, {"data": [TEAM]})
    stub.on("GET", "/admin/v1/keys", 200, {"data": [LISTED]})
    assert invoke("teams", "list").stdout.split("\n")[1].split() == ["fraud", "60", "2027-01-15", "08:00", "team_1"]
    assert "revoked" in invoke("keys", "list", "--team", "fraud").stdout
    assert stub.seen[1].query == "team=fraud"


def test_lists_for_programs(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/keys", 200, {"data": [LISTED]})
    assert json.loads(invoke("keys", "list", "--json").stdout) == [LISTED]


def test_key_is_revoked(invoke: Invoke, stub: Stub) -> None:
    stub.on("DELETE", "/admin/v1/keys/key_1", 200, LISTED)
    assert invoke("keys", "revoke", "key_1").exit_code == 0


def test_job_token(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/job_tokens", 201, {"token": "ey.x", "expires_at": 1, "team": "fraud"})
    result = invoke("keys", "job-token", "--team", "fraud", "--expires-in", "600", "--json")
    assert json.loads(result.stdout)["token"] == "ey.x"
    assert stub.bodies("POST") == [{"team": "fraud", "expires_in": 600}]


def test_refusal_is_the_servers_sentence_on_stderr(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/admin/v1/teams", 400, {"error": {"message": "The team 'x' exists already.", "type": "t", "code": None}})
    result = invoke("teams", "create", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: The team 'x' exists already.\n"


def test_no_json_is_no_sluice(invoke: Invoke, stub: Stub) -> None:
    stub.on("GET", "/admin/v1/teams", 200, "<html>")
    assert "is that a Sluice?" in invoke("teams", "list").stderr


@pytest.mark.usefixtures("data_dir")
def test_without_a_system_it_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["teams", "list", "--data-dir", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "start it with `sluice up`, or set SLUICE_URL and SLUICE_ADMIN_KEY" in result.stderr


def test_system_of_the_environment(stub: Stub, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.on("GET", "/admin/v1/teams", 200, {"data": []})
    (data_dir / "endpoints.json").unlink()
    monkeypatch.setenv("SLUICE_URL", stub.url + "/")
    monkeypatch.setenv("SLUICE_ADMIN_KEY", "sk-other")
    monkeypatch.setenv("SLUICE_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["teams", "list"]).exit_code == 0
    assert stub.seen[0].authorization == "Bearer sk-other"


def test_data_dir_goes_before_the_environment(invoke: Invoke, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the admin key of the environment belongs to the URL of the environment."""
    stub.on("GET", "/admin/v1/teams", 200, {"data": []})
    monkeypatch.setenv("SLUICE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SLUICE_ADMIN_KEY", "sk-other")
    assert invoke("teams", "list").exit_code == 0
    assert stub.seen[0].authorization == "Bearer sk-admin"


def test_wrong_use_is_2(invoke: Invoke) -> None:
    assert invoke("teams", "create").exit_code == 2
    assert invoke("nonsense").exit_code == 2
    assert invoke("keys", "job-token", "--team", "x", "--expires-in", "1").exit_code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(invoke: Invoke, name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    """Which is what keeps it fast; a time would depend on the machine."""
    script = (
        "import sys; sys.argv = ['sluice', '--help']\n"
        "from services.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pydantic', 'httpx', 'aiokafka', 'genai_prices', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
