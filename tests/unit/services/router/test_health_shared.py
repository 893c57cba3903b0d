"""Routers that tell each other how deployments are: the real script, over a Redis in memory, in a time that the test chooses."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.redis.client import RedisUnavailable
from infra.redis.health import CHECK_MS, TRY_MS, Change, exchange, lift
from schemas.control import Model
from services.router.health import FIRST_COOL_MS, FORGET_MS, IN_A_ROW, PROBES, WINDOW_MS, Health
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import deployment

BOTH = Model(name="m", deployments=(deployment("a"), deployment("b")))


class Fleet:
    """Some routers, and the Redis between them. `ahead_ms`: by how much each one's clock is wrong."""

    def __init__(self, size: int = 3, ahead_ms: Sequence[int] = (0, 0, 0)) -> None:
        self.clock = FakeClock()
        self.redis = LuaRedis(self.clock)
        self.routers = [Health() for _ in range(size)]
        self.ahead_ms = ahead_ms
        self.away = False

    def now(self, at: int) -> int:
        return self.clock() + self.ahead_ms[at]

    async def talk(self, *who: int) -> None:
        """These exchange what they know, in this order; or all."""
        for at in who or range(len(self.routers)):
            changes, wants = self.routers[at].to_tell()
            if self.away:
                self.routers[at].unheard(changes)
            else:
                told = await exchange(self.redis, f"r{at}", changes, wants, None, self.now(at))
                self.routers[at].heard(told, changes, self.now(at))

    async def later(self, ms: int, step_ms: int = 300, asking: bool = False) -> None:
        """Time passes, in which all talk; `asking`: there are requests all the while."""
        ends = self.clock() + ms
        while self.clock() < ends:
            self.clock.move(min(step_ms, ends - self.clock()))
            if asking:
                self.up()
            await self.talk()

    def fail(
        self, at: int, name: str = "a", times: int = IN_A_ROW, kind: str = "unavailable", model: Model | None = None
    ) -> None:
        for _ in range(times):
            self.routers[at].failed(name, self.now(at), self.now(at), kind=kind, model=model)  # pyright: ignore[reportArgumentType]

    def work(self, at: int, name: str = "a") -> None:
        assert self.routers[at].ramp(name, self.now(at)) is not None
        self.routers[at].worked(name, self.now(at), self.now(at))

    def up(self, name: str = "a") -> list[int]:
        """The routers that would ask it now."""
        return [at for at, health in enumerate(self.routers) if not health.cools_until(name, self.now(at))]


async def opened(size: int = 3) -> Fleet:
    """A fleet that knows that `a` cools, since the first router saw it fail."""
    fleet = Fleet(size)
    fleet.fail(0)
    await fleet.talk()
    return fleet


async def half_open() -> tuple[Fleet, int]:
    """A fleet with requests, whose `a` has cooled; and the router that tries it."""
    fleet = await opened()
    await fleet.later(FIRST_COOL_MS, asking=True)
    (trying,) = fleet.up()
    return fleet, trying


async def test_what_one_leaves_alone_all_do() -> None:
    fleet = Fleet(ahead_ms=(0, 400_000, -400_000))
    fleet.fail(0)
    assert fleet.up() == [1, 2]
    await fleet.talk()
    assert fleet.up() == []
    assert {h.cools_until("a", fleet.now(at)) - fleet.now(at) for at, h in enumerate(fleet.routers)} == {FIRST_COOL_MS}
    assert fleet.up("b") == [0, 1, 2]


async def test_one_alone_tries_it_and_its_success_puts_it_back_for_all_who_ramp_up() -> None:
    fleet, trying = await half_open()
    await fleet.later(3_000, asking=True)
    assert fleet.up() == [trying]
    fleet.work(trying)
    await fleet.talk(trying)
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]
    ramps = [health.ramp("a", fleet.clock()) for health in fleet.routers]
    assert [ramp.total if ramp else 0 for ramp in ramps] == [PROBES + (at == trying) for at in range(3)]


async def test_once_it_has_been_tried_it_counts_as_well_and_after_a_minute_one_failure_is_nothing() -> None:
    fleet, trying = await half_open()
    assert {health.state("a", fleet.clock())[0] for health in fleet.routers} == {"half_open"}
    fleet.work(trying)
    await fleet.talk(trying)
    await fleet.talk()
    assert {health.state("a", fleet.clock())[0] for health in fleet.routers} == {"closed"}
    await fleet.later(FORGET_MS + 1_000)
    for at in range(3):
        assert fleet.routers[at].ramp("a", fleet.clock()) is None
        fleet.fail(at, times=1)
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]


async def test_its_failure_keeps_all_away_for_longer() -> None:
    fleet, trying = await half_open()
    for times in (2, 4):
        assert fleet.routers[trying].ramp("a", fleet.clock())
        fleet.fail(trying, times=1)
        await fleet.talk(trying)
        await fleet.talk()
        assert fleet.up() == []
        assert {health.cools_until("a", fleet.clock()) - fleet.clock() for health in fleet.routers} == {times * FIRST_COOL_MS}
        await fleet.later(times * FIRST_COOL_MS, asking=True)
        (trying,) = fleet.up()


async def test_one_that_dies_while_it_tries_is_followed_by_another() -> None:
    fleet, trying = await half_open()
    others = [at for at in range(3) if at != trying]
    for _ in range(TRY_MS // 300 + 1):
        fleet.clock.move(300)
        fleet.up()
        await fleet.talk(*others)
    (next_one,) = (at for at in fleet.up() if at != trying)
    fleet.work(next_one)
    await fleet.talk(*others, *others)
    assert set(others) <= set(fleet.up())


async def test_where_there_are_few_requests_the_first_one_tries_it() -> None:
    """Else one that comes every half minute would find the claim over each time."""
    fleet = await opened()
    await fleet.later(60_000)
    assert fleet.up() == [0, 1, 2]
    await fleet.talk()
    assert fleet.up() == [0]
    await fleet.later(TRY_MS)
    assert fleet.up() == [0, 1, 2]


async def test_who_comes_new_knows_it_too() -> None:
    fleet = await opened()
    fleet.routers.append(Health())
    fleet.ahead_ms = (0, 0, 0, 0)
    await fleet.talk(3)
    assert fleet.up() == []


async def test_without_redis_each_goes_by_what_it_sees_and_tells_of_it_later() -> None:
    fleet = Fleet()
    fleet.away = True
    fleet.fail(0)
    await fleet.talk()
    assert fleet.up() == [1, 2]
    fleet.clock.move(1_000)
    fleet.away = False
    await fleet.talk()
    assert fleet.up() == []
    assert fleet.routers[1].cools_until("a", fleet.clock()) == fleet.clock() + FIRST_COOL_MS - 1_000


async def test_without_redis_each_tries_it_for_itself_and_what_came_of_it_is_told() -> None:
    fleet, trying = await half_open()
    other = (trying + 1) % 3
    fleet.away = True
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]
    fleet.work(other)
    fleet.away = False
    await fleet.talk(other)
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]


async def test_what_recovered_while_redis_was_away_is_not_told_as_down() -> None:
    fleet = Fleet()
    fleet.away = True
    fleet.fail(0)
    await fleet.talk()
    fleet.clock.move(FIRST_COOL_MS)
    fleet.work(0)
    fleet.away = False
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]


async def test_a_redis_that_has_forgotten_all_keeps_nobody_down() -> None:
    fleet = await opened()
    fleet.redis = LuaRedis(fleet.clock)
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]
    assert all(health.ramp("a", fleet.clock()) for health in fleet.routers)


async def test_what_an_operator_lifts_is_lifted_everywhere() -> None:
    fleet = Fleet()
    fleet.fail(1, times=1, kind="denied")
    await fleet.talk(1)
    await fleet.talk()
    assert fleet.up() == []
    await lift(fleet.redis, "a")
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]


async def test_a_refused_credential_is_refused_to_all_until_it_is_another() -> None:
    fleet = Fleet()
    fleet.fail(1, times=1, kind="denied")
    await fleet.talk(1)
    await fleet.talk()
    assert {health.state("a", fleet.clock())[0] for health in fleet.routers} == {"quarantined"}
    await fleet.later(30_000, asking=True)
    assert fleet.up() == []
    fleet.routers[2].credential_changed("a", fleet.clock())
    await fleet.talk(2)
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]


async def test_two_routers_do_not_give_up_both_deployments_at_once_because_many_calls_fail() -> None:
    fleet = Fleet()
    for at, name in ((0, "a"), (1, "b")):
        for n in range(20):
            health = fleet.routers[at]
            if n % 2:
                health.worked(name, fleet.clock(), fleet.clock())
            else:
                fleet.fail(at, name, times=1, model=BOTH)
    assert (0 in fleet.up(), 1 in fleet.up("b")) == (False, False)
    await fleet.talk()
    await fleet.talk()
    assert (fleet.up(), fleet.up("b")) == ([], [0, 1, 2])
    assert fleet.routers[1].ramp("b", fleet.clock()) is None


async def test_one_router_checks_and_if_all_is_well_it_is_tried_at_once() -> None:
    fleet = await opened()
    now = fleet.clock()
    assert not any(health.may_check("a", now) for health in fleet.routers)
    await fleet.talk()
    assert [health.may_check("a", now) for health in fleet.routers] == [True, False, False]
    fleet.clock.move(CHECK_MS // 4)
    fleet.routers[0].eased("a", fleet.clock())
    await fleet.talk()
    assert fleet.up(), "whoever comes first"
    await fleet.talk()
    assert len(fleet.up()) == 1


async def test_a_check_is_over_after_a_while() -> None:
    fleet = Fleet()
    fleet.fail(0, times=1, kind="denied")
    await fleet.talk()
    fleet.routers[0].may_check("a", fleet.clock())
    await fleet.talk()
    fleet.clock.move(CHECK_MS)
    fleet.routers[1].may_check("a", fleet.clock())
    await fleet.talk()
    assert [health.may_check("a", fleet.clock()) for health in fleet.routers] == [False, True, False]


async def test_only_what_is_new_is_news() -> None:
    fleet, news = Fleet(2), list[bool]()
    for _ in range(2):
        changes: list[Change] = []
        for at in (0, 1):
            fleet.fail(at)
            changes, wants = fleet.routers[at].to_tell()
            told = await exchange(fleet.redis, f"r{at}", changes, wants, None, fleet.clock())
            fleet.routers[at].heard(told, changes, fleet.clock())
            news.append(told["a"].is_new)
        fleet.clock.move(2 * WINDOW_MS)
    assert news == [True, False, False, False]


async def test_redis_that_does_not_answer_loses_no_change() -> None:
    class Away(LuaRedis):
        async def run(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise RedisUnavailable("away")

    fleet = Fleet()
    fleet.fail(0)
    changes, wants = fleet.routers[0].to_tell()
    with pytest.raises(RedisUnavailable):
        await exchange(Away(fleet.clock), "r0", changes, wants, None, fleet.clock())
    fleet.routers[0].unheard(changes)
    await fleet.talk()
    assert fleet.up() == []


STEP = st.tuples(
    st.sampled_from(("fail", "deny", "work", "talk", "move", "lift", "key", "away")), st.integers(0, 2), st.integers(0, 3)
)


@given(st.lists(STEP, max_size=60))
async def test_whatever_happens_all_agree_in_the_end_and_nobody_is_left_out_for_ever(steps: list[tuple[str, int, int]]) -> None:
    fleet = Fleet()
    for what, at, much in steps:
        health, now = fleet.routers[at], fleet.now(at)
        match what:
            case "fail" | "deny":
                if not health.cools_until("a", now):
                    health.ramp("a", now)
                    fleet.fail(at, times=1 + 2 * much, kind="denied" if what == "deny" else "unavailable")
            case "work":
                if not health.cools_until("a", now):
                    health.ramp("a", now)
                    health.worked("a", now, now)
            case "talk":
                await fleet.talk(at)
            case "move":
                fleet.clock.move((50, 400, 6_000, 70_000)[much])
            case "lift":
                await lift(fleet.redis, "a")
            case "key":
                health.credential_changed("a", now)
            case _:
                fleet.away = not fleet.away
    fleet.away = False
    await fleet.talk()
    await fleet.talk()
    states = [health.state("a", fleet.clock()) for health in fleet.routers]
    assert all(before[2] == after[2] for before, after in pairwise(states)), "all cool until the same time, or none does"
    await fleet.later(900_000, step_ms=60_000)
    fleet.up()
    await fleet.talk()
    trying = fleet.up()
    assert trying, "somebody may ask it"
    fleet.routers[trying[0]].ramp("a", fleet.clock())
    fleet.routers[trying[0]].worked("a", fleet.clock(), fleet.clock())
    await fleet.talk()
    await fleet.talk()
    assert fleet.up() == [0, 1, 2]
