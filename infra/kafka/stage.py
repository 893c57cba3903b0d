"""The driver of a stage: poll, spawn, commit, revoke, adopt, drain. The only asyncio among the four files of the design
(`offsets`, `capacity` and `envelope` are pure).

Each record is one task, bounded by `Capacity`. On a rebalance nothing is drained and nothing dropped: revoked commits what is
finished and returns at once, running work goes on, and what comes back is adopted (HOUSE.md 3a).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from infra.kafka.capacity import Capacity
from infra.kafka.log import CommitRefused, Incoming, Mark, Partition, Source
from infra.kafka.offsets import MAX_SPAN, Offsets
from infra.kafka.turns import Ahead, Turns
from infra.pace import Pace
from infra.telemetry import metrics
from schemas.topics import Lane

Work = Callable[[Incoming, bool], Awaitable[None]]
"""Works on one record to its acknowledged end; the flag says that it may have been delivered before.

Whatever can be handled (poison, an expired deadline, a provider's error) ends normally. If it raises, it is tried again, and the
stage is not ready until that goes well.
"""


class Load(NamedTuple):
    """What waits in a partition: how many records, and how long the one that was taken last had waited."""

    depth: int
    wait_ms: int


log = logging.getLogger(__name__)

COMMIT_EVERY_S = 0.2
_IDLE_POLL_S = 1.0
_BUSY_POLL_S = 0.01
_AT_ONCE = 256
_IN_TURN = 64
_AHEAD = Ahead(records=256, size=8 * 1024 * 1024)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# The group's patience with a member that doesn't return from a rebalance is its session timeout, 10 s.
_ASK_AGAIN_S = (0.1, 0.2, 0.4, 0.8)


def _by_key(record: Incoming) -> bytes:
    return record.key or b""


class Stage:
    """Reads topics as a member of a group and works on their records, many at once.

    `ahead`: how much it may read that has no place yet, so that each team (`team_of` a record) gets its turn.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        work: Work,
        total: int,
        pace: Pace | None = None,
        *,
        ahead: Ahead = _AHEAD,
        team_of: Callable[[Incoming], bytes] = _by_key,
    ) -> None:
        self.name = name
        self._pace = pace
        self._turns = Turns(ahead)
        self._span = max(MAX_SPAN, 2 * ahead.records)
        self._team_of = team_of
        self._source = source
        self._work = work
        self._capacity = Capacity.of(total)
        self._failing: dict[tuple[Partition, int], str] = {}
        self._taken_ms: dict[Partition, int] = {}
        self._crowded = False
        self._turn = 0
        self._seconds = {lane: metrics.STAGE_SECONDS.labels(name, lane.value) for lane in Lane}
        self._offsets: dict[Partition, Offsets] = {}
        self._owned: set[Partition] = set()
        self._first_new: dict[Partition, int] = {}
        self._committed: dict[Partition, Mark] = {}
        self._tasks: dict[asyncio.Task[None], float] = {}
        self._changed = asyncio.Event()
        self._uncommitted = asyncio.Event()
        self._uncommitted.set()
        self._loops: list[asyncio.Task[None]] = []
        self._broken: str | None = None

    async def start(self) -> None:
        """Joins the group and begins to take records."""
        await self._source.start(self)
        self._loops = [asyncio.create_task(self._take()), asyncio.create_task(self._commit_often())]

    def not_ready(self) -> str | None:
        """Why the stage isn't ready, or None if it is."""
        if self._broken:
            return self._broken
        if self._failing:
            return next(iter(self._failing.values()))
        if not self._owned:
            return f"{self.name}: no partitions assigned yet"
        if any(loop.done() for loop in self._loops):
            return f"{self.name}: its loop has ended"
        return None

    def lend(self, lane: Lane) -> bool:
        """Gives a place to work that comes from within this process, if there is one to spare: what comes by Kafka keeps half."""
        if self.not_ready() or self._capacity.busy >= self._capacity.total // 2 or not self._capacity.room(lane):
            return False
        self._capacity.take(lane)
        return True

    def take_back(self, lane: Lane) -> None:
        """The work that a place was lent to has ended."""
        self._capacity.give_back(lane)
        self._changed.set()

    async def drain(self, grace_s: float) -> None:
        """Leaves the group, so that others serve its partitions now; lets running work end within `grace_s`, cancels the rest.

        Whoever gets the partitions is given what still runs here too, and finds by its record that it is at work, or done. Where
        nobody is left to get them, what has ended is committed after all.
        """
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._let_go(self._owned)
        await self._commit_before("it leaves")
        await self._source.stop()
        if not self._tasks:
            return
        await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._commit_before("it ends")

    async def stop(self) -> None:
        """Leaves the group."""
        await self._source.stop()

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Commits what is finished and returns; running work goes on, its offsets are no longer ours to commit."""
        await self._commit_before("it loses its partitions")
        self._owned -= set(partitions)
        self._let_go(partitions)
        metrics.REBALANCES.labels(self.name).inc()

    async def _commit_before(self, event: str) -> None:
        """What isn't committed is delivered again, to whoever has the partitions then: no reason to stop here."""
        try:
            await self._commit()
        except CommitRefused:
            log.info("%s: the group moved on before %s", self.name, event)
        except Exception as error:
            log.warning("%s: no commit before %s (%s)", self.name, event, type(error).__name__)

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Reads what is finished, and adopts what still runs here."""
        if not partitions:
            return
        marks, ends = await self._standing(partitions)
        for partition in partitions:
            offsets = self._offsets.setdefault(partition, Offsets(self._span))
            self._committed.pop(partition, None)
            if mark := marks.get(partition):
                offsets.assign(mark.offset, mark.metadata)
                self._committed[partition] = mark
            self._first_new[partition] = ends.get(partition, 0)
        self._broken = None
        self._owned |= set(partitions)
        self._changed.set()
        self._uncommitted.set()

    async def _standing(self, partitions: Collection[Partition]) -> tuple[dict[Partition, Mark], dict[Partition, int]]:
        """What the group has committed, and where the partitions end. Without it nothing can be taken, so it is asked again."""
        for pause_s in _ASK_AGAIN_S:
            try:
                return await self._source.committed(partitions), await self._source.end(partitions)
            except Exception as error:
                log.warning("%s: can't ask for what is committed (%s), trying again", self.name, type(error).__name__)
                await asyncio.sleep(pause_s)
        try:
            return await self._source.committed(partitions), await self._source.end(partitions)
        except Exception as error:
            self._broken = f"{self.name}: was given partitions and can't read what is committed ({type(error).__name__})"
            raise

    async def _take(self) -> None:
        failures = 0
        while True:
            try:
                await self._take_some()
                failures = 0
            except Exception as error:
                failures += 1
                log.warning("%s: can't read (%s), trying again", self.name, type(error).__name__)
                await asyncio.sleep(min(5, 0.1 * 2**failures))

    async def _take_some(self) -> None:
        self._changed.clear()
        self._begin_waiting()
        roomy = [p for p in self._owned if not self._offsets[p].full and self._space(p) > 0]
        if not roomy:
            await self._until_changed()
            return
        spacious = min(map(self._capacity.room, Lane)) >= _AT_ONCE
        if len(roomy) == len(self._owned) and spacious and not self._crowded:
            room = min(_AT_ONCE, *map(self._space, roomy))
            taken = self._take_in(await self._source.poll(roomy, room, self._patience_s(roomy)))
            self._crowded = taken >= room
        else:
            self._crowded = await self._take_in_turn(roomy) >= _IN_TURN

    def _room(self, lane: Lane) -> int:
        """How many jobs of a lane may begin now."""
        room = self._capacity.room(lane)
        return min(room, self._pace.room()) if self._pace is not None and lane is Lane.BATCH else room

    def _space(self, partition: Partition) -> int:
        """How many records of a partition may be read now: a few also where others have filled what may be read ahead."""
        lane = lane_of(partition)
        space = self._room(lane) + self._turns.room(lane)
        return space if self._turns.waiting_in(partition) else max(space, _IN_TURN)

    def _patience_s(self, roomy: list[Partition]) -> float:
        """What waits for the pace, and partitions that are full, are looked at again soon."""
        waits = len(roomy) < len(self._owned) or any(self._turns.waiting(lane) for lane in Lane)
        return _BUSY_POLL_S if waits else _IDLE_POLL_S

    async def _until_changed(self) -> None:
        """Until work has ended, or, where it is the pace that holds batch back, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_BUSY_POLL_S if self._pace is not None else None):
                await self._changed.wait()

    async def _take_in_turn(self, roomy: list[Partition]) -> int:
        """Interactive first; what it takes is gone when batch is asked. Where there is room for all, one poll does."""
        taken = 0
        for lane in Lane:
            own = [p for p in roomy if lane_of(p) is lane]
            taken += await self._take_of(lane, own)
        if not taken and (room := min(map(self._space, roomy))):
            taken = self._take_in(await self._source.poll(roomy, min(room, _AT_ONCE), self._patience_s(roomy)))
        return taken

    async def _take_of(self, lane: Lane, own: list[Partition]) -> int:
        """From one partition after another: a poll of many empties the one before it comes to the next, and to its teams."""
        for _ in own:
            self._turn += 1
            partition = own[self._turn % len(own)]
            most = min(_IN_TURN, self._space(partition))
            if most and (taken := self._take_in(await self._source.poll([partition], most, 0))):
                return taken
        return 0

    def _take_in(self, records: list[Incoming]) -> int:
        for record in records:
            partition = Partition(record.topic, record.partition)
            if partition not in self._owned:
                continue
            if not self._offsets[partition].deliver(record.offset):
                metrics.REDELIVERED.labels(self.name).inc()
                continue
            lane, team = lane_of(partition), self._team_of(record)
            if not self._turns.waiting(lane) and self._room(lane) > 0 and self._capacity.has_share(lane, team):
                self._begin(partition, team, record)
            else:
                self._turns.put(lane, team, record)
        return len(records)

    def _begin(self, partition: Partition, team: bytes, record: Incoming) -> None:
        lane = lane_of(partition)
        self._capacity.take(lane, team)
        self._taken_ms[partition] = record.timestamp
        self._note_pace(lane)
        task = asyncio.create_task(self._run(partition, team, record))
        self._tasks[task] = time.monotonic()
        self._uncommitted.set()
        task.add_done_callback(self._ended)

    def _note_pace(self, lane: Lane) -> None:
        if self._pace is None:
            return
        if lane is Lane.BATCH:
            self._pace.begin()
        else:
            self._pace.interactive()

    def _begin_waiting(self) -> None:
        """Begins what was read ahead, as far as there is room: the teams take turns."""
        for lane in Lane:
            while self._turns.waiting(lane) and self._room(lane) > 0:
                found = self._turns.take(lane, partial(self._capacity.has_share, lane))
                if found is None:
                    break
                team, record = found
                self._begin(Partition(record.topic, record.partition), team, record)

    def _let_go(self, partitions: Collection[Partition]) -> None:
        """Forgets what was read and not begun: whoever gets the partitions reads it again."""
        for record in self._turns.drop(partitions):
            self._offsets[Partition(record.topic, record.partition)].forget(record.offset)

    def loads(self, now_ms: int) -> dict[Partition, Load]:
        """What waits in the partitions that are read here."""
        return {partition: self._load(partition, now_ms) for partition in self._owned}

    def _load(self, partition: Partition, now_ms: int) -> Load:
        end = self._source.high_water(partition)
        depth = max(0, end - self._offsets[partition].following) if end is not None else 0
        depth += self._turns.waiting_in(partition)
        if not depth:
            # What comes next has not waited since the last record, but since now at the earliest.
            self._taken_ms[partition] = now_ms
        return Load(depth, max(0, now_ms - self._taken_ms.get(partition, now_ms)))

    async def _run(self, partition: Partition, team: bytes, record: Incoming) -> None:
        offsets, lane, began = self._offsets[partition], lane_of(partition), time.perf_counter()
        suspect = record.offset < self._first_new[partition]
        try:
            await self._work_until_done(partition, record, suspect)
            offsets.finish(record.offset)
            self._seconds[lane].observe(time.perf_counter() - began)
        except BaseException:
            offsets.forget(record.offset)
            raise
        finally:
            self._failing.pop((partition, record.offset), None)
            self._capacity.give_back(lane, team)

    async def _work_until_done(self, partition: Partition, record: Incoming, suspect: bool) -> None:
        """A record that can neither be worked on nor put aside keeps its place: what is wrong may pass."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._work(record, suspect)
                return
            except (Exception, asyncio.CancelledError) as error:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
                origin = f"{partition.topic}/{partition.partition}@{record.offset}"
                self._failing[partition, record.offset] = f"{self.name}: {type(error).__name__} on {origin}"
                log.exception("%s: a record could neither be worked on nor put aside; trying again", self.name)
            await asyncio.sleep(pause_s)
            pause_s, suspect = min(2 * pause_s, _LONGEST_PAUSE_S), True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._begin_waiting()
        self._changed.set()

    async def _commit_often(self) -> None:
        while True:
            await self._uncommitted.wait()
            await asyncio.sleep(COMMIT_EVERY_S)
            metrics.STAGE_BUSY.labels(self.name).set(len(self._tasks))
            oldest = min(self._tasks.values(), default=None)
            metrics.STAGE_OLDEST.labels(self.name).set(time.monotonic() - oldest if oldest is not None else 0)
            if not self._tasks:
                self._uncommitted.clear()
            try:
                await self._commit()
            except CommitRefused:
                self._uncommitted.set()
                log.info("%s: a commit was refused, the group is rebalancing", self.name)
            except Exception as error:
                self._uncommitted.set()
                log.warning("%s: can't commit (%s), trying again", self.name, type(error).__name__)

    async def _commit(self) -> None:
        marks: dict[Partition, Mark] = {}
        for partition in self._owned:
            offsets = self._offsets[partition]
            if offsets.started:
                mark = Mark(offsets.commit_point, offsets.metadata())
                if mark != self._committed.get(partition):
                    marks[partition] = mark
        if marks:
            await self._source.commit(marks)
            self._committed |= marks


def lane_of(partition: Partition) -> Lane:
    """The lane a topic belongs to, by the end of its name; topics without a lane count as interactive."""
    return Lane.BATCH if partition.topic.endswith(".batch") else Lane.INTERACTIVE
