"""Which provider serves which deployment, and that it isn't there before it's needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.providers import COMPATIBLE, NATIVE, OWN_HOUSE
from infra.secrets.book import Secrets
from infra.settings import Settings
from schemas.control import AwsSettings, Deployment
from services.router.providers.registry import Providers

SERVED_BY = {
    "echo": "Echo",
    "local": "Local",
    "azure": "Azure",
    "anthropic": "Anthropic",
    "gemini": "Gemini",
    "vertex_ai": "Vertex",
    "bedrock": "Bedrock",
    "litellm": "LiteLLM",
    **dict.fromkeys((*COMPATIBLE, "acme"), "OpenAI"),
}


def test_all_names_are_known() -> None:
    assert SERVED_BY.keys() == COMPATIBLE.keys() | NATIVE.keys() | OWN_HOUSE | {"acme"}


@pytest.mark.parametrize("name", SERVED_BY)
async def test_each_name_has_its_provider(name: str, tmp_path: Path) -> None:
    providers = Providers(Settings(data_dir=tmp_path), _secrets())
    deployment = Deployment(id="d", provider=name, model="m")
    provider = providers.of(deployment)
    assert type(provider).__name__ == SERVED_BY[name]
    assert providers.of(deployment) is provider
    await providers.close()


async def test_a_refused_credential_is_looked_for_wherever_it_may_lie() -> None:
    values = {"env:A": "one", "env:B": "two"}
    secrets = Secrets(values.get, None, lambda: 0.0, lambda: 0.0)
    providers = Providers(Settings(), secrets)
    assert [await secrets.of(reference) for reference in values] == ["one", "two"]
    keyed = Deployment(id="k", provider="openai", model="m", api_key="env:A")
    signed = Deployment(id="s", provider="bedrock", model="m", aws=AwsSettings(access_key_id="env:A", secret_access_key="env:B"))
    assert not await providers.renewed(keyed, 0)
    values["env:B"] = "three"
    assert not await providers.renewed(keyed, 0)
    assert await providers.renewed(signed, 0)
    assert not await providers.renewed(Deployment(id="n", provider="ollama", model="m"), 0)


def _secrets() -> Secrets:
    return Secrets(lambda _: None, None, lambda: 0.0, lambda: 0.0)


def test_nobody_is_imported_before_it_is_asked() -> None:
    program = """
import sys
from infra.secrets.book import Secrets
from infra.settings import Settings
from schemas.control import Deployment
from services.router.providers.registry import Providers
providers = Providers(Settings(), Secrets(lambda _: None, None, lambda: 0.0, lambda: 0.0))
providers.of(Deployment(id="d", provider="groq", model="m"))
heavy = {"botocore", "google.auth", "hvac", "litellm", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
