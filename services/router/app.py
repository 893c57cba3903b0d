"""Router: a job is sent out."""

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial

from starlette.routing import BaseRoute

from infra.alerts import Alerts
from infra.estimates import Estimator
from infra.kafka.cancels import Cancels
from infra.kafka.table import ControlTable
from infra.platform import Platform
from infra.prices import PriceBook
from infra.redis.health import exchange
from infra.redis.quota import correct, take
from infra.secrets.book import Secrets
from infra.settings import Settings
from schemas.gates import PrometheusGate, PrometheusRule
from schemas.slip import Stage as StageName
from services.router.auto.judge import Judge
from services.router.books import Books
from services.router.calling import Calls
from services.router.chooser import Chooser
from services.router.dispatch import Dispatcher
from services.router.gates.composite import Gates
from services.router.gates.prometheus import Metrics
from services.router.handler import Router
from services.router.health import Health
from services.router.hedging import Hedges
from services.router.leases import Running
from services.router.places import Places
from services.router.probes import Probes
from services.router.providers.registry import Providers
from services.router.purse import Purse
from services.router.quota import Quotas
from services.router.roster import Roster
from services.router.sending import Sender
from services.router.shadow import Shadows
from services.router.shared_health import SharedHealth
from services.router.strategies.composite import Strategies
from services.router.tally import Tally


class RouterService:
    """The router stage, the cancels it listens to, the leases it renews, and the metrics that its gates look at."""

    name = StageName.ROUTER.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        records, clock, table = platform.records(self.name), platform.clock, platform.control.table
        self._drain_s = platform.settings.drain_s
        self._alerts = Alerts(platform.kafka, clock, self.name, platform.settings.public)
        self._secrets = self._opened_secrets(platform.settings)
        self._providers = Providers(platform.settings, self._secrets)
        self._running = Running(records)
        prices = PriceBook(platform.control.table)
        self._books = Books(prices)
        self._estimator = Estimator(table, prices)
        purse = Purse(table, platform.redis, self._estimator, clock)
        self._cancels = Cancels(platform.kafka, self._running.cancel)
        self._metrics = Metrics(partial(_rules, table), clock)
        health = Health()
        places = Places(health, clock)
        roster, self._tally = Roster(table), Tally(clock)
        dispatcher = self._dispatcher(platform, health, places)
        told = partial(exchange, platform.redis, platform.life)
        self._shared = SharedHealth(health, places, self._tally, roster, told, self._alerts.raise_, clock)
        self._secrets.changed = self._shared.rotated
        self._probes = Probes(health, lambda: roster.deployments, self._providers.lists_models, clock)
        calls = Calls(self._providers.of, platform.post(self.name), records, platform.tracing)
        hedges = Hedges(dispatcher.strategies.p95_ms)
        renewed = self._providers.renewed
        sender = Sender(calls, records, self._running, self._books, clock, dispatcher, purse, hedges, renewed)
        self._shadows = Shadows(table, platform.post(self.name), platform.signer, clock)
        chooser = Chooser(table, Judge(self._providers.embedder, platform.settings.auto_weights).judge)
        router = Router(table, records, dispatcher, sender, self._running, self._books, purse, clock, chooser, self._shadows)
        self._stage = platform.job_stage(StageName.ROUTER, router.handle, leased=True)
        self._delays = platform.delays(self.name)

    def _opened_secrets(self, settings: Settings) -> Secrets:
        async def away(what: str) -> None:
            await self._alerts.raise_("secrets_away", "vault", "", what, "critical")

        if not settings.vault:
            return Secrets(settings.secret, None, time.monotonic, random.random)
        # Who has no Vault needn't carry its client.
        from infra.secrets.vault import Vault

        return Secrets(settings.secret, Vault(settings), time.monotonic, random.random, away)

    def _dispatcher(self, platform: Platform, health: Health, places: Places) -> Dispatcher:
        quotas = Quotas(partial(take, platform.redis), partial(correct, platform.redis), places, platform.clock)
        gates = Gates(self._metrics.reading, quotas.share, self._books.input_usd_per_mtok)
        strategies = Strategies(places.busy, self._books.usd_of_the_same, platform.clock)
        return Dispatcher(health, places, quotas, gates, platform.clock, random.random, strategies, self._tally)

    async def start(self) -> None:
        self._secrets.start()
        self._books.start()
        self._estimator.start()
        await self._running.start()
        await self._metrics.start()
        await self._shared.start()
        await self._probes.start()
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
        await self._shadows.close()
        await self._cancels.stop()
        await self._probes.stop()
        await self._shared.stop()
        await self._metrics.stop()
        await self._running.stop()
        await self._books.stop()
        await self._estimator.stop()
        await self._providers.close()
        await self._secrets.stop()


def _rules(table: ControlTable) -> list[PrometheusRule]:
    gates = (gate for model in table.models.values() for gate in model.gates)
    return [gate.prometheus for gate in gates if isinstance(gate, PrometheusGate)]


def build(platform: Platform) -> RouterService:
    return RouterService(platform)
