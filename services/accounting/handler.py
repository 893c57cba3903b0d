"""The way of one completion into the books."""

import asyncio
import logging
from collections.abc import Sequence

from infra.clickhouse.blocks import Plan
from infra.clickhouse.writer import BlockWriter
from infra.files import FileStore
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.telemetry import metrics
from schemas.completion import Completion
from services.accounting import policy
from services.accounting.rows import Bill, bill, tables

log = logging.getLogger(__name__)


class Accounting:
    """Bills completions."""

    def __init__(self, post: Post, files: FileStore, writer: BlockWriter) -> None:
        self._post = post
        self._files = files
        self._writer = writer
        self.writing = asyncio.Lock()

    async def read(self, record: Incoming) -> Bill | None:
        """The rows of a completion; None for what can't be billed, which goes to the dead letters."""
        found = await self._bill(record)
        if not isinstance(found, Poison):
            return found
        log.warning("accounting: %s at %s/%d@%d: %s", found.reason, record.topic, record.partition, record.offset, found.detail)
        await self._post.dead(record, found)
        return None

    async def write(self, plan: Plan, bills: Sequence[Bill]) -> None:
        """Writes a block. Waits for as long as ClickHouse is away; raises ClickHouseRejected."""
        filled = await asyncio.to_thread(tables, bills)
        async with self.writing:
            await self._writer.write(plan, filled)
        metrics.ROWS.labels("usage").inc(len(bills))
        metrics.ROWS.labels("attempts").inc(sum(len(one.attempts) for one in bills))

    async def _bill(self, record: Incoming) -> Bill | Poison:
        resolved = await fetched(record, self._files)
        completion = resolved if isinstance(resolved, Poison) else decode(resolved, Completion)
        if isinstance(completion, Poison):
            return completion
        if reason := policy.flaw(completion):
            return Poison("unbillable", reason)
        return bill(completion, record.offset)
