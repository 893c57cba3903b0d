"""The opened connections, handed to each service. Nobody below `services/cli.py` knows whose servers they lead to."""

import asyncio
import secrets
from dataclasses import dataclass

from infra.clock import Clock, now_ms
from infra.credentials import JobTokens
from infra.files import FileStore
from infra.kafka.broker import Kafka
from infra.kafka.carriage import Carriage, Handler
from infra.kafka.delay import Delays, waiting_jobs
from infra.kafka.loads import Loads
from infra.kafka.log import Source
from infra.kafka.neighbours import Neighbours
from infra.kafka.post import Post
from infra.kafka.results import Results
from infra.kafka.stage import Stage
from infra.kafka.table import Control
from infra.pace import Pace
from infra.redis.client import Redis
from infra.redis.jobs import JobRecords
from infra.redis.tickets import Tickets
from infra.secret_files import shared_secret
from infra.settings import Settings
from infra.signing import Signer
from infra.telemetry.spans import Tracing, open_tracing
from schemas.slip import Stage as StageName
from schemas.topics import TOPICS, Lane, delay_topic, job_topic


@dataclass(frozen=True, slots=True)
class Platform:
    """What a service needs to act. `life` names this process; `slot` its place among its like, if it has one."""

    settings: Settings
    kafka: Kafka
    redis: Redis
    control: Control
    files: FileStore
    signer: Signer
    tokens: JobTokens
    tracing: Tracing
    clock: Clock
    life: str
    neighbours: Neighbours
    results: Results
    loads: Loads
    pace: Pace

    @property
    def owner(self) -> str:
        """Who holds leases: the slot, which a restarted process keeps, or else this process alone."""
        slot = self.settings.slot
        return f"slot-{slot}" if slot is not None else self.life

    def post(self, service: str) -> Post:
        """Sends in the name of a service."""
        return Post(self.kafka, self.files, self.clock, service, self.loads.lightest)

    def records(self, service: str) -> JobRecords:
        return JobRecords(self.redis, f"{service}-{self.owner}", self.life)

    @property
    def tickets(self) -> Tickets:
        """The job store."""
        return Tickets(self.redis, self.files)

    def delays(self, service: str) -> Delays:
        """Where jobs wait that may not be sent out yet."""
        post, files, signer, clock = self.post(service), self.files, self.signer, self.clock
        return Delays("delay", delay_topic, self.source, lambda delay: waiting_jobs(delay, post, files, signer, clock))

    def source(self, group: str, *topics: str, may_wait_ms: int = 0) -> Source:
        """A member of the group `sluice-<group>`; records may wait for so long, to come many at once."""
        return self.kafka.source(f"sluice-{group}", topics, self.settings.slot, may_wait_ms)

    def job_stage(self, name: StageName, handler: Handler, *, leased: bool = False) -> Stage:
        """A stage of the jobs' way: both lanes of its topic, worked on by `handler`."""
        carriage = Carriage(
            stage=name,
            handler=handler,
            post=self.post(name.value),
            records=self.records(name.value),
            tickets=self.tickets,
            signer=self.signer,
            files=self.files,
            clock=self.clock,
            tracing=self.tracing,
            hand_over=self.neighbours.hand_over,
            told=self.results.told,
            leased=leased,
        )
        source = self.source(name.value, *(job_topic(name.value, lane) for lane in Lane))
        stage = Stage(name.value, source, carriage.work, self.settings.concurrency, self.pace)
        self.loads.tell_of(stage)
        if self.settings.hand_over:
            self.neighbours.add(stage, carriage)
        return stage

    def not_ready(self) -> str | None:
        """Why no service of this process can be ready, or None."""
        return self.control.not_ready()

    async def close(self) -> None:
        await self.pace.stop()
        await self.loads.stop()
        await self.control.stop()
        await self.kafka.stop()
        await self.redis.close()
        await asyncio.to_thread(self.tracing.close)


async def open_platform(settings: Settings, service: str) -> Platform:
    """Connects to everything that `settings` name, creates missing topics, reads the control topic to its end.

    Raises ConnectionError if Kafka or Redis doesn't answer.
    """
    kafka = Kafka(settings.kafka)
    await kafka.start()
    redis = Redis(settings.redis_url, settings.redis_timeout_s)
    if not await redis.ping():
        raise ConnectionError(f"no Redis answers at {settings.redis}")
    await kafka.create(TOPICS, settings.replication)
    control = Control(kafka)
    await control.start()
    loads = Loads(redis, now_ms)
    await loads.start()
    pace = Pace()
    pace.start()
    key = await asyncio.to_thread(shared_secret, settings.data_dir, settings.signing_key.get_secret_value())
    return Platform(
        settings=settings,
        kafka=kafka,
        redis=redis,
        control=control,
        files=FileStore(settings.files_dir),
        signer=Signer(key),
        tokens=JobTokens(key),
        tracing=open_tracing(service, settings.otlp_endpoint, settings.otlp_headers.get_secret_value(), settings.otel_semconv),
        clock=now_ms,
        life=secrets.token_hex(8),
        neighbours=Neighbours(),
        results=Results(kafka),
        loads=loads,
        pace=pace,
    )
