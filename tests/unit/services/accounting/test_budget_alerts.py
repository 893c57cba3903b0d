"""Shares of a budget that are told: each once in its period, whichever process sees it, and whatever fails meanwhile."""

from collections.abc import Awaitable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from infra.alerts import Alerts
from infra.budgets import BudgetLine, lines
from infra.hierarchy import Level
from infra.kafka.envelope import decode
from infra.kafka.log import Outgoing
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.once import Once
from schemas.alert import Alert
from schemas.alerting import AlertRules, ForecastRule
from schemas.budget import NANO, Budget, Increase, Period
from schemas.policy import Policy
from schemas.topics import ALERTS
from services.accounting.budget_alerts import BudgetAlerts, forecast_share, spent_share
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog
from tests.fakes.redis import LuaRedis

MONTH_MS = 31 * 86_400_000


class FlakyRedis(LuaRedis):
    away = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        if self.away:
            raise RedisUnavailable("nobody answers")
        return await super().run(script, keys, args)


class FlakyLog(MemoryLog):
    away = False

    async def send(self, record: Outgoing) -> Awaitable[object]:
        if self.away:
            raise ConnectionError("no broker answers")
        return await super().send(record)


class House:
    """Processes of accounting over one Redis and one log; a team with a budget of 10 USD a month."""

    def __init__(self, *budgets: Budget, forecast: bool = False) -> None:
        self.clock, self.rules = FakeClock(), AlertRules(forecast=ForecastRule(enabled=forecast))
        self.redis, self.log = FlakyRedis(self.clock), FlakyLog(clock=self.clock)
        self.budgets = budgets or (Budget(usd=Decimal(10)),)
        self.processes = [self.process(), self.process()]

    def process(self) -> BudgetAlerts:
        return BudgetAlerts(Alerts(self.log, self.clock, "accounting"), Once(self.redis), lambda: self.rules)

    def lines(self, *budgets: Budget) -> list[tuple[str, BudgetLine]]:
        level = Level("team/fraud", 1, Policy(budgets=budgets or self.budgets))
        return [("fraud", line) for line in lines([level], self.clock(), "UTC")]

    async def look(self, usd: str | int, tokens: int = 0, by: int = 0, *budgets: Budget) -> None:
        """So much is spent of every budget, in its period."""
        found = self.lines(*budgets)
        totals = {line.allowance.key: (int(Decimal(usd) * NANO), tokens) for _, line in found}
        await self.processes[by].look(found, totals)

    @property
    def told(self) -> list[Alert]:
        return [found for record in self.log.records(ALERTS.name) if isinstance(found := decode(record, Alert), Alert)]


async def test_a_share_and_the_end_are_told_once_each() -> None:
    house = House()
    for spent in ("7.99", 8, "8.5", "9.99", 10, 11):
        await house.look(spent)
    first, last = house.told
    assert (first.what, first.severity, first.scope, first.team) == ("budget_share", "warning", "team/fraud", "fraud")
    assert first.message == "team/fraud has spent 8.00 of 10.00 USD in 2027-01: 80% of its budget"
    assert first.facts == {"share": 0.8, "period": "2027-01", "hard": True}
    assert (last.what, last.severity) == ("budget_exhausted", "critical")
    assert last.message == "team/fraud has spent 10.00 of 10.00 USD in 2027-01: 100% of its budget"


async def test_whichever_process_sees_it() -> None:
    house = House()
    await house.look(8, by=0)
    await house.look(9, by=1)
    house.processes.append(house.process())
    await house.look(9, by=2)
    assert len(house.told) == 1


async def test_who_jumps_over_several_shares_is_told_of_the_last() -> None:
    house = House(Budget(usd=Decimal(10), alerts=(0.5, 0.8, 0.9)))
    await house.look("9.5")
    assert [alert.facts["share"] for alert in house.told] == [0.95]
    await house.look(10)
    assert [alert.what for alert in house.told] == ["budget_share", "budget_exhausted"]


async def test_each_of_its_own_shares() -> None:
    house = House(Budget(usd=Decimal(10), alerts=(0.5, 0.9)))
    for spent in (4, 5, 6, 9):
        await house.look(spent)
    assert [alert.facts["share"] for alert in house.told] == [0.5, 0.9]


async def test_a_soft_budget_only_warns() -> None:
    house = House(Budget(usd=Decimal(10), hard=False))
    await house.look(12)
    [alert] = house.told
    assert (alert.what, alert.severity, alert.facts["hard"]) == ("budget_exhausted", "warning", False)


async def test_every_period_begins_anew() -> None:
    house = House()
    await house.look(9)
    house.clock.move(MONTH_MS)
    await house.look(9)
    assert [alert.facts["period"] for alert in house.told] == ["2027-01", "2027-02"]


async def test_a_budget_that_was_raised_is_another_one() -> None:
    house = House()
    await house.look(9)
    raised = Budget(usd=Decimal(10), increases=(Increase(usd=Decimal(10), until_ms=house.clock() + MONTH_MS),))
    await house.look(9, 0, 0, raised)
    assert len(house.told) == 1
    house.clock.move(3_600_000)
    await house.look(16, 0, 0, raised)
    assert [alert.message.split(" in ")[0] for alert in house.told] == [
        "team/fraud has spent 9.00 of 10.00 USD",
        "team/fraud has spent 16.00 of 20.00 USD",
    ]


async def test_tokens_or_money_whichever_is_more() -> None:
    house = House(Budget(usd=Decimal(10), tokens=1_000))
    await house.look(2, 900)
    assert house.told[0].message == "team/fraud has spent 900 of 1000 tokens in 2027-01: 90% of its budget"
    house = House(Budget(usd=Decimal(10), tokens=1_000))
    await house.look(9, 200)
    assert house.told[0].message == "team/fraud has spent 9.00 of 10.00 USD in 2027-01: 90% of its budget"
    house = House(Budget(tokens=1_000))
    await house.look(9, 800)
    assert house.told[0].message == "team/fraud has spent 800 of 1000 tokens in 2027-01: 80% of its budget"


async def test_what_was_not_settled_now_is_not_looked_at() -> None:
    house = House()
    await house.processes[0].look(house.lines(), {"spend:team/other:2027-01": (99 * NANO, 0)})
    await house.processes[0].look(house.lines(), {})
    assert house.told == []


@pytest.mark.parametrize("who", ["redis", "log"])
async def test_what_could_not_be_told_is_told_later(who: str) -> None:
    house = House()
    away: Any = getattr(house, who)
    away.away = True
    with pytest.raises((RedisUnavailable, ConnectionError)):
        await house.look(9)
    assert house.told == []
    away.away = False
    await house.look(9, by=1)
    await house.look(9, by=0)
    assert len(house.told) == 1


@pytest.mark.parametrize(
    ("usd", "tokens", "total", "share"),
    [
        (10, None, (5 * NANO, 999), 0.5),
        (None, 100, (5 * NANO, 25), 0.25),
        (10, 100, (5 * NANO, 75), 0.75),
        (0, None, (0, 0), 1.0),
        (None, None, (5 * NANO, 5), 0.0),
        (10, None, (20 * NANO, 0), 2.0),
    ],
)
def test_how_much_of_a_budget_is_spent(usd: int | None, tokens: int | None, total: tuple[int, int], share: float) -> None:
    budget = Budget(usd=None if usd is None else Decimal(usd), tokens=tokens, period=Period.TOTAL)
    [(_, line)] = House().lines(budget)
    assert spent_share(line, total) == share


DAY_MS = 86_400_000
FORECASTS = [
    (0.5, 0.5, None),
    (0.5, 0.45, 0.5 / 0.45),
    (0.5, 0.46, None),
    (0.09, 0.05, None),
    (0.2, 0.1, 2.0),
]


@pytest.mark.parametrize(("share", "elapsed", "forecast"), FORECASTS)
def test_a_forecast_goes_on_as_so_far(share: float, elapsed: float, forecast: float | None) -> None:
    house = House(forecast=True)
    [(_, line)] = house.lines(Budget(usd=Decimal(10), period=Period.DAY))
    now_ms = line.span.starts_ms + round(elapsed * DAY_MS)
    found = forecast_share(line, share, now_ms, house.rules.forecast)
    assert found == (pytest.approx(forecast) if forecast else None)


def test_a_total_has_no_forecast() -> None:
    house = House(forecast=True)
    [(_, line)] = house.lines(Budget(usd=Decimal(10), period=Period.TOTAL))
    assert forecast_share(line, 0.99, house.clock(), house.rules.forecast) is None


async def test_an_overrun_is_foretold_once_in_a_period_and_not_when_all_is_spent() -> None:
    house = House(forecast=True)
    for spent in (4, 6, 7):
        await house.look(spent)
    [alert] = house.told
    assert (alert.what, alert.severity, alert.scope, alert.team) == ("budget_forecast", "warning", "team/fraud", "fraud")
    assert alert.message.startswith("team/fraud has spent 60% of its budget of 2027-01 and, if it goes on like this, will have")
    house.clock.move(MONTH_MS)
    await house.look(11)
    assert [alert.what for alert in house.told] == ["budget_forecast", "budget_exhausted"]
