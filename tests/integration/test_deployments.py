"""Deployments that are taken out, by an operator or because of a refused credential; and what routers tell by a real Redis."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from infra.embedded.stack import Stack
from infra.redis import health
from infra.redis.client import Redis
from infra.redis.health import Change, Closed, Eased, Opened, Standing, Wants, exchange, lift, seen_by_routers
from schemas.deployments import DeploymentSeen, RouterSeen
from tests.system import System, Team, chat, until


@pytest.fixture
async def team(system: System) -> Team:
    return await system.create_team(f"deploys-{secrets.token_hex(3)}")


async def status(team: Team, model: str) -> tuple[int, str]:
    """The status of a request, and the code of its error."""
    async with team.http() as client:
        answer = await client.post("/v1/chat/completions", json=chat(model))
    error: dict[str, Any] = answer.json().get("error") or {}
    return answer.status_code, error.get("code") or ""


async def shown(system: System, name: str) -> dict[str, Any]:
    return {one["id"]: one for one in await system.json("deployments", "list")}[name]


async def test_a_drained_deployment_gets_no_calls_until_it_is_resumed(system: System, team: Team) -> None:
    name = "mock-nousage@mocked"
    assert await status(team, "mock-nousage") == (200, "")
    drained = await system.run("deployments", "drain", name, "--why", "a test")
    assert drained.status == 0, drained.err

    async def refused() -> bool:
        return (await status(team, "mock-nousage"))[0] == 503

    assert await until(refused)
    one = await shown(system, name)
    assert (one["model"], one["state"], one["why"]) == ("mock-nousage", "drained", "a test")
    assert (await system.run("deployments", "resume", name)).status == 0

    async def served() -> bool:
        return (await status(team, "mock-nousage"))[0] == 200

    assert await until(served)
    assert (await shown(system, name))["state"] == "closed"


async def test_a_refused_credential_takes_a_deployment_out_and_people_are_told(system: System, team: Team) -> None:
    name = "mock-401@mocked"
    # Another test may have found it out before.
    assert (await system.run("deployments", "resume", name)).status == 0

    async def asked() -> bool:
        return await status(team, "mock-401") == (502, "provider_error")

    assert await until(asked)
    assert await status(team, "mock-401") == (503, "provider_unavailable"), "nobody is asked again"

    async def quarantined() -> bool:
        one = await shown(system, name)
        return (one["state"], one["why"]) == ("quarantined", "credential")

    assert await until(quarantined)

    async def told() -> list[dict[str, Any]]:
        async with system.admin() as admin:
            alerts = (await admin.get("/admin/v1/alerts", params={"what": "credential_refused"})).json()["data"]
        return [alert for alert in alerts if alert["scope"] == f"deployment/{name}"]

    (alert,) = await until(told)
    assert (alert["severity"], alert["team"]) == ("critical", "")
    assert f"sluice deployments resume {name}" in alert["message"]
    resumed = await system.run("deployments", "resume", name, "--why", "another key")
    assert resumed.status == 0, resumed.err
    assert await until(asked), "it is asked again at once"


async def test_metrics_tell_how_deployments_are(system: System, team: Team) -> None:
    assert (await status(team, "mock"))[0] == 200

    async def metrics() -> bool:
        async with system.admin() as client:
            text = (await client.get("/metrics")).text
        return 'sluice_deployment_state{deployment="mock@mocked"} 0.0' in text

    assert await until(metrics)


# What routers tell each other


@pytest.fixture
async def redis(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Redis]:
    """With names of our own, and tries that are over soon."""
    for name in ("_DEPLOYMENTS", "_ROUTERS"):
        monkeypatch.setattr(health, name, f"test:{secrets.token_hex(4)}")
    redis = Redis(stack.redis, timeout_s=5)
    yield redis
    await redis.close()


async def tell(redis: Redis, router: str, *changes: Change, tries: tuple[str, ...] = ()) -> Mapping[str, Standing]:
    return await exchange(redis, router, changes, Wants(tries), None, 0)


NAME = "azure/gpt 5#2\n"


async def test_what_one_tells_the_others_hear_in_what_is_left_of_it(redis: Redis) -> None:
    (own,) = (await tell(redis, "r0", Opened(NAME, 60_000, 3, "failures"))).values()
    (heard,) = (await tell(redis, "r1")).values()
    assert (own.is_new, heard.is_new, heard.rounds, heard.why) == (True, False, 3, "failures")
    assert own.stamp == heard.stamp
    assert 50_000 < heard.until_ms <= own.until_ms <= 60_000
    assert await tell(redis, "r0", Closed(NAME, own.stamp - 1)), "of another time"
    assert not await tell(redis, "r0", Closed(NAME, own.stamp))


async def test_one_alone_may_try_and_another_when_its_time_is_over(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TRY_MS", 200)
    await tell(redis, "r0", Opened("d", 1, 1, "errors"))
    found = [(await tell(redis, name, tries=("d",)))["d"] for name in ("r1", "r0", "r1")]
    assert [(one.is_mine, one.held_ms > 0) for one in found] == [(True, True), (False, True), (True, True)]

    async def mine() -> bool:
        return (await tell(redis, "r0", tries=("d",)))["d"].is_mine

    assert await until(mine)


async def test_it_may_be_tried_before_its_time_and_be_lifted(redis: Redis) -> None:
    opened = (await tell(redis, "r0", Opened("d", 60_000, 1, "credential")))["d"]
    eased = (await tell(redis, "r0", Eased("d", opened.stamp)))["d"]
    assert eased.until_ms == 0
    await lift(redis, "d")
    assert not await tell(redis, "r0")


async def test_many_at_once_leave_one_of_two(redis: Redis) -> None:
    both = {"a": ("b",), "b": ("a",)}
    opened = [Opened(name, 60_000, 1, "errors", others) for name, others in both.items()]
    await asyncio.gather(*(tell(redis, f"r{n}", opened[n % 2]) for n in range(20)))
    assert len(await tell(redis, "r0")) == 1
    await tell(redis, "r0", *(one._replace(others=()) for one in opened))
    assert len(await tell(redis, "r0")) == 2


async def test_what_routers_see_is_there_for_who_looks(redis: Redis) -> None:
    for router, calls in (("r0", 1), ("r1", 2), ("r1", 3)):
        seen = RouterSeen(deployments=(DeploymentSeen(id=NAME, calls=calls, took={3: calls}),))
        await exchange(redis, router, (), Wants(), seen, 0)
    found = sorted(one.deployments[0].calls for one in await seen_by_routers(redis))
    assert found == [1, 3]
