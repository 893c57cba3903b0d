"""What people see of deployments, and what they do with them."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from infra.redis.client import RedisUnavailable
from infra.redis.health import SEEN_MS, Opened, Wants, exchange
from infra.telemetry.minute import bucket
from schemas.control import Deployment, Model
from schemas.deployments import BreakerState, DeploymentSeen, RouterSeen
from schemas.roles import Role
from tests.fakes.portal import House, house, secret_of

ODD = "azure/gpt-5#2"
PATH = "/admin/v1/deployments"


@pytest.fixture
def there(tmp_path: Path) -> House:
    one = Deployment(id=ODD, provider="azure", model="gpt-5", region="eu", shutdown_date=date(2027, 3, 1))
    big = Model(name="big", deployments=(one, Deployment(id="b", provider="echo", model="echo")))
    return House(tmp_path, *house(), big)


async def tell(there: House, router: str, *seen: DeploymentSeen) -> None:
    """A router tells what it sees."""
    await exchange(there.redis, router, (), Wants(), RouterSeen(deployments=seen), there.clock())


async def ask(there: House, method: str = "GET", path: str = "", body: Any = None, status: int = 200) -> Any:
    async with there.client() as client:
        answer = await client.request(method, PATH + path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def shown(there: House, name: str = "d") -> dict[str, Any]:
    return {one["id"]: one for one in (await ask(there))["data"]}[name]


def seen(state: BreakerState = "closed", **more: Any) -> DeploymentSeen:
    return DeploymentSeen.model_validate({"id": "d", "state": state, **more})


async def test_all_are_listed_by_id_and_page_by_page(there: House) -> None:
    found = (await ask(there))["data"]
    assert [(one["model"], one["id"]) for one in found] == [("big", ODD), ("big", "b"), ("small", "d")]
    assert (found[0]["region"], found[0]["shutdown_date"], found[0]["provider_model"]) == ("eu", "2027-03-01", "gpt-5")
    first = await ask(there, path="?limit=2")
    assert (first["has_more"], first["last_id"]) == (True, "b")
    assert [one["id"] for one in (await ask(there, path="?after=b"))["data"]] == ["d"]
    assert [one["id"] for one in (await ask(there, path="?model=small"))["data"]] == ["d"]


async def test_what_routers_see_is_added_up(there: House) -> None:
    await tell(there, "r0", seen(calls=10, errors=1, busy=3, limit=20, took={bucket(100): 9}))
    await tell(there, "r1", seen(calls=5, errors=2, busy=1, limit=10, took={bucket(1_000): 3}))
    await tell(there, "r2")
    one = await shown(there)
    assert (one["calls"], one["errors"], one["in_flight"], one["limit"], one["state"]) == (15, 3, 4, 30, "closed")
    assert one["p50_ms"] == pytest.approx(100, rel=0.1)
    assert one["p95_ms"] == pytest.approx(1_000, rel=0.1)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["closed", "half_open"], "half_open"),
        (["open", "half_open"], "open"),
        (["open", "quarantined", "closed"], "quarantined"),
        (["drained", "closed"], "closed"),
        (["drained"], "closed"),
    ],
)
async def test_the_worst_that_a_router_sees_is_shown_but_what_is_drained_the_control_table_says(
    there: House, states: Sequence[BreakerState], state: BreakerState
) -> None:
    for n, one in enumerate(states):
        await tell(there, f"r{n}", seen(one, why="errors", until_ms=n))
    assert (await shown(there))["state"] == state


async def test_nobody_knows_where_no_router_tells(there: House) -> None:
    assert (await shown(there))["state"] == "unknown"
    await tell(there, "r0", seen("open"))
    assert (await shown(there))["state"] == "open"
    there.clock.move(SEEN_MS)
    assert (await shown(there))["state"] == "unknown"


async def test_a_router_of_another_version_is_passed_over(there: House) -> None:
    await tell(there, "r0", seen(calls=1))
    there.redis.keys.hset(b"health:routers", b"r1", b"%d {}]" % there.clock())
    assert (await shown(there))["calls"] == 1


async def test_a_drained_one_is_shown_as_such_at_once_with_who_did_it_and_why(there: House) -> None:
    answer = await ask(there, "POST", "/azure/gpt-5%232/drain", {"why": "costs too much"})
    assert (answer["id"], answer["state"], answer["why"]) == (ODD, "drained", "costs too much")
    standing = there.control.table.deployment_states[ODD]
    assert (standing.drained, standing.why, standing.version, standing.since_ms) == (True, "costs too much", 1, there.clock())
    (change,) = there.control.topic.by("deployment.drained")
    assert (change.key, change.author.actor, change.author.reason) == (f"deployment_state/{ODD}", "admin", "costs too much")
    assert (await shown(there, ODD))["state"] == "drained"


async def test_draining_twice_is_one_change_and_another_reason_is_another(there: House) -> None:
    for why in ("x", "x", "y"):
        await ask(there, "POST", "/d/drain", {"why": why})
        there.clock.move(1_000)
    assert len(there.control.topic.by("deployment.drained")) == 2
    standing = there.control.table.deployment_states["d"]
    assert (standing.version, there.clock() - standing.since_ms) == (2, 3_000)


async def test_what_is_resumed_is_asked_again_whatever_took_it_out(there: House) -> None:
    opened = Opened("d", there.clock() + 60_000, 1, "credential")
    assert await exchange(there.redis, "r0", [opened], Wants(), None, there.clock())
    await ask(there, "POST", "/d/drain")
    await ask(there, "POST", "/d/resume", {"why": "fixed"})
    assert not there.control.table.deployment_states["d"].drained
    assert not await exchange(there.redis, "r0", [], Wants(), None, there.clock())
    assert [change.author.reason for change in there.control.topic.by("deployment.resumed")] == ["fixed"]
    assert there.acts() == []


async def test_resuming_what_is_not_drained_changes_no_record_and_is_told_all_the_same(there: House) -> None:
    before = len(there.control.topic.changes)
    await ask(there, "POST", "/d/resume", {"why": "new key"})
    assert len(there.control.topic.changes) == before
    (act,) = there.acts()
    assert (act["action"], act["resource"], act["reason"]) == ("deployment.resumed", "deployment/d", "new key")


async def test_what_is_not_there_is_not_found(there: House) -> None:
    for what in ("drain", "resume"):
        error = (await ask(there, "POST", f"/nobody/{what}", status=404))["error"]
        assert "sluice deployments list" in error["message"]


async def test_without_redis_what_is_drained_is_known_and_can_be_drained_but_not_all_can_be_lifted(
    there: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise RedisUnavailable("away")

    monkeypatch.setattr("services.portal.deployments.seen_by_routers", away)
    monkeypatch.setattr("services.portal.deployments.lift", away)
    assert (await shown(there))["state"] == "unknown"
    assert (await ask(there, "POST", "/d/drain"))["state"] == "drained"
    await ask(there, "POST", "/d/resume", status=503)
    assert not there.control.table.deployment_states["d"].drained, "what an operator had said is taken back"


async def test_who_may_only_look_does(there: House) -> None:
    async with there.client(secret_of(Role.AUDITOR.value)) as client:
        assert len((await client.get(PATH)).json()["data"]) == 3
        assert (await client.post(f"{PATH}/d/drain")).status_code == 403
