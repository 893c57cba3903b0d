"""Router: a job is sent out."""

import asyncio
from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.kafka.cancels import Cancels
from infra.platform import Platform
from infra.prices import PriceBook
from schemas.slip import Stage as StageName
from services.router.books import Books
from services.router.handler import Router
from services.router.leases import Running
from services.router.providers.registry import Providers
from services.router.sending import Sender


class RouterService:
    """The router stage, the cancels it listens to, and the leases it renews."""

    name = StageName.ROUTER.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        records = platform.records(self.name)
        self._drain_s = platform.settings.drain_s
        self._providers = Providers(platform.settings)
        self._running = Running(records)
        self._books = Books(PriceBook())
        self._cancels = Cancels(platform.kafka, self._running.cancel)
        sender = Sender(
            provider_of=self._providers.of,
            post=platform.post(self.name),
            records=records,
            running=self._running,
            books=self._books,
            clock=platform.clock,
            tracing=platform.tracing,
        )
        router = Router(platform.control.table, records, sender, self._running, self._books, platform.clock)
        self._stage = platform.job_stage(StageName.ROUTER, router.handle, leased=True)
        self._delays = platform.delays(self.name)

    async def start(self) -> None:
        self._books.start()
        await self._running.start()
        await self._cancels.start()
        await asyncio.gather(self._stage.start(), self._delays.start())

    def not_ready(self) -> str | None:
        return self._stage.not_ready() or self._delays.not_ready()

    async def drain(self) -> None:
        await self._delays.drain()
        await self._stage.drain(self._drain_s)

    async def stop(self) -> None:
        await self._delays.stop()
        await self._stage.stop()
        await self._cancels.stop()
        await self._running.stop()
        await self._books.stop()
        await self._providers.close()


def build(platform: Platform) -> RouterService:
    return RouterService(platform)
