"""What `sluice doctor` says of credentials, wherever they lie: which one is missing, and never what it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.control import AwsSettings, Deployment, Model, VertexSettings
from services.cli import checks
from services.cli.checks import Check
from services.cli.client import find
from services.portal.config import Configuration
from tests.mocks.vault import ROLE_ID, SECRET_ID, MockVault, dynamic, kv
from tests.unit.services.cli.conftest import Invoke, Stub

LOCAL = {
    "os.environ/SET": "",
    "env:SET": "",
    "env:SURELY_NOT_SET": "warning: SURELY_NOT_SET is not set in this shell",
    "os.environ/SURELY_NOT_SET": "warning: SURELY_NOT_SET is not set in this shell",
    "file/key-1": "",
    "file:key-1": "",
    "file/key-2": "failed: {secrets}/key-2 is not there, or can't be read",
    "file:mine": "failed: {secrets}/mine is not there, or can't be read",
    "file:/surely/not/there": "failed: /surely/not/there is not there, or can't be read",
    "file:garbage": "failed: {secrets}/garbage is not there, or can't be read",
    "sk-CANARY": "failed: one is written as no reference, so that nobody finds it",
    "vault:secret/data/openai#key": "warning: 1 lie in Vault, which nobody asked: SLUICE_VAULT is not set in this shell",
}


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockVault]:
    told = {"secret/data/openai": kv(key="sk-CANARY", empty=""), "aws/creds/r": dynamic(60, access_key="AK-CANARY")}
    with MockVault(told) as mock:
        for name, value in {"": mock.url, "_ROLE": ROLE_ID, "_SECRET_ID": SECRET_ID}.items():
            monkeypatch.setenv(f"SLUICE_VAULT{name}", value)
        yield mock


def found(stub: Stub, data_dir: Path, *deployments: Deployment) -> list[Check]:
    """What is said of credentials."""
    declared = Configuration(models=[Model(name="m", deployments=deployments)])
    stub.on("GET", "/admin/v1/config", 200, declared.model_dump(mode="json"))
    told = [check for check in checks.configuration(find(data_dir)) if check.name not in ("models", "price")]
    assert "CANARY" not in str(told)
    return told


def keyed(*references: str) -> list[Deployment]:
    return [Deployment(id=f"d{n}", provider="openai", model="m", api_key=one) for n, one in enumerate(references)]


@pytest.mark.parametrize("reference", LOCAL)
def test_every_spelling(stub: Stub, data_dir: Path, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.delenv("SLUICE_VAULT", raising=False)
    monkeypatch.setenv("SET", "sk-CANARY")
    secrets = data_dir / "secrets"
    secrets.mkdir()
    (secrets / "key-1").write_text("sk-CANARY")
    (secrets / "garbage").write_bytes(b"\xff\xfe\x00")
    [told] = found(stub, data_dir, *keyed(reference))
    expected = LOCAL[reference].format(secrets=secrets) or "ok: 1 are there"
    assert f"{told.state}: {told.detail}" == expected
    assert bool(told.advice) == (told.state != "ok")


def test_every_credential_of_a_deployment(stub: Stub, data_dir: Path) -> None:
    aws = AwsSettings(access_key_id="env:NONE_A", secret_access_key="env:NONE_B", session_token="env:NONE_C")
    one = Deployment(id="d", provider="bedrock", model="m", aws=aws, vertex=VertexSettings(credentials="env:NONE_D"))
    told = found(stub, data_dir, *keyed("env:NONE_E"), one)
    assert [check.detail.split()[0] for check in told] == [f"NONE_{letter}" for letter in "ABCDE"]


def test_what_lies_in_vault_is_looked_up_there_and_given_back(stub: Stub, data_dir: Path, vault: MockVault) -> None:
    right = ("vault:secret/data/openai#key", "vault:aws/creds/r#access_key")
    [told] = found(stub, data_dir, *keyed(*right))
    assert (told.state, told.detail) == ("ok", "2 are there")
    assert vault.asked.count("GET secret/data/openai") == 1
    # With the token all that was leased to it is gone.
    assert vault.asked[-1] == "POST auth/token/revoke-self"


def test_what_does_not_lie_in_vault(stub: Stub, data_dir: Path, vault: MockVault) -> None:
    wrong = ("vault:secret/data/none#key", "vault:secret/data/openai#kye", "vault:secret/data/openai#empty")
    told = found(stub, data_dir, *keyed(*wrong, "vault:secret/data/openai#key"))
    assert [f"{check.state}: {check.detail}" for check in told] == [
        "failed: secret/data/none: Vault refuses (InvalidPath)",
        "failed: secret/data/openai has no field empty",
        "failed: secret/data/openai has no field kye",
    ]
    assert vault.asked.count("GET secret/data/openai") == 1


def test_vault_is_away(stub: Stub, data_dir: Path, vault: MockVault) -> None:
    vault.down = True
    [told] = found(stub, data_dir, *keyed("vault:a#b", "vault:c#d"))
    assert (told.name, told.state) == ("vault", "failed")
    assert told.detail == f"{vault.url.removeprefix('http://')}: Vault does not answer (VaultDown)"


def test_the_command_says_it(stub: Stub, data_dir: Path, vault: MockVault, invoke: Invoke) -> None:
    stub.on("GET", "/readyz", 200, {"ready": True})
    found(stub, data_dir, *keyed("vault:secret/data/none#key"))
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    told = {check["name"]: check["detail"] for check in json.loads(result.stdout)["checks"]}
    assert told["credential"] == "secret/data/none: Vault refuses (InvalidPath)"
