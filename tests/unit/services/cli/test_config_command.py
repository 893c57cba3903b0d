"""check, plan, apply, drift, import-litellm."""

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
    assert json.loads(result.stdout) == {"valid": True, "models": ["gpt"], "problems": [], "warnings": [], "notes": []}


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


def test_native_providers_are_priced_by_the_list_that_books_them(invoke: Invoke, file: Path) -> None:
    file.write_text(
        "model_list: [{model_name: a, litellm_params: {model: bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0,"
        " aws_region_name: eu-central-1}}, {model_name: b, litellm_params: {model: vertex_ai/gemini-2.5-pro}},"
        " {model_name: c, litellm_params: {model: litellm/anthropic/claude-sonnet-4-5}}]"
    )
    assert "has no price" not in invoke("config", "check", str(file)).stderr


def test_check_fails_when_a_fallback_is_shut_down_too_early(invoke: Invoke, file: Path) -> None:
    file.write_text(
        "model_list: [{model_name: a, litellm_params: {model: echo/a}}, {model_name: b, litellm_params: {model: echo/b},"
        " model_info: {shutdown_date: 2001-02-03}}]\nmodels: {a: {fallbacks: [b]}}"
    )
    result = invoke("config", "check", str(file), "--json")
    told = "a falls back on b, which was shut down on 2001-02-03: name another model"
    assert (result.exit_code, json.loads(result.stdout)["valid"]) == (1, False)
    assert json.loads(result.stdout)["problems"] == [told]
    assert "Warning: b: echo/b was shut down by its provider on 2001-02-03" in result.stderr
    assert told in result.stderr


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


def _hand(stub: Stub, text: str) -> None:
    """Somebody has changed it by hand."""
    stub.on("GET", "/admin/v1/config", 200, read([("hand", text)]).over(Configuration()).model_dump(mode="json"))


def test_drift_is_what_was_changed_since_it_was_applied(invoke: Invoke, stub: Stub, file: Path) -> None:
    _standing(stub)
    assert invoke("config", "apply", str(file)).exit_code == 0
    _hand(stub, FILE)
    assert (invoke("config", "drift", str(file)).exit_code, invoke("config", "drift", str(file)).stdout) == (0, "")
    _hand(stub, FILE.replace("timeout_s: 5", "timeout_s: 7"))
    result = invoke("config", "drift", str(file))
    assert result.exit_code == 2
    assert result.stdout.splitlines() == ["team/fraud: changed", "    timeout_s: declared 5.0, standing 7.0"]
    found = json.loads(invoke("config", "drift", str(file), "--json").stdout)
    difference = {"resource": "team/fraud", "what": "changed", "path": "timeout_s", "declared": 5.0, "standing": 7.0}
    assert found == {"drift": [difference], "pending": 0, "remembered": True}


def test_what_the_files_say_since_then_is_pending_and_no_drift(invoke: Invoke, stub: Stub, file: Path) -> None:
    _standing(stub)
    invoke("config", "apply", str(file))
    _hand(stub, FILE)
    file.write_text(FILE.replace("timeout_s: 5", "timeout_s: 9"))
    result = invoke("config", "drift", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "1 changes of the files are not applied yet" in result.stderr
    _hand(stub, FILE.replace("timeout_s: 5", "timeout_s: 9"))
    assert "pending" not in invoke("config", "drift", str(file)).stderr, "somebody else has applied the new files"


def test_models_that_came_or_went_by_hand_are_drift(invoke: Invoke, stub: Stub, file: Path) -> None:
    _standing(stub)
    invoke("config", "apply", str(file))
    _hand(stub, FILE.replace("model_name: gpt", "model_name: other"))
    result = invoke("config", "drift", str(file))
    assert (result.exit_code, result.stdout.splitlines()) == (2, ["model/gpt: missing", "model/other: undeclared"])


def test_where_nothing_is_remembered_the_files_are_believed(invoke: Invoke, stub: Stub, file: Path) -> None:
    _hand(stub, FILE.replace("timeout_s: 5", "timeout_s: 7"))
    result = invoke("config", "drift", str(file), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["remembered"] is False


def test_what_is_remembered_holds_no_secret(invoke: Invoke, stub: Stub, data_dir: Path, file: Path) -> None:
    _standing(stub)
    invoke("config", "apply", str(file))
    [memory] = (data_dir / "applied").iterdir()
    assert "sk-literal" not in memory.read_text()


def test_plan_of_people_and_places() -> None:
    text = """
organization: {time_zone: Europe/Berlin}
teams: {fraud: {projects: {p: {environments: {dev: {policy: {timeout_s: 5}}}}}}}
users: {ada: {memberships: [{role: auditor}]}}
identity_providers: {okta: {issuer: 'https://okta.example', audiences: [sluice]}}
"""
    parsed = read([("f", text)])
    keys = ["environment/fraud/p/dev", "identity_provider/okta", "organization", "project/fraud/p", "team/fraud", "user/ada"]
    assert [change.resource for change in changes(Configuration(), parsed)] == keys
    standing = parsed.over(Configuration())
    assert changes(standing, parsed) == []
    stern = read([("f", text.replace("role: auditor", "role: finance"))])
    assert changes(standing, stern) == [
        Change("change", "user/ada", (Difference("memberships[0].role", "auditor", "finance"),)),
    ]


def test_import_prints_the_mapping_and_lists_the_rest(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: sk-x, tags: [x]}}]\n"
        "litellm_settings: {drop_params: true, request_timeout: 5}"
    )
    result = invoke("config", "import-litellm", str(file))
    assert result.exit_code == 0
    parsed = read([("out", result.stdout)])
    assert parsed.organization_policy is not None
    assert parsed.organization_policy.timeout_s == 5
    assert f"Not mapped: {file}: model_list[0].litellm_params.tags: no deployment is chosen" in result.stderr
    assert "Note: " in result.stderr
    assert "litellm_settings.drop_params" in result.stderr
    assert "1 not mapped." in result.stderr
    assert "sk-x" not in result.stdout + result.stderr


def test_import_writes_no_file_over_another(invoke: Invoke, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    assert invoke("config", "import-litellm", str(file), "--out", str(out)).exit_code == 0
    assert read([("out", out.read_text())]).models
    again = invoke("config", "import-litellm", str(file), "--out", str(out))
    assert again.exit_code == 1
    assert "is there already" in again.stderr
