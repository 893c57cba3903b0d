"""The wires from a process to the log, to Redis and to its file store: each can delay, fail, or fail after the effect."""

import asyncio
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from contextvars import Context
from typing import Any, TypeVar

from infra.files import FileStore
from infra.kafka.log import Incoming, Listener, Mark, Outgoing, Partition, Sink, Source
from infra.redis.client import Argument, Redis, RedisUnavailable, Script, Value
from tests.fakes.log import MemoryLog, MemorySource
from tests.fakes.redis import LuaRedis
from tests.simulator.chaos import Chaos, Fate, Life

T = TypeVar("T")

REDIS_TIMEOUT_S = 0.25
SESSION_S = 10.0


class MemoryFiles(FileStore):
    """A file store without files."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        reference = f"{len(self._kept):032x}"
        self._kept[reference] = data
        return reference

    async def get(self, reference: str) -> bytes:
        if reference not in self._kept:
            raise FileNotFoundError(reference)
        return self._kept[reference]


class SimSink(Sink):
    """A producer: idempotent, so that what goes to one partition keeps its order, also what comes late."""

    def __init__(self, log: MemoryLog, life: Life, chaos: Chaos) -> None:
        self._log, self._life, self._chaos = log, life, chaos
        self._last: dict[object, asyncio.Task[None]] = {}

    async def send(self, record: Outgoing) -> Awaitable[object]:
        place = record.topic, record.key if record.partition is None else record.partition
        fate = self._chaos.fate(self._chaos.weather.kafka)
        delivery = asyncio.create_task(self._deliver(record, self._last.get(place), fate))
        self._last[place] = delivery
        # Who gives up waiting doesn't call a record back.
        return asyncio.shield(delivery)

    async def _deliver(self, record: Outgoing, before: "asyncio.Task[None] | None", fate: Fate) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        await self._life.point()
        if fate == "late":
            # As while a broker is away: an idempotent producer doesn't give up, so this is no error but a long wait.
            await asyncio.sleep(self._chaos.chance.random() * 4)
        if fate != "lost":
            self._log.append(record)
        await self._life.point()
        if fate in ("lost", "unknown"):
            raise ConnectionError("no acknowledgement")


class SimSource(Source):
    """A consumer whose process may die or be stopped. Rebalances go on without it."""

    def __init__(self, source: MemorySource, life: Life, chaos: Chaos) -> None:
        self._source, self._life, self._chaos = source, life, chaos

    async def start(self, listener: Listener) -> None:
        await self._life.point()
        await detached(self._source.start(listener))

    async def poll(self, partitions: Collection[Partition], limit: int, timeout_s: float) -> list[Incoming]:
        await self._life.point()
        # Sorted, so that a seed means the same everywhere: the order of a set differs from one interpreter to the next.
        return await self._source.poll(sorted(partitions), limit, timeout_s)

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        fate = self._chaos.fate(self._chaos.weather.kafka)
        await self._life.point()
        if fate != "lost":
            await self._source.commit(marks)
        await self._life.point()
        if fate != "well":
            raise ConnectionError("no answer to a commit")

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        await self._ask()
        return await self._source.committed(partitions)

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        await self._ask()
        return await self._source.end(partitions)

    def high_water(self, partition: Partition) -> int | None:
        return self._source.high_water(partition)

    async def stop(self) -> None:
        await self._life.point()
        await detached(self._source.stop())

    async def crash(self) -> None:
        """For the world: the group has noticed that the process is dead."""
        await self._source.crash()

    async def expire(self) -> None:
        """For the world: the process is stopped, and the group waits no longer."""
        if not self._life.over.is_set():
            await self._source.expire()

    async def rejoin(self) -> None:
        """For the world: the process goes on, and its heartbeat is refused."""
        if not self._life.over.is_set():
            await self._source.rejoin()

    async def _ask(self) -> None:
        await self._life.point()
        if self._chaos.strikes(self._chaos.weather.kafka / 4):
            raise ConnectionError("no answer")


class SimRedis(Redis):
    """A connection: its calls are done in order, those too whose answers nobody waits for any more."""

    def __init__(self, redis: LuaRedis, life: Life, chaos: Chaos) -> None:
        self._redis, self._life, self._chaos = redis, life, chaos
        self._free_s = 0.0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        await self._life.point()
        fate, now_s = self._chaos.fate(self._chaos.weather.redis), asyncio.get_running_loop().time()
        if self._chaos.redis_away_until_s > now_s:
            fate = self._chaos.chance.choice(("lost", "late"))
        if fate == "lost":
            await asyncio.sleep(self._chaos.pause_s())
            raise RedisUnavailable("Redis is gone")
        due_s = max(now_s, self._free_s) + 1e-6
        if fate == "late":
            due_s = max(due_s, self._chaos.redis_away_until_s, now_s + self._chaos.chance.random())
        self._free_s = due_s
        if due_s - now_s > 1e-3:
            return await self._wait(script, keys, args, due_s - now_s)
        value = self._redis.now(script, keys, args)
        await self._life.point()
        if fate == "unknown":
            raise RedisUnavailable("Redis did not answer")
        return value

    async def _wait(self, script: Script, keys: Sequence[str], args: Sequence[Argument], wait_s: float) -> Value:
        done: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(wait_s, self._late, done, script, tuple(keys), tuple(args))
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                value = await done
        except TimeoutError:
            raise RedisUnavailable("Redis did not answer in time") from None
        await self._life.point()
        return value

    def _late(self, done: "asyncio.Future[Value]", script: Script, keys: Sequence[str], args: Sequence[Argument]) -> None:
        value = self._redis.now(script, keys, args)
        if not done.done():
            done.set_result(value)


async def detached(work: Coroutine[Any, Any, T]) -> T:
    """Does what a server does: it goes on although the process that asked for it dies."""
    return await asyncio.shield(asyncio.get_running_loop().create_task(work, context=Context()))
