"""The loop that tells other routers, people and whoever looks how deployments are."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from infra.kafka.table import ControlTable
from infra.redis.client import RedisUnavailable
from infra.redis.health import Change, Standing, Wants, exchange, seen_by_routers
from infra.telemetry import metrics
from schemas.control import AwsSettings, Deployment, DeploymentState, Model
from schemas.deployments import RouterSeen
from schemas.topics import Lane
from services.router.health import IN_A_ROW, Health
from services.router.places import Places
from services.router.roster import Roster
from services.router.shared_health import SharedHealth
from services.router.tally import Tally
from tests.fakes.clock import in_virtual_time
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import deployment, virtual_clock


class Node:
    """A router with a table of its own, on a Redis that others may share."""

    def __init__(self, redis: LuaRedis, name: str = "r0", *deployments: Deployment) -> None:
        self.redis, self.name = redis, name
        self.table = ControlTable()
        self.deploy(*deployments or (deployment("a"), deployment("b")))
        self.health, self.tally = Health(), Tally(virtual_clock)
        self.places = Places(self.health, virtual_clock)
        self.roster = Roster(self.table)
        self.alerts: list[tuple[Any, ...]] = []
        self.away = False
        self.trips = 0
        self.shared = SharedHealth(self.health, self.places, self.tally, self.roster, self._exchange, self._raise, virtual_clock)

    def deploy(self, *deployments: Deployment) -> None:
        self.table.put(Model(name="m", deployments=deployments))

    def fail(self, kind: str = "unavailable", name: str = "a") -> None:
        for _ in range(IN_A_ROW):
            self.health.failed(name, virtual_clock(), virtual_clock(), kind=kind)  # pyright: ignore[reportArgumentType]

    def is_up(self, name: str = "a") -> bool:
        return not self.health.cools_until(name, virtual_clock())

    async def _exchange(
        self, changes: Sequence[Change], wants: Wants, seen: RouterSeen | None, now_ms: int
    ) -> Mapping[str, Standing]:
        self.trips += 1
        if self.away:
            raise RedisUnavailable("away")
        return await exchange(self.redis, self.name, changes, wants, seen, now_ms)

    async def _raise(self, *alert: Any) -> bool:
        self.alerts.append(alert)
        return True


def nodes(number: int = 2) -> list[Node]:
    redis = LuaRedis(virtual_clock)
    return [Node(redis, f"r{at}") for at in range(number)]


async def started(*all_: Node) -> None:
    for node in all_:
        await node.shared.start()


async def stopped(*all_: Node) -> None:
    for node in all_:
        await node.shared.stop()


def value(metric: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(metric, labels)


@in_virtual_time
async def test_what_one_learns_the_others_know_within_a_third_of_a_second() -> None:
    one, other = nodes()
    await started(one, other)
    await asyncio.sleep(5)
    one.fail()
    await asyncio.sleep(0.35)
    assert (one.is_up(), other.is_up(), other.is_up("b")) == (False, False, True)
    await stopped(one, other)


@in_virtual_time
async def test_nothing_is_asked_more_often_than_it_has_to_be() -> None:
    one, other = nodes()
    await started(one, other)
    one.fail(kind="denied")
    await asyncio.sleep(61)
    before = one.trips
    for _ in range(1_000):
        other.is_up()
        await asyncio.sleep(0.01)
    assert one.trips - before <= 10 / 0.3
    assert other.trips <= 71 / 0.3 + 10, "also where somebody else tries what this one would"
    await stopped(one, other)


@in_virtual_time
async def test_who_comes_new_knows_before_its_first_job() -> None:
    one, other = nodes()
    await started(one)
    one.fail()
    await asyncio.sleep(0.1)
    await started(other)
    assert not other.is_up()
    await stopped(one, other)


@in_virtual_time
async def test_a_redis_that_is_away_stops_nobody() -> None:
    one, other = nodes()
    one.away = other.away = True
    await started(one, other)
    one.fail()
    await asyncio.sleep(2)
    assert (one.is_up(), other.is_up()) == (False, True)
    one.away = other.away = False
    await asyncio.sleep(0.7)
    assert (one.is_up(), other.is_up()) == (False, False)
    await stopped(one, other)


@in_virtual_time
async def test_people_are_told_once_by_one_router() -> None:
    one, other = nodes()
    await started(one, other)
    one.fail()
    other.fail()
    one.fail(kind="denied", name="b")
    await asyncio.sleep(1)
    told = sorted((what, scope, severity) for what, scope, _, _, severity, _ in one.alerts + other.alerts)
    assert told == [("credential_refused", "deployment/b", "critical"), ("deployment_down", "deployment/a", "warning")]
    await asyncio.sleep(60)
    for node in (one, other):
        if node.is_up():
            node.health.ramp("a", virtual_clock())
            node.fail()
    await asyncio.sleep(1)
    assert len(one.alerts + other.alerts) == 2, "it never was well"
    await stopped(one, other)


@in_virtual_time
async def test_a_credential_that_is_refused_while_it_fails_anyway_is_told_too() -> None:
    (one,) = nodes(1)
    await started(one)
    one.fail()
    await asyncio.sleep(1)
    one.fail(kind="denied")
    await asyncio.sleep(1)
    assert [alert[0] for alert in one.alerts] == ["deployment_down", "credential_refused"]
    await stopped(one)


@in_virtual_time
async def test_people_are_told_without_redis_too() -> None:
    (one,) = nodes(1)
    one.away = True
    await started(one)
    one.fail()
    await asyncio.sleep(5)
    assert [alert[0] for alert in one.alerts] == ["deployment_down"]
    await stopped(one)


@in_virtual_time
async def test_a_drained_one_is_left_alone_until_it_is_resumed() -> None:
    (one,) = nodes(1)
    await started(one)
    one.table.put(DeploymentState(id="a", drained=True))
    await asyncio.sleep(0.4)
    assert (one.is_up(), one.is_up("b")) == (False, True)
    one.table.put(DeploymentState(id="a", version=2))
    await asyncio.sleep(0.4)
    assert one.is_up()
    await stopped(one)


@in_virtual_time
async def test_another_credential_or_address_ends_the_quarantine_for_all() -> None:
    for change in ({"api_key": "env:NEW"}, {"api_base": "https://other.example"}, {"aws": AwsSettings(profile="x")}):
        one, other = nodes()
        await started(one, other)
        one.fail(kind="denied")
        await asyncio.sleep(1)
        assert not other.is_up()
        other.deploy(deployment("a", weight=7), deployment("b"))
        await asyncio.sleep(1)
        assert not other.is_up(), "its weight is nothing to its provider"
        other.deploy(deployment("a", **change), deployment("b"))
        await asyncio.sleep(1)
        assert one.is_up(), change
        assert other.is_up()
        await stopped(one, other)


@in_virtual_time
async def test_a_rotated_secret_ends_the_quarantine_of_those_that_use_it() -> None:
    redis = LuaRedis(virtual_clock)
    one = Node(redis, "r0", deployment("a", api_key="env:A"), deployment("b", api_key="env:B"))
    await started(one)
    one.fail(kind="denied")
    one.fail(kind="denied", name="b")
    await asyncio.sleep(1)
    one.shared.rotated("env:A")
    assert (one.is_up(), one.is_up("b")) == (True, False)
    await stopped(one)


@in_virtual_time
async def test_routers_tell_what_they_see() -> None:
    one, other = nodes()
    await started(one, other)
    one.tally.ended("a", "ok", 100)
    one.tally.ended("a", "unavailable", 5)
    other.fail(kind="denied", name="b")
    held = [other.places.take(deployment("a"), Lane.BATCH) for _ in range(2)]
    await asyncio.sleep(2.5)
    seen = [{one.id: one for one in router.deployments} for router in await seen_by_routers(one.redis)]
    assert [(a["a"].calls, a["a"].errors, a["a"].busy) for a in seen] == [(2, 1, 0), (0, 0, 2)]
    assert [router["b"].state for router in seen] == ["quarantined", "quarantined"]
    for place in held:
        place.give_back()
    await stopped(one, other)
    await asyncio.sleep(6)
    assert await seen_by_routers(one.redis) == [], "who is gone sees nothing"


@in_virtual_time
async def test_metrics_tell_of_the_deployments_that_there_are() -> None:
    (one,) = nodes(1)
    one.deploy(deployment("m1", max_parallel_requests=7), deployment("m2"))
    await started(one)
    one.tally.ended("m1", "ok", 100, 20)
    one.tally.ended("m2", "throttled", 100)
    one.fail(name="m2")
    await asyncio.sleep(1.5)
    assert value("sluice_deployment_calls_total", deployment="m1", outcome="ok") == 1
    assert value("sluice_deployment_calls_total", deployment="m2", outcome="throttled") == 1
    assert value("sluice_deployment_call_seconds_count", deployment="m1") == 1
    assert value("sluice_deployment_first_token_seconds_count", deployment="m1") == 1
    assert [value("sluice_deployment_state", deployment=name) for name in ("m1", "m2")] == [0, 2]
    assert [value("sluice_deployment_limit", deployment=name) for name in ("m1", "m2")] == [7, None]
    one.deploy(deployment("m2"))
    one.tally.ended("m1", "ok", 100, 20)
    await asyncio.sleep(1.5)
    left = {sample.labels.get("deployment") for metric in metrics.REGISTRY.collect() for sample in metric.samples}
    assert "m1" not in left
    assert "m2" in left
    one.tally.keep(set())
    await stopped(one)


@in_virtual_time
async def test_what_is_gone_and_comes_back_begins_anew() -> None:
    for away in (True, False):
        (one,) = nodes(1)
        one.away = away
        await started(one)
        one.fail(kind="denied")
        await asyncio.sleep(1)
        one.deploy(deployment("b"))
        await asyncio.sleep(1)
        one.deploy(deployment("a"), deployment("b"))
        await asyncio.sleep(1)
        assert one.is_up(), away
        await stopped(one)


@in_virtual_time
async def test_an_exchange_that_breaks_is_made_again() -> None:
    (one,) = nodes(1)
    await started(one)
    broken, one.redis = one.redis, None  # pyright: ignore[reportAttributeAccessIssue]
    one.fail()
    await asyncio.sleep(1)
    one.redis = broken
    await asyncio.sleep(1)
    other = Node(one.redis, "r1")
    await started(other)
    assert not other.is_up()
    await stopped(one, other)
