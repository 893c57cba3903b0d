"""Who is left alone is looked after, where that is wanted: seldom, by one router, and tried as soon as it seems well."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from schemas.control import Deployment
from services.router.health import FIRST_COOL_MS, IN_A_ROW, Health
from services.router.probes import Probes
from services.router.providers.base import ProviderFailure
from services.router.providers.http import Http
from services.router.providers.listing import lists_models
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import deployment, virtual_clock


@dataclass
class Asked:
    """A provider's list of models, from `well_s` on; when it was asked."""

    well_s: float = 1e9
    hangs: bool = False
    at_s: list[float] = field(default_factory=list[float])
    running: int = 0
    most: int = 0

    async def __call__(self, _: Deployment) -> bool:
        now_s = asyncio.get_running_loop().time()
        self.at_s.append(now_s)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(1e6 if self.hangs else 0.1)
            return now_s >= self.well_s
        finally:
            self.running -= 1


def sick(name: str = "a", kind: str = "unavailable") -> Health:
    health = Health()
    for _ in range(IN_A_ROW):
        health.failed(name, virtual_clock(), virtual_clock(), kind=kind)  # pyright: ignore[reportArgumentType]
    return health


async def looked_after(health: Health, probe: Asked, seconds: float, **changes: object) -> None:
    one = deployment("a", **({"health_check": True} | changes))
    probes = Probes(health, lambda: {"a": one}, probe, virtual_clock, chance=lambda: 1.0)
    await probes.start()
    await asyncio.sleep(seconds)
    await probes.stop()


@in_virtual_time
async def test_who_seems_well_is_tried_at_once() -> None:
    health, probe = sick(kind="denied"), Asked(well_s=20)
    await looked_after(health, probe, 55)
    assert len(probe.at_s) >= 3
    assert probe.at_s[-1] < 30, "a quarantine takes a minute"
    assert health.cools_until("a", virtual_clock()) == 0
    assert health.ramp("a", virtual_clock()), "by a few calls"


@in_virtual_time
async def test_who_does_not_stays_as_it_is() -> None:
    health, probe = sick(), Asked()
    until = health.cools_until("a", virtual_clock())
    await looked_after(health, probe, FIRST_COOL_MS / 1000 - 0.2)
    assert probe.at_s
    assert health.cools_until("a", virtual_clock()) == until


@in_virtual_time
async def test_one_that_hangs_is_asked_once_at_a_time_and_given_up() -> None:
    probe = Asked(hangs=True)
    await looked_after(sick(kind="denied"), probe, 50)
    assert len(probe.at_s) > 1
    assert (probe.most, probe.running) == (1, 0)


@in_virtual_time
async def test_who_did_not_ask_for_it_and_who_is_well_is_left_in_peace() -> None:
    probe = Asked()
    await looked_after(sick(), probe, 20, health_check=False)
    await looked_after(Health(), probe, 20)
    await looked_after(sick("another"), probe, 20)
    assert probe.at_s == []


@in_virtual_time
async def test_what_a_probe_raises_ends_nothing() -> None:
    calls: list[str] = []

    async def probe(asked: Deployment) -> bool:
        calls.append(asked.id)
        raise ValueError("broken") if len(calls) == 1 else TimeoutError

    health = sick(kind="denied")
    probes = Probes(health, lambda: {"a": deployment("a", health_check=True)}, probe, virtual_clock, chance=lambda: 0.0)
    await probes.start()
    await asyncio.sleep(30)
    await probes.stop()
    assert len(calls) > 2


# The list of models


@dataclass
class Server:
    """Answers every GET with a status, and remembers path and headers."""

    url: str = ""
    status: int = 200
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list[tuple[str, dict[str, str]]])


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    there = Server()

    async def answer(request: web.Request) -> web.Response:
        assert request.method == "GET"
        there.seen.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        return web.json_response({"data": []}, status=there.status)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield there
    await runner.cleanup()


async def secret(reference: str) -> str | None:
    return {"env:KEY": "sk-1"}.get(reference)


async def lists(one: Deployment) -> bool:
    http = Http(4)
    try:
        return await lists_models(one, secret, http)
    finally:
        await http.close()


@pytest.mark.parametrize(
    ("provider", "base", "path", "header", "value"),
    [
        ("openai", "/v1", "/v1/models", "authorization", "Bearer sk-1"),
        ("vllm", "/v1/", "/v1/models", "authorization", "Bearer sk-1"),
        ("ollama", "", "/v1/models", "authorization", "Bearer sk-1"),
        ("anthropic", "", "/v1/models", "x-api-key", "sk-1"),
        ("anthropic", "/v1", "/v1/models", "x-api-key", "sk-1"),
        ("gemini", "/v1beta", "/v1beta/models", "x-goog-api-key", "sk-1"),
    ],
)
async def test_each_provider_is_asked_in_its_own_way(
    server: Server, provider: str, base: str, path: str, header: str, value: str
) -> None:
    assert await lists(deployment(provider=provider, api_base=server.url + base, api_key="env:KEY"))
    ((asked, headers),) = server.seen
    assert (asked, headers[header]) == (path, value)
    assert ("anthropic-version" in headers) == (provider == "anthropic")


async def test_a_server_of_ones_own_needs_no_credential(server: Server) -> None:
    assert await lists(deployment(provider="vllm", api_base=server.url))
    assert "authorization" not in server.seen[0][1]


@pytest.mark.parametrize(("status", "kind"), [(401, "denied"), (500, "unavailable"), (404, "final")])
async def test_who_refuses_is_not_well(server: Server, status: int, kind: str) -> None:
    server.status = status
    with pytest.raises(ProviderFailure) as failure:
        await lists(deployment(provider="openai", api_base=server.url, api_key="env:KEY"))
    assert failure.value.kind == kind
    assert "sk-1" not in str(failure.value)


@pytest.mark.parametrize("provider", ["echo", "local", "bedrock", "vertex_ai", "azure", "litellm", "vllm"])
async def test_who_has_no_such_list_is_not_asked(provider: str) -> None:
    assert not await lists(deployment(provider=provider))


async def test_without_its_credential_nobody_is_asked(server: Server) -> None:
    assert not await lists(deployment(provider="openai", api_base=server.url, api_key="env:OTHER"))
    assert server.seen == []
