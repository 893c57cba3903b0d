"""Counts anew what was spent, after Redis has lost it: from the books, and from the completions that aren't in them yet.

Meanwhile the ledger is closed: who has a hard budget is told to come again. What is held for interactive jobs that are on their
way is held again; jobs of the batch lane are counted when they end (RELIABILITY.md 5.10, G11).
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from infra import budgets, hierarchy
from infra.clickhouse.blocks import parse_metadata
from infra.clickhouse.client import ClickHouse
from infra.kafka.broker import Kafka
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Mark, Partition
from infra.kafka.offsets import decode as unfinished
from infra.platform import Platform
from infra.redis.admission import Charge, Limits
from infra.redis.ledger import Settlement, hold_again, open_ledger
from schemas.job import Job
from schemas.slip import Stage
from schemas.topics import COMPLETIONS, ROUTER, Lane, job_topic
from services.accounting.books import booked
from services.accounting.ended import read_ended
from services.accounting.sums import Sums

log = logging.getLogger(__name__)

_POLL_S: Final = 0.2


class Rebuild:
    """Counts everything anew."""

    def __init__(self, platform: Platform, clickhouse: ClickHouse) -> None:
        self._platform, self._clickhouse = platform, clickhouse

    async def __call__(self) -> None:
        """Opens the ledger, unless somebody else does. Raises what Kafka, ClickHouse and Redis raise."""
        platform = self._platform
        began = asyncio.get_running_loop().time()
        marks = await self._marks()
        # What is on its way into ClickHouse now is left out there, and read from the log.
        cut = {partition.partition: mark.offset - 1 for partition, mark in marks.items()}
        spent = await booked(self._clickhouse, platform.control.table, platform.clock(), cut)
        settled, unbooked = await self._unbooked({p: mark.offset for p, mark in marks.items()}, Sums(platform.control.table))
        for key, more in unbooked.spent.items():
            known = spent.setdefault(key, more)
            if known is not more:
                known.usd_nano += more.usd_nano
                known.tokens += more.tokens
        ended = {job_id for job_id, _ in unbooked.jobs}
        held = await self._hold_again(ended)
        if await open_ledger(platform.redis, secrets.token_hex(8), settled, spent):
            seconds = asyncio.get_running_loop().time() - began
            log.info("ledger: open after %.1f s, with %d counters; %d jobs on their way", seconds, len(spent), held)

    async def _marks(self) -> dict[Partition, Mark]:
        """Where accounting stands."""
        partitions = [Partition(COMPLETIONS.name, n) for n in range(COMPLETIONS.partitions)]
        found = await self._platform.kafka.committed("sluice-accounting", partitions)
        for mark in found.values():
            parse_metadata(mark.metadata)
        return found

    async def _unbooked(self, booked: Mapping[Partition, int], sums: Sums) -> tuple[dict[int, int], Settlement]:
        """What the log has beyond the books; and of each partition its last record."""
        settlement, before = Settlement(), dict[str, frozenset[str]]()
        reader = await self._platform.kafka.reader([Partition(COMPLETIONS.name, n) for n in range(COMPLETIONS.partitions)])
        last = dict[int, int]()
        try:
            starts = await reader.starts()
            for partition, start in starts.items():
                begin = max(start, booked.get(partition, 0))
                reader.seek(partition, begin)
                last[partition.partition] = begin - 1
            async for records in reader.rest(_POLL_S):
                for record in records:
                    last[record.partition] = record.offset
                    if ended := await read_ended(record, self._platform.files):
                        sums.add(settlement, ended, before)
        finally:
            await reader.stop()
        return last, settlement

    async def _hold_again(self, ended: set[str]) -> int:
        """Holds again what interactive jobs may cost that are on their way. Gives how many there are."""
        count, now_ms = 0, self._platform.clock()
        for stage in (Stage.GUARD, Stage.CACHE, Stage.ROUTER):
            for job in await self._on_their_way(stage):
                if job.estimate is None or job.id in ended or job.deadline_ms <= now_ms:
                    continue
                organization = self._platform.control.table.organizations.get(job.caller.organization)
                levels = hierarchy.levels(self._platform.control.table, job.caller)
                lines = budgets.lines(levels, job.accepted_ms, organization.time_zone if organization else "UTC")
                charge = Charge(
                    Limits(allowances=budgets.hard(lines)),
                    tokens=job.estimate.input_tokens + job.estimate.output_tokens,
                    usd_nano=job.estimate.usd_nano,
                    lease_ms=job.deadline_ms - now_ms + _GRACE_MS,
                )
                count += await hold_again(self._platform.redis, charge, job.id)
        return count

    async def _on_their_way(self, stage: Stage) -> Sequence[Job]:
        topic = job_topic(stage.value, Lane.INTERACTIVE)
        partitions = [Partition(topic, n) for n in range(ROUTER.partitions)]
        marks = await self._platform.kafka.committed(f"sluice-{stage.value}", partitions)
        return await _unfinished_jobs(self._platform, self._platform.kafka, partitions, marks)


_GRACE_MS: Final = 60_000


async def _unfinished_jobs(
    platform: Platform, kafka: Kafka, partitions: Sequence[Partition], marks: Mapping[Partition, Mark]
) -> list[Job]:
    reader = await kafka.reader(partitions)
    found: list[Job] = []
    pending: dict[Partition, tuple[set[int], int]] = {}
    try:
        for partition, start in (await reader.starts()).items():
            mark = marks.get(partition, Mark(start))
            pending[partition] = unfinished(mark.offset, mark.metadata)
            reader.seek(partition, max(start, mark.offset))
        async for records in reader.rest(_POLL_S):
            for record in records:
                open_, following = pending[Partition(record.topic, record.partition)]
                if record.offset < following and record.offset not in open_:
                    continue
                resolved = await fetched(record, platform.files)
                job = resolved if isinstance(resolved, Poison) else decode(resolved, Job)
                if isinstance(job, Job):
                    found.append(job)
    finally:
        await reader.stop()
    return found
