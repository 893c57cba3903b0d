"""What completions say together, whichever instance reads them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from infra.alerts import Alerts
from infra.kafka.envelope import decode
from infra.kafka.table import ControlTable
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from schemas.alert import Alert
from schemas.alerting import Alerting, AlertRules, Slo
from schemas.control import Deployment, Model
from schemas.job import Caller
from schemas.topics import ALERTS, Lane
from services.accounting.rates import MINUTE_MS
from services.accounting.signals import LOOK_MS, Signals
from services.accounting.sums import Call, Ended
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog
from tests.fakes.redis import LuaRedis

CALLER = Caller(organization="acme", team="fraud", key_id="key_1")


class FlakyRedis(LuaRedis):
    away = False
    asked = 0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        self.asked += 1
        if self.away:
            raise RedisUnavailable("nobody answers")
        return await super().run(script, keys, args)


class House:
    """Two instances of accounting over one Redis."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.redis, self.log, self.table = FlakyRedis(self.clock), MemoryLog(clock=self.clock), ControlTable()
        self.table.put(Model(name="chat", deployments=(Deployment(id="d", provider="echo", model="echo"),)))
        self.table.put(Alerting(rules=AlertRules(slos={"chat": Slo(ttft_ms=2000)})))
        self.instances = [self.instance(), self.instance()]

    def instance(self) -> Signals:
        return Signals(self.table, Alerts(self.log, self.clock, "accounting"), self.redis)

    def ended(self, **members: Any) -> Ended:
        given: dict[str, Any] = {"id": "att", "provider": "echo", "deployment": "d", "status": "completed", "started_ms": 0}
        call = Call(**(given | members))
        now = self.clock()
        return Ended(
            job_id="j", caller=CALLER, lane=Lane.INTERACTIVE, model="chat", accepted_ms=now, ended_ms=now, attempts=(call,)
        )

    async def look(self) -> None:
        self.clock.move(LOOK_MS)
        for instance in self.instances:
            await instance.look()

    @property
    def told(self) -> list[Alert]:
        return [found for record in self.log.records(ALERTS.name) if isinstance(found := decode(record, Alert), Alert)]


@pytest.fixture
def house() -> House:
    return House()


async def test_each_instance_sees_a_part_and_together_they_see_it_all_and_tell_it_once(house: House) -> None:
    for instance in house.instances:
        instance.saw([house.ended(status="failed")] * 10)
    await house.look()
    await house.look()
    [alert] = house.told
    assert (alert.what, alert.scope, alert.facts["calls"]) == ("provider_errors", "deployment/d", 20)
    assert alert.link == f"/admin/v1/alerts/{alert.id}"


async def test_what_goes_on_is_told_again_after_an_hour(house: House) -> None:
    for _ in range(70):
        house.instances[0].saw([house.ended(status="failed")] * 20)
        await house.look()
        house.clock.move(MINUTE_MS)
    assert [alert.what for alert in house.told] == ["provider_errors"] * 2
    assert len({alert.same for alert in house.told}) == 1


async def test_a_look_is_one_round_trip_however_much_has_ended(house: House) -> None:
    await house.look()
    before = house.redis.asked
    for _ in range(500):
        house.instances[0].saw([house.ended()])
        await house.instances[0].look()
    assert house.redis.asked == before
    await house.look()
    assert house.redis.asked == before + len(house.instances)


async def test_while_redis_is_away_it_counts_on(house: House) -> None:
    await house.look()
    house.redis.away = True
    house.instances[0].saw([house.ended(status="failed")] * 20)
    with pytest.raises(RedisUnavailable):
        await house.look()
    house.redis.away = False
    await house.look()
    assert [alert.facts["failed"] for alert in house.told] == [20]


async def test_history_outlives_an_instance(house: House) -> None:
    for _ in range(8):
        house.instances[0].saw([house.ended(cost_usd=Decimal(1))] * 10)
        await house.look()
        house.clock.move(10 * MINUTE_MS)
    house.instances = [house.instance()]
    await house.look()
    house.instances[0].saw([house.ended(cost_usd=Decimal(1))] * 15)
    await house.look()
    assert not house.told
    house.instances[0].saw([house.ended(cost_usd=Decimal(1))] * 60)
    await house.look()
    assert [(alert.what, alert.scope, alert.team) for alert in house.told] == [("cost_anomaly", "team/fraud", "fraud")]


async def test_late_first_tokens_burn_the_objective(house: House) -> None:
    house.instances[0].saw([house.ended(started_ms=house.clock(), ttft_ms=3000)] * 100)
    await house.look()
    assert [(alert.what, alert.severity) for alert in house.told] == [("slo_burn", "critical")]


async def test_what_ended_long_ago_is_not_news(house: House) -> None:
    old = house.ended(status="failed").model_copy(update={"ended_ms": house.clock() - 7 * 60 * MINUTE_MS})
    older = house.ended(status="failed").model_copy(update={"ended_ms": house.clock() - 6 * MINUTE_MS})
    house.instances[0].saw([old] * 30 + [older] * 30)
    await house.look()
    assert house.told == []


async def test_an_alert_that_could_not_be_raised_is_raised_with_the_next_look(house: House) -> None:
    house.instances = house.instances[:1]
    house.instances[0].saw([house.ended(status="failed")] * 20)
    send, house.log.send = house.log.send, _away  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await house.look()
    house.log.send = send  # type: ignore[method-assign]
    await house.look()
    assert len(house.told) == 1


async def _away(_: object) -> Any:
    raise ConnectionError("no broker answers")
