"""Jobs that may not be sent out yet: they wait in topics of fixed delays, hop between them, and then go on with their way.

All waits of a topic are equal, so that its head is always due first and nobody needs a second store or a timer a job
(HOUSE.md 3a, retry topics). A record keeps its place until the job was sent on.
"""

import asyncio
import logging
from collections.abc import Callable

from infra.clock import Clock
from infra.files import FileStore
from infra.kafka.carriage import read_waiting_job
from infra.kafka.envelope import H_TRACEPARENT, Poison, header
from infra.kafka.log import Incoming, Source
from infra.kafka.post import Post
from infra.kafka.stage import Stage, Work
from infra.signing import Signer
from schemas.topics import Delay, delay_topic

log = logging.getLogger(__name__)

_AT_ONCE = 512


class Delays:
    """Three stages in which jobs wait."""

    def __init__(self, source: Callable[[str, str], Source], post: Post, files: FileStore, signer: Signer, clock: Clock) -> None:
        self._post, self._files, self._signer, self._clock = post, files, signer, clock
        self._stages = tuple(
            Stage(f"delay-{delay.value}", source(f"delay-{delay.value}", delay_topic(delay)), self._wait_for(delay), _AT_ONCE)
            for delay in Delay
        )

    async def start(self) -> None:
        await asyncio.gather(*(stage.start() for stage in self._stages))

    def not_ready(self) -> str | None:
        return next((reason for stage in self._stages if (reason := stage.not_ready())), None)

    async def drain(self) -> None:
        """Leaves at once: what waits here waits elsewhere just as well."""
        await asyncio.gather(*(stage.drain(0) for stage in self._stages))

    async def stop(self) -> None:
        await asyncio.gather(*(stage.stop() for stage in self._stages))

    def _wait_for(self, delay: Delay) -> Work:
        async def work(record: Incoming, _: bool) -> None:
            await self._wait(record, delay)

        return work

    async def _wait(self, record: Incoming, delay: Delay) -> None:
        job = await read_waiting_job(record, self._files, self._signer)
        if isinstance(job, Poison):
            log.warning("delay: %s from %s: %s", job.reason, record.topic, job.detail)
            await self._post.dead(record, job)
            return
        due_ms = min(record.timestamp + delay.ms, job.not_before_ms, job.deadline_ms)
        await asyncio.sleep(max(0, due_ms - self._clock()) / 1000)
        await self._post.forward(job, header(record.headers, H_TRACEPARENT))
