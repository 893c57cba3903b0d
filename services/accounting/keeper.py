"""Stages that keep what a topic says, a row a record, each in a group of its own: bills don't wait for it, nor it for them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouse
from infra.clickhouse.writer import BlockWriter
from infra.kafka.block_stage import BlockStage, Limits
from infra.kafka.envelope import Poison
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.platform import Platform
from infra.telemetry import metrics
from services.accounting import policy
from services.accounting.rows import Row

LIMITS: Final = Limits(policy.BLOCK_ROWS, policy.BLOCK_BYTES, policy.BLOCK_AGE_S)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept: the rows of which topics, in which table, under which name. `row_of`: a record's row, or why it has none."""

    name: str
    topics: Sequence[str]
    table: str
    row_of: Callable[[Incoming], Row | Poison]


class Keeper:
    """Keeps rows."""

    def __init__(self, keeping: Keeping, post: Post, writer: BlockWriter) -> None:
        self._keeping, self._post, self._writer = keeping, post, writer

    async def read(self, record: Incoming) -> Row | None:
        """The row of a record; None for what has none, which goes to the dead letters."""
        found = self._keeping.row_of(record)
        if not isinstance(found, Poison):
            return found
        await put_aside(self._post, self._keeping.name, record, found)
        return None

    async def write(self, plan: Plan, rows: Sequence[Row]) -> None:
        """Writes a block. Waits for as long as ClickHouse is away; raises ClickHouseRejected."""
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        await self._writer.write(plan, {self._keeping.table: columns})
        metrics.ROWS.labels(self._keeping.name).inc(len(rows))


async def put_aside(post: Post, name: str, record: Incoming, why: Poison) -> None:
    """Sends a record that has no row to the dead letters. Raises what the connection raises."""
    log.warning("%s: %s at %s/%d@%d: %s", name, why.reason, record.topic, record.partition, record.offset, why.detail)
    await post.dead(record, why)


def keeper_stage(platform: Platform, keeping: Keeping, post: Post, clickhouse: ClickHouse) -> BlockStage[Row]:
    """The stage of topics with one partition each: a second instance of this service has nothing to do in it."""
    keeper = Keeper(keeping, post, BlockWriter(clickhouse))
    source = platform.source(keeping.name, *keeping.topics)
    return BlockStage(keeping.name, source, keeper.read, keeper.write, LIMITS, may_idle=True)
