"""check, plan, apply."""

import json
import stat
from pathlib import Path

import pytest

from services.cli.plan import Change, Difference, changes
from services.portal.config import Configuration, read
from tests.unit.services.cli.conftest import Invoke, Stub

FILE = """
model_list:
  - {model_name: gpt, litellm_params: {model: openai/gpt-4o-mini, api_key: sk-literal}}
teams: {fraud: {policy: {timeout_s: 5}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sluice.yaml"
    path.write_text(FILE)
    return path


def _standing(stub: Stub, text: str = "") -> None:
    parsed = read([("now", text)])
    stub.on("GET", "/admin/v1/config", 200, parsed.over(Configuration()).model_dump(mode="json"))
    stub.on("PUT", "/admin/v1/config", 200, {"applied": ["model/gpt"], "deleted": ["model/old"]})


def test_check_needs_no_system(invoke: Invoke, file: Path) -> None:
    result = invoke("config", "check", str(file), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"valid": True, "models": ["gpt"], "problems": [], "warnings": []}


def test_check_says_what_is_wrong_and_where(invoke: Invoke, file: Path) -> None:
    file.write_text("model_list: [{model_name: a, litellm_params: {model: x}}]")
    result = invoke("config", "check", str(file), "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["valid"]
    assert f"{file}: model_list[0].litellm_params.model: write the provider first" in result.stderr


def test_strict_makes_warnings_fail(invoke: Invoke, file: Path) -> None:
    file.write_text("router_settings: {}")
    assert invoke("config", "check", str(file)).exit_code == 0
    assert invoke("config", "check", str(file), "--strict").exit_code == 1


def test_models_without_a_price_are_named(invoke: Invoke, file: Path) -> None:
    file.write_text("model_list: [{model_name: a, litellm_params: {model: vllm/own, api_base: 'http://h/v1'}}]")
    assert "a: vllm/own has no price" in invoke("config", "check", str(file)).stderr


def test_plan_is_2_if_there_is_something_to_do(invoke: Invoke, stub: Stub, file: Path) -> None:
    _standing(stub)
    result = invoke("config", "plan", str(file))
    assert (result.exit_code, result.stdout.splitlines()) == (2, ["+ model/gpt", "+ team/fraud"])
    _standing(stub, FILE)
    assert invoke("config", "plan", str(file)).exit_code == 0


def test_plan_changes_nothing(invoke: Invoke, stub: Stub, data_dir: Path, file: Path) -> None:
    _standing(stub)
    invoke("config", "plan", str(file))
    assert {seen.method for seen in stub.seen} == {"GET"}
    assert not (data_dir / "secrets").exists()


def test_apply_keeps_the_secret_here_and_sends_its_name(invoke: Invoke, stub: Stub, data_dir: Path, file: Path) -> None:
    _standing(stub)
    result = invoke("config", "apply", str(file), "--json")
    assert json.loads(result.stdout) == {"applied": ["model/gpt"], "deleted": ["model/old"]}
    [secret] = (data_dir / "secrets").iterdir()
    assert secret.read_text() == "sk-literal"
    assert (stat.S_IMODE(secret.stat().st_mode), stat.S_IMODE(secret.parent.stat().st_mode)) == (0o600, 0o700)
    sent = next(seen.body for seen in stub.seen if seen.method == "PUT")
    assert f"file/{secret.name}" in sent
    assert "sk-literal" not in sent


def test_changes_name_the_member() -> None:
    before = "model_list: [{model_name: a, litellm_params: {model: echo/x}}, {model_name: b, litellm_params: {model: echo/y}}]"
    after = "model_list: [{model_name: a, litellm_params: {model: echo/x, weight: 3}}]\npolicy: {timeout_s: 9}"
    standing = read([("before", before)]).over(Configuration())
    assert changes(standing, read([("after", after)])) == [
        Change("change", "model/a", (Difference("deployments[echo/x].weight", 1.0, 3.0),)),
        Change("delete", "model/b", ()),
        Change("change", "organization", (Difference("timeout_s", None, 9.0),)),
    ]
