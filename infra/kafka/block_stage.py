"""The driver of a stage that takes the records of each partition in order and writes them away in blocks.

What it does when is decided by `infra.clickhouse.blocks` (pure): the plan of a block is committed before the block is written,
so that whoever comes after a crash writes the very same block, which is then recognised. On a rebalance nothing is finished: what
was begun is dropped here, and its plan lets the successor do it again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from infra.clickhouse.blocks import Blocks, Commit, Insert, Plan
from infra.kafka.log import CommitRefused, Incoming, Mark, Partition, Source
from infra.telemetry import metrics

Row = TypeVar("Row")

Read = Callable[[Incoming], Awaitable[Row | None]]
"""Makes a record what goes into a block: the same for the same record. None: it was put aside. Tried again if it raises."""

Write = Callable[[Plan, Sequence[Row]], Awaitable[None]]
"""Writes a block away; nothing may come of it the second time. Tried again if it raises."""

log = logging.getLogger(__name__)

_AT_ONCE = 100
_IDLE_POLL_S = 1.0
_BUSY_POLL_S = 0.02
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
# The group's patience with a member that doesn't return from a rebalance is its session timeout, 10 s.
_ASK_AGAIN_S = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a block: it is closed at `rows` records, or `size_bytes` of them, or within `age_s` after it could have been begun.

    A partition that holds so much is not read any further.
    """

    rows: int
    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class _Held(Generic[Row]):
    row: Row | None
    size_bytes: int


class _Way(Generic[Row]):
    """One partition's records, from their arrival to the end of their block. Thrown away when the partition goes."""

    def __init__(self, partition: Partition, mark: Mark | None, limits: Limits) -> None:
        """Raises ValueError when what is committed is none of ours."""
        offset, metadata = mark or Mark(0)
        self._blocks: Blocks[_Held[Row]] = Blocks(*partition, offset, metadata)
        self._limits = limits
        self._size_bytes = 0
        self._moved = asyncio.Event()
        self._ended = False

    @property
    def has_room(self) -> bool:
        return self._blocks.waits or not self._full

    @property
    def pending(self) -> int:
        return self._blocks.pending

    def arrive(self, record: Incoming, row: Row | None) -> None:
        before, size_bytes = self._blocks.pending, len(record.value or b"")
        self._blocks.arrive(record.offset, _Held(row, size_bytes))
        if self._blocks.pending > before:
            self._size_bytes += size_bytes
            self._moved.set()

    def end(self) -> None:
        """No more records come: what is here makes the last blocks."""
        self._ended = True
        self._moved.set()

    async def next_step(self) -> Commit | Insert[_Held[Row]] | None:
        """What has to be done now, as soon as there is something. None: nothing more after `end`."""
        while (step := self._blocks.step()) is None:
            if self._ended and (self._blocks.waits or not self._blocks.pending):
                return None
            await self._gather()
            self._blocks.cut(self._limits.rows)
        return step

    def done(self, step: Commit | Insert[_Held[Row]]) -> None:
        self._blocks.done()
        if isinstance(step, Insert):
            self._size_bytes -= sum(held.size_bytes for held in step.rows)

    async def _gather(self) -> None:
        """Waits for the rest of a plan, or else for a record, and then for more of them as long as one may wait."""
        while not self._ended and (self._blocks.waits or not self._blocks.pending):
            await self._more()
        if self._blocks.step() is None:
            with suppress(TimeoutError):
                # All partitions at one time: their blocks can go together.
                age_s = self._limits.age_s
                async with asyncio.timeout(age_s - asyncio.get_running_loop().time() % age_s):
                    while not (self._full or self._ended):
                        await self._more()

    async def _more(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    @property
    def _full(self) -> bool:
        return self._blocks.pending >= self._limits.rows or self._size_bytes >= self._limits.size_bytes


class BlockStage(Generic[Row]):
    """Reads topics as a member of a group, each partition in order, and writes blocks of their records, each once."""

    def __init__(
        self, name: str, source: Source, read: Read[Row], write: Write[Row], limits: Limits, *, may_idle: bool = False
    ) -> None:
        """`may_idle`: of fewer partitions than members, so that one without any is ready too."""
        self.name = name
        self._may_idle = may_idle
        self._source = source
        self._read = read
        self._write = write
        self._limits = limits
        self._ways: dict[Partition, _Way[Row]] = {}
        self._tasks: dict[Partition, asyncio.Task[None]] = {}
        self._stuck: dict[Partition, str] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self) -> None:
        """Joins the group and begins to take records."""
        await self._source.start(self)
        self._loop = asyncio.create_task(self._take())

    def not_ready(self) -> str | None:
        """Why the stage isn't ready, or None if it is."""
        if self._stuck:
            return next(iter(self._stuck.values()))
        if not self._ways and not self._may_idle:
            return f"{self.name}: no partitions assigned yet"
        if self._loop is None or self._loop.done():
            return f"{self.name}: its loop has ended"
        return None

    def has(self, partition: Partition) -> bool:
        """Whether the partition is ours now, as far as we know: of all members at most one for long."""
        return partition in self._ways

    async def drain(self, grace_s: float) -> None:
        """Takes nothing new, writes away what is here within `grace_s`. The rest is read again by whoever comes next."""
        self._draining = True
        if self._loop is not None:
            await _cancelled([self._loop])
        for way in self._ways.values():
            way.end()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_s)
        await _cancelled(self._tasks.values())

    async def stop(self) -> None:
        """Leaves the group."""
        await self._source.stop()

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Drops what is here and returns. A block that is on its way to the store may still arrive there: its plan is known."""
        tasks = [self._tasks.pop(partition) for partition in partitions if partition in self._tasks]
        for partition in partitions:
            self._ways.pop(partition, None)
            self._stuck.pop(partition, None)
        await _cancelled(tasks)
        metrics.REBALANCES.labels(self.name).inc()

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Begins with each partition where the group stands. Before that is known no record may be taken."""
        if self._draining or not partitions:
            return
        marks = await self._standing(partitions)
        for partition in partitions:
            try:
                way = _Way[Row](partition, marks.get(partition), self._limits)
            except ValueError as error:
                log.error("%s: can't begin with %s/%d: %s", self.name, *partition, error)
                self._stuck[partition] = f"{self.name}: {error}"
            else:
                self._ways[partition] = way
                self._tasks[partition] = asyncio.create_task(self._serve(partition, way))
        self._changed.set()

    async def _standing(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        """What the group has committed. Without it nothing can be taken, so it is asked again."""
        for pause_s in _ASK_AGAIN_S:
            try:
                return await self._source.committed(partitions)
            except Exception as error:
                log.warning("%s: can't ask for what is committed (%s), trying again", self.name, type(error).__name__)
                await asyncio.sleep(pause_s)
        try:
            return await self._source.committed(partitions)
        except Exception as error:
            what = f"{self.name}: was given partitions and can't read what is committed ({type(error).__name__})"
            self._stuck |= dict.fromkeys(partitions, what)
            raise

    async def _serve(self, partition: Partition, way: _Way[Row]) -> None:
        """A partition's task, until it is revoked or everything is drained."""
        while (step := await way.next_step()) is not None:
            await self._patiently(partition, step)
            way.done(step)
            self._changed.set()

    async def _patiently(self, partition: Partition, step: Commit | Insert[_Held[Row]]) -> None:
        """Does a step until it is known to be done."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                await self._do(partition, step)
                self._stuck.pop(partition, None)
                return
            except CommitRefused:
                log.info("%s: a commit was refused, the group is rebalancing", self.name)
            except Exception as error:
                what = f"write {step.plan.token}" if isinstance(step, Insert) else f"commit {partition}"
                log.warning("%s: can't %s, trying again", self.name, what, exc_info=error)
                if isinstance(step, Insert):
                    self._stuck[partition] = f"{self.name}: can't {what} ({type(error).__name__})"
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _do(self, partition: Partition, step: Commit | Insert[_Held[Row]]) -> None:
        match step:
            case Commit(offset, metadata):
                await self._source.commit({partition: Mark(offset, metadata)})
            case Insert(plan, rows):
                await self._write(plan, [held.row for held in rows if held.row is not None])

    async def _take(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                await self._take_some()
                wait_s = _FIRST_WAIT_S
            except Exception as error:
                log.warning("%s: can't read (%s), trying again", self.name, type(error).__name__)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _take_some(self) -> None:
        self._changed.clear()
        metrics.STAGE_BUSY.labels(self.name).set(sum(way.pending for way in self._ways.values()))
        roomy = [partition for partition, way in self._ways.items() if way.has_room]
        if not roomy:
            await self._changed.wait()
            return
        patience_s = _IDLE_POLL_S if len(roomy) == len(self._ways) else _BUSY_POLL_S
        records = await self._source.poll(roomy, _AT_ONCE, patience_s)
        # As it is now: over a rebalance there are other ways, which begin elsewhere.
        ways = dict(self._ways)
        for record in records:
            partition = Partition(record.topic, record.partition)
            if way := ways.get(partition):
                way.arrive(record, await self._row(partition, record))

    async def _row(self, partition: Partition, record: Incoming) -> Row | None:
        """Never gives up: the record behind this one must not be taken for the next."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await self._read(record)
            except Exception as error:
                log.warning("%s: can't read %s/%d@%d, trying again", self.name, *partition, record.offset, exc_info=error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


async def _cancelled(tasks: Collection["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
