"""Puts a planned block into its tables, however long ClickHouse is away.

Nothing is dropped here: while ClickHouse is unavailable the block is tried again, and whoever feeds the writer reads no
further from Kafka meanwhile, which is the buffer (RELIABILITY.md, G5). A token makes a block that is sent twice count once; but
ClickHouse notes it before the rows are safe, so who is killed in between would drop the block for ever (seen in tests). Hence
whatever may have been begun before goes by a token of its own: rows that are there already are replaced by themselves.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouseUnavailable, Columns

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 10.0

_log = logging.getLogger(__name__)


class Inserter(Protocol):
    """What a writer needs of ClickHouse."""

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        """As `infra.clickhouse.client.ClickHouse.insert`."""
        ...


class BlockWriter:
    """One after another, blocks of one or more partitions. `failing` is None while ClickHouse takes them."""

    def __init__(
        self,
        clickhouse: Inserter,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` gives 0 ≤ x < 1."""
        self._clickhouse = clickhouse
        self._sleep = sleep
        self._jitter = jitter
        self.failing: str | None = None

    async def write(self, plan: Plan, tables: Mapping[str, Columns]) -> None:
        """Insert the rows of the block `plan` into each of `tables` (full names); tables without rows are left out.

        Returns when all of it is stored. Waits and tries again for as long as ClickHouse is unavailable; cancel it
        to stop. Raises ClickHouseRejected, with the block still to be written.
        """
        for table, columns in tables.items():
            if any(columns.values()):
                await self._insert(table, columns, plan)

    async def _insert(self, table: str, columns: Columns, plan: Plan) -> None:
        wait_s, token = FIRST_WAIT_S, plan.token
        is_new = not plan.again
        while True:
            try:
                await self._clickhouse.insert(table, columns, token if is_new else f"{token}:{secrets.token_hex(4)}")
            except ClickHouseUnavailable as error:
                is_new = False
                self._fails(table, token, error)
                await self._sleep(wait_s * (0.5 + self._jitter() / 2))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._works(table, token)
                return

    def _fails(self, table: str, token: str, error: ClickHouseUnavailable) -> None:
        if self.failing is None:
            _log.warning("ClickHouse is unavailable; block %s waits for %s: %s", token, table, error)
        self.failing = str(error)

    def _works(self, table: str, token: str) -> None:
        if self.failing is not None:
            _log.warning("ClickHouse is back; block %s is in %s", token, table)
        self.failing = None
