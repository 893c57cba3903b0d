"""Replies to this instance: one topic, the partition is the address.

An instance leases a partition number in Redis, assigns it to itself by hand (no group, no rebalance), seeks to its end, and only
then is ready. The job carries the number (HOUSE.md 3b), so that any other instance can read what was meant for a dead one. A
partition whose lease was lost may be read by two: harmless, since each knows its own jobs.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from infra.files import FileStore
from infra.kafka.broker import Kafka
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.follower import Follower
from infra.kafka.log import Incoming, Partition
from infra.kafka.lookback import Lookback
from infra.kafka.waiter import Memory, Waiter
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.numbers import claim
from infra.telemetry import metrics
from schemas.reply import Reply
from schemas.topics import REPLIES

log = logging.getLogger(__name__)

_LEASE_MS = 30_000
_RENEW_S = 10
_MAX_BYTES_IN_ALL = 128 * 1024 * 1024
"""What all that wait for slow readers may take."""


class _Tap:
    """One partition of replies, read from the moment it is opened, and those who wait for something in it."""

    def __init__(self, kafka: Kafka, partition: int, files: FileStore, memory: Memory) -> None:
        self.partition = partition
        self.follower = Follower(kafka, Partition(REPLIES.name, partition), self._take)
        self.users = 0
        self.waiting = 0
        self._files, self._memory = files, memory
        self._waiters: dict[str, list[Waiter]] = {}

    @contextmanager
    def expect(self, job_id: str, *, held: bool = False) -> Generator[Waiter]:
        waiter = Waiter(self._memory, held=held)
        self._waiters.setdefault(job_id, []).append(waiter)
        self.waiting += 1
        metrics.WAITING.inc()
        try:
            yield waiter
        finally:
            waiter.close()
            others = self._waiters[job_id]
            others.remove(waiter)
            if not others:
                del self._waiters[job_id]
            self.waiting -= 1
            metrics.WAITING.dec()

    async def _take(self, record: Incoming) -> None:
        job_id = _job_id(record)
        if job_id not in self._waiters:
            metrics.INBOX_DROPPED.labels("unknown job").inc()
            return
        reply = await read_reply(record, self._files)
        if reply is None:
            return
        for waiter in self._waiters.get(job_id, ()):
            if why := waiter.put(reply):
                metrics.INBOX_DROPPED.labels(why).inc()


async def read_reply(record: Incoming, files: FileStore) -> Reply | None:
    """The event in a record, or None if there is none in it."""
    resolved = await fetched(record, files)
    reply = resolved if isinstance(resolved, Poison) else decode(resolved, Reply)
    if isinstance(reply, Poison):
        log.warning("inbox: %s: %s", reply.reason, reply.detail)
        return None
    return reply


def _job_id(record: Incoming) -> str:
    return (record.key or b"").decode("utf-8", "replace")


class Inbox:
    """Gives the events of a job to the connections that wait for it, wherever they stand in the log."""

    def __init__(self, kafka: Kafka, redis: Redis, files: FileStore, owner: str, most: int) -> None:
        self._kafka, self._redis, self._files, self._owner, self._most = kafka, redis, files, owner, most
        self._memory = Memory(_MAX_BYTES_IN_ALL)
        self._own: _Tap | None = None
        self._others: dict[int, _Tap] = {}
        self._opening = asyncio.Lock()
        self._lookback = Lookback(kafka, _job_id)
        self._renewal: asyncio.Task[None] | None = None

    @property
    def partition(self) -> int:
        """The address of this instance; -1 before it has one."""
        return self._own.partition if self._own else -1

    @property
    def full(self) -> bool:
        """True if no more connections may wait here."""
        taps = (self._own, *self._others.values())
        return sum(tap.waiting for tap in taps if tap is not None) >= self._most

    async def start(self) -> None:
        """Leases an address and reads from its end. Raises RedisUnavailable, or RuntimeError if all addresses are taken."""
        number = await claim(self._redis, "replies", REPLIES.partitions, self._owner, _LEASE_MS)
        if number is None:
            raise RuntimeError(f"all {REPLIES.partitions} addresses on {REPLIES.name} are taken: too many ingress instances")
        self._own = _Tap(self._kafka, number, self._files, self._memory)
        await self._own.follower.start()
        self._renewal = asyncio.create_task(self._renew(number))

    def not_ready(self) -> str | None:
        if self._own is None or self._renewal is None:
            return "inbox: not started"
        return "inbox: its loop has ended" if self._own.follower.ended or self._renewal.done() else None

    @contextmanager
    def expect(self, job_id: str) -> Generator[Waiter]:
        """A waiter for the events of a job that is sent from here, from before it is sent until the block is left."""
        assert self._own is not None
        with self._own.expect(job_id) as waiter:
            yield waiter

    @asynccontextmanager
    async def follow(self, job_id: str, partition: int, since_ms: int) -> AsyncGenerator[Waiter]:
        """A waiter for all events of a job, also those that went out already, to whatever address they go.

        `since_ms`: when the job was accepted. What the topic no longer holds is lost. Raises what the connection raises.
        """
        async with self._tap(partition) as tap:
            with tap.expect(job_id, held=True) as waiter:
                records = await self._lookback.find(Partition(REPLIES.name, partition), job_id, since_ms)
                earlier = [await read_reply(record, self._files) for record in records]
                waiter.release([reply for reply in earlier if reply is not None])
                yield waiter

    async def stop(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        for tap in (self._own, *self._others.values()):
            if tap is not None:
                await tap.follower.stop()

    @asynccontextmanager
    async def _tap(self, partition: int) -> AsyncGenerator[_Tap]:
        """The partition, read for as long as anybody needs it."""
        if self._own is not None and partition == self._own.partition:
            yield self._own
            return
        async with self._opening:
            tap = self._others.get(partition)
            if tap is None:
                tap = _Tap(self._kafka, partition, self._files, self._memory)
                await tap.follower.start()
                self._others[partition] = tap
            tap.users += 1
        try:
            yield tap
        finally:
            tap.users -= 1
            if not tap.users:
                del self._others[partition]
                await tap.follower.stop()

    async def _renew(self, number: int) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                held = await claim(self._redis, "replies", REPLIES.partitions, self._owner, _LEASE_MS, number)
            except RedisUnavailable:
                continue
            if held is None:
                log.warning("inbox: the lease of address %d was lost; it is read on", number)
