"""What may not be sent out yet waits in topics of fixed delays, hops between them, and then goes on with its way.

All waits of a topic are equal, so that its head is always due first and nobody needs a second store or a timer a job
(HOUSE.md 3a, retry topics). A record keeps its place until it was sent on.
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
from schemas.topics import Delay

log = logging.getLogger(__name__)

_AT_ONCE = 512


class Delays:
    """Three stages in which records wait, one for each delay, and what is done with each record there."""

    def __init__(
        self,
        name: str,
        topic_of: Callable[[Delay], str],
        source: Callable[[str, str], Source],
        work_of: Callable[[Delay], Work],
    ) -> None:
        self._stages = tuple(
            Stage(f"{name}-{delay.value}", source(f"{name}-{delay.value}", topic_of(delay)), work_of(delay), _AT_ONCE)
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


def waiting_jobs(delay: Delay, post: Post, files: FileStore, signer: Signer, clock: Clock) -> Work:
    """The work of the stage over jobs that wait for so long."""

    async def work(record: Incoming, _: bool) -> None:
        job = await read_waiting_job(record, files, signer)
        if isinstance(job, Poison):
            log.warning("delay: %s from %s: %s", job.reason, record.topic, job.detail)
            await post.dead(record, job)
            return
        await until_due(record, delay, min(job.not_before_ms, job.deadline_ms), clock)
        await post.forward(job, header(record.headers, H_TRACEPARENT))

    return work


async def until_due(record: Incoming, delay: Delay, due_ms: int, clock: Clock) -> None:
    """Waits for the end of the delay, or for `due_ms` (unix milliseconds) if that comes first."""
    due_ms = min(record.timestamp + delay.ms, due_ms)
    await asyncio.sleep(max(0, due_ms - clock()) / 1000)
