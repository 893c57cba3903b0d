"""The jobs at work in this process: their leases are renewed by one loop, and a cancel finds them here."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords

log = logging.getLogger(__name__)

LEASE_MS = 10_000
MOST_DRAINING = 64
"""Calls of one router that go on though their job was cancelled; beyond, they are closed."""
_RENEW_S = 3.0


class Run:
    """A job at work. `drains`: it is at a call that is let end after a cancel, so that its usage is known."""

    def __init__(self) -> None:
        self.cancelled = False
        self.drains = False
        self._scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def until(self, rest_s: float) -> AsyncGenerator[None]:
        """Cuts the block short after `rest_s`, or as soon as `cut` is called. Raises TimeoutError then."""
        try:
            async with asyncio.timeout(0 if self.cancelled else rest_s) as self._scope:
                yield
        finally:
            self._scope = None

    def cut(self) -> None:
        """Nobody waits for the job, nor for what it is at."""
        self.cancelled = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())


class Running:
    """All jobs at work here. `retrying`: how many of them ask a deployment again that has failed them."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        self._runs: dict[str, Run] = {}
        self._loop: asyncio.Task[None] | None = None
        self._draining: set[Run] = set()
        self._may_drain = True
        self.retrying = 0

    def __len__(self) -> int:
        return len(self._runs)

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def cancel(self, job_id: str) -> None:
        """Ends the provider's call for this job, if it is at work here; or lets it end, where its deployment wants that."""
        run = self._runs.get(job_id)
        if run is None:
            return
        if run.drains and self._may_drain and len(self._draining) < MOST_DRAINING:
            run.cancelled = True
            self._draining.add(run)
        elif run not in self._draining:
            run.cut()

    def stop_draining(self) -> None:
        """Closes the calls that go on for their usage alone: the process is about to leave."""
        self._may_drain = False
        for run in self._draining:
            run.cut()

    @contextmanager
    def hold(self, job_id: str) -> Generator[Run]:
        """Keeps the lease of a job alive while the block lasts."""
        run = self._runs[job_id] = Run()
        try:
            yield run
        finally:
            self._draining.discard(run)
            # A lease that lapsed may have been granted to this process again, under another run.
            if self._runs.get(job_id) is run:
                del self._runs[job_id]

    @contextmanager
    def retry(self, same_deployment: bool) -> Generator[None]:
        """Counts a further try as one while the block lasts, if it goes to a deployment that has failed the job."""
        self.retrying += same_deployment
        try:
            yield
        finally:
            self.retrying -= same_deployment

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await self._records.renew(list(self._runs), LEASE_MS)
            except RedisUnavailable as error:
                log.warning("leases can't be renewed: %s", error)
            except Exception:
                log.exception("leases could not be renewed, trying again")
