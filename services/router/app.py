"""Router: a job is sent out."""

import asyncio
import random
from collections.abc import Sequence
from functools import partial

from starlette.routing import BaseRoute

from infra.estimates import Estimator
from infra.kafka.cancels import Cancels
from infra.kafka.table import ControlTable
from infra.platform import Platform
from infra.prices import PriceBook
from infra.redis.quota import correct, take
from schemas.gates import PrometheusGate, PrometheusRule
from schemas.slip import Stage as StageName
from services.router.books import Books
from services.router.dispatch import Dispatcher
from services.router.gates.composite import Gates
from services.router.gates.prometheus import Metrics
from services.router.handler import Router
from services.router.health import Health
from services.router.leases import Running
from services.router.places import Places
from services.router.providers.registry import Providers
from services.router.purse import Purse
from services.router.quota import Quotas
from services.router.sending import Sender
from services.router.strategies.composite import Strategies


class RouterService:
    """The router stage, the cancels it listens to, the leases it renews, and the metrics that its gates look at."""

    name = StageName.ROUTER.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        records, clock, table = platform.records(self.name), platform.clock, platform.control.table
        self._drain_s = platform.settings.drain_s
        self._providers = Providers(platform.settings)
        self._running = Running(records)
        prices = PriceBook()
        self._books = Books(prices)
        self._estimator = Estimator(table, prices)
        purse = Purse(table, platform.redis, self._estimator, clock)
        self._cancels = Cancels(platform.kafka, self._running.cancel)
        self._metrics = Metrics(partial(_rules, table), clock)
        dispatcher = self._dispatcher(platform)
        sender = Sender(
            provider_of=self._providers.of,
            post=platform.post(self.name),
            records=records,
            running=self._running,
            books=self._books,
            clock=clock,
            tracing=platform.tracing,
            dispatcher=dispatcher,
            purse=purse,
        )
        router = Router(table, records, dispatcher, sender, self._running, self._books, purse, clock)
        self._stage = platform.job_stage(StageName.ROUTER, router.handle, leased=True)
        self._delays = platform.delays(self.name)

    def _dispatcher(self, platform: Platform) -> Dispatcher:
        health = Health()
        places = Places(health, platform.clock)
        quotas = Quotas(partial(take, platform.redis), partial(correct, platform.redis), places, platform.clock)
        gates = Gates(self._metrics.reading, quotas.share, self._books.input_usd_per_mtok)
        strategies = Strategies(places.busy, self._books.usd_of_the_same, platform.clock)
        return Dispatcher(health, places, quotas, gates, platform.clock, random.random, strategies)

    async def start(self) -> None:
        self._books.start()
        self._estimator.start()
        await self._running.start()
        await self._metrics.start()
        await self._cancels.start()
        await asyncio.gather(self._stage.start(), self._delays.start())

    def not_ready(self) -> str | None:
        return self._stage.not_ready() or self._delays.not_ready()

    async def drain(self) -> None:
        self._running.stop_draining()
        await self._delays.drain()
        await self._stage.drain(self._drain_s)

    async def stop(self) -> None:
        await self._delays.stop()
        await self._stage.stop()
        await self._cancels.stop()
        await self._metrics.stop()
        await self._running.stop()
        await self._books.stop()
        await self._estimator.stop()
        await self._providers.close()


def _rules(table: ControlTable) -> list[PrometheusRule]:
    gates = (gate for model in table.models.values() for gate in model.gates)
    return [gate.prometheus for gate in gates if isinstance(gate, PrometheusGate)]


def build(platform: Platform) -> RouterService:
    return RouterService(platform)
