"""The driver of blocks, with a log in memory and time that jumps. Tests are named after what is feared."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clickhouse.blocks import Plan
from infra.kafka.block_stage import BlockStage, Limits
from infra.kafka.log import Incoming, Listener, Mark, Outgoing, Partition, Source
from tests.fakes.clock import in_virtual_time
from tests.fakes.log import MemoryLog, MemorySource

TOPIC, GROUP = "sluice.completions", "g"
FIRST = Partition(TOPIC, 0)
LIMITS = Limits(rows=10, size_bytes=10_000, age_s=0.5)

Point = Callable[[], Awaitable[None]]
"""A place at which a process may die, or be slow."""


class Books:
    """A table that knows a block by its token and drops it the second time, whatever its rows."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.rows: Counter[bytes] = Counter()
        self.written_s: list[float] = []
        self.errors: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, plan: Plan, rows: Sequence[bytes]) -> None:
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        if plan.token not in self.tokens:
            self.tokens.append(plan.token)
            self.rows.update(rows)
            self.written_s.append(asyncio.get_running_loop().time())


class Desk:
    """Makes rows of records; what begins with "poison" is put aside."""

    def __init__(self) -> None:
        self.read_count = 0
        self.dead: Counter[bytes] = Counter()
        self.errors: list[Exception] = []

    async def read(self, record: Incoming) -> bytes | None:
        if self.errors:
            raise self.errors.pop(0)
        value = record.value or b""
        self.read_count += 1
        if value.startswith(b"poison"):
            self.dead[value] += 1
            return None
        return value


async def until(holds: Callable[[], object]) -> None:
    """Waits for a condition; an hour of this loop's time takes no time."""
    async with asyncio.timeout(3600):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def fill(log: MemoryLog, *values: bytes, partition: int = 0) -> None:
    for value in values:
        await log.send(Outgoing(TOPIC, b"k", value, (), partition))


def numbers(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


@asynccontextmanager
async def running(
    log: MemoryLog, books: Books, desk: Desk | None = None, limits: Limits = LIMITS
) -> AsyncGenerator[BlockStage[bytes]]:
    stage = BlockStage("books", log.source(GROUP, [TOPIC]), (desk or Desk()).read, books.write, limits)
    await stage.start()
    try:
        yield stage
    finally:
        await stage.drain(0)
        await stage.stop()


def mark(log: MemoryLog) -> Mark | None:
    return log.marks(GROUP).get(FIRST)


@in_virtual_time
async def test_a_lonely_row_does_not_wait_for_others_for_ever() -> None:
    log, books = MemoryLog(), Books()
    async with running(log, books):
        await asyncio.sleep(7)
        began_s = asyncio.get_running_loop().time()
        await fill(log, b"a")
        await until(lambda: books.rows)
        assert books.written_s[0] - began_s == pytest.approx(LIMITS.age_s)
        await until(lambda: mark(log) == Mark(1, ""))


@in_virtual_time
async def test_rows_that_come_together_are_one_block() -> None:
    log, books = MemoryLog(), Books()
    await fill(log, *numbers(25))
    async with running(log, books):
        await until(lambda: mark(log) == Mark(25, ""))
    assert books.tokens == [f"{TOPIC}:0:{first}-{until}" for first, until in ((0, 9), (10, 19), (20, 24))]
    assert books.rows == Counter(numbers(25))


@in_virtual_time
async def test_large_rows_make_smaller_blocks() -> None:
    log, books = MemoryLog(), Books()
    large = [letter * 4000 for letter in (b"a", b"b", b"c", b"d")]
    async with running(log, books):
        for value in large:
            await fill(log, value)
            await asyncio.sleep(0)
        await until(lambda: mark(log) == Mark(4, ""))
    assert books.tokens == [f"{TOPIC}:0:0-2", f"{TOPIC}:0:3-3"]


@in_virtual_time
async def test_while_the_store_is_away_no_more_is_read_than_fits() -> None:
    log, books, desk = MemoryLog(2), Books(), Desk()
    books.open.clear()
    for partition in (0, 1):
        await fill(log, *(b"%d/%d" % (partition, n) for n in range(5000)), partition=partition)
    async with running(log, books, desk) as stage:
        await asyncio.sleep(600)
        assert desk.read_count <= 2 * (LIMITS.rows + 100)
        assert mark(log) == Mark(0, "until=9")
        assert stage.not_ready() is None
        books.open.set()
        await until(lambda: len(books.rows) == 10_000)
    assert set(books.rows.values()) == {1}


@in_virtual_time
async def test_an_hour_without_the_store_costs_no_memory_and_no_row() -> None:
    """Records come all the time: they wait in the log, and are written when it is back."""
    log, books, desk = MemoryLog(), Books(), Desk()
    books.open.clear()
    async with running(log, books, desk):
        for minute in range(60):
            await fill(log, *(b"%d-%d" % (minute, n) for n in range(50)))
            await asyncio.sleep(60)
            assert desk.read_count < LIMITS.rows + 100  # a block and a poll
        books.open.set()
        await until(lambda: mark(log) == Mark(3000, ""))
    assert len(books.rows) == books.rows.total() == 3000
    assert desk.read_count == 3000


@in_virtual_time
async def test_a_block_that_is_refused_makes_the_stage_unready_until_it_is_taken() -> None:
    log, books = MemoryLog(), Books()
    books.errors = [ValueError("no such column")] * 3
    await fill(log, b"a")
    async with running(log, books) as stage:
        await until(lambda: "ValueError" in str(stage.not_ready()))
        await until(lambda: books.rows == Counter([b"a"]) and stage.not_ready() is None)


@in_virtual_time
async def test_a_record_that_cannot_be_read_now_is_not_skipped() -> None:
    log, books, desk = MemoryLog(), Books(), Desk()
    desk.errors = [ConnectionError("the file store is away")] * 5
    await fill(log, *numbers(3))
    async with running(log, books, desk):
        await until(lambda: mark(log) == Mark(3, ""))
    assert books.rows == Counter(numbers(3))


@in_virtual_time
async def test_poison_alone_is_committed_too() -> None:
    log, books, desk = MemoryLog(), Books(), Desk()
    await fill(log, b"poison 1", b"poison 2")
    async with running(log, books, desk):
        await until(lambda: mark(log) == Mark(2, ""))
    assert desk.dead == Counter([b"poison 1", b"poison 2"])
    assert not books.rows


@in_virtual_time
async def test_a_plan_is_kept_although_the_limits_have_changed_since() -> None:
    log, books = MemoryLog(), Books()
    books.open.clear()
    await fill(log, *numbers(500))
    async with running(log, books, limits=Limits(400, 10**6, 0.5)):
        await until(lambda: mark(log) == Mark(0, "until=399"))
    books.open.set()
    async with running(log, books):
        await until(lambda: mark(log) == Mark(500, ""))
    assert books.tokens[:2] == [f"{TOPIC}:0:0-399", f"{TOPIC}:0:400-409"]
    assert books.rows == Counter(numbers(500))


@in_virtual_time
async def test_metadata_of_others_is_not_taken_for_no_plan() -> None:
    log, books = MemoryLog(), Books()
    await fill(log, *numbers(3))
    other = log.source(GROUP, [TOPIC])
    await other.start(Silent())
    await other.commit({FIRST: Mark(1, "1:AQE=")})
    await other.stop()
    async with running(log, books) as stage:
        await until(lambda: "not a plan of ours" in str(stage.not_ready()))
        await asyncio.sleep(60)
    assert not books.rows


class Silent(Listener):
    async def revoked(self, partitions: Collection[Partition]) -> None: ...
    async def assigned(self, partitions: Collection[Partition]) -> None: ...


@in_virtual_time
async def test_draining_writes_away_what_is_here_at_once() -> None:
    log, books = MemoryLog(), Books()
    stage = BlockStage("books", log.source(GROUP, [TOPIC]), Desk().read, books.write, Limits(10, 10_000, 3600))
    await stage.start()
    await fill(log, *numbers(13))
    await until(lambda: len(books.rows) == 10)
    await asyncio.sleep(5)
    await stage.drain(20)
    assert books.rows == Counter(numbers(13))
    assert mark(log) == Mark(13, "")
    await stage.stop()


@in_virtual_time
async def test_draining_does_not_wait_for_a_store_that_is_away_longer_than_it_may() -> None:
    log, books = MemoryLog(), Books()
    books.open.clear()
    await fill(log, *numbers(3))
    async with running(log, books) as stage:
        await until(lambda: mark(log) == Mark(0, "until=2"))
        began_s = asyncio.get_running_loop().time()
        await stage.drain(20)
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(20)
    assert mark(log) == Mark(0, "until=2")


@in_virtual_time
async def test_it_can_be_drained_and_stopped_without_having_been_started() -> None:
    stage = BlockStage("books", MemoryLog().source(GROUP, [TOPIC]), Desk().read, Books().write, LIMITS)
    assert stage.not_ready()
    await stage.drain(1)
    await stage.stop()


@in_virtual_time
async def test_a_member_without_partitions_is_ready_where_there_are_fewer_partitions_than_members() -> None:
    """Else a second instance would never be ready, and a deploy would wait for it for ever."""
    log, books = MemoryLog(), Books()
    first, second = (
        BlockStage("books", log.source(GROUP, [TOPIC]), Desk().read, books.write, LIMITS, may_idle=True) for _ in range(2)
    )
    await first.start()
    await second.start()
    assert first.not_ready() is None
    assert second.not_ready() is None
    await first.drain(1)
    await first.stop()
    await fill(log, *numbers(3))
    await until(lambda: books.rows == Counter(numbers(3)))
    await second.drain(1)
    assert second.not_ready()


class Shaky(Source):
    """A source that passes a point before and after whatever it does; not in a rebalance, over which the log waits for it."""

    def __init__(self, inner: MemorySource, point: Point) -> None:
        self._inner, self._point = inner, point

    async def start(self, listener: Listener) -> None:
        await self._inner.start(listener)

    async def poll(self, partitions: Collection[Partition], limit: int, timeout_s: float) -> list[Incoming]:
        await self._point()
        return await self._inner.poll(partitions, limit, timeout_s)

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        await self._point()
        await self._inner.commit(marks)
        await self._point()

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        return await self._inner.committed(partitions)

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return await self._inner.end(partitions)

    def high_water(self, partition: Partition) -> int | None:
        return self._inner.high_water(partition)

    async def stop(self) -> None:
        await self._inner.stop()


class Process:
    """A member of the group. When it dies, it is never heard of again; what it has sent to the store may still arrive."""

    def __init__(self, log: MemoryLog, books: Books, desk: Desk, limits: Limits, point: Point) -> None:
        self.inner = log.source(GROUP, [TOPIC])
        self.dead = False
        self._point = point
        self._books, self._desk = books, desk
        self._sent: set[asyncio.Task[None]] = set()
        self.stage = BlockStage("books", Shaky(self.inner, self._pass), self._read, self._write, limits)

    async def die(self) -> None:
        self.dead = True
        await self.inner.crash()

    async def _pass(self) -> None:
        await self._point()
        if self.dead:
            await asyncio.Event().wait()

    async def _read(self, record: Incoming) -> bytes | None:
        await self._pass()
        row = await self._desk.read(record)
        await self._pass()
        return row

    async def _write(self, plan: Plan, rows: Sequence[bytes]) -> None:
        await self._pass()
        sending = asyncio.create_task(self._send(plan, list(rows)))
        self._sent.add(sending)
        sending.add_done_callback(self._sent.discard)
        # A thread goes on when the task that waits for it is cancelled.
        await asyncio.shield(sending)
        await self._pass()

    async def _send(self, plan: Plan, rows: Sequence[bytes]) -> None:
        await self._point()
        await self._books.write(plan, rows)


VALUES = [b"poison %d" % n if n % 7 == 3 else b"%d" % n for n in range(60)]


def check(books: Books, desk: Desk) -> None:
    poison = {value for value in VALUES if value.startswith(b"poison")}
    assert books.rows == Counter(value for value in VALUES if value not in poison)
    assert desk.dead.keys() == poison
    begins = Counter(token.rpartition("-")[0] for token in books.tokens)
    assert set(begins.values()) == {1}, "two blocks begin alike"


async def die_at(point_number: int) -> bool:
    """A process dies at that point of its life, another one comes. False: it had done all before."""
    log, books, desk = MemoryLog(), Books(), Desk()
    passed, fatal = 0, asyncio.Event()

    async def fatally() -> None:
        nonlocal passed
        passed += 1
        if passed >= point_number:
            fatal.set()
            await asyncio.Event().wait()

    async def harmless() -> None:
        await asyncio.sleep(0)

    await fill(log, *VALUES[:25])
    victim = Process(log, books, desk, LIMITS, fatally)
    await victim.stage.start()
    with suppress(TimeoutError):
        await asyncio.wait_for(fatal.wait(), 60)
    await victim.die()
    await fill(log, *VALUES[25:])
    heir = Process(log, books, desk, LIMITS, harmless)
    await heir.stage.start()
    await until(lambda: mark(log) == Mark(len(VALUES), ""))
    check(books, desk)
    await heir.stage.drain(1)
    return fatal.is_set()


@in_virtual_time
async def test_whatever_it_dies_at_each_row_is_there_once() -> None:
    point_number = 1
    while await die_at(point_number):
        point_number += 1
        assert point_number < 1000
    assert point_number > 30


class World:
    """Several processes, delays, deaths and rebalances by a seed."""

    def __init__(self, seed: int, partitions: int, limits: Limits, troubles: int) -> None:
        self._chance = Random(seed)
        self._partitions, self._limits, self._troubles = partitions, limits, troubles
        self._longest_s = self._chance.choice((0.001, 0.05, 1.0))
        self.log, self.books, self.desk = MemoryLog(partitions, self._pause), Books(), Desk()
        self._processes: list[Process] = []

    async def run(self) -> None:
        for _ in range(2):
            await self._start()
        sending = asyncio.create_task(self._send())
        for _ in range(self._troubles):
            await asyncio.sleep(self._chance.random() * self._longest_s * 4)
            await self._trouble()
        await sending
        partitions = [Partition(TOPIC, n) for n in range(self._partitions)]
        await until(lambda: all((m := self.log.marks(GROUP).get(p)) and m == (self.log.end(p), "") for p in partitions))
        check(self.books, self.desk)
        for process in self._processes:
            await process.stage.drain(60)

    async def _send(self) -> None:
        for n, value in enumerate(VALUES):
            await fill(self.log, value, partition=n % self._partitions)
            await self._pause()

    async def _start(self) -> None:
        process = Process(self.log, self.books, self.desk, self._limits, self._pause)
        self._processes.append(process)
        await process.stage.start()

    async def _trouble(self) -> None:
        match self._chance.randrange(4):
            case 0:
                self.books.errors.append(ConnectionError("refused"))
            case 1:
                victim = self._processes.pop(self._chance.randrange(len(self._processes)))
                await victim.die()
                await self._start()
            case _:
                await self.log.rebalance(GROUP, self._chance.choice((None, self._chance.randrange(1000))))

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.random() ** 6 * self._longest_s)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 4),
    limits=st.builds(Limits, rows=st.integers(1, 30), size_bytes=st.integers(1, 500), age_s=st.floats(0.001, 2)),
    troubles=st.integers(0, 15),
)
def test_deaths_delays_and_rebalances_lose_nothing_and_double_nothing(
    seed: int, partitions: int, limits: Limits, troubles: int
) -> None:
    @in_virtual_time
    async def run() -> None:
        await World(seed, partitions, limits, troubles).run()

    run()
