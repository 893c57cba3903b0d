"""Credentials are found nowhere but where they belong, though providers tell whatever they were sent, and all fails (G34)."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from itertools import product

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.integration.endpoints import Receiver, Trap, receiving, trapping
from tests.integration.leaks import found, leaked, told_by
from tests.mocks.echoing import FAULTS, MARK, Echo, echoing
from tests.mocks.vault import ROLE_ID, SECRET_ID, MockVault, kv
from tests.system import System, Team, prompt, until

SENT = ("OPENAI", "LITERAL", "IN_VAULT", "ANTHROPIC", "GEMINI", "AZURE", "AWS_ID", "AWS_TOKEN", "BEDROCK", "GOOGLE_TOKEN")
"""Credentials that go out to providers as they are."""
REFUSED = "refused"
"""Nobody listens where the provider should be."""
WAYS: Mapping[str, tuple[str, dict[str, object]]] = {
    "chat": ("/v1/chat/completions", {}),
    "stream": ("/v1/chat/completions", {"stream": True}),
    "messages": ("/v1/messages", {"max_tokens": 9}),
    "responses": ("/v1/responses", {"stream": True}),
}
AT_ONCE = 48


@dataclass
class Stand:
    """The system, a provider that echoes, and all that callers were told. `secrets` by their names."""

    system: System
    echo: Echo
    trap: Trap
    spans: Receiver
    team: Team
    secrets: Mapping[str, str]
    told: dict[str, httpx.Response] = field(default_factory=dict[str, httpx.Response])

    async def ask_all(self, aliases: list[str]) -> None:
        limit = asyncio.Semaphore(AT_ONCE)
        async with self.team.http() as client:
            await asyncio.gather(*(self._ask(client, limit, alias) for alias in aliases))

    async def _ask(self, client: httpx.AsyncClient, limit: asyncio.Semaphore, alias: str) -> None:
        path, more = WAYS[alias.split("-")[-1]]
        words = {"input": prompt()} if path == "/v1/responses" else {"messages": [{"role": "user", "content": prompt()}]}
        async with limit:
            self.told[alias] = await client.post(path, json={"model": alias, **words, **more})


def providers(at: str, echo: Echo, canaries: Mapping[str, str], account: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """How each is asked at this address."""
    openai: dict[str, object] = {"model": "acme/m", "api_base": f"{at}/v1"}
    bedrock: dict[str, object] = {"model": "bedrock/m", "api_base": at, "aws_region_name": "eu-central-1"}
    keys = {
        "aws_access_key_id": "env:CANARY_AWS_ID",
        "aws_secret_access_key": "env:CANARY_AWS_SECRET",
        "aws_session_token": "env:CANARY_AWS_TOKEN",
    }
    vertex: dict[str, object] = {"model": "vertex_ai/m", "api_base": at, "vertex_project": "p", "vertex_location": "l"}
    return {
        "openai": {**openai, "api_key": "env:CANARY_OPENAI"},
        "literal": {**openai, "api_key": canaries["LITERAL"]},
        "vault": {**openai, "api_key": "vault:secret/data/acme#key"},
        "anthropic": {"model": "anthropic/m", "api_base": at, "api_key": "env:CANARY_ANTHROPIC"},
        "gemini": {"model": "gemini/m", "api_base": f"{at}/v1beta", "api_key": "os.environ/CANARY_GEMINI"},
        "azure": {"model": "azure/m", "api_base": at, "api_key": "env:CANARY_AZURE"},
        "bedrock": {**bedrock, **keys},
        "bedrock_key": {**bedrock, "api_key": "env:CANARY_BEDROCK"},
        "vertex": {**vertex, "vertex_credentials": {**account, "token_uri": f"{echo.url}/token"}},
        "vertex_refused": {**vertex, "vertex_credentials": {**account, "token_uri": f"{echo.url}/badtoken"}},
    }


def config(echo: Echo, canaries: Mapping[str, str], account: Mapping[str, str]) -> str:
    """A model for each provider, each way of failing and each way of asking: none is in quarantine for another's failure."""
    models: list[object] = []
    for fault, way in product((*FAULTS, REFUSED), WAYS):
        at = "http://127.0.0.1:1" if fault == REFUSED else f"{echo.url}/{fault}"
        for name, params in providers(at, echo, canaries, account).items():
            params |= {"timeout": 0.5} if fault == "hang" else {}
            info = {"input_cost_per_token": 0, "output_cost_per_token": 0}
            models.append({"model_name": f"{name}-{fault}-{way}", "litellm_params": params, "model_info": info})
    return json.dumps({"model_list": models})


@pytest.fixture
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stand]:
    canaries = {name: f"CANARY{name.replace('_', '')}{secrets.token_hex(8)}" for name in (*SENT, "AWS_SECRET", "OTLP")}
    pem = RSAKey.generate_key(2048).as_pem(private=True).decode()
    account = {"type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key": pem}
    with MockVault({"secret/data/acme": kv(key=canaries["IN_VAULT"])}) as vault:
        async with echoing(canaries["GOOGLE_TOKEN"]) as echo, receiving() as spans, trapping() as trap:
            echo.elsewhere = f"http://127.0.0.1:{trap.port}/"
            variables = {
                "SLUICE_LOG_LEVEL": "DEBUG",
                "SLUICE_OTLP_ENDPOINT": f"http://127.0.0.1:{spans.port}",
                "SLUICE_OTLP_HEADERS": f"authorization={canaries['OTLP']}",
                "SLUICE_VAULT": vault.url,
                "SLUICE_VAULT_ROLE": ROLE_ID,
                "SLUICE_VAULT_SECRET_ID": SECRET_ID,
            }
            variables |= {f"CANARY_{name}": value for name, value in canaries.items()}
            folder = tmp_path_factory.mktemp("leaks")
            system = await System.start(folder, config(echo, canaries, account), **variables)
            try:
                team = await system.create_team("leaks")
                own = {name: (folder / f"{name}.key").read_text().strip() for name in ("admin", "signing")}
                of_vault = {"SECRET_ID": SECRET_ID, "VAULT_TOKEN": "hvs.token-CANARY"}
                known = {**canaries, **own, **of_vault, "PEM": pem.splitlines()[5], "VIRTUAL_KEY": team.key}
                yield Stand(system, echo, trap, spans, team, known)
            finally:
                await system.stop()


async def test_no_secret_is_found_where_it_does_not_belong(stand: Stand) -> None:
    system, names = stand.system, ("openai", *providers("", stand.echo, stand.secrets, {}))
    aliases = [f"{name}-{fault}-{way}" for name, fault, way in product(dict.fromkeys(names), (*FAULTS, REFUSED), WAYS)]
    await stand.ask_all(aliases)

    async def all_booked() -> bool:
        where = f"FROM usage WHERE team = '{stand.team.name}'"
        return int((await system.query(f"SELECT count() AS n {where}"))[0]["n"]) >= len(aliases)

    await until(all_booked, 60)
    # It has been as bad as it could be: all of them went out, came back, and were passed on with all else that was said.
    heard = "\n".join(stand.echo.heard)
    assert [name for name in SENT if stand.secrets[name] not in heard] == []
    assert sum(MARK in answer.text for answer in stand.told.values()) >= len(aliases) / 20
    assert stand.spans.posted
    # Callers' keys go to nobody, nor does anything go where a provider sends us.
    assert [name for name in ("VIRTUAL_KEY", "admin", "AWS_SECRET", "PEM") if stand.secrets[name] in heard] == []
    assert stand.trap.connections == 0
    told = {alias: told_by(answer) for alias, answer in stand.told.items()}
    told |= {f"span {n}": posted.body for n, posted in enumerate(stand.spans.posted)}
    assert [f"{name} in {what}" for what, data in told.items() for name in leaked(stand.secrets, data)] == []
    jobs = [stand.told[alias].headers["x-request-id"] for alias in aliases[:2]]
    hits = [hit async for hit in found(system, {**stand.secrets, "TEAM": stand.team.name}, jobs)]
    assert [hit for hit in hits if not hit.startswith("TEAM in ")] == []
    # What is no secret is found all over: so would a secret be.
    all_over = ("sluice.completions", "the table usage", "Redis'", "/admin/v1/keys", "sluice trace", str(system.data_dir))
    assert [place for place in all_over if not any(hit.startswith(f"TEAM in {place}") for hit in hits)] == []
