"""A partition that is read from its end on, or from a time on, by hand and without a group."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from infra.kafka.broker import Kafka, Reader
from infra.kafka.log import Incoming, Partition

log = logging.getLogger(__name__)

_POLL_S = 1.0
_RETRY_S = 0.2


class Follower:
    """Gives each record that is written after `start` has returned to `take`, in order, until it is stopped.

    `since_ms`: unix milliseconds; what was written from then on comes before.
    """

    def __init__(
        self, kafka: Kafka, partition: Partition, take: Callable[[Incoming], Awaitable[None]], since_ms: int | None = None
    ) -> None:
        self._kafka, self._partition, self._take, self._since_ms = kafka, partition, take, since_ms
        self._reader: Reader | None = None
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._reader = await self._kafka.reader([self._partition])
        if self._since_ms is None:
            await self._reader.seek_to_end()
        else:
            await self._reader.seek_to_time(self._since_ms)
        self._loop = asyncio.create_task(self._follow(self._reader))

    @property
    def ended(self) -> bool:
        """True if nothing is read: not yet, or not any more."""
        return self._loop is None or self._loop.done()

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()

    async def _follow(self, reader: Reader) -> None:
        while True:
            try:
                for record in await reader.poll(_POLL_S):
                    await self._take(record)
            except Exception as error:
                log.warning("%s: can't read (%s), trying again", self._partition.topic, type(error).__name__)
                await asyncio.sleep(_RETRY_S)
