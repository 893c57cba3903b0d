"""Alerts on their way to people: each to every channel once, whatever fails meanwhile. Tests are named after what is feared."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.files import FileStore
from infra.kafka.envelope import encode
from infra.kafka.post import Post
from infra.kafka.table import ControlTable
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.once import Once
from infra.secrets.book import Secrets
from infra.settings import Settings
from infra.webhooks.courier import Answered, Courier
from infra.webhooks.lookup import Unreachable
from infra.webhooks.signing import is_signed, secret_in
from infra.webhooks.targets import Refused, Target
from schemas.alert import Alert
from schemas.alerting import Alerting, Channel, EmailChannel, Only, SlackChannel, WebhookChannel
from schemas.control import Organization
from schemas.policy import Policy, WebhookPolicy
from schemas.topics import ALERTS, HOUR_MS
from services.portal.alert_channels import MOST_WAITING, Deliveries, NotSent, Sender, longest_wait_s
from tests.fakes.clock import in_virtual_time
from tests.fakes.log import MemoryLog, Record
from tests.fakes.redis import LuaRedis
from tests.mocks.smtp import mailbox

BORN_MS = 1_800_000_000_000
SECRET = "whsec_" + "c2x1aWNlLXNsdWljZS1zbHVpY2Utc2x1aWNl"
REFERENCES = {
    "env:SLACK": "https://slack.example/services/T/B/hush",
    "env:SECRET": SECRET,
    "env:PASSWORD": "right",
    "env:WRONG": "no-secret",
}
SLACK = SlackChannel(name="slack", url="env:SLACK")
PAGER = WebhookChannel(name="pager", url="https://pager.example/hook", secret="env:SECRET")


class FlakyRedis(LuaRedis):
    away = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        if self.away:
            raise RedisUnavailable("nobody answers")
        return await super().run(script, keys, args)


class FakeCourier(Courier):
    """Remembers tries; each host has answers, the last of which stays; a host in `slow` takes 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self.tries: list[tuple[str, Mapping[str, str], bytes]] = []
        self.answers: dict[str, list[int | Exception]] = {}
        self.slow = 0.0

    async def send(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answered:
        self.tries.append((target.host, headers, body))
        await asyncio.sleep(self.slow)
        answers = self.answers.get(target.host, [200])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answered(answer)

    def at(self, host: str) -> int:
        return sum(tried == host for tried, _, _ in self.tries)


def look_up(reference: str) -> str | None:
    return REFERENCES.get(reference)


class House:
    """Two portals over one Redis, and channels."""

    def __init__(self, folder: Path, *channels: Channel, **settings: Any) -> None:
        self.redis, self.log, self.table = FlakyRedis(self.now_ms), MemoryLog(clock=self.now_ms), ControlTable()
        self.table.put(Organization(id="org_1", name="acme"))
        self.channels(*(channels or (SLACK, PAGER)))
        self.courier = FakeCourier()
        self.settings = Settings.model_validate({"public_url": "https://sluice.example/", **settings})
        secrets = Secrets(look_up, None, lambda: 0.0, lambda: 0.5)
        self.sender = Sender(self.settings, self.table, secrets, self.now_ms, self.courier)
        self.post = Post(self.log, FileStore(folder), self.now_ms, "portal")
        self.portals = [self.portal(), self.portal()]

    def channels(self, *channels: Channel, since_ms: int = 0) -> None:
        since = {channel.name: since_ms for channel in channels}
        self.table.put(Alerting(channels=channels, since_ms=since))

    def portal(self) -> Deliveries:
        return Deliveries(self.table, self.sender, Once(self.redis), self.post, self.now_ms, lambda: 1)

    def now_ms(self) -> int:
        return BORN_MS + round(asyncio.get_running_loop().time() * 1000)

    async def tell(self, *alerts: Alert, by: int = 0) -> None:
        await asyncio.gather(*(self.portals[by].work(record(one)) for one in alerts))

    @property
    def dead(self) -> list[str]:
        found = [dict(one.headers) for one in self.log.records("sluice.dead")]
        return [(headers["sluice_dead_detail"] or b"").decode() for headers in found]


def alert(n: int = 1, **members: Any) -> Alert:
    given: dict[str, Any] = {"id": f"alert_{n}", "at_ms": BORN_MS, "what": "budget_share", "scope": "team/fraud", "team": "fraud"}
    return Alert(message="80 % are spent", **(given | members))


def record(message: Alert) -> Record:
    sent = encode(message, topic=ALERTS.name, key=message.team, event_id=message.id, source="accounting", now_ms=0)
    return Record(ALERTS.name, 0, 0, 0, sent.key, sent.value, sent.headers)


@in_virtual_time
async def test_every_channel_gets_it_with_a_link(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.tell(alert())
    told = {host: (headers, body) for host, headers, body in house.courier.tries}
    assert set(told) == {"slack.example", "pager.example"}
    headers, body = told["pager.example"]
    given = headers["webhook-signature"]
    assert is_signed([secret_in(SECRET)], "alert_1", int(headers["webhook-timestamp"]), body, given)
    assert headers["webhook-id"] == "alert_1"
    assert json.loads(body)["data"]["link"] == "https://sluice.example/admin/v1/alerts/alert_1"
    assert b"https://sluice.example/admin/v1/alerts/alert_1" in told["slack.example"][1]


@in_virtual_time
async def test_a_record_that_comes_again_is_not_sent_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    for by in (0, 1, 0):
        await house.tell(alert(), by=by)
    await asyncio.sleep(2 * 3600)
    await house.tell(alert(), by=1)
    assert len(house.courier.tries) == 2


@in_virtual_time
async def test_two_processes_that_say_the_same_are_heard_once_an_hour(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    await house.tell(alert(1, same="x"))
    await house.tell(alert(2, same="x"), by=1)
    await house.tell(alert(3, same="y"))
    assert [headers["webhook-id"] for _, headers, _ in house.courier.tries] == ["alert_1", "alert_3"]
    await asyncio.sleep(3601)
    await house.tell(alert(4, same="x"))
    assert house.courier.at("pager.example") == 3


@in_virtual_time
async def test_two_portals_that_get_it_at_once_send_it_once(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    house.courier.slow = 3
    await asyncio.gather(house.tell(alert(1, same="x"), by=0), house.tell(alert(1, same="x"), by=1))
    await asyncio.gather(house.tell(alert(2, same="y"), by=0), house.tell(alert(3, same="y"), by=1))
    assert house.courier.at("pager.example") == 2


@in_virtual_time
async def test_a_portal_that_dies_while_it_sends_leaves_it_to_the_next(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    await Once(house.redis).begin("alert:pager:alert_1", 60_000)
    await house.tell(alert(), by=1)
    assert house.courier.at("pager.example") == 1
    assert house.now_ms() - BORN_MS >= 60_000


@in_virtual_time
async def test_a_channel_that_fails_is_tried_again_under_the_same_id_and_holds_up_no_other(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.courier.answers["pager.example"] = [500, Unreachable("nobody"), 429, 200]
    await house.tell(alert())
    assert (house.courier.at("slack.example"), house.courier.at("pager.example")) == (1, 4)
    assert {headers["webhook-id"] for host, headers, _ in house.courier.tries if host == "pager.example"} == {"alert_1"}
    assert house.dead == []


@in_virtual_time
async def test_what_nobody_takes_for_hours_is_put_aside(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    house.courier.answers["pager.example"] = [503]
    await house.tell(alert())
    assert house.dead == ["channel pager: pager.example:443 answered 503"]
    assert 5 * HOUR_MS < house.now_ms() - BORN_MS <= 6 * HOUR_MS
    assert house.courier.at("pager.example") < 30


REFUSALS: list[int | Exception] = [410, 301, Refused("it is or leads to a loopback address")]


@pytest.mark.parametrize("answer", REFUSALS)
def test_where_another_try_would_come_to_nothing_it_is_put_aside_at_once(tmp_path: Path, answer: int | Exception) -> None:
    @in_virtual_time
    async def told() -> None:
        house = House(tmp_path, PAGER)
        house.courier.answers["pager.example"] = [answer]
        await house.tell(alert())
        assert (house.courier.at("pager.example"), len(house.dead)) == (1, 1)

    told()


@in_virtual_time
async def test_a_channel_that_is_dead_does_not_fill_the_house(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    house.courier.answers["pager.example"] = [503]
    await house.tell(*(alert(n, same=str(n)) for n in range(MOST_WAITING + 20)))
    assert len(house.dead) == MOST_WAITING + 20
    assert len([one for one in house.log.records("sluice.dead") if one.timestamp < BORN_MS + 10_000]) == 20


@in_virtual_time
async def test_without_redis_it_is_told_anyway(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.redis.away = True
    await house.tell(alert())
    assert len(house.courier.tries) == 2


ONLY: list[tuple[Only, dict[str, Any], bool]] = [
    (Only(), {}, True),
    (Only(kinds=("runaway",)), {}, False),
    (Only(kinds=("runaway", "budget_share")), {}, True),
    (Only(severities=("critical",)), {}, False),
    (Only(severities=("critical",)), {"severity": "critical"}, True),
    (Only(teams=("fraud",)), {}, True),
    (Only(teams=("fraud",)), {"team": ""}, False),
    (Only(teams=("fraud",), severities=("critical",)), {}, False),
]


@pytest.mark.parametrize(("only", "members", "wants"), ONLY)
def test_a_channel_gets_what_it_wants(tmp_path: Path, only: Only, members: dict[str, Any], wants: bool) -> None:
    @in_virtual_time
    async def told() -> None:
        house = House(tmp_path, PAGER.model_copy(update={"only": only}))
        await house.tell(alert(**members))
        assert house.courier.at("pager.example") == int(wants)

    told()


@in_virtual_time
async def test_a_new_channel_does_not_hear_of_the_past(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.channels(PAGER, since_ms=BORN_MS + 1)
    await house.tell(alert(1), alert(2, at_ms=BORN_MS + 1))
    assert [headers["webhook-id"] for _, headers, _ in house.courier.tries] == ["alert_2"]


@in_virtual_time
async def test_a_channel_that_was_removed_is_tried_no_more(tmp_path: Path) -> None:
    house = House(tmp_path, PAGER)
    house.courier.answers["pager.example"] = [503]
    telling = asyncio.create_task(house.tell(alert()))
    await asyncio.sleep(1)
    house.channels()
    await telling
    assert (house.courier.at("pager.example"), house.dead) == (1, [])


@in_virtual_time
async def test_what_is_no_alert_is_left_out(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.portals[0].work(Record(ALERTS.name, 0, 0, 0, b"", b"{}", ()))
    assert house.courier.tries == []


BROKEN: dict[str, tuple[Channel, str]] = {
    "a reference that leads nowhere": (SlackChannel(name="c", url="env:NONE"), "env:NONE refers to nothing"),
    "a secret that is none": (PAGER.model_copy(update={"secret": "env:WRONG"}), "a secret is `whsec_`"),
    "an address inside": (PAGER.model_copy(update={"url": "http://10.0.0.1/"}), "must be asked by https"),
    "no server for mail": (EmailChannel(name="c", to=("ada@corp.example",)), "SLUICE_SMTP"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_wrong_with_a_channel_is_said_and_no_secret_with_it(tmp_path: Path, name: str) -> None:
    channel, why = BROKEN[name]
    house = House(tmp_path, channel)
    with pytest.raises(NotSent, match=why) as failure:
        await house.sender.send(channel, alert())
    assert not any(secret in str(failure.value) for secret in REFERENCES.values())


async def test_an_endpoint_inside_is_reached_where_the_policy_names_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    policy = Policy(webhooks=WebhookPolicy(internal=("10.0.0.1",)))
    house.table.put(Organization(id="org_1", name="acme", policy=policy))
    await house.sender.send(PAGER.model_copy(update={"url": "http://10.0.0.1/hook"}), alert())
    assert house.courier.at("10.0.0.1") == 1


async def test_a_mail_arrives(tmp_path: Path) -> None:
    async with mailbox() as box:
        channel = EmailChannel(name="mail", to=("ada@corp.example",))
        house = House(tmp_path, channel, smtp=f"smtp+plain://127.0.0.1:{box.port}", smtp_from="sluice@corp.example")
        await house.sender.send(channel, alert())
        box.refuse = "554 no"
        with pytest.raises(NotSent, match="answered 554"):
            await house.sender.send(channel, alert())
    [(to, got)] = box.taken
    assert (to, got["Subject"]) == (["ada@corp.example"], "[Sluice] warning: 80 % are spent")


def test_waits_grow_up_to_half_an_hour() -> None:
    assert [longest_wait_s(tries) for tries in (1, 2, 3, 6, 7, 500)] == [5, 15, 45, 1215, 1800, 1800]
