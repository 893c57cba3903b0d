"""The way of one completion into the books."""

import asyncio
from collections.abc import Sequence

from infra.clickhouse.blocks import Plan
from infra.clickhouse.writer import BlockWriter
from infra.clock import new_id
from infra.files import FileStore
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.telemetry import metrics
from schemas.completion import Completion
from services.accounting import policy
from services.accounting.keeper import put_aside
from services.accounting.rows import Bill, bill, tables


class Accounting:
    """Bills completions."""

    def __init__(self, post: Post, files: FileStore, writer: BlockWriter) -> None:
        self._post = post
        self._files = files
        self._writer = writer

    async def read(self, record: Incoming) -> Bill | None:
        """The rows of a completion; None for what can't be billed, which goes to the dead letters."""
        found = await self._bill(record)
        if not isinstance(found, Poison):
            return found
        await put_aside(self._post, "accounting", record, found)
        return None

    async def write(self, plan: Plan, bills: Sequence[Bill]) -> None:
        """Writes a block. Waits for as long as ClickHouse is away; raises ClickHouseRejected."""
        filled = await asyncio.to_thread(tables, bills)
        await self._writer.write(plan, filled)
        metrics.ROWS.labels("usage").inc(len(bills))
        metrics.ROWS.labels("attempts").inc(sum(len(one.attempts) for one in bills))

    async def write_again(self, records: Sequence[Incoming]) -> int:
        """Writes completions that are missing, and gives how many can be billed; rows that are there are replaced by themselves.

        Raises ClickHouseRejected.
        """
        found = [(record, row) for record in records if isinstance(row := await self._bill(record), Bill)]
        if found:
            first, last = found[0][0], found[-1][0]
            plan = Plan(f"again:{new_id('evt', first.timestamp)}", first.partition, first.offset, last.offset)
            await self._writer.write(plan, tables([row for _, row in found]))
        return len(found)

    async def _bill(self, record: Incoming) -> Bill | Poison:
        resolved = await fetched(record, self._files)
        completion = resolved if isinstance(resolved, Poison) else decode(resolved, Completion)
        if isinstance(completion, Poison):
            return completion
        if reason := policy.flaw(completion):
            return Poison("unbillable", reason)
        return bill(completion, record.offset, record.partition)
