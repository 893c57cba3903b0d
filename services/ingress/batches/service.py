"""What ingress starts and stops of files and batches: two families of endpoints, the runner's stage, and the sweeper."""

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute, Route

from infra.kafka.post import Post
from infra.kafka.stage import Stage
from infra.objects import ObjectStore
from infra.platform import Platform
from infra.redis.batches import Batches
from schemas.topics import BATCHES
from services.ingress.batches.files import Files
from services.ingress.batches.runner import Runner
from services.ingress.batches.submission import Submission
from services.ingress.handler import Admissions, CheckWebhook
from services.ingress.http.batches import BatchEndpoints
from services.ingress.http.files import FileEndpoints

log = logging.getLogger(__name__)

_WAITING = 1024
"""Batches at once in one process; most of them wait for their turn, which costs next to nothing."""

_SWEEP_S = 600.0
_WORTHLESS_S = 2 * 86_400.0
"""Older than any batch."""


class BatchService:
    """Files, batches, and who runs them."""

    def __init__(self, platform: Platform, admissions: Admissions, post: Post, check_webhook: CheckWebhook) -> None:
        """Raises ValueError if the store that SLUICE_OBJECTS names can't be used."""
        self._work_dir = platform.settings.work_dir
        self._store = ObjectStore(platform.settings.objects_url)
        self._files = Files(self._store, platform.clock)
        views = Batches(platform.redis)
        runner = Runner(platform, post, self._files, views, Submission(platform, admissions, post))
        self._stage = Stage("batches", platform.source("batches", BATCHES.name), runner.work, _WAITING)
        self._sweeping: asyncio.Task[None] | None = None
        files = FileEndpoints(platform, admissions, self._files)
        batches = BatchEndpoints(platform, admissions, post, self._files, views, check_webhook)
        self.routes: Sequence[BaseRoute] = [
            Route("/v1/files", files.create, methods=["POST"]),
            Route("/v1/files", files.list),
            Route("/v1/files/{file_id}", files.retrieve),
            Route("/v1/files/{file_id}", files.delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", files.content),
            Route("/v1/batches", batches.create, methods=["POST"]),
            Route("/v1/batches", batches.list),
            Route("/v1/batches/{batch_id}", batches.retrieve),
            Route("/v1/batches/{batch_id}/cancel", batches.cancel, methods=["POST"]),
        ]

    async def start(self) -> None:
        await self._stage.start()
        self._sweeping = asyncio.create_task(self._sweep())

    def not_ready(self) -> str | None:
        return self._stage.not_ready()

    async def drain(self) -> None:
        """At once: a batch may take a day, and goes on elsewhere where it was."""
        await self._stage.drain(0)

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._stage.stop()
        self._store.close()

    async def _sweep(self) -> None:
        """Every process does: what is gone already costs nothing."""
        while True:
            try:
                swept = await self._files.sweep()
                await asyncio.to_thread(_clear, self._work_dir)
                if swept:
                    log.info("files: %d had expired", swept)
            except Exception as error:
                log.warning("files: can't sweep (%s), trying again later", error)
            await asyncio.sleep(_SWEEP_S)


def _clear(work_dir: Path) -> None:
    """Removes what killed processes have left."""
    oldest = time.time() - _WORTHLESS_S
    for folder in work_dir.iterdir() if work_dir.is_dir() else ():
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
