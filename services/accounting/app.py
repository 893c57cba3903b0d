"""Accounting: a job is billed, and who changed what is kept."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute

from infra.alerts import Alerts
from infra.clickhouse.client import ClickHouse, open_clickhouse
from infra.clickhouse.cluster import Cluster
from infra.clickhouse.joined import Joined
from infra.clickhouse.migrate import migrate
from infra.clickhouse.retention import retain
from infra.clickhouse.writer import BlockWriter
from infra.kafka.block_stage import BlockStage
from infra.kafka.log import Partition
from infra.platform import Platform
from infra.redis.once import Once
from infra.settings import Settings
from schemas.topics import COMPLETIONS
from services.accounting.analysts import AnalystsKept
from services.accounting.audit import audit_stage
from services.accounting.events import EVENTS_KEPT
from services.accounting.feedback import FEEDBACK_KEPT
from services.accounting.handler import Accounting
from services.accounting.keeper import LIMITS, keeper_stage
from services.accounting.rebuild import Rebuild
from services.accounting.reconciliation import Reconciliation
from services.accounting.rollups import Rollups
from services.accounting.runaway import Watch
from services.accounting.settlement import SettlementStage
from services.accounting.shutdowns import Shutdowns
from services.accounting.signals import Signals
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
        self._rolling: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._reconciling: asyncio.Task[None] | None = None
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
        for task in (self._beginning, self._telling, self._rolling, self._reconciling):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
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
        settings = platform.settings
        cluster = Cluster(settings.clickhouse_cluster) if settings.clickhouse_cluster else None
        if self._clickhouse is None:
            own = cluster.settings(settings.clickhouse_quorum) if cluster else None
            self._clickhouse = await open_clickhouse(settings.clickhouse_url, own)
        for name in await migrate(self._clickhouse, cluster):
            log.info("accounting: ClickHouse has now %s", name)
        await retain(self._clickhouse, _kept_days(settings), cluster)
        post = platform.post(self.name)
        accounting = Accounting(post, platform.files, BlockWriter(self._clickhouse))
        source = platform.source(self.name, COMPLETIONS.name, may_wait_ms=_BULK_MS)
        bills = BlockStage(self.name, source, accounting.read, Joined(accounting.write).write, LIMITS)
        kept = (keeper_stage(platform, keeping, post, self._clickhouse) for keeping in (EVENTS_KEPT, FEEDBACK_KEPT))
        stages = (bills, *kept, audit_stage(platform, post, self._clickhouse))
        try:
            for stage in stages:
                await stage.start()
        except BaseException:
            for stage in stages:
                await stage.drain(0)
                await stage.stop()
            raise
        self._stages = stages
        rollups = Rollups(self._clickhouse, lambda: bills.has(Partition(COMPLETIONS.name, 0)), platform.clock)
        self._rolling = asyncio.create_task(rollups.run())
        analysts = AnalystsKept(self._clickhouse, platform.control.table, platform.clock)
        self._telling = asyncio.create_task(analysts.run())
        alerts = Alerts(platform.kafka, platform.clock, self.name, platform.settings.public)
        again = Reconciliation(platform, self._clickhouse, lambda: self._settlement.leads, accounting.write_again, alerts)
        self._reconciling = asyncio.create_task(again.run(platform.settings.reconcile_s))
        self._rebuild.set_result(Rebuild(platform, self._clickhouse))

    def _settlement_stage(self) -> SettlementStage:
        """The counters can be counted anew only from the books."""

        async def rebuild() -> None:
            await (await asyncio.shield(self._rebuild))()

        platform = self._platform
        table, alerts = platform.control.table, Alerts(platform.kafka, platform.clock, self.name, platform.settings.public)
        source = platform.source("settlement", COMPLETIONS.name, may_wait_ms=_TOGETHER_MS)
        signals = Signals(table, alerts, platform.redis)
        watch, shutdowns = Watch(table, alerts), Shutdowns(table, alerts, Once(platform.redis))
        return SettlementStage(source, platform.redis, platform.files, Sums(table), watch, shutdowns, signals, alerts, rebuild)


def _kept_days(settings: Settings) -> Mapping[str, int]:
    """How long the rows of each table are kept; 0: for ever."""
    return {
        "usage_log": settings.keep_usage_days,
        "attempts_log": settings.keep_attempts_days,
        "changes_log": settings.keep_events_days,
    }


def build(platform: Platform) -> AccountingService:
    return AccountingService(platform)
