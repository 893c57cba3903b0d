"""Teams that are warned of deployments that will be shut down: each once a day, whichever process sees it."""

from datetime import UTC, date, datetime

import pytest

from infra.alerts import Alerts
from infra.kafka.envelope import decode
from infra.kafka.table import ControlTable
from infra.redis.once import Once
from schemas.alert import Alert
from schemas.control import Deployment, Model
from schemas.topics import ALERTS
from services.accounting.shutdowns import Shutdowns, near
from services.accounting.sums import Ended
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog
from tests.fakes.redis import LuaRedis
from tests.unit.services.accounting.examples import attempt, completion
from tests.unit.services.accounting.settling import CALLER

DAY_MS = 86_400_000
TODAY = date(2027, 3, 1)


def model(name: str, **ends: str | None) -> Model:
    """Its deployments, and when they are shut down."""
    return Model(
        name=name,
        deployments=tuple(
            Deployment(id=of, provider="p", model="x", shutdown_date=date.fromisoformat(end) if end else None)
            for of, end in ends.items()
        ),
    )


@pytest.mark.parametrize(
    ("end", "is_near"),
    [(None, False), ("2027-04-01", False), ("2027-03-31", True), ("2027-03-01", True), ("2027-02-28", False)],
)
def test_what_ends_within_thirty_days_is_near(end: str | None, is_near: bool) -> None:
    assert (near([model("gpt", a=end, b="2030-01-01")], TODAY).keys() == {"a"}) == is_near


class House:
    """Two processes of accounting on the first of March; `old` of gpt ends on the eleventh, `new` never."""

    def __init__(self) -> None:
        self.clock = FakeClock(int(datetime(2027, 3, 1, 9, tzinfo=UTC).timestamp() * 1000))
        self.redis, self.log, self.table = LuaRedis(self.clock), MemoryLog(clock=self.clock), ControlTable()
        self.write(model("gpt", old="2027-03-11", new=None))
        self.processes = [Shutdowns(self.table, Alerts(self.log, self.clock, "accounting"), Once(self.redis)) for _ in range(2)]

    def write(self, model: Model) -> None:
        self.table.put(model)
        self.table.version += 1

    async def answered(self, *by: str, team: str = "fraud", process: int = 0) -> None:
        """A job of this team was answered by these deployments."""
        calls = tuple(attempt(n, id=f"att_{n}", deployment=of) for n, of in enumerate(by))
        fact = completion(attempts=calls, caller=CALLER.model_copy(update={"team": team}))
        await self.processes[process].look([Ended.model_validate_json(fact.model_dump_json())])

    @property
    def told(self) -> list[Alert]:
        return [found for record in self.log.records(ALERTS.name) if isinstance(found := decode(record, Alert), Alert)]


async def test_a_team_is_told_what_answers_it_and_until_when() -> None:
    house = House()
    await house.answered("new", "old")
    [alert] = house.told
    assert (alert.what, alert.scope, alert.team, alert.severity) == ("shutdown_near", "deployment/old", "fraud", "warning")
    assert alert.message == "old, which answers team fraud as gpt, is shut down by its provider on 2027-03-11, in 10 days"
    assert alert.facts == {"model": "gpt", "shutdown_date": "2027-03-11"}


async def test_who_is_answered_by_what_stays_or_by_nothing_is_not_told() -> None:
    house = House()
    await house.answered("new")
    await house.answered()
    await house.answered("of another house")
    assert house.told == []


async def test_each_team_is_told_once_a_day_whichever_process_sees_it() -> None:
    house = House()
    for process in (0, 1, 0):
        await house.answered("old", process=process)
        await house.answered("old", team="search", process=process)
    assert [alert.team for alert in house.told] == ["fraud", "search"]
    house.clock.move(DAY_MS)
    for process in (1, 0):
        await house.answered("old", process=process)
    assert [alert.team for alert in house.told] == ["fraud", "search", "fraud"]
    assert house.told[-1].message.endswith("in 9 days")


async def test_a_day_that_is_written_or_put_off_counts_from_then_on() -> None:
    house = House()
    await house.answered("new")
    assert house.told == []
    house.write(model("gpt", old="2028-01-01", new="2027-03-02"))
    await house.answered("new")
    assert [alert.scope for alert in house.told] == ["deployment/new"]
