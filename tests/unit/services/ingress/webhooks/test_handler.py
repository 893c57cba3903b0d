"""The way of one event, with a log in memory and endpoints that a test makes up. Tests are named after what is feared."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.files import FileStore
from infra.kafka.envelope import decode
from infra.kafka.log import Outgoing
from infra.kafka.post import Post
from infra.kafka.stage import Stage
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
from tests.fakes.log import MemoryLog, Record

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
    """Remembers tries, and answers by host. `hold`: nothing is answered until it is set."""

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


class Bench:
    """All four stages over a log in memory, in the loop's own time."""

    def __init__(self, folder: Path, chance: float = 1) -> None:
        self.log = MemoryLog(partitions=4, clock=self.now_ms)
        self.post = Post(self.log, FileStore(folder), self.now_ms, "ingress")
        self.courier = FakeCourier(self.now_ms)
        self.table = ControlTable()
        self.table.put(Organization(id="org_1", name="acme"))
        self.table.put(TEAM)
        self.deliveries = Deliveries(self.table, self.courier, self.post, SIGNER, self.now_ms, lambda: chance)

    def now_ms(self) -> int:
        try:
            return BORN_MS + round(asyncio.get_running_loop().time() * 1000)
        except RuntimeError:
            return BORN_MS

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        source = self.log.source
        stages = [Stage("webhooks", source("w", ["sluice.webhooks"]), self.deliveries.work, 256)]
        for delay in Delay:
            work = waiting(delay, self.post, self.now_ms)
            stages.append(Stage(f"w-{delay}", source(f"w-{delay}", [webhook_topic(delay)]), work, 512))
        for stage in stages:
            await stage.start()
        yield
        for stage in stages:
            await stage.drain(0)

    @property
    def dead(self) -> list[tuple[str, str]]:
        """Reason and detail of what was put aside."""
        found = [dict(record.headers) for record in self.log.records("sluice.dead")]
        return [((h["sluice_dead_reason"] or b"").decode(), (h["sluice_dead_detail"] or b"").decode()) for h in found]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30 * 86_400):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.5)


@in_virtual_time
async def test_an_event_arrives_signed_with_both_secrets(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running():
        await bench.post.webhook(DELIVERY, None)
        await until(lambda: bench.courier.tries)
    target, headers, body, at = bench.courier.tries[0]
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
    async with bench.running():
        await bench.post.webhook(DELIVERY, None)
        await until(lambda: bench.dead)
    times = bench.courier.times("hooks.example")
    waits_s = [round((later - earlier) / 1000) for earlier, later in zip(times, times[1:], strict=False)]
    assert len(times) == MAX_TRIES
    assert waits_s == pytest.approx([10, 30, 90, 270, 810, 2430, 7290, *[18_000] * 4], abs=3)
    assert {headers["webhook-id"] for _, headers, _, _ in bench.courier.tries} == {"evt_1"}
    assert len({headers["webhook-timestamp"] for _, headers, _, _ in bench.courier.tries}) == MAX_TRIES
    assert bench.dead == [("webhook", "not delivered in 12 tries; at last: the endpoint answered 500")]


@in_virtual_time
async def test_an_endpoint_that_recovers_is_told_once(tmp_path: Path) -> None:
    bench, answers = Bench(tmp_path), [Answered(503, "600"), Unreachable("no answer"), Answered(204)]
    bench.courier.endpoints["hooks.example"] = lambda: answers.pop(0)
    async with bench.running():
        await bench.post.webhook(DELIVERY, None)
        await until(lambda: not answers)
        await asyncio.sleep(86_400)
    times = bench.courier.times("hooks.example")
    assert len(times) == 3
    assert times[1] - times[0] >= 600_000, "it had said when to come again"
    assert bench.dead == []


@in_virtual_time
async def test_an_endpoint_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["hooks.example"] = lambda: Answered(410)
    async with bench.running():
        await bench.post.webhook(DELIVERY, None)
        await asyncio.sleep(86_400)
    assert len(bench.courier.tries) == 1
    assert bench.dead == []


@in_virtual_time
async def test_g32_what_is_refused_is_put_aside_at_once_with_the_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["inside.example"] = lambda: Refused("inside.example is or leads to a private address")
    bench.courier.endpoints["moved.example"] = lambda: Answered(302)
    urls = ["http://127.0.0.1:6379/", "https://127.1/", "https://u@hooks.example/", "https://inside.example/", "https://moved.example"]
    async with bench.running():
        for n, url in enumerate(urls):
            await bench.post.webhook(DELIVERY.model_copy(update={"url": f"{url}?token={SECRET}", "id": f"evt_{n}"}), None)
        await until(lambda: len(bench.dead) == len(urls))
        await asyncio.sleep(86_400)
    assert {reason for reason, _ in bench.dead} == {"webhook"}
    assert sorted(target.host for target, *_ in bench.courier.tries) == ["inside.example", "moved.example"]


@in_virtual_time
async def test_g32_a_policy_that_was_narrowed_holds_for_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.endpoints["hooks.example"] = lambda: Answered(500)
    async with bench.running():
        await bench.post.webhook(DELIVERY, None)
        await until(lambda: bench.courier.tries)
        bench.table.put(TEAM.model_copy(update={"policy": Policy(webhooks=WebhookPolicy(only=()))}))
        await until(lambda: bench.dead)
    assert len(bench.courier.tries) == 1
    assert "webhooks.only" in bench.dead[0][1]


@in_virtual_time
async def test_the_policy_of_the_key_holds_too(tmp_path: Path) -> None:
    bench, inside = Bench(tmp_path), Policy(webhooks=WebhookPolicy(internal=("hooks.internal",)))
    bench.table.put(VirtualKey(id="key_1", sha256="x", last4="", team="fraud", policy=inside))
    async with bench.running():
        for n, key_id in enumerate(("key_1", "")):
            update = {"id": f"evt_{n}", "url": "http://hooks.internal/", "key_id": key_id}
            await bench.post.webhook(DELIVERY.model_copy(update=update), None)
        await until(lambda: bench.dead and bench.courier.tries)
    (target, headers, _, _), *others = bench.courier.tries
    assert (target.internal, headers["webhook-id"], others) == (True, "evt_0", [])


@in_virtual_time
async def test_one_dead_endpoint_delays_nobody_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.courier.dead.add("dead.example")
    bench.table.put(Team(id="team_2", name="search", organization="acme"))
    async with bench.running():
        for n in range(600):
            await bench.post.webhook(DELIVERY.model_copy(update={"id": f"evt_d{n}", "url": "https://dead.example/"}), None)
        for n in range(20):
            await bench.post.webhook(DELIVERY.model_copy(update={"id": f"evt_a{n}", "team": "search"}), None)
        await until(lambda: len(bench.courier.times("hooks.example")) == 20)
    assert max(bench.courier.times("hooks.example")) < 10_000, "nobody waited for a try at the dead one to end"
    assert len(bench.courier.times("dead.example")) == PER_HOST
    assert PER_TEAM > PER_HOST


@in_virtual_time
async def test_events_that_find_no_place_lose_no_try_and_arrive(tmp_path: Path) -> None:
    bench, count = Bench(tmp_path), 3 * PER_HOST
    bench.courier.dead.add("hooks.example")
    async with bench.running():
        for n in range(count):
            await bench.post.webhook(DELIVERY.model_copy(update={"id": f"evt_{n}"}), None)
        await until(lambda: len(bench.courier.tries) == PER_HOST)
        bench.courier.dead.clear()
        await until(lambda: len(bench.courier.tries) == count + PER_HOST)
    waiting_now = [decode(record, WebhookDelivery) for record in bench.log.records("sluice.webhooks")]
    untried = [d for d in waiting_now if isinstance(d, WebhookDelivery) and d.attempt == 0]
    assert len(untried) > count, "some were put off, and that was no try"
    assert bench.dead == []


@in_virtual_time
async def test_what_is_no_event_is_put_aside_in_every_topic(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bad_id = DELIVERY.model_copy(update={"id": "evt_1\r\nx-injected: 1"}).model_dump_json().encode()
    stranger = DELIVERY.model_copy(update={"team": "nobody"}).model_dump_json().encode()
    topics = [webhook_topic(delay) for delay in (None, *Delay)]
    async with bench.running():
        for topic in topics:
            for value in (b"{}", b"\xff", None, bad_id):
                await bench.log.send(Outgoing(topic, b"k", value, ()))
        await bench.log.send(Outgoing(topics[0], b"k", stranger, ()))
        await until(lambda: len(bench.dead) == 4 * len(topics) + 1)
    assert sorted(reason for reason, _ in bench.dead) == ["empty"] * 4 + ["invalid"] * 12 + ["webhook"]
    assert bench.courier.tries == []


@in_virtual_time
async def test_what_comes_before_its_time_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running():
        await bench.post.webhook(DELIVERY.model_copy(update={"not_before_ms": BORN_MS + 123_000}), None)
        await until(lambda: bench.courier.tries)
    assert 123_000 <= bench.courier.times("hooks.example")[0] < 126_000


@in_virtual_time
async def test_g34_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench = Bench(tmp_path)
    bench.courier.endpoints |= {
        "gone.example": lambda: Answered(410),
        "moved.example": lambda: Answered(302),
        "down.example": lambda: Unreachable("down.example:443 can't be reached"),
    }
    async with bench.running():
        for n, host in enumerate(("gone.example", "moved.example", "down.example", "127.1", "u:p@hooks.example")):
            await bench.post.webhook(DELIVERY.model_copy(update={"id": f"evt_{n}", "url": f"https://{host}/?{SECRET}"}), None)
        await until(lambda: len(bench.dead) == 4)
    assert "evt_0" in caplog.text
    assert SECRET not in caplog.text
    assert all(SECRET not in detail for _, detail in bench.dead)
    assert "whsec_" not in caplog.text


async def test_a_record_that_waited_goes_on_unchanged(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    value = DELIVERY.model_copy(update={"attempt": 3}).model_dump_json().encode()
    await waiting(Delay.LONG, bench.post, bench.now_ms)(Record("sluice.webhooks.10m", 0, 0, BORN_MS, b"k", value), False)
    (sent,) = bench.log.records("sluice.webhooks")
    assert decode(sent, WebhookDelivery) == DELIVERY.model_copy(update={"attempt": 3})
