"""Providers' keys in Vault, with the whole system: while Vault is away, while a key is rotated, and when none is taken."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.recorder import ANSWER
from tests.mocks.serving import Serving
from tests.mocks.vault import ROLE_ID, SECRET_ID, MockVault, dynamic, kv
from tests.system import System, chat, until

CHAT = "/v1/chat/completions"
KEY, LATE, LEASED = "secret/data/acme", "secret/data/late", "acme/creds/router"
LEASE_S = 3
CALLERS = 24


class Acme:
    """A provider that takes some keys and refuses the others, after a while: so calls with a key outlive it."""

    def __init__(self) -> None:
        self.takes = {"key-one", "key-late", "key-leased", "key-right"}
        self.latency_s = 0.0
        self.asked: Counter[tuple[str, int]] = Counter()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        await asyncio.sleep(self.latency_s)
        status = 200 if key in self.takes else 401
        self.asked[key, status] += 1
        return JSONResponse(ANSWER if status == 200 else {"error": {"message": f"Incorrect API key provided: {key}"}}, status)


@dataclass(frozen=True, slots=True)
class Stand:
    """The system, its Vault and its provider; `client` asks as a team. `key_file` holds the key of the model `filed`."""

    system: System
    vault: MockVault
    acme: Acme
    client: httpx.AsyncClient
    key_file: Path

    async def ask(self, model: str) -> httpx.Response:
        return await self.client.post(CHAT, json=chat(model))

    async def ask_until(self, status: int, model: str) -> httpx.Response:
        async def asked() -> httpx.Response | None:
            answer = await self.ask(model)
            return answer if answer.status_code == status else None

        return await until(asked)

    async def alert(self, what: str) -> dict[str, Any]:
        """The first of its kind."""

        async def told() -> list[dict[str, Any]]:
            async with self.system.admin() as admin:
                return (await admin.get("/admin/v1/alerts", params={"what": what})).json()["data"]

        return (await until(told))[-1]


@asynccontextmanager
async def away(vault: MockVault) -> AsyncGenerator[None]:
    """Vault answers nobody."""
    vault.down = True
    yield
    vault.down = False


async def more_served(acme: Acme, key: str) -> None:
    """Waits until all callers have been served with it twice again."""
    enough = acme.asked[key, 200] + 2 * CALLERS

    async def served() -> bool:
        return acme.asked[key, 200] >= enough

    await until(served)


@pytest.fixture(scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stand]:
    folder = tmp_path_factory.mktemp("secrets")
    key_file = folder / "acme.key"
    key_file.write_text("key-wrong\n")
    acme, paths = Acme(), {KEY: kv(key="key-one"), LATE: kv(key="key-late"), LEASED: dynamic(LEASE_S, key="key-leased")}
    with MockVault(paths, lease_s=LEASE_S) as vault:
        async with Serving(acme.app) as served:
            given = {
                "vaulted": f"vault:{KEY}#key",
                "late": f"vault:{LATE}#key",
                "leased": f"vault:{LEASED}#key",
                "filed": f"file:{key_file}",
            }
            price = {"input_cost_per_token": 0, "output_cost_per_token": 0}
            models = [
                {
                    "model_name": name,
                    "litellm_params": {"model": f"acme/{name}", "api_base": f"{served.base_url}/v1", "api_key": reference},
                    "model_info": {"id": f"{name}@acme", **price},
                }
                for name, reference in given.items()
            ]
            variables = {"SLUICE_VAULT": vault.url, "SLUICE_VAULT_ROLE": ROLE_ID, "SLUICE_VAULT_SECRET_ID": SECRET_ID}
            config = json.dumps({"model_list": models})
            system = await System.start(folder, config, **variables)
            team = await system.create_team("secrets")
            async with team.http() as client:
                yield Stand(system, vault, acme, client, key_file)
            assert await system.stop() == 0, system.log_tail


async def test_the_key_comes_from_vault_which_is_asked_once(stand: Stand) -> None:
    answers = await asyncio.gather(*(stand.ask("vaulted") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert stand.acme.asked["key-one", 200] >= 20
    assert stand.vault.asked.count(f"GET {KEY}") == 1
    assert stand.vault.asked.count("POST auth/approle/login") == 1


async def test_vault_is_away_and_what_is_known_serves_on(stand: Stand) -> None:
    assert (await stand.ask("vaulted")).status_code == 200
    async with away(stand.vault):
        assert {(await stand.ask("vaulted")).status_code for _ in range(20)} == {200}
        # What was never read can't be, which is that deployment's trouble, and somebody is told.
        answer = await stand.ask("late")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
        assert LATE in (await stand.alert("secrets_away"))["message"]
        assert (await stand.ask("vaulted")).status_code == 200
    await stand.ask_until(200, "late")


async def test_a_lease_serves_until_its_end_and_comes_back_with_vault(stand: Stand) -> None:
    assert (await stand.ask("leased")).status_code == 200

    async def renewed() -> bool:
        return "PUT sys/leases/renew" in stand.vault.asked

    await until(renewed)
    async with away(stand.vault):
        assert (await stand.ask("leased")).status_code == 200
        assert (await stand.ask_until(502, "leased")).json()["error"]["code"] == "provider_error"
        assert (await stand.ask("vaulted")).status_code == 200
    await stand.ask_until(200, "leased")


async def test_a_rotation_under_load_fails_no_call(stand: Stand) -> None:
    acme, vault, old, new = stand.acme, stand.vault, "key-one", "key-two"
    statuses: Counter[int] = Counter()
    acme.latency_s, before = 0.2, len(vault.asked)

    async def ask_on() -> None:
        # Until it has been served with the new one for a while.
        while acme.asked[new, 200] < 4 * CALLERS:
            statuses[(await stand.ask("vaulted")).status_code] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(ask_on())
        await more_served(acme, old)
        async with away(vault):
            await more_served(acme, old)
            vault.paths[KEY] = kv(key=new)
            acme.takes.add(new)
        acme.takes.discard(old)
    acme.latency_s = 0.0
    assert set(statuses) == {200}, statuses
    assert acme.asked[old, 401] >= 1
    # Of many that were refused only those before it was known have asked Vault, and together.
    assert 1 <= vault.asked[before:].count(f"GET {KEY}") <= 5


async def test_a_key_that_is_refused_is_told_of_and_asked_again_when_another_one_is_there(stand: Stand) -> None:
    answer = await stand.ask("filed")
    assert (answer.status_code, "key-wrong" in answer.text) == (502, False)
    assert (await stand.ask("filed")).status_code == 503
    assert stand.acme.asked["key-wrong", 401] == 1
    alert = await stand.alert("credential_refused")
    assert (alert["scope"], alert["severity"]) == ("deployment/filed@acme", "critical")
    assert (await stand.ask("vaulted")).status_code == 200
    stand.key_file.write_text("key-right\n")
    await stand.ask_until(200, "filed")


def test_the_process_with_the_keys_leaves_no_core_dump(stand: Stand) -> None:
    limits = Path(f"/proc/{stand.system.pids['router']}/limits").read_text()
    [cores] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
    assert cores[4:6] == ["0", "0"]
