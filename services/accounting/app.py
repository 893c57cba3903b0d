"""Accounting: a job is billed, and who changed what is kept."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute

from infra.alerts import Alerts
from infra.clickhouse.client import ClickHouse, open_clickhouse
from infra.clickhouse.migrate import migrate
from infra.clickhouse.writer import BlockWriter
from infra.kafka.block_stage import BlockStage, Limits
from infra.platform import Platform
from infra.redis.once import Once
from schemas.topics import COMPLETIONS
from services.accounting import policy
from services.accounting.events import events_stage
from services.accounting.handler import Accounting
from services.accounting.rebuild import Rebuild
from services.accounting.runaway import Watch
from services.accounting.settlement import SettlementStage
from services.accounting.shutdowns import Shutdowns
from services.accounting.sums import Sums

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 5.0
_BULK_MS = 250
_TOGETHER_MS = 15
"""Completions wait so long for others before they are settled: one script for many."""


class AccountingService:
    """Writes completions into ClickHouse, as soon as that is there and has its tables; a longer absence later is waited out."""

    name = "accounting"
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._beginning: asyncio.Task[None] | None = None
        self._missing = "ClickHouse was not asked yet"
        self._clickhouse: ClickHouse | None = None
        self._stages: Sequence[BlockStage[Any]] = ()
        self._rebuild: asyncio.Future[Rebuild] = asyncio.get_running_loop().create_future()
        self._settlement = self._settlement_stage()

    async def start(self) -> None:
        """Returns at once; `not_ready` tells when the work has begun. Budgets are settled whether or not ClickHouse is there."""
        await self._settlement.start()
        self._beginning = asyncio.create_task(self._begin())

    def not_ready(self) -> str | None:
        if not self._stages:
            return f"{self.name}: {self._missing}"
        return next(filter(None, (stage.not_ready() for stage in (*self._stages, self._settlement))), None)

    async def drain(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)
        await asyncio.gather(*(stage.drain(self._platform.settings.drain_s) for stage in self._stages))
        await self._settlement.drain()

    async def stop(self) -> None:
        for stage in (*self._stages, self._settlement):
            await stage.stop()
        if self._clickhouse is not None:
            await self._clickhouse.close()

    async def _begin(self) -> None:
        wait_s = 0.1
        while not self._stages:
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
        post = platform.post(self.name)
        accounting = Accounting(post, platform.files, BlockWriter(self._clickhouse))
        limits = Limits(policy.BLOCK_ROWS, policy.BLOCK_BYTES, policy.BLOCK_AGE_S)
        source = platform.source(self.name, COMPLETIONS.name, may_wait_ms=_BULK_MS)
        bills = BlockStage(self.name, source, accounting.read, accounting.write, limits)
        stages = (bills, events_stage(platform, post, self._clickhouse))
        try:
            for stage in stages:
                await stage.start()
        except BaseException:
            for stage in stages:
                await stage.drain(0)
                await stage.stop()
            raise
        self._stages = stages
        self._rebuild.set_result(Rebuild(platform, self._clickhouse, accounting.writing))

    def _settlement_stage(self) -> SettlementStage:
        """The counters can be counted anew only from the books."""

        async def rebuild() -> None:
            await (await asyncio.shield(self._rebuild))()

        platform = self._platform
        table, alerts = platform.control.table, Alerts(platform.kafka, platform.clock, self.name)
        source = platform.source("settlement", COMPLETIONS.name, may_wait_ms=_TOGETHER_MS)
        watch, shutdowns = Watch(table, alerts), Shutdowns(table, alerts, Once(platform.redis))
        return SettlementStage(source, platform.redis, platform.files, Sums(table), watch, shutdowns, alerts, rebuild)


def build(platform: Platform) -> AccountingService:
    return AccountingService(platform)
