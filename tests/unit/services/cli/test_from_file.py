"""What a LiteLLM file says of the process: the environment goes before it, and nothing secret is told."""

import base64

import pytest
from pydantic import SecretStr

from infra.settings import Settings
from services.cli.from_file import with_file
from services.portal.config import read

LANGFUSE = "litellm_settings: {success_callback: [langfuse]}"
MASTER = "general_settings: {master_key: os.environ/MASTER}"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLUICE_ADMIN_KEY", "SLUICE_OTLP_ENDPOINT", "SLUICE_OTLP_HEADERS", "MASTER"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PUBLIC_KEY", "SECRET_KEY", "HOST", "BASE_URL", "OTEL_HOST"):
        monkeypatch.delenv(f"LANGFUSE_{name}", raising=False)


def settings(text: str, **given: object) -> Settings:
    return with_file(Settings().model_copy(update=given), read([("f.yaml", text)]))


def test_the_master_key_is_the_admin_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MASTER", "sk-master")
    assert settings(MASTER).admin_key.get_secret_value() == "sk-master"
    assert settings("general_settings: {master_key: sk-master}").admin_key.get_secret_value() == "sk-master"
    told = capsys.readouterr().err
    assert "set SLUICE_ADMIN_KEY" in told
    assert "sk-master" not in told


def test_an_admin_key_that_is_set_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER", "sk-master")
    assert settings(MASTER, admin_key=SecretStr("sk-set")).admin_key.get_secret_value() == "sk-set"


def test_a_master_key_that_is_not_set_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings(MASTER).admin_key.get_secret_value() == ""
    assert "MASTER is not set" in capsys.readouterr().err


def test_langfuse_gets_traces_with_its_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk-1")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-1")
    cloud = settings(LANGFUSE)
    assert cloud.otlp_endpoint == "https://cloud.langfuse.com/api/public/otel"
    assert cloud.otlp_headers.get_secret_value() == f"authorization=Basic {base64.b64encode(b'pk-1:sk-1').decode()}"
    monkeypatch.setenv("LANGFUSE_HOST", "http://langfuse.corp/")
    assert settings(LANGFUSE).otlp_endpoint == "http://langfuse.corp/api/public/otel"
    assert settings("policy: {}").otlp_endpoint == ""
    assert settings(LANGFUSE, otlp_endpoint="http://own").otlp_endpoint == "http://own"
    assert "sk-1" not in capsys.readouterr().err
    assert "sk-1" not in repr(cloud)


def test_langfuse_without_keys_is_a_warning_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings(LANGFUSE).otlp_endpoint == ""
    assert "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY" in capsys.readouterr().err
