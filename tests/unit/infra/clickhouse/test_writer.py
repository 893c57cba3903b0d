"""The writer outlasts an absence of ClickHouse and drops nothing."""

import asyncio
from dataclasses import replace

import pytest

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouseRejected, ClickHouseUnavailable, Columns
from infra.clickhouse.writer import LONGEST_WAIT_S, BlockWriter

PLAN = Plan("sluice.completions", 2, 10, 12)
USAGE: Columns = {"job_id": ["job_1", "job_2"]}
ATTEMPTS: Columns = {"attempt_id": ["job_1:1"]}


class Table:
    """Fails as often as `errors` says, then keeps what it is given."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.stored: list[tuple[str, str]] = []

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.stored.append((table, token))


class Naps:
    """Sleeps that only write down how long they were to be."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


async def test_a_block_goes_into_each_table_under_its_token() -> None:
    table = Table([])
    await BlockWriter(table).write(PLAN, {"usage_log": USAGE, "attempts_log": ATTEMPTS})
    assert table.stored == [("usage_log", PLAN.token), ("attempts_log", PLAN.token)]


async def test_a_table_without_rows_is_left_out() -> None:
    table = Table([])
    await BlockWriter(table).write(PLAN, {"usage_log": USAGE, "attempts_log": {"attempt_id": []}, "audit_log": {}})
    assert table.stored == [("usage_log", PLAN.token)]


async def test_it_tries_until_clickhouse_is_back_and_waits_longer_each_time() -> None:
    table, naps = Table([ClickHouseUnavailable("away")] * 9), Naps()
    writer = BlockWriter(table, sleep=naps, jitter=lambda: 1.0)
    await writer.write(PLAN, {"usage_log": USAGE})
    ((_, token),) = table.stored
    assert token.startswith(f"{PLAN.token}:"), "ClickHouse may have noted the token, and lost the rows"
    assert naps.waits_s == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert writer.failing is None


async def test_what_somebody_else_may_have_begun_goes_by_a_token_of_its_own() -> None:
    table = Table([])
    for _ in range(2):
        await BlockWriter(table).write(replace(PLAN, again=True), {"usage_log": USAGE})
    assert len({PLAN.token, *(token for _, token in table.stored)}) == 3


async def test_it_says_that_it_fails_and_can_be_cancelled() -> None:
    asleep = asyncio.Event()

    async def sleep_for_ever(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    table = Table([ClickHouseUnavailable("away")])
    writer = BlockWriter(table, sleep=sleep_for_ever)
    writing = asyncio.create_task(writer.write(PLAN, {"usage_log": USAGE}))
    await asleep.wait()
    assert writer.failing == "away"
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert table.stored == []


async def test_what_clickhouse_refuses_is_raised() -> None:
    table = Table([ClickHouseRejected("no such column")])
    with pytest.raises(ClickHouseRejected):
        await BlockWriter(table).write(PLAN, {"usage_log": USAGE})
