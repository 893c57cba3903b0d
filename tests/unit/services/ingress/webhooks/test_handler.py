"""The way of one event through its topics, with endpoints that a test makes up. Tests are named after what is feared."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from infra.files import FileStore
from infra.kafka.envelope import decode
from infra.kafka.log import Outgoing, Sink
from infra.kafka.post import Post
from infra.kafka.stage import Work
from infra.kafka.table import ControlTable
from infra.signing import Signer
from infra.webhooks.courier import Answered, Courier
from infra.webhooks.lookup import Unreachable
from infra.webhooks.signing import secrets_of, signature
from infra.webhooks.targets import Refused, Target
from schemas.control import Organization, Team, VirtualKey
from schemas.policy import Policy, WebhookPolicy
from schemas.topics import Delay, webhook_topic
from schemas.webhook import WebhookDelivery
from services.ingress.webhooks.handler import PER_HOST, PER_TEAM, Deliveries
from services.ingress.webhooks.policy import MAX_TRIES
from services.ingress.webhooks.waiting import waiting
from tests.fakes.clock import in_virtual_time
from tests.fakes.log import Record

BORN_MS = 1_800_000_000_000
SIGNER = Signer(b"a key that only tests have")
SECRET = "c0ffee"
TEAM = Team(id="team_1", name="fraud", organization="acme", webhook_secret_version=2)
URL = f"https://hooks.example/x?token={SECRET}"
DELIVERY = WebhookDelivery(
    id="evt_1", url=URL, team="fraud", payload={"id": "evt_1", "data": {"id": "job_1"}}, created_ms=BORN_MS
)

Endpoint = Callable[[], Answered | Exception]


class FakeCourier(Courier):
    """Remembers tries, and answers by host; who is dead answers nothing for 10 s."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self.tries: list[tuple[Target, Mapping[str, str], bytes, int]] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.dead: set[str] = set()
        self._now_ms = now_ms

    async def send(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answered:
        self.tries.append((target, headers, body, self._now_ms()))
        if target.host in self.dead:
            await asyncio.sleep(10)
            raise Unreachable(f"{target.where} did not answer within 10 s")
        answer = self.endpoints.get(target.host, lambda: Answered(200))()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, host: str) -> list[int]:
        """When the host was tried, in ms after the beginning."""
        return [at - BORN_MS for target, _, _, at in self.tries if target.host == host]


class Wire(Sink):
    """Topics whose records are worked on as they come: a day passes without anybody polling."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.sent: list[Record] = []
        self.works: dict[str, Work] = {}
        self._now_ms = now_ms
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, record: Outgoing) -> Awaitable[object]:
        came = Record(record.topic, 0, len(self.sent), self._now_ms(), record.key, record.value, record.headers)
        self.sent.append(came)
        if work := self.works.get(record.topic):
            self._tasks.add(asyncio.ensure_future(work(came, False)))
        return asyncio.ensure_future(asyncio.sleep(0))

    async def settle(self) -> None:
        """Returns when nothing is left to be done; raises what a work raised."""
        while self._tasks:
            done, self._tasks = self._tasks, set()
            await asyncio.gather(*done)

    def records(self, topic: str) -> list[Record]:
        return [record for record in self.sent if record.topic == topic]


class Bench:
    """All four topics and their works, in the loop's own time."""

    def __init__(self, folder: Path) -> None:
        self.wire = Wire(self.now_ms)
        self.post = Post(self.wire, FileStore(folder), self.now_ms, "ingress")
        self.courier = FakeCourier(self.now_ms)
        self.table = ControlTable()
        self.table.put(Organization(id="org_1", name="acme"))
        self.table.put(TEAM)
        deliveries = Deliveries(self.table, self.courier, self.post, SIGNER, self.now_ms, lambda: 1)
        self.wire.works = {"sluice.webhooks": deliveries.work}
        self.wire.works |= {webhook_topic(delay): waiting(delay, self.post, self.now_ms) for delay in Delay}

    def now_ms(self) -> int:
        return BORN_MS + round(asyncio.get_running_loop().time() * 1000)

    async def deliver(self, *deliveries: WebhookDelivery) -> None:
        """Sends them and returns when all that follows from them has happened."""
        for delivery in deliveries:
            await self.post.webhook(delivery, None)
        await self.wire.settle()

    @property
    def dead(self) -> list[tuple[str, str]]:
        """Reason and detail of what was put aside."""
        found = [dict(record.headers) for record in self.wire.records("sluice.dead")]
        return [((h["sluice_dead_reason"] or b"").decode(), (h["sluice_dead_detail"] or b"").decode()) for h in found]


def event(n: object, **update: object) -> WebhookDelivery:
    return DELIVERY.model_copy(update={"id": f"evt_{n}", **update})


@in_virtual_time
async def test_an_event_arrives_signed_with_both_secrets(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.deliver(DELIVERY)
    ((target, headers, body, at),) = bench.courier.tries
    assert (target.where, target.path) == ("hooks.example:443", f"/x?token={SECRET}")
    assert body == b'{"id":"evt_1","data":{"id":"job_1"}}'
    assert headers["webhook-id"] == "evt_1"
    assert headers["webhook-timestamp"] == str(at // 1000)
    assert headers["webhook-signature"] == signature(secrets_of(SIGNER, TEAM), "evt_1", at // 1000, body)
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert bench.dead == []


@in_virtual_time
async def test_what_failed_is_tried_for_hours_under_its_id_and_then_put_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["hooks.example"] = lambda: Answered(500)
    await bench.deliver(DELIVERY)
    times = bench.courier.times("hooks.example")
    waits_s = [(later - earlier) / 1000 for earlier, later in pairwise(times)]
    assert len(times) == MAX_TRIES
    assert waits_s == pytest.approx([10, 30, 90, 270, 810, 2430, 7290, *[18_000] * 4], abs=0.1)
    assert {headers["webhook-id"] for _, headers, _, _ in bench.courier.tries} == {"evt_1"}
    assert len({headers["webhook-timestamp"] for _, headers, _, _ in bench.courier.tries}) == MAX_TRIES
    assert bench.dead == [("webhook", "not delivered in 12 tries; at last: the endpoint answered 500")]


@in_virtual_time
async def test_an_endpoint_that_recovers_is_told_once(tmp_path: Path) -> None:
    bench, answers = Bench(tmp_path), [Answered(503, "600"), Unreachable("no answer"), Answered(204)]
    bench.courier.endpoints["hooks.example"] = lambda: answers.pop(0)
    await bench.deliver(DELIVERY)
    times = bench.courier.times("hooks.example")
    assert len(times) == 3
    assert times[1] - times[0] >= 600_000, "it had said when to come again"
    assert bench.dead == []


@in_virtual_time
async def test_an_endpoint_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["hooks.example"] = lambda: Answered(410)
    await bench.deliver(DELIVERY)
    assert len(bench.courier.tries) == 1
    assert bench.dead == []


@in_virtual_time
async def test_g32_what_is_refused_is_put_aside_at_once_with_the_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["inside.example"] = lambda: Refused("inside.example is or leads to a private address")
    bench.courier.endpoints["moved.example"] = lambda: Answered(302)
    urls = [
        "http://127.0.0.1:6379/",
        "https://127.1/",
        "https://u@hooks.example/",
        "https://inside.example/",
        "https://moved.example",
    ]
    await bench.deliver(*(event(n, url=f"{url}?token={SECRET}") for n, url in enumerate(urls)))
    assert [reason for reason, _ in bench.dead] == ["webhook"] * len(urls)
    assert sorted(target.host for target, *_ in bench.courier.tries) == ["inside.example", "moved.example"]


@in_virtual_time
async def test_g32_a_policy_that_was_narrowed_holds_for_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def fails_and_is_forbidden() -> Answered:
        bench.table.put(TEAM.model_copy(update={"policy": Policy(webhooks=WebhookPolicy(only=()))}))
        return Answered(500)

    bench.courier.endpoints["hooks.example"] = fails_and_is_forbidden
    await bench.deliver(DELIVERY)
    assert len(bench.courier.tries) == 1
    assert "webhooks.only" in bench.dead[0][1]


@in_virtual_time
async def test_the_policy_of_the_key_holds_too(tmp_path: Path) -> None:
    bench, inside = Bench(tmp_path), Policy(webhooks=WebhookPolicy(internal=("hooks.internal",)))
    bench.table.put(VirtualKey(id="key_1", sha256="x", last4="", team="fraud", policy=inside))
    url = "http://hooks.internal/"
    await bench.deliver(event("with", url=url, key_id="key_1"), event("without", url=url))
    ((target, headers, _, _),) = bench.courier.tries
    assert (target.internal, headers["webhook-id"]) == (True, "evt_with")
    assert len(bench.dead) == 1


@in_virtual_time
async def test_one_dead_endpoint_delays_nobody_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.dead.add("dead.example")
    for n in range(4 * PER_HOST):
        await bench.post.webhook(event(f"dead_{n}", url="https://dead.example/"), None)
    for n in range(20):
        await bench.post.webhook(event(n), None)
    await asyncio.sleep(1)
    assert len(bench.courier.times("hooks.example")) == 20
    assert len(bench.courier.times("dead.example")) == PER_HOST, "no more hold a place there"
    bench.courier.dead.clear()
    await bench.wire.settle()
    assert bench.dead == []


@in_virtual_time
async def test_events_that_find_no_place_lose_no_try_and_arrive(tmp_path: Path) -> None:
    bench, count = Bench(tmp_path), 3 * PER_HOST
    bench.courier.dead.add("hooks.example")
    for n in range(count):
        await bench.post.webhook(event(n), None)
    await asyncio.sleep(1)
    bench.courier.dead.clear()
    await bench.wire.settle()
    put_off = [decode(record, WebhookDelivery) for record in bench.wire.records("sluice.webhooks.5s")]
    assert len([d for d in put_off if isinstance(d, WebhookDelivery) and d.attempt == 0]) >= count - PER_HOST
    assert len(bench.courier.tries) == count + PER_HOST
    assert bench.dead == []


@in_virtual_time
async def test_one_team_does_not_take_all_places(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.table.put(Team(id="team_2", name="search", organization="acme"))
    hosts = [f"h{n}.example" for n in range(2 * PER_TEAM)]
    bench.courier.dead |= {*hosts}
    for n, host in enumerate(hosts):
        await bench.post.webhook(event(n, url=f"https://{host}/"), None)
    await bench.post.webhook(event("other", team="search"), None)
    await asyncio.sleep(1)
    assert len(bench.courier.tries) == PER_TEAM + 1
    assert len(bench.courier.times("hooks.example")) == 1
    bench.courier.dead.clear()
    await bench.wire.settle()


@in_virtual_time
async def test_what_is_no_event_is_put_aside_in_every_topic(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bad_id = event("1\r\nx-injected: 1").model_dump_json().encode()
    for delay in (None, *Delay):
        for value in (b"{}", b"\xff", None, bad_id):
            await bench.wire.send(Outgoing(webhook_topic(delay), b"k", value, ()))
    await bench.deliver(event(2, team="nobody"))
    assert sorted(reason for reason, _ in bench.dead) == ["empty"] * 4 + ["invalid"] * 12 + ["webhook"]
    assert bench.courier.tries == []


@in_virtual_time
async def test_what_comes_before_its_time_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.deliver(event(1, not_before_ms=BORN_MS + 123_000))
    assert bench.courier.times("hooks.example") == [123_000]


@in_virtual_time
async def test_a_record_that_waited_goes_on_unchanged(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.post.webhook(event(1, attempt=3, not_before_ms=BORN_MS + 7_000), Delay.MEDIUM)
    await bench.wire.settle()
    (sent,) = bench.wire.records("sluice.webhooks")
    assert decode(sent, WebhookDelivery) == event(1, attempt=3, not_before_ms=BORN_MS + 7_000)
    assert bench.courier.times("hooks.example") == [7_000]


@in_virtual_time
async def test_g34_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench = Bench(tmp_path)
    bench.courier.endpoints |= {
        "gone.example": lambda: Answered(410),
        "moved.example": lambda: Answered(302),
        "down.example": lambda: Unreachable("down.example:443 can't be reached"),
    }
    hosts = ("gone.example", "moved.example", "down.example", "127.1", "u:p@hooks.example")
    await bench.deliver(*(event(n, url=f"https://{host}/?{SECRET}") for n, host in enumerate(hosts)))
    assert len(bench.dead) == 4
    assert "evt_0" in caplog.text
    assert SECRET not in caplog.text
    assert all(SECRET not in detail for _, detail in bench.dead)
    assert "whsec_" not in caplog.text
