"""Alerts: each is told once, and again after a while."""

import asyncio
from collections.abc import Awaitable

import pytest

from infra import alerts
from infra.alerts import QUIET_MS, Alerts
from infra.kafka.envelope import H_TYPE, decode, header
from infra.kafka.log import Outgoing, Sink
from schemas.alert import Alert
from schemas.base import JsonObject
from schemas.topics import ALERTS
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog


def raised(log: MemoryLog) -> list[Alert]:
    return [alert for record in log.records(ALERTS.name) if isinstance(alert := decode(record, Alert), Alert)]


async def test_an_alert_says_what_about_whom_and_how_bad_it_is() -> None:
    log, clock = MemoryLog(), FakeClock()
    facts: JsonObject = {"period": "2026-11", "share": 0.8}
    alerts = Alerts(log, clock, "accounting")
    assert await alerts.raise_("budget_share", "team/fraud", "fraud", "80 % are spent.", "info", facts, about="2026-11/0.8")
    (alert,), (record,) = raised(log), log.records(ALERTS.name)
    assert (alert.what, alert.scope, alert.team, alert.severity) == ("budget_share", "team/fraud", "fraud", "info")
    assert (alert.message, alert.facts, alert.at_ms) == ("80 % are spent.", facts, clock.now_ms)
    assert alert.id.startswith("alert_")
    assert record.key == b"fraud"
    assert header(record.headers, H_TYPE) == Alert.TYPE
    assert header(record.headers, "ce_source") == "accounting"


async def test_it_is_raised_again_only_after_a_while_or_about_something_else() -> None:
    log, clock = MemoryLog(), FakeClock()
    alerts = Alerts(log, clock, "accounting")

    async def told(scope: str = "team/fraud", about: str = "2026-11") -> bool:
        return await alerts.raise_("budget_share", scope, "fraud", "…", about=about)

    assert await told()
    assert not await told()
    assert await told(about="2026-12")
    assert await told(scope="team/other")
    clock.move(QUIET_MS - 1)
    assert not await told()
    clock.move(1)
    assert await told()
    assert len(raised(log)) == 4


async def test_what_many_find_at_once_is_told_once() -> None:
    log = MemoryLog()
    alerts = Alerts(log, FakeClock(), "accounting")
    assert sum(await asyncio.gather(*(alerts.raise_("ledger_closed", "redis", "", "…") for _ in range(10)))) == 1
    assert len(raised(log)) == 1


async def test_what_could_not_be_sent_may_be_raised_again_at_once() -> None:
    class Away(Sink):
        async def send(self, record: Outgoing) -> Awaitable[object]:
            raise ConnectionError

    alerts = Alerts(Away(), FakeClock(), "accounting")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await alerts.raise_("ledger_closed", "redis", "", "…")


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST", 10)
    log = MemoryLog()
    raising = Alerts(log, FakeClock(), "accounting")

    async def told(n: int) -> bool:
        return await raising.raise_("budget_share", f"team/{n}", "", "…")

    assert all([await told(n) for n in range(11)])
    assert not await told(10)
    assert await told(0), "the oldest is forgotten first"
