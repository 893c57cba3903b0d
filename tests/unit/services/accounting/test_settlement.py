"""Settlement between a log and a Redis that fail: whatever is delivered, by whomever, each call is counted once."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.kafka.envelope import H_DATAREF
from infra.kafka.log import Outgoing
from infra.redis import ledger
from infra.redis.ledger import Counted
from schemas.budget import NANO, Budget
from schemas.control import Team
from schemas.policy import Policy
from schemas.topics import COMPLETIONS
from tests.fakes.clock import in_virtual_time
from tests.unit.services.accounting.examples import attempt, completion
from tests.unit.services.accounting.settling import CALLER, GROUP, START_MS, Fault, House, until


def in_a_house(test: Callable[[House], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test in a house with an open ledger."""

    async def run() -> None:
        house = House()
        await house.open()
        try:
            await test(house)
        finally:
            await house.close()

    decorated = in_virtual_time(run)
    decorated.__doc__, decorated.__name__ = test.__doc__, getattr(test, "__name__", "test")
    return decorated


@in_a_house
async def test_what_was_held_becomes_spent(house: House) -> None:
    await house.hold(1)
    assert await house.at() == Counted(0, NANO, 0, 10)
    await house.join()
    house.ended(1, "0.25")
    await house.settled()
    assert await house.at() == Counted(250_000_000, 0, 10, 0)
    assert await house.at("spend:key/key_1:total") == Counted(250_000_000, 0, 10, 0)
    assert house.redis.keys.hget(b"keys:last_used", b"key_1") == b"%d" % START_MS


@in_a_house
async def test_many_at_once_and_many_one_by_one_come_to_the_same(house: House) -> None:
    for n in range(50):
        house.ended(n, "0.01")
    await house.join()
    await house.settled()
    for n in range(50, 60):
        house.ended(n, "0.01")
        await house.settled()
    assert (await house.at()).usd_nano == 600_000_000


@in_a_house
async def test_what_is_delivered_again_counts_once(house: House) -> None:
    await house.join()
    for n in range(9):
        house.ended(n, "0.5")
        await house.log.rebalance(GROUP)
    await house.settled()
    assert (await house.at()).usd_nano == 9 * 500_000_000


@in_a_house
async def test_whoever_comes_after_a_death_goes_on_where_redis_says(house: House) -> None:
    await house.join()
    house.ended(1, "0.5")
    await house.settled()
    await house.crash()
    house.ended(2, "0.5")
    await house.join()
    await house.settled()
    assert (await house.at()).usd_nano == NANO, "though nobody committed"


@in_a_house
async def test_two_members_share_the_work(house: House) -> None:
    await house.join()
    await house.join()
    for n in range(40):
        house.ended(n, "0.5")
        if n % 9 == 0:
            await house.log.rebalance(GROUP, seed=n)
    await house.settled()
    assert (await house.at()).usd_nano == 20 * NANO


@in_a_house
async def test_a_member_that_was_taken_for_dead_settles_nothing_twice(house: House) -> None:
    zombie = await house.join()
    wakes = house.redis.hangs = asyncio.Event()
    for n in range(5):
        house.ended(n, "0.5")
    await until(lambda: house.redis.asked == 1)
    await zombie.source.expire()
    await house.join()
    await house.settled()
    house.ended(7, "0.5")
    await house.settled()
    wakes.set()
    await asyncio.sleep(5)
    await zombie.source.rejoin()
    await asyncio.sleep(5)
    assert (await house.at()).usd_nano == 3 * NANO


@pytest.mark.parametrize("fault", ["before", "after"])
def test_redis_may_fail_before_or_after(fault: Fault) -> None:
    @in_virtual_time
    async def test() -> None:
        house = House()
        await house.open()
        await house.hold(1)
        house.redis.faults.extend([fault] * 3)  # pyright: ignore[reportArgumentType]
        await house.join()
        house.ended(1, "0.5")
        house.ended(2, "0.5")
        await house.settled()
        await until(lambda: house.redis.asked >= 3)
        house.ended(3, "0.5")
        await house.settled()
        assert await house.at() == Counted(1_500_000_000, 0, 30, 0)
        await house.close()

    test()


@in_a_house
async def test_while_redis_is_away_everything_waits(house: House) -> None:
    house.redis.failing = {"settle", "sweep", "once"}
    house.redis.faults.extend(["before"] * 200)  # pyright: ignore[reportArgumentType]
    await house.join()
    for n in range(20):
        house.ended(n, "0.5")
    await asyncio.sleep(5)
    assert (await house.at()).usd_nano == 0
    await house.settled()
    assert (await house.at()).usd_nano == 10 * NANO


@in_a_house
async def test_a_second_completion_of_a_job_counts_for_what_it_tells_besides(house: House) -> None:
    await house.join()
    house.ended(1, "0.5")
    house.ended(1, "0.5")
    await house.settled()
    house.ended(1, "0.5")
    house.ended(1, "0.5", "0.25")
    await house.settled()
    assert (await house.at()).usd_nano == 750_000_000


@in_a_house
async def test_what_is_no_completion_holds_nobody_up(house: House) -> None:
    await house.join()
    for junk in (b"", b"{", b"[]", b'{"job_id": "job_1"}', None):
        house.log.append(Outgoing(COMPLETIONS.name, b"job_1", junk, ()))
    house.log.append(Outgoing(COMPLETIONS.name, b"job_1", b"", ((H_DATAREF, b"job_1/gone"),)))
    house.ended(1, "0.5", accepted_ms=10_500_000_000_000)
    house.ended(1, "0.5")
    await house.settled()
    assert (await house.at()).usd_nano == 500_000_000


@in_a_house
async def test_what_cannot_be_read_now_is_read_later_and_nothing_is_left_out(house: House) -> None:
    class Disk:
        failures = 3

        async def get(self, reference: str) -> bytes:
            if self.failures:
                self.failures -= 1
                raise OSError("input/output error")
            return big.model_dump_json().encode()

    house.files = Disk()
    big = completion(job_id="job_8", caller=CALLER, accepted_ms=START_MS, attempts=(attempt(cost_usd=Decimal("0.5")),), steps=())
    house.ended(1, "0.5")
    house.log.append(Outgoing(COMPLETIONS.name, b"job_8", b"", ((H_DATAREF, b"job_8/completion"),)))
    house.ended(2, "0.5")
    await house.join()
    await house.settled()
    assert (await house.at()).usd_nano == 1_500_000_000


@in_a_house
async def test_a_redis_that_has_lost_everything_is_counted_anew(house: House) -> None:
    member = await house.join()
    house.ended(1, "0.5")
    await house.settled()
    await until(lambda: member.stage.not_ready() is None)
    house.redis.lose_everything()
    house.ended(2, "0.25")
    await until(lambda: house.opened == 1)
    await house.settled()
    house.ended(3, "0.125")
    await house.settled()
    assert (await house.at()).usd_nano == 875_000_000
    await until(lambda: member.stage.not_ready() is None)


@in_virtual_time
async def test_until_the_ledger_is_open_it_is_not_ready() -> None:
    house = House()
    tries = 0

    async def fails() -> None:
        nonlocal tries
        tries += 1
        raise ConnectionError("ClickHouse does not answer")

    opens = house._rebuild  # pyright: ignore[reportPrivateUsage]
    house._rebuild = fails  # pyright: ignore[reportPrivateUsage]
    house.ended(1, "0.5")
    member = await house.join()
    await until(lambda: tries == 3)
    assert member.stage.not_ready() == "settlement: the budgets are being counted anew"
    assert (await house.at()).usd_nano == 0
    member.stage._rebuild = opens  # pyright: ignore[reportPrivateUsage]
    await until(lambda: member.stage.not_ready() is None)
    await house.settled()
    assert (await house.at()).usd_nano == 500_000_000, "by the rebuild, which has read it, and not again by settling"
    await house.close()


@in_a_house
async def test_that_the_counters_are_lost_is_loud(house: House) -> None:
    member = await house.join()
    await until(lambda: member.stage.not_ready() is None)
    house.redis.lose_everything()
    await until(lambda: house.opened == 1)
    await until(lambda: "ledger_closed" in {alert.what for alert in house.alerts()})


@in_a_house
async def test_what_dead_jobs_hold_is_swept(house: House) -> None:
    await house.hold(1)
    await house.join()
    await asyncio.sleep(50)
    assert (await house.at()).held_usd_nano == NANO
    await asyncio.sleep(30)
    assert (await house.at()).held_usd_nano == 0


@in_a_house
async def test_a_share_of_a_budget_is_told_though_the_answer_of_the_settlement_was_lost(house: House) -> None:
    budget = Budget(usd=Decimal(1))
    house.table.put(Team(id="t", name="fraud", organization="acme", policy=Policy(budgets=(budget,))))
    house.table.version += 1
    house.redis.faults.append("after")
    await house.join()
    house.ended(1, "0.85")
    await house.settled()
    await until(lambda: bool(house.alerts()))
    alert, *_ = house.alerts()
    assert (alert.what, alert.team, alert.scope) == ("budget_share", "fraud", "team/fraud")


@in_a_house
async def test_what_is_settled_is_committed_for_who_looks_at_the_lag(house: House) -> None:
    member = await house.join()
    for n in range(10):
        house.ended(n, "0.5")
    await until(lambda: house.log.lags()[GROUP] == 0)
    house.ended(11, "0.5")
    await house.settled()
    await member.stage.drain()
    assert member.stage.not_ready() == "settlement: its loop has ended"


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(st.lists(st.decimals(0, 100, places=9), min_size=1, max_size=3), min_size=1, max_size=12),
    faults=st.lists(st.sampled_from(["before", "after"]), max_size=8),
    seed=st.integers(0, 2**32),
)
@example(jobs=[[Decimal("2E-9"), Decimal(0)]], faults=["after", *["before"] * 4], seed=1)
def test_in_the_end_nothing_is_held_and_spent_is_the_sum_of_all_calls(
    jobs: list[list[Decimal]], faults: list[Fault], seed: int
) -> None:
    """Two members, rebalances, zombies, a Redis that fails, completions that come again and tell of more."""

    @in_virtual_time
    async def test() -> None:
        chance, house = Random(seed), House()
        await house.open()
        house.redis.faults.extend(faults)
        await house.join()
        await house.join()
        for n, costs in enumerate(jobs):
            await house.hold(n)
            for upto in sorted({chance.randint(1, len(costs)), len(costs)}):
                house.ended(n, *map(str, costs[:upto]))
                await asyncio.sleep(chance.choice((0, 0, 0.02, 1.5)))
            match chance.randrange(5):
                case 0:
                    # The same members keep their partitions, as they remember whom they have paid for.
                    await house.log.rebalance(GROUP)
                case 1:
                    await asyncio.sleep(chance.random())
                case _:
                    pass
        await house.settled()
        found, exact = await house.at(), sum(house.calls.values(), Decimal(0))
        assert (found.held_usd_nano, found.held_tokens) == (0, 0)
        assert abs(Decimal(found.usd_nano) / NANO - exact) <= Decimal("1e-9")
        assert await ledger.open_holds(house.redis) == []
        await house.close()

    test()
