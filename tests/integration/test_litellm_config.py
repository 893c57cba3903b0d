"""The LiteLLM config.yaml of the documentation, as it is: it starts, and does what its users expect of it."""

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.system import ROOT, Provider, System, Team, chat, running_provider, until

EXAMPLE = ROOT / "docs" / "examples" / "litellm-config.yaml"
MASTER_KEY = "sk-master-of-the-example"
CHAT = "/v1/chat/completions"
FAULTS = 40


class Langfuse:
    """Takes traces, and remembers with what authorization they came."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, str | None, bytes]] = []


@contextmanager
def langfuse_on_a_thread() -> Generator[Langfuse]:
    langfuse = Langfuse()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            langfuse.seen.append((self.path, self.headers["authorization"], body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    langfuse.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield langfuse
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Stand:
    """The system, and whom it asks. `us` also serves the fallback model."""

    system: System
    team: Team
    eu: Provider
    us: Provider
    langfuse: Langfuse

    async def asked(self) -> Counter[str]:
        """How often each deployment was called, by its provider's name for the model."""
        return Counter([e.model for e in await self.eu.entries()] + [e.model for e in await self.us.entries()])

    async def breaks(self, provider: Provider, model: str) -> None:
        """The next calls of this model fail."""
        async with httpx.AsyncClient(base_url=provider.base_url, trust_env=False) as client:
            answer = await client.post("/faults", json={model: ["500"] * FAULTS})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
async def stand(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stand]:
    """The file as it is; what it takes from the environment leads to mock providers."""
    folder = tmp_path_factory.mktemp("litellm")
    with langfuse_on_a_thread() as langfuse, pytest.MonkeyPatch.context() as environment:
        async with running_provider(tmp_path_factory.mktemp("us")) as us:
            given = {
                "AZURE_EU_API_BASE": provider.base_url,
                "AZURE_US_API_BASE": us.base_url,
                "MISTRAL_API_BASE": us.base_url,
                "LITELLM_MASTER_KEY": MASTER_KEY,
                "LANGFUSE_HOST": langfuse.url,
                "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
                "LANGFUSE_SECRET_KEY": "sk-lf-1",
                **dict.fromkeys(("AZURE_EU_API_KEY", "AZURE_US_API_KEY", "MISTRAL_API_KEY"), "sk-provider"),
            }
            for name, value in given.items():
                environment.setenv(name, value)
            # Commands of this test find the key here; the system itself has it from the file.
            (folder / "admin.key").write_text(MASTER_KEY)
            (folder / "admin.key").chmod(0o600)
            system = await System.start(folder, EXAMPLE.read_text())
            team = await system.create_team("migrated")
            yield Stand(system, team, provider, us, langfuse)
            assert await system.stop() == 0, system.log_tail


async def ask(client: httpx.AsyncClient, model: str = "gpt-4o") -> httpx.Response:
    answer = await client.post(CHAT, json=chat(model))
    assert answer.status_code == 200, answer.text
    return answer


async def test_it_starts_and_tells_what_has_no_effect(stand: Stand) -> None:
    log = (stand.system.data_dir / "up.log").read_text()
    assert "similarity_threshold" in log
    assert "master_key is the admin key" in log
    assert MASTER_KEY not in log
    assert "sk-provider" not in log
    assert "sk-lf-1" not in log


async def test_the_master_key_administrates(stand: Stand) -> None:
    for key, status in ((MASTER_KEY, 200), (f"{MASTER_KEY}x", 401)):
        async with httpx.AsyncClient(base_url=stand.system.url, trust_env=False) as client:
            answer = await client.get("/admin/v1/config", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status


async def test_both_deployments_serve_and_so_does_the_alias(stand: Stand) -> None:
    async with stand.team.http() as client:

        async def both() -> bool:
            await ask(client)
            asked = await stand.asked()
            return asked["gpt-4o-eu"] > 0 and asked["gpt-4o-us"] > 0

        assert await until(both)
        await ask(client, "gpt-4")
        models = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
    assert models == {"gpt-4o", "gpt-4", "small"}
    assert (await stand.asked())["mistral-small"] == 0


async def test_a_repeated_question_is_answered_by_the_cache(stand: Stand) -> None:
    text = "what is asked twice"
    async with stand.team.http() as client:

        async def hit() -> bool:
            answer = await client.post(CHAT, json=chat("small", text))
            return answer.headers["x-sluice-cache"] == "hit"

        assert await until(hit)


async def test_langfuse_gets_the_spans(stand: Stand) -> None:
    async with stand.team.http() as client:
        await ask(client)

    async def traced() -> bool:
        return any(b"gpt-4o" in body for _, _, body in stand.langfuse.seen)

    assert await until(traced)
    basic = base64.b64encode(b"pk-lf-1:sk-lf-1").decode()
    assert {(path, key) for path, key, _ in stand.langfuse.seen} == {("/api/public/otel/v1/traces", f"Basic {basic}")}


async def test_a_broken_deployment_is_passed_over_and_then_the_fallback_answers(stand: Stand) -> None:
    async with stand.team.http() as client:
        before = await stand.asked()
        await ask(client)
        (favourite,) = (await stand.asked() - before).keys()
        providers = {"gpt-4o-eu": stand.eu, "gpt-4o-us": stand.us}
        await stand.breaks(providers.pop(favourite), favourite)
        before = await stand.asked()

        async def met() -> bool:
            await ask(client)
            return (await stand.asked() - before)[favourite] > 0

        # Whatever fails is asked again elsewhere: nobody notices.
        assert await until(met)
        for _ in range(12):
            await ask(client)
        one_broken = await stand.asked() - before
        # allowed_fails is 1: with its second failure it goes to rest, and isn't asked for cooldown_time.
        assert 1 <= one_broken[favourite] <= 2, one_broken
        assert one_broken["mistral-small"] == 0, one_broken
        ((other, provider),) = providers.items()
        await stand.breaks(provider, other)
        before = await stand.asked()
        answers = [await ask(client) for _ in range(6)]
        both_broken = await stand.asked() - before
    assert both_broken["mistral-small"] == len(answers), both_broken
    assert both_broken[other] <= 3, both_broken


async def test_files_own_what_they_declare_and_drift_says_who_else_was_there(stand: Stand) -> None:
    system, file = stand.system, stand.system.data_dir / "teams.yaml"
    text = """
organization: {time_zone: Europe/Berlin}
teams: {owned: {policy: {timeout_s: 50}, projects: {screening: {environments: {prod: {policy: {timeout_s: 20}}}}}}}
users: {ada@corp.example: {memberships: [{role: team_admin, team: owned}]}}
"""
    await asyncio.to_thread(file.write_text, text)
    assert (await system.run("config", "plan", file)).status == 2
    applied = await system.json("config", "apply", file)
    keys = ["organization/default", "team/owned", "project/owned/screening", "environment/owned/screening/prod"]
    assert applied == {"applied": [*keys, "user/ada@corp.example"], "deleted": []}
    assert (await system.run("config", "plan", file)).status == 0
    assert (await system.run("config", "drift", file)).status == 0
    async with system.admin() as admin:
        models = (await admin.get("/admin/v1/config")).json()["models"]
        assert len(models) == 3, "files without models leave them as they are"
        by_hand = {"owns_models": False, "teams": [{"name": "owned", "policy": {"timeout_s": 51}}]}
        assert (await admin.put("/admin/v1/config", json=by_hand)).json() == {"applied": ["team/owned"], "deleted": []}
    drift = await system.run("config", "drift", file, "--json")
    difference = {"resource": "team/owned", "what": "changed", "path": "timeout_s", "declared": 50, "standing": 51}
    assert (drift.status, json.loads(drift.out)["drift"]) == (2, [difference])
    assert (await system.json("config", "apply", file))["applied"] == ["team/owned"]
    assert (await system.run("config", "drift", file)).status == 0
