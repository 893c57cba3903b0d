"""Webhooks over a real Kafka to real listeners: an event arrives signed, is tried again, and gets nowhere inside (G32)."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from infra.embedded.stack import Stack
from infra.faults import on_error
from infra.kafka.broker import Reader
from infra.kafka.envelope import header
from infra.kafka.log import Incoming, Partition
from infra.kafka.post import ended_event
from infra.platform import Platform, open_platform
from infra.settings import Settings
from infra.telemetry import metrics
from schemas.base import JsonObject
from schemas.completion import completion_of
from schemas.control import Organization, Team
from schemas.errors import InvalidRequest, SluiceError
from schemas.job import Caller, JobStatus
from schemas.policy import Policy, WebhookPolicy
from schemas.topics import DEAD
from schemas.webhook import WebhookDelivery
from services.ingress.webhooks.app import Webhooks
from services.portal.app import build
from tests.fakes.jobs import a_job
from tests.integration.endpoints import Posted, Receiver, receiving, trapping

PATIENCE_S = 90
DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"
ADMIN_KEY = "sk-sl-admin-of-this-test"

Verify = Callable[[str, Mapping[str, str], bytes], None]


def documented() -> Verify:
    """`verify` as it stands in docs/webhooks.md."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["verify"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


class House:
    """A platform with the webhooks of one ingress, the portal's API, and a team that may reach one receiver."""

    def __init__(self, platform: Platform, team: str, receiver: Receiver, dead: Reader) -> None:
        self.platform, self.team, self.receiver = platform, team, receiver
        self.webhooks = Webhooks(platform)
        self._post = platform.post("router")
        self._dead_reader = dead
        self._dead: list[Incoming] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.receiver.port}"

    async def send(self, url: str) -> str:
        """Sends an event and gives its id."""
        event_id = f"evt_{secrets.token_hex(16)}"
        payload: JsonObject = {"id": event_id, "object": "event", "type": "job.completed", "data": {"id": "job_1"}}
        delivery = WebhookDelivery(id=event_id, url=url, team=self.team, payload=payload, created_ms=self.platform.clock())
        await self._post.webhook(delivery, None)
        return event_id

    async def arrived(self, path: str, count: int = 1) -> list[Posted]:
        """What was posted to a path, once there is so much of it."""
        await until(lambda: len(self._posted(path)) >= count)
        return self._posted(path)

    def _posted(self, path: str) -> list[Posted]:
        return [posted for posted in self.receiver.posted if posted.path == path]

    async def dead(self, event_id: str) -> tuple[str, str]:
        """Why an event was put aside: reason and detail."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for record in self._dead:
                    if record.key == event_id.encode():
                        return header(record.headers, "sluice_dead_reason"), header(record.headers, "sluice_dead_detail")
                self._dead += await self._dead_reader.poll(1)

    def admin(self) -> httpx.AsyncClient:
        """A client of the portal's API."""
        app = Starlette(routes=[*build(self.platform).routes], exception_handlers={SluiceError: on_error})
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://portal", headers=headers)

    async def shown(self) -> dict[str, Any]:
        async with self.admin() as admin:
            return (await admin.get(f"/admin/v1/teams/{self.team}/webhook_secret")).json()


@pytest.fixture
async def house(stack: Stack, tmp_path: Path) -> AsyncGenerator[House]:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "kafka": stack.kafka, "redis": stack.redis, "admin_key": ADMIN_KEY, "drain_s": 1}
    )
    name = f"hooks-{secrets.token_hex(4)}"
    platform = await open_platform(settings, "test")
    async with receiving() as receiver:
        policy = Policy(webhooks=WebhookPolicy(internal=(f"127.0.0.1:{receiver.port}",)))
        await platform.control.write(Organization(id="org_hooks", name=name))
        await platform.control.write(Team(id=f"team_{name}", name=name, organization=name, policy=policy))
        dead = await platform.kafka.reader([Partition(DEAD.name, n) for n in range(DEAD.partitions)])
        await dead.seek_to_end()
        house = House(platform, name, receiver, dead)
        await house.webhooks.start()
        await until(lambda: house.webhooks.not_ready() is None)
        yield house
        await house.webhooks.drain()
        await house.webhooks.stop()
        await dead.stop()
    await platform.close()


async def test_the_end_of_a_job_arrives_and_verifies_as_documented(house: House) -> None:
    caller = Caller(organization=house.team, team=house.team, key_id="key_1")
    job = a_job(webhook=f"{house.url}/end?token=x", caller=caller, known_as="response")
    completion = completion_of(job, JobStatus.COMPLETED, "router", house.platform.clock())
    await house.platform.post("router").webhook(ended_event(job, completion, house.platform.clock()), None)
    (posted,) = await house.arrived("/end?token=x")
    digits = job.id.removeprefix("job_")
    body = json.loads(posted.body)
    assert (body["type"], body["data"]) == ("response.completed", {"id": f"resp_{digits}"})
    assert posted.headers["webhook-id"] == body["id"] == f"evt_{digits}"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["user-agent"] == "Sluice"
    verify, secret = documented(), (await house.shown())["secret"]
    verify(secret, posted.headers, posted.body)
    for forged in (posted.body + b" ", posted.body.replace(b"completed", b"failed")):
        with pytest.raises(ValueError, match="not from Sluice"):
            verify(secret, posted.headers, forged)
    with pytest.raises(ValueError, match="not from Sluice"):
        verify(secret, {**posted.headers, "webhook-timestamp": str(int(posted.headers["webhook-timestamp"]) - 600)}, posted.body)


async def test_what_failed_is_tried_again_under_its_id_and_what_is_gone_is_not(house: House) -> None:
    house.receiver.statuses = [500]
    event_id = await house.send(f"{house.url}/flaky")
    first, second = await house.arrived("/flaky", 2)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == event_id
    documented()((await house.shown())["secret"], second.headers, second.body)
    before = became("gone"), became("again")
    house.receiver.statuses = [410]
    await house.send(f"{house.url}/gone")
    await until(lambda: became("gone") > before[0])
    assert (became("gone"), became("again")) == (before[0] + 1, before[1])
    assert len(await house.arrived("/gone")) == 1


def became(result: str) -> float:
    """How many tries ended so."""
    return metrics.REGISTRY.get_sample_value("sluice_webhooks_total", {"result": result}) or 0


async def test_g32_a_redirect_and_an_address_inside_are_refused_and_nobody_is_reached(house: House) -> None:
    async with trapping() as trap:
        house.receiver.statuses, house.receiver.headers = [302], {"location": f"http://127.0.0.1:{trap.port}/"}
        moved = await house.send(f"{house.url}/moved")
        assert await house.dead(moved) == ("webhook", "the endpoint answered 302: redirects are not followed")
        hosts = ("127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "[::ffff:127.0.0.1]", "u:p@127.0.0.1")
        for url in [*(f"http://{host}:{trap.port}/?token=c0ffee" for host in hosts), "https://169.254.169.254/latest/meta-data/"]:
            reason, detail = await house.dead(await house.send(url))
            assert (reason, "c0ffee" in detail) == ("webhook", False)
            with pytest.raises(InvalidRequest):
                await house.webhooks.check_target(url, WebhookPolicy())
        assert trap.connections == 0


async def test_a_rotation_leaves_no_gap(house: House) -> None:
    verify, before = documented(), (await house.shown())["secret"]
    async with house.admin() as admin:
        rotated = (await admin.post(f"/admin/v1/teams/{house.team}/webhook_secret/rotate")).json()
    assert (rotated["version"], rotated["previous"]) == (2, before)
    assert await house.shown() == rotated
    await house.send(f"{house.url}/rotated")
    (posted,) = await house.arrived("/rotated")
    for secret in (before, rotated["secret"]):
        verify(secret, posted.headers, posted.body)
    async with house.admin() as admin:
        await admin.post(f"/admin/v1/teams/{house.team}/webhook_secret/rotate")
    await house.send(f"{house.url}/again")
    (posted,) = await house.arrived("/again")
    with pytest.raises(ValueError, match="not from Sluice"):
        verify(before, posted.headers, posted.body)


async def test_a_test_event_tells_what_came_of_it(house: House) -> None:
    path = f"/admin/v1/teams/{house.team}/webhooks/test"
    async with house.admin() as admin:
        tried = (await admin.post(path, json={"url": f"{house.url}/test"})).json()
        (posted,) = await house.arrived("/test")
        assert tried == {"id": posted.headers["webhook-id"], "delivered": True, "status": 200, "reason": ""}
        documented()((await house.shown())["secret"], posted.headers, posted.body)
        house.receiver.statuses = [500]
        assert (await admin.post(path, json={"url": f"{house.url}/test"})).json()["status"] == 500
        async with trapping() as trap:
            refused = await admin.post(path, json={"url": f"http://127.0.0.1:{trap.port}/?token=c0ffee"})
            assert trap.connections == 0
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "url", "webhook_refused")
    assert "c0ffee" not in refused.text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "webhook_secret"), ("POST", "webhook_secret/rotate"), ("POST", "webhooks/test")]
)
async def test_g34_a_secret_is_shown_to_nobody_without_the_admin_key(house: House, method: str, path: str) -> None:
    async with house.admin() as admin:
        url = f"/admin/v1/teams/{house.team}/{path}"
        denied = await admin.request(method, url, headers={"authorization": "Bearer x"}, json={"url": house.url})
        unknown = await admin.request(method, f"/admin/v1/teams/nobody/{path}", json={"url": house.url})
        shown = await admin.get(f"/admin/v1/teams/{house.team}/webhook_secret")
    assert (denied.status_code, unknown.status_code) == (401, 404)
    assert "whsec_" not in denied.text + unknown.text
    assert shown.headers["cache-control"] == "no-store"
    assert shown.json()["version"] == 1
    assert house.receiver.posted == []
