"""What is kept for auditors, from `sluice.audit` into `sluice.audit_log`, and each record's link into `sluice.audit_chain`."""

import time
from collections.abc import Sequence
from typing import Final

from infra.audit import AuditRow, Head, Link, end_of, links
from infra.clickhouse.blocks import Plan, version
from infra.clickhouse.client import ClickHouse, Columns
from infra.clickhouse.writer import BlockWriter
from infra.events import Acts
from infra.files import FileStore
from infra.kafka.block_stage import BlockStage
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.platform import Platform
from infra.telemetry import metrics
from schemas.audit import AuditRecord
from schemas.topics import AUDIT
from services.accounting import policy
from services.accounting.keeper import LIMITS, put_aside

ROWS: Final = "sluice.audit_log"
CHAIN: Final = "sluice.audit_chain"
GROUP: Final = "audit"
ANCHOR_S: Final = 600.0

_LATEST_S: Final = 4_102_444_800
_HEAD = """
SELECT n, seq, row_hash FROM sluice.audit_chain FINAL
WHERE partition = {partition:UInt32} AND seq < {first:UInt64} ORDER BY seq DESC LIMIT 1
"""


class Audit:
    """Keeps audit records."""

    def __init__(self, post: Post, files: FileStore, clickhouse: ClickHouse, acts: Acts) -> None:
        self._post = post
        self._files = files
        self._clickhouse = clickhouse
        self._writer = BlockWriter(clickhouse)
        self._acts = acts
        self._anchored_s: dict[int, float] = {}

    async def read(self, record: Incoming) -> AuditRow | None:
        """The row of a record; None for what is none, which goes to the dead letters."""
        resolved = await fetched(record, self._files)
        found = resolved if isinstance(resolved, Poison) else decode(resolved, AuditRecord)
        row = found if isinstance(found, Poison) else row_of(found, record)
        if isinstance(row, AuditRow):
            return row
        await put_aside(self._post, GROUP, record, row)
        return None

    async def write(self, plan: Plan, rows: Sequence[AuditRow]) -> None:
        """Writes a block, its links last: what the chain says is there. The same links whenever it is repeated."""
        made = list(links(await self._head(plan), rows))
        await self._writer.write(plan, {ROWS: row_columns(rows), CHAIN: link_columns(made)})
        metrics.ROWS.labels("audit").inc(len(rows))
        if made:
            await self._anchor(made[-1])

    async def _head(self, plan: Plan) -> Head:
        found = await self._clickhouse.query(_HEAD, {"partition": plan.partition, "first": plan.first})
        return Head(**found[0]) if found else Head()  # pyright: ignore[reportArgumentType]

    async def _anchor(self, last: Link) -> None:
        """Tells now and then where the chain stands, so that nobody can cut off its end unseen."""
        now = time.monotonic()
        if now < self._anchored_s.get(last.partition, 0):
            return
        head = end_of(last)
        told = {"partition": last.partition, "n": head.n, "seq": head.seq, "row_hash": head.row_hash}
        await self._acts.tell("sluice", "audit.anchored", f"audit/{last.partition}", after={**told})
        self._anchored_s[last.partition] = now + ANCHOR_S


def audit_stage(platform: Platform, post: Post, clickhouse: ClickHouse) -> BlockStage[AuditRow]:
    """The stage that keeps audit records, in a group of its own: the bills don't wait for it."""
    audit = Audit(post, platform.files, clickhouse, Acts(platform.kafka, platform.clock))
    return BlockStage(GROUP, platform.source(GROUP, AUDIT.name), audit.read, audit.write, LIMITS, may_idle=True)


def row_of(record: AuditRecord, place: Incoming) -> AuditRow | Poison:
    """The row of a record that stands in this place, or why it has none: ClickHouse would refuse its block for ever."""
    if not 0 <= record.accepted_ms < policy.MOST_MS or not 0 <= record.ended_ms < policy.MOST_MS:
        return Poison("unwritable", "a time is out of range")
    caller = record.caller
    return AuditRow(
        job_id=record.job_id,
        partition=place.partition,
        seq=place.offset,
        content=record.content,
        salt=record.salt,
        organization=caller.organization,
        team=caller.team,
        project=caller.project,
        environment=caller.environment,
        key_id=caller.key_id,
        user=caller.user,
        identity=caller.identity,
        model=record.model,
        deployment=record.deployment,
        provider=record.provider,
        provider_model=record.provider_model,
        model_version=record.model_version,
        status=record.status.value,
        error=record.error,
        cache=record.cache,
        verdict=record.verdict.model_dump_json() if record.verdict else "",
        policy=record.policy_version,
        price_version=record.price_version,
        ts=record.accepted_ms,
        ended=record.ended_ms,
        ended_by=record.ended_by,
        trace_id=record.trace_id,
        expires_at=max(0, min(record.expires_ms // 1000, _LATEST_S)),
        prompt=record.prompt,
        context=record.context,
        completion=record.completion,
    )


def row_columns(rows: Sequence[AuditRow]) -> Columns:
    """Of a block; of one job the first record stands."""
    columns: dict[str, list[object]] = {name: [getattr(row, name) for row in rows] for name in AuditRow.model_fields}
    return columns | {"version": [version(row.seq) for row in rows]}


def link_columns(made: Sequence[Link]) -> Columns:
    """Of a block."""
    return {name: [getattr(one, name) for one in made] for name in Link.model_fields}
