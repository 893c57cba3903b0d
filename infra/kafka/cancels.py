"""The broadcast that says: nobody waits for this job any more. Every instance hears it."""

import asyncio
import logging
from collections.abc import Callable

from infra.kafka.broker import Kafka, Reader
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Partition
from schemas.cancel import Cancel
from schemas.topics import CANCELS

log = logging.getLogger(__name__)


class Cancels:
    """Calls `heard` with the id of each job that is cancelled from now on."""

    def __init__(self, kafka: Kafka, heard: Callable[[str], None]) -> None:
        self._kafka, self._heard = kafka, heard
        self._reader: Reader | None = None
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._reader = await self._kafka.reader([Partition(CANCELS.name, 0)])
        await self._reader.seek_to_end()
        self._loop = asyncio.create_task(self._listen(self._reader))

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()

    async def _listen(self, reader: Reader) -> None:
        while True:
            try:
                for record in await reader.poll(1.0):
                    cancel = decode(record, Cancel)
                    if not isinstance(cancel, Poison):
                        self._heard(cancel.job_id)
            except Exception as error:
                log.warning("cancels: can't read (%s), trying again", type(error).__name__)
                await asyncio.sleep(0.2)
