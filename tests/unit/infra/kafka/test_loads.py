"""What waits, told by one process and heard by all."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from infra.kafka.loads import Loads
from infra.kafka.log import Partition
from infra.kafka.stage import Load, Stage
from infra.redis.client import Redis
from schemas.topics import Lane
from tests.fakes.clock import FakeClock, in_virtual_time

FULL, EMPTY = Partition("sluice.router.interactive", 0), Partition("sluice.router.interactive", 1)
NOTHING, MUCH = Load(0, 0), Load(70, 30)


class Table:
    """Redis, for the one script that is run."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.told: list[str] = []

    async def run(self, _: object, __: object, args: Sequence[str]) -> list[bytes]:
        self.told += args[::2]
        self.fields |= {name.encode(): value.encode() for name, value in zip(args[::2], args[1::2], strict=True)}
        return [part for pair in self.fields.items() for part in pair]


class Front:
    """What waits before a stage, as a test says."""

    name = "router"

    def __init__(self, loads: Mapping[Partition, Load]) -> None:
        self.now = loads

    def loads(self, _: int) -> Mapping[Partition, Load]:
        return self.now


@asynccontextmanager
async def process(table: Table, clock: FakeClock, front: Front | None = None) -> AsyncGenerator[Loads]:
    loads = Loads(cast("Redis", table), clock)
    if front:
        loads.tell_of(cast("Stage", front))
    await loads.start()
    try:
        yield loads
    finally:
        await loads.stop()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(3600):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@in_virtual_time
async def test_what_waits_is_heard_everywhere_and_so_is_its_end() -> None:
    table, clock, front = Table(), FakeClock(), Front({FULL: MUCH, EMPTY: NOTHING})
    async with process(table, clock, front), process(table, clock) as other:
        await until(lambda: other.lane(Lane.INTERACTIVE) == MUCH)
        assert other.lightest(FULL.topic, [0, 1], 0) == 1
        front.now = {FULL: NOTHING, EMPTY: NOTHING}
        await until(lambda: other.lane(Lane.INTERACTIVE) == NOTHING)


@in_virtual_time
async def test_a_partition_where_nothing_waits_is_not_told_of() -> None:
    table, clock, front = Table(), FakeClock(), Front({FULL: MUCH, EMPTY: NOTHING})
    async with process(table, clock, front) as own:
        await until(lambda: own.lane(Lane.INTERACTIVE) == MUCH)
    assert set(table.told) == {"sluice.router.interactive/0"}


@in_virtual_time
async def test_whoever_gets_a_partition_in_which_nothing_waits_any_more_says_so() -> None:
    table, clock = Table(), FakeClock()
    async with process(table, clock, Front({FULL: MUCH})) as before:
        await until(lambda: before.lane(Lane.INTERACTIVE) == MUCH)
    async with process(table, clock, Front({FULL: NOTHING})) as after:
        await until(lambda: table.fields[b"sluice.router.interactive/0"].startswith(b"0 "))
        await until(lambda: after.lane(Lane.INTERACTIVE) == NOTHING)
