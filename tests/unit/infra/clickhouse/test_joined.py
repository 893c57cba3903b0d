"""Blocks that are closed at one time are written as one, and none is lost or held up by another."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouseRejected
from infra.clickhouse.joined import SMALL, Joined
from tests.fakes.clock import in_virtual_time


def plan(partition: int) -> Plan:
    return Plan("sluice.completions", partition, 10, 12)


class Books:
    """Refuses blocks with the row `bad`."""

    def __init__(self) -> None:
        self.written: list[tuple[Plan, list[str]]] = []
        self.away = asyncio.Event()
        self.away.set()

    async def __call__(self, plan: Plan, rows: Sequence[str]) -> None:
        await self.away.wait()
        if "bad" in rows:
            raise ClickHouseRejected("bad")
        self.written.append((plan, list(rows)))


@in_virtual_time
async def test_blocks_that_are_closed_together_are_written_as_one() -> None:
    books = Books()
    joined = Joined(books)
    await asyncio.gather(*(joined.write(plan(n), [f"{n}a", f"{n}b"]) for n in range(3)))
    ((one, rows),) = books.written
    assert rows == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert one.token not in {plan(n).token for n in range(3)}
    assert not one.again


@in_virtual_time
async def test_what_is_joined_goes_by_another_token_each_time() -> None:
    books = Books()
    joined = Joined(books)
    for _ in range(2):
        await asyncio.gather(*(joined.write(plan(n), ["a"]) for n in range(2)))
    first, second = (one.token for one, _ in books.written)
    assert first != second


@in_virtual_time
async def test_a_block_alone_keeps_its_token() -> None:
    books = Books()
    await Joined(books).write(plan(1), ["a"])
    assert books.written == [(plan(1), ["a"])]


@in_virtual_time
async def test_large_blocks_and_those_of_the_dead_go_by_themselves() -> None:
    books = Books()
    joined = Joined(books)
    large, again = ["x"] * SMALL, replace(plan(2), again=True)
    await asyncio.gather(joined.write(plan(1), large), joined.write(again, ["a"]), joined.write(plan(3), ["b"]))
    assert sorted((one.partition, one.topic, len(rows)) for one, rows in books.written) == [
        (1, "sluice.completions", SMALL),
        (2, "sluice.completions", 1),
        (3, "sluice.completions", 1),
    ]


@in_virtual_time
async def test_a_block_that_is_refused_keeps_no_other_out() -> None:
    books = Books()
    joined = Joined(books)
    told = await asyncio.gather(joined.write(plan(0), ["bad"]), joined.write(plan(1), ["good"]), return_exceptions=True)
    assert [type(one) for one in told] == [ClickHouseRejected, type(None)]
    assert [(one.partition, one.again, rows) for one, rows in books.written] == [(1, True, ["good"])]


@in_virtual_time
async def test_who_is_cancelled_takes_nobody_along() -> None:
    books = Books()
    joined = Joined(books)
    books.away.clear()
    gone, stays = (asyncio.create_task(joined.write(plan(n), [str(n)])) for n in range(2))
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(1)
    books.away.set()
    await stays
    assert [rows for _, rows in books.written] == [["0", "1"]]


@pytest.mark.parametrize("late_s", [0.0, 1.0])
@in_virtual_time
async def test_when_all_are_cancelled_nothing_is_left_behind(late_s: float) -> None:
    books = Books()
    joined = Joined(books)
    books.away.clear()
    tasks = [asyncio.create_task(joined.write(plan(n), ["old"])) for n in range(2)]
    await asyncio.sleep(late_s)
    for task in tasks:
        task.cancel()
    books.away.set()
    # Before the cancelled ones had a turn, too.
    later = asyncio.create_task(joined.write(plan(4), ["new"]))
    await asyncio.gather(*tasks, return_exceptions=True)
    await later
    await joined.write(plan(5), ["new"])
    assert [rows for _, rows in books.written] == [["new"], ["new"]]
