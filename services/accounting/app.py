"""Accounting: a job is billed."""

import asyncio
import logging
from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.clickhouse.client import ClickHouse, open_clickhouse
from infra.clickhouse.migrate import migrate
from infra.clickhouse.writer import BlockWriter
from infra.kafka.block_stage import BlockStage, Limits
from infra.platform import Platform
from schemas.topics import COMPLETIONS
from services.accounting import policy
from services.accounting.handler import Accounting
from services.accounting.rows import Bill

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 5.0
_BULK_MS = 250


class AccountingService:
    """Writes completions into ClickHouse, as soon as that is there and has its tables; a longer absence later is waited out."""

    name = "accounting"
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._beginning: asyncio.Task[None] | None = None
        self._missing = "ClickHouse was not asked yet"
        self._clickhouse: ClickHouse | None = None
        self._stage: BlockStage[Bill] | None = None

    async def start(self) -> None:
        """Returns at once; `not_ready` tells when the work has begun."""
        self._beginning = asyncio.create_task(self._begin())

    def not_ready(self) -> str | None:
        return self._stage.not_ready() if self._stage else f"{self.name}: {self._missing}"

    async def drain(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)
        if self._stage is not None:
            await self._stage.drain(self._platform.settings.drain_s)

    async def stop(self) -> None:
        if self._stage is not None:
            await self._stage.stop()
        if self._clickhouse is not None:
            await self._clickhouse.close()

    async def _begin(self) -> None:
        wait_s = 0.1
        while self._stage is None:
            try:
                await self._open()
            except Exception as error:
                self._missing = str(error)
                log.warning("accounting: can't begin, trying again: %s", error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _open(self) -> None:
        platform = self._platform
        if self._clickhouse is None:
            self._clickhouse = await open_clickhouse(platform.settings.clickhouse_url)
        for name in await migrate(self._clickhouse):
            log.info("accounting: ClickHouse has now %s", name)
        accounting = Accounting(platform.post(self.name), platform.files, BlockWriter(self._clickhouse))
        limits = Limits(policy.BLOCK_ROWS, policy.BLOCK_BYTES, policy.BLOCK_AGE_S)
        source = platform.source(self.name, COMPLETIONS.name, may_wait_ms=_BULK_MS)
        stage = BlockStage(self.name, source, accounting.read, accounting.write, limits)
        try:
            await stage.start()
        except BaseException:
            await stage.stop()
            raise
        self._stage = stage


def build(platform: Platform) -> AccountingService:
    return AccountingService(platform)
