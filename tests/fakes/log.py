"""A log in memory: `Source` and `Sink` of infra/kafka/log.py, held to the same suite as Kafka (tests/conformance/test_log.py).

Groups rebalance eagerly, as aiokafka's do: everything is revoked from everybody, and every member, also the one that keeps its
partitions, is given the records from the committed offset on again.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from infra.clock import Clock
from infra.kafka.log import CommitRefused, Incoming, Listener, Mark, Outgoing, Partition, Sink, Source

Pause = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


async def at_once() -> None:
    """The pause of a log that answers at once."""


class MemoryLog(Sink):
    """Topics of `partitions` partitions each, which exist as soon as they are named. `pause` is awaited before each answer.

    `clock`: the time that records bear.
    """

    def __init__(self, partitions: int = 1, pause: Pause = at_once, clock: Clock = lambda: 0) -> None:
        self.pause = pause
        self._clock = clock
        self._partitions = partitions
        self._logs: dict[Partition, list[Record | None]] = defaultdict(list)
        self._groups: dict[str, _Group] = {}

    async def send(self, record: Outgoing) -> Awaitable[object]:
        self.append(record)
        return asyncio.ensure_future(self.pause())

    def append(self, record: Outgoing) -> None:
        """Writes a record, acknowledged by nobody."""
        number = record.partition if record.partition is not None else crc32(record.key or b"") % self._partitions
        partition = Partition(record.topic, number)
        log = self._logs[partition]
        log.append(Record(record.topic, number, len(log), self._clock(), record.key, record.value, record.headers))
        for group in self._groups.values():
            group.wake(partition)

    def source(self, group: str, topics: Collection[str], slot: str | None = None) -> "MemorySource":
        """A member of `group`, as `Kafka.source` gives one."""
        partitions = [Partition(topic, n) for topic in topics for n in range(self._partitions)]
        return MemorySource(self, self._groups.setdefault(group, _Group(partitions)), slot)

    async def rebalance(self, group: str, seed: int | None = None) -> None:
        """Makes a group deal its partitions anew; with a seed as chance will have it, else with as few moves as possible."""
        await self._groups[group].rebalance(seed)

    def remove(self, partition: Partition, offset: int) -> None:
        """Leaves a gap, as compaction does."""
        self._logs[partition][offset] = None

    def records(self, topic: str) -> list[Record]:
        """Everything in a topic, partition by partition."""
        return [r for p in sorted(self._logs) if p.topic == topic for r in self._logs[p] if r is not None]

    def marks(self, group: str) -> dict[Partition, Mark]:
        """What a group has committed."""
        return dict(self._groups[group].marks)

    def read(self, partition: Partition, position: int, limit: int) -> tuple[list[Record], int]:
        """Up to `limit` records from a position on, and the next position."""
        log, found = self._logs[partition], list[Record]()
        while position < len(log) and len(found) < limit:
            if record := log[position]:
                found.append(record)
            position += 1
        return found, position

    def end(self, partition: Partition) -> int:
        """The next offset to be written."""
        return len(self._logs[partition])

    def is_all_committed(self) -> bool:
        """Whether each group has committed everything in the topics that it reads."""
        return not any(self.lags().values())

    def lags(self) -> dict[str, int]:
        """How much each group has still to commit."""
        return {name: group.lag(self) for name, group in self._groups.items()}


class _Seat:
    """A place in a group: a static member that is away keeps it."""

    def __init__(self, slot: str | None, source: "MemorySource | None") -> None:
        self.slot, self.source = slot, source
        self.partitions: set[Partition] = set()


class _Group:
    def __init__(self, partitions: list[Partition]) -> None:
        self.marks: dict[Partition, Mark] = {}
        self._partitions = partitions
        self._seats: list[_Seat] = []
        self._turn = asyncio.Lock()

    def wake(self, partition: Partition) -> None:
        for seat in self._seats:
            if seat.source and seat.source.reads(partition):
                seat.source.wake()

    async def join(self, source: "MemorySource", slot: str | None) -> None:
        """Takes a seat. Whoever comes back to his own disturbs nobody, and locks out who still sits there."""
        own = next((seat for seat in self._seats if slot is not None and seat.slot == slot), None)
        if own is None:
            self._seats.append(_Seat(slot, source))
            await self.rebalance(None)
            return
        async with self._turn:
            if own.source:
                own.source.lose()
            own.source = source
            source.take(own.partitions)
            await source.tell_assigned()

    @property
    def is_empty(self) -> bool:
        return not self._seats

    def lag(self, log: MemoryLog) -> int:
        return sum(log.end(p) - (self.marks[p].offset if p in self.marks else 0) for p in self._partitions)

    async def leave(self, source: "MemorySource", *, keep_seat: bool = False) -> None:
        for seat in [seat for seat in self._seats if seat.source is source]:
            seat.source = None
            source.lose()
            if not keep_seat:
                self._seats.remove(seat)
                await self.rebalance(None)

    async def rebalance(self, seed: int | None) -> None:
        async with self._turn:
            await asyncio.gather(*(seat.source.revoke() for seat in self._seats if seat.source))
            self._deal(seed)
            for seat in self._seats:
                if seat.source:
                    seat.source.take(seat.partitions)
            await asyncio.gather(*(seat.source.tell_assigned() for seat in self._seats if seat.source))

    def _deal(self, seed: int | None) -> None:
        if not self._seats:
            return
        if seed is not None:
            chance = random.Random(seed)
            for seat in self._seats:
                seat.partitions = set()
            for partition in self._partitions:
                chance.choice(self._seats).partitions.add(partition)
            return
        most = -(-len(self._partitions) // len(self._seats))
        for seat in self._seats:
            seat.partitions = set(sorted(seat.partitions)[:most])
        taken = {partition for seat in self._seats for partition in seat.partitions}
        for partition in self._partitions:
            if partition not in taken:
                min(self._seats, key=lambda seat: len(seat.partitions)).partitions.add(partition)


class MemorySource(Source):
    """A member of a group."""

    def __init__(self, log: MemoryLog, group: _Group, slot: str | None) -> None:
        self._log, self._group, self._slot = log, group, slot
        self._listener: Listener | None = None
        self._positions: dict[Partition, int] = {}
        self._generation = 0
        self._settled = False
        self._expired: set[Partition] | None = None
        self._changed = asyncio.Event()
        self._crashed = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        await self._group.join(self, self._slot)

    async def poll(self, partitions: Collection[Partition], limit: int, timeout_s: float) -> list[Incoming]:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s or None):
                while True:
                    self._changed.clear()
                    if (records := self._take(partitions, limit)) or not timeout_s:
                        return records
                    await self._changed.wait()
        return []

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        generation = self._generation
        await self._network()
        if self._expired is None and self._group.is_empty:
            self._group.marks |= marks
            return
        if generation != self._generation or not marks.keys() <= self._positions.keys():
            raise CommitRefused("the partitions are somebody else's")
        if any(len(mark.metadata) > 4096 for mark in marks.values()):
            raise ValueError("the metadata is too long")
        self._group.marks |= marks

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        await self._network()
        return {p: self._group.marks[p] for p in partitions if p in self._group.marks}

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        await self._network()
        return {p: self._log.end(p) for p in partitions}

    def high_water(self, partition: Partition) -> int | None:
        return self._log.end(partition)

    async def stop(self) -> None:
        await self._group.leave(self)

    async def expire(self) -> None:
        """The group has waited too long for a heartbeat and gives the place away; the member doesn't know yet."""
        self._expired = set(self._positions)
        await self._group.leave(self)

    async def rejoin(self) -> None:
        """The member has found out, and joins anew."""
        if self._listener and self._expired is not None:
            await self._listener.revoked(self._expired)
            self._expired = None
            await self._group.join(self, self._slot)

    async def crash(self) -> None:
        """The process is gone, and the group has noticed. Nothing that it still asks is ever answered."""
        self._crashed.set()
        await self._group.leave(self, keep_seat=self._slot is not None)

    # What the group does with its members.

    def reads(self, partition: Partition) -> bool:
        return partition in self._positions

    def wake(self) -> None:
        self._changed.set()

    def lose(self) -> None:
        self._positions = {}

    def take(self, partitions: Collection[Partition]) -> None:
        self._generation += 1
        self._positions = {p: self._group.marks[p].offset if p in self._group.marks else 0 for p in partitions}

    async def revoke(self) -> None:
        self._settled = False
        if self._listener:
            await self._unless_crashed(self._listener.revoked(set(self._positions)))

    async def tell_assigned(self) -> None:
        if self._listener:
            await self._unless_crashed(self._listener.assigned(set(self._positions)))
        self._settled = not self._crashed.is_set()
        self.wake()

    async def _unless_crashed(self, told: Coroutine[Any, Any, None]) -> None:
        """The group doesn't wait for the dead."""
        waits = asyncio.ensure_future(told), asyncio.ensure_future(self._crashed.wait())
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        waits[1].cancel()

    async def _network(self) -> None:
        await self._log.pause()
        if self._crashed.is_set():
            await asyncio.Event().wait()

    def _take(self, partitions: Collection[Partition], limit: int) -> list[Incoming]:
        found: list[Incoming] = []
        for partition in partitions:
            if self._settled and partition in self._positions and len(found) < limit:
                records, self._positions[partition] = self._log.read(partition, self._positions[partition], limit - len(found))
                found += records
        return found
