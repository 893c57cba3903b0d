"""Replies to this instance: one topic, the partition is the address.

An instance leases a partition number in Redis, assigns it to itself by hand (no group, no rebalance), seeks to its end, and only
then
is ready. The job carries the number (HOUSE.md 3b). A partition whose lease was lost may be read by two: harmless, since each
knows its own jobs.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from infra.files import FileStore
from infra.kafka.broker import Kafka, Reader
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming, Partition
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.numbers import claim
from infra.telemetry import metrics
from schemas.reply import Event, Reply
from schemas.topics import REPLIES

log = logging.getLogger(__name__)

_LEASE_MS = 30_000
_RENEW_S = 10
_POLL_S = 1.0
_MAX_EVENTS = 10_000


Interruption = Literal["gone", "late", "lost"]
"""Why no further event comes: the client is gone, the time is over, or events are missing."""


class Waiter:
    """The events of one job, in order, each once. Bounded: a reader that is too slow loses the stream, not the process."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._awaited: asyncio.Future[None] | None = None
        self._attempt = -1
        self._seq = 0
        self._lost = False

    async def next(self, timeout_s: float, gone: "asyncio.Future[None]") -> Event | Interruption:
        """The next event, or why there is none: `gone` is done, `timeout_s` has passed, or an event was lost."""
        loop = asyncio.get_running_loop()
        while not self._events:
            if self._lost:
                return "lost"
            if gone.done():
                return "gone"
            self._awaited = awaited = loop.create_future()
            late = loop.call_later(max(0, timeout_s), _wake, awaited)
            gone.add_done_callback(self._wake)
            try:
                await awaited
            finally:
                gone.remove_done_callback(self._wake)
                late.cancel()
            if not self._events and not self._lost and not gone.done():
                return "late"
        return self._events.popleft()

    def put(self, reply: Reply) -> str | None:
        """Takes an event, or says why it is dropped: repeated, of another attempt, out of order, or too many."""
        why = self._refusal(reply)
        if why is None:
            self._seq += 1
            self._events.append(reply.event)
        if why is None or self._lost:
            # Not for what is dropped: who is woken and finds nothing takes it for the end of his patience.
            self._wake()
        return why

    def _refusal(self, reply: Reply) -> str | None:
        if self._attempt == -1:
            self._attempt = reply.attempt
        if reply.event.kind == "failed":
            return None
        if reply.attempt != self._attempt:
            return "other attempt"
        if reply.seq < self._seq:
            return "repeated"
        if reply.seq > self._seq or len(self._events) >= _MAX_EVENTS:
            self._lost = True
            return "gap" if reply.seq > self._seq else "slow reader"
        return None

    def _wake(self, _: object = None) -> None:
        if self._awaited is not None:
            _wake(self._awaited)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Inbox:
    """Gives the events of a job to the connection that waits for it."""

    def __init__(self, kafka: Kafka, redis: Redis, files: FileStore, owner: str, most: int) -> None:
        self._kafka, self._redis, self._files, self._owner, self._most = kafka, redis, files, owner, most
        self._waiters: dict[str, Waiter] = {}
        self._reader: Reader | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._partition = -1

    @property
    def partition(self) -> int:
        """The address of this instance."""
        return self._partition

    @property
    def full(self) -> bool:
        """True if no more connections may wait here."""
        return len(self._waiters) >= self._most

    async def start(self) -> None:
        """Leases an address and reads from its end. Raises RedisUnavailable, or RuntimeError if all addresses are taken."""
        number = await claim(self._redis, "replies", REPLIES.partitions, self._owner, _LEASE_MS)
        if number is None:
            raise RuntimeError(f"all {REPLIES.partitions} addresses on {REPLIES.name} are taken: too many ingress instances")
        self._partition = number
        self._reader = await self._kafka.reader([Partition(REPLIES.name, number)])
        await self._reader.seek_to_end()
        self._loops = [asyncio.create_task(self._read(self._reader)), asyncio.create_task(self._renew())]

    def not_ready(self) -> str | None:
        if not self._loops:
            return "inbox: not started"
        return "inbox: its loop has ended" if any(loop.done() for loop in self._loops) else None

    @contextmanager
    def expect(self, job_id: str) -> Generator[Waiter]:
        """A waiter for a job's events, from before it is sent until the block is left."""
        waiter = self._waiters[job_id] = Waiter()
        metrics.WAITING.set(len(self._waiters))
        try:
            yield waiter
        finally:
            del self._waiters[job_id]
            metrics.WAITING.set(len(self._waiters))

    async def stop(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()

    async def _read(self, reader: Reader) -> None:
        while True:
            try:
                for record in await reader.poll(_POLL_S):
                    await self._take(record)
            except Exception as error:
                log.warning("inbox: can't read (%s), trying again", type(error).__name__)
                await asyncio.sleep(0.2)

    async def _take(self, record: Incoming) -> None:
        job_id = (record.key or b"").decode("utf-8", "replace")
        waiter = self._waiters.get(job_id)
        if waiter is None:
            metrics.INBOX_DROPPED.labels("unknown job").inc()
            return
        resolved = await fetched(record, self._files)
        reply = resolved if isinstance(resolved, Poison) else decode(resolved, Reply)
        if isinstance(reply, Poison):
            log.warning("inbox: %s: %s", reply.reason, reply.detail)
            return
        if why := waiter.put(reply):
            metrics.INBOX_DROPPED.labels(why).inc()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                held = await claim(self._redis, "replies", REPLIES.partitions, self._owner, _LEASE_MS, self._partition)
            except RedisUnavailable:
                continue
            if held is None:
                log.warning("inbox: the lease of address %d was lost; it is read on", self._partition)
