"""A process of a world: some stages of the jobs' way, put together as `infra/platform.py` and the services' `app.py` do."""

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from random import Random

from infra.estimates import Estimator
from infra.kafka.carriage import Carriage, Delivery, Finish, Forward, Handler, Outcome
from infra.kafka.delay import Delays, waiting_jobs
from infra.kafka.log import Source
from infra.kafka.neighbours import Neighbours
from infra.kafka.post import Post
from infra.kafka.stage import Stage
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from infra.redis.jobs import JobRecords
from infra.redis.quota import correct, take
from infra.redis.tickets import Tickets
from infra.telemetry.spans import Tracing
from schemas.completion import completion_of
from schemas.control import Deployment, Hedge, Model, Price
from schemas.errors import ContentBlocked
from schemas.job import Job, JobStatus
from schemas.reply import Answer, Served
from schemas.slip import Stage as StageName
from schemas.topics import Lane, delay_topic, job_topic
from services.router.auto.base import Judged
from services.router.books import Books
from services.router.calling import Calls
from services.router.chooser import Chooser
from services.router.dispatch import Dispatcher
from services.router.gates.composite import Gates
from services.router.handler import Router
from services.router.health import Health
from services.router.hedging import Hedges
from services.router.leases import Running
from services.router.places import Places
from services.router.purse import Purse
from services.router.quota import Quotas
from services.router.sending import Sender
from services.router.shadow import Shadows
from services.router.strategies.composite import Strategies
from services.router.tally import Tally
from tests.fakes.jobs import SIGNER
from tests.simulator.chaos import LIFE, Chaos, Life
from tests.simulator.provider import Ledger, SimProvider
from tests.simulator.servers import Servers
from tests.simulator.wires import MemoryFiles, SimRedis, SimSink, SimSource

GRACE_S = 5.0
_BOOKS = Books(PriceBook())
_TRACING = Tracing(None)


class Process:
    """One process with these stages. `slot`: its place, which the one after it takes over."""

    def __init__(
        self, servers: Servers, chaos: Chaos, ledger: Ledger, stages: tuple[StageName, ...], slot: str | None, number: int
    ) -> None:
        self.stages, self.slot = stages, slot
        self.life = Life(chaos)
        self.name = f"life-{number}"
        self._servers, self._chaos, self._ledger = servers, chaos, ledger
        self._sink = SimSink(servers.log, self.life, chaos)
        self._redis = SimRedis(servers.redis, self.life, chaos)
        self._files: MemoryFiles = servers.files
        self._neighbours = Neighbours()
        self._total = chaos.chance.choice((2, 6, 40))
        self._table = _table(chaos.chance, chaos.habits)
        self.sources: list[SimSource] = []
        self.running: Running | None = None
        self._delays: Delays | None = None
        self._stages: Mapping[StageName, Stage] = {name: self._stage(name) for name in stages}

    def _source(self, group: str, *topics: str) -> Source:
        source = SimSource(self._servers.log.source(group, topics, self.slot), self.life, self._chaos)
        self.sources.append(source)
        return source

    def _post(self, name: str) -> Post:
        return Post(self._sink, self._files, self._chaos.now_ms, name)

    def _records(self, name: str) -> JobRecords:
        return JobRecords(self._redis, f"{name}-{self.slot or self.name}", self.name)

    def _stage(self, name: StageName) -> Stage:
        handlers: dict[StageName, Handler] = {StageName.GUARD: self._guard, StageName.CACHE: self._cache}
        carriage = Carriage(
            stage=name,
            handler=handlers.get(name) or self._router(),
            post=self._post(name.value),
            records=self._records(name.value),
            tickets=Tickets(self._redis, self._files),
            signer=SIGNER,
            files=self._files,
            clock=self._chaos.now_ms,
            tracing=_TRACING,
            hand_over=self._neighbours.hand_over,
            told=self._told,
            leased=name is StageName.ROUTER,
        )
        source = self._source(name.value, *(job_topic(name.value, lane) for lane in Lane))
        stage = Stage(name.value, source, carriage.work, self._total)
        self._neighbours.add(stage, carriage)
        return stage

    def _router(self) -> Handler:
        records, dispatcher = self._records("router"), self._dispatcher()
        self.running = Running(records)
        post, provider = self._post("router"), SimProvider(self._ledger, self.life, self._chaos)
        purse = Purse(self._table, self._redis, Estimator(self._table, PriceBook()), self._chaos.now_ms)
        clock = self._chaos.now_ms
        calls, hedges = Calls(lambda _: provider, post, records, _TRACING), Hedges(dispatcher.strategies.p95_ms)
        sender = Sender(calls, records, self.running, _BOOKS, clock, dispatcher, purse, hedges, self._renewed)
        self._delays = Delays(
            "delay", delay_topic, self._source, lambda delay: waiting_jobs(delay, post, self._files, SIGNER, clock)
        )
        chooser, shadows = Chooser(self._table, self._judged), Shadows(self._table, post, SIGNER, clock)
        router = Router(self._table, records, dispatcher, sender, self.running, _BOOKS, purse, clock, chooser, shadows)
        return router.handle

    async def _renewed(self, _: Deployment, __: float) -> bool:
        return False

    async def _judged(self, _: str) -> Judged:
        raise AssertionError("no model here chooses")

    def _dispatcher(self) -> Dispatcher:
        health, clock = Health(), self._chaos.now_ms
        places = Places(health, clock)
        quotas = Quotas(partial(take, self._redis), partial(correct, self._redis), places, clock)
        gates = Gates(lambda _: None, quotas.share, _BOOKS.input_usd_per_mtok)
        strategies = Strategies(places.busy, _BOOKS.usd_of_the_same, clock)
        return Dispatcher(health, places, quotas, gates, clock, self._chaos.chance.random, strategies, Tally(clock))

    async def start(self) -> None:
        """Returns when all stages have joined, or when the process has died meanwhile."""
        context = copy_context()
        context.run(LIFE.set, self.life)
        starting = asyncio.get_running_loop().create_task(self._start(), context=context)
        dying = asyncio.create_task(self.life.over.wait())
        await asyncio.wait([starting, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()

    async def _start(self) -> None:
        if self.running is not None and self._delays is not None:
            await self.running.start()
            await self._delays.start()
        for stage in reversed(list(self._stages.values())):
            await stage.start()

    async def terminate(self) -> None:
        """As SIGTERM does; it may die meanwhile."""
        context = copy_context()
        context.run(LIFE.set, self.life)
        ending = asyncio.get_running_loop().create_task(self._drain(), context=context)
        dying = asyncio.create_task(self.life.over.wait())
        await asyncio.wait([ending, dying], return_when=asyncio.FIRST_COMPLETED)

    async def _drain(self) -> None:
        for name, stage in self._stages.items():
            if name is StageName.ROUTER and self._delays:
                await self._delays.drain()
            await stage.drain(GRACE_S)
        for stage in self._stages.values():
            await stage.stop()
        if self.running is not None and self._delays is not None:
            await self._delays.stop()
            await self.running.stop()
        self.life.end()

    def not_ready(self) -> str | None:
        """Why not all of it is ready; a member of a group that was given nothing may be."""
        reasons = [stage.not_ready() for stage in self._stages.values()]
        return next((reason for reason in reasons if reason and "no partitions" not in reason), None)

    async def _told(self, team: str, result_id: str, since_ms: int) -> bool:
        await self.life.point()
        return result_id in self._servers.results(team)

    async def _guard(self, job: Job, _: Delivery) -> Outcome:
        await self.life.point()
        if job.body.get("deadly"):
            self.life.end()
            await self.life.point()
        if job.body.get("blocked"):
            raise ContentBlocked("not this")
        return Forward(job.past(StageName.GUARD))

    async def _cache(self, job: Job, _: Delivery) -> Outcome:
        await self.life.point()
        if job.stream or self._chaos.chance.random() < 0.9:
            return Forward(job.past(StageName.CACHE))
        completion = completion_of(job, JobStatus.COMPLETED, "cache", self._chaos.now_ms(), cache="hit")
        return Finish(completion, Answer(body='{"choices":[],"cached":true}', served=Served(model=job.model, cache="hit")))


def _table(chance: Random, habits: Random) -> ControlTable:
    """One model with two deployments, which may bear little, and calls that may be hedged."""
    price = Price(input_usd=Decimal("0.001"), output_usd=Decimal("0.002"))
    first = Deployment(id="d1", provider="openai", model="real", price=price, timeout_s=6, on_disconnect="drain")
    second = Deployment(id="d2", provider="openai", model="real", price=price)
    if chance.random() < 0.3:
        first = first.model_copy(update={"max_parallel_requests": 2})
        second = second.model_copy(update={"rpm": 6})
    table = ControlTable()
    hedge = Hedge(after_s=1, most_share=1) if habits.random() < 0.5 else None
    table.put(Model(name="small", deployments=(first, second), hedge=hedge))
    return table
