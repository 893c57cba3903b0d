"""Alerts in the portal: who sees which, and which keys are held."""

import asyncio
from typing import Any

import pytest

from infra.kafka.envelope import encode
from infra.kafka.table import ControlTable
from schemas.alert import Alert, AlertKind, RunawayFacts
from schemas.control import Hold, Resource, VirtualKey
from schemas.errors import NotAllowed, NotFound
from schemas.event import Author
from schemas.roles import Role
from schemas.topics import ALERTS
from services.portal.access import ADMIN, Actor
from services.portal.alerts import DETECTOR, KEPT, AlertsAsked, Brake, Kept, hold
from services.portal.store import Store
from tests.fakes.clock import FakeClock, in_virtual_time
from tests.fakes.log import Record

MEMBER = Actor("user/ada", ((Role.MEMBER, "fraud"),))
AUDITOR = Actor("operator/op_1", ((Role.AUDITOR, ""),))
NOBODY = Actor("user/eve", ())


def alert(n: int, team: str = "fraud", what: AlertKind = "budget_share", **facts: Any) -> Alert:
    return Alert(id=f"alert_{n}", at_ms=n, what=what, scope=f"team/{team}", team=team, message="…", facts=facts)


def record(message: Alert) -> Record:
    sent = encode(message, topic=ALERTS.name, key=message.team, event_id=message.id, source="accounting", now_ms=0)
    return Record(ALERTS.name, 0, 0, 0, sent.key, sent.value, sent.headers)


async def kept(*alerts: Alert) -> Kept:
    found = Kept()
    for one in alerts:
        await found.take(record(one))
    return found


async def ids(found: Kept, actor: Actor = ADMIN, **asked: Any) -> tuple[list[str], str | None]:
    shown, after = found.page(AlertsAsked(**asked), actor)
    return [one.id for one in shown], after


async def test_the_youngest_are_first_page_by_page() -> None:
    found = await kept(*map(alert, range(5)))
    assert await ids(found) == (["alert_4", "alert_3", "alert_2", "alert_1", "alert_0"], None)
    assert await ids(found, limit=2) == (["alert_4", "alert_3"], "alert_3")
    assert await ids(found, limit=2, after="alert_3") == (["alert_2", "alert_1"], "alert_1")
    assert await ids(found, limit=2, after="alert_1") == (["alert_0"], None)
    assert await ids(found, after="alert_gone") == ([], None)


async def test_they_are_found_by_team_and_kind() -> None:
    found = await kept(alert(0), alert(1, "other"), alert(2, what="runaway"), alert(3, "", "ledger_closed"))
    assert (await ids(found, team="fraud"))[0] == ["alert_2", "alert_0"]
    assert (await ids(found, what="runaway"))[0] == ["alert_2"]
    assert (await ids(found, AUDITOR))[0] == ["alert_3", "alert_2", "alert_1", "alert_0"]


async def test_who_sees_one_team_sees_its_alerts_alone() -> None:
    found = await kept(alert(0), alert(1, "other"), alert(2, "", "ledger_closed"))
    assert (await ids(found, MEMBER))[0] == ["alert_0"]
    with pytest.raises(NotFound):
        await ids(found, MEMBER, team="other")
    with pytest.raises(NotAllowed):
        await ids(found, NOBODY)


async def test_a_thousand_are_kept_and_what_is_no_alert_is_not() -> None:
    found = await kept(*map(alert, range(KEPT + 5)))
    await found.take(Record(ALERTS.name, 0, 9, value=b"junk"))
    shown, after = found.page(AlertsAsked(limit=KEPT), ADMIN)
    assert (len(shown), after, shown[-1].id) == (KEPT, None, "alert_5")


KEY = VirtualKey(id="key_1", sha256="aa", last4="9f3c", team="fraud", version=4)
REASON = "412 equal requests within a minute"


def facts(action: str = "pause", usual: float = 125, version: int = 4) -> RunawayFacts:
    told = {"action": action, "pattern": "same_prompt", "reason": REASON, "key_id": "key_1", "key_version": version}
    return RunawayFacts.model_validate(told | {"usual_requests_per_minute": usual})


def test_a_paused_key_is_held_with_the_reason() -> None:
    held = hold(KEY, facts(), 7)
    assert held == KEY.model_copy(update={"version": 5, "held": Hold(reason=REASON, since_ms=7)})


@pytest.mark.parametrize(("usual", "pace"), [(125, 12), (9, 1), (0, 1)])
def test_a_throttled_key_has_a_tenth_of_its_usual_pace(usual: float, pace: int) -> None:
    held = hold(KEY, facts("throttle", usual), 7)
    assert held is not None
    assert held.held == Hold(reason=REASON, since_ms=7, requests_per_minute=pace)


@pytest.mark.parametrize(
    "key",
    [
        None,
        KEY.model_copy(update={"held": Hold(reason="before", since_ms=1)}),
        KEY.model_copy(update={"revoked": True}),
        KEY.model_copy(update={"version": 6}),
    ],
    ids=["gone", "held already", "revoked", "resumed since"],
)
def test_where_nothing_is_to_be_done_nothing_is(key: VirtualKey | None) -> None:
    assert hold(key, facts(), 7) is None


class MemoryControl:
    """Keeps what is written in the table, and who wrote it."""

    def __init__(self, *resources: Resource) -> None:
        self.table, self.written = ControlTable(), list[tuple[Resource, Author]]()
        for resource in resources:
            self.table.put(resource)

    async def caught_up(self) -> None:
        return

    async def write(self, *resources: Resource, author: Author) -> None:
        for resource in resources:
            await asyncio.sleep(0)
            self.table.put(resource)
            self.written.append((resource, author))


class Desk:
    def __init__(self, *resources: Resource) -> None:
        self.control = MemoryControl(*resources)
        self.brake = Brake(Store(self.control, FakeClock()))  # pyright: ignore[reportArgumentType]

    async def hear(self, told: RunawayFacts) -> None:
        await self.brake.work(record(alert(1, what="runaway", **told.model_dump(mode="json"))))


async def test_an_alert_that_comes_often_holds_once_and_says_who_did_it() -> None:
    desk = Desk(KEY)
    await asyncio.gather(*(desk.hear(facts()) for _ in range(5)))
    ((held, author),) = desk.control.written
    assert isinstance(held, VirtualKey)
    assert held.held is not None
    assert (author.actor, author.action, author.reason) == (DETECTOR, "key.held", REASON)


async def test_a_resumed_key_is_not_held_by_the_same_alert_but_by_the_next() -> None:
    desk = Desk(KEY)
    await desk.hear(facts())
    desk.control.table.put(KEY.model_copy(update={"version": 6}))
    await desk.hear(facts())
    assert len(desk.control.written) == 1
    await desk.hear(facts(version=6))
    assert len(desk.control.written) == 2


async def test_what_is_only_told_of_or_not_understood_holds_nothing() -> None:
    desk = Desk(KEY)
    await desk.hear(facts("alert"))
    for other in (alert(1), alert(1, what="runaway"), alert(1, what="runaway", **facts().model_dump() | {"action": "explode"})):
        await desk.brake.work(record(other))
    await desk.brake.work(Record(ALERTS.name, 0, 9, value=b"junk"))
    assert desk.control.written == []


@in_virtual_time
async def test_a_change_of_the_key_that_is_still_on_its_way_is_waited_for() -> None:
    desk = Desk(KEY)
    hearing = asyncio.create_task(desk.hear(facts(version=5)))
    await asyncio.sleep(1)
    assert desk.control.written == []
    desk.control.table.put(KEY.model_copy(update={"version": 5}))
    await hearing
    assert [getattr(held, "version", 0) for held, _ in desk.control.written] == [6]
