"""The door of a world: jobs are admitted, sent on their way, and sometimes given up by who asked."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from infra.kafka.post import Post
from infra.redis.admission import Keeping, admit
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from infra.redis.listing import list_key
from schemas.base import JsonObject
from schemas.ids import uuid7_hex
from schemas.job import Api, Job, ReplyTo
from schemas.policy import EffectivePolicy, RoutePolicy
from schemas.slip import Stage
from schemas.ticket import Ticket
from schemas.topics import Lane
from tests.fakes.jobs import CALLER, SIGNER
from tests.simulator.chaos import Chaos, Life
from tests.simulator.servers import Servers
from tests.simulator.wires import SimRedis, SimSink

PARTITION = 5
_WAYS = (
    (Stage.GUARD, Stage.CACHE, Stage.ROUTER),
    (Stage.GUARD, Stage.ROUTER),
    (Stage.CACHE, Stage.ROUTER),
    (Stage.ROUTER,),
)
_GOES_ON = EffectivePolicy(version="1", route=RoutePolicy(on_broken_stream="continue"))


@dataclass(slots=True)
class Sent:
    """A job that came to the door. `accepted`: its sender was told so."""

    job: Job
    accepted: bool = False
    left: bool = False


class Door:
    """An ingress that never dies; what it asks of servers fails like everybody's. `heard`: how a cancel gets about."""

    def __init__(self, servers: Servers, chaos: Chaos, heard: Callable[[str], None]) -> None:
        life = Life(chaos)
        self._redis = SimRedis(servers.redis, life, chaos)
        self._post = Post(SimSink(servers.log, life, chaos), servers.files, chaos.now_ms, "ingress")
        self._records = JobRecords(self._redis, "ingress-0", "life-of-the-door")
        self._chaos, self._heard = chaos, heard
        self.sent: list[Sent] = []

    async def come(self) -> None:
        """One job, from its admission to the end of its sender's patience."""
        sent = Sent(self._made())
        if not await self._is_admitted(sent.job):
            return
        self.sent.append(sent)
        if sent.job.reply_to.kind == "results":
            await self._forward_for_certain(sent)
        else:
            await self._forward(sent)
        if sent.accepted and self._chaos.strikes(self._chaos.weather.leaving):
            await asyncio.sleep(self._chaos.chance.random() ** 2 * 8)
            await self._leave(sent)

    async def _is_admitted(self, job: Job) -> bool:
        ticket = Ticket(
            job_id=job.id,
            api=job.api,
            lane=job.lane,
            model=job.model,
            caller=job.caller,
            partition=PARTITION,
            accepted_ms=job.accepted_ms,
            deadline_ms=job.deadline_ms,
        )
        kept_ms = job.deadline_ms - job.accepted_ms + job.keep_s * 1000
        keeping = Keeping(
            job_id=job.id,
            accepted_ms=job.accepted_ms,
            ticket=ticket.model_dump_json().encode(),
            ticket_ms=kept_ms,
            list_key=list_key(job.caller.team),
        )
        try:
            if job.keep_s:
                await admit(self._redis, keeping=keeping)
        except RedisUnavailable:
            return False
        return True

    async def _forward(self, sent: Sent) -> None:
        """A connection is told that it failed; whether the job is on its way isn't known then, and it is given up."""
        try:
            async with asyncio.timeout(2):
                await self._post.forward(sent.job, "")
            sent.accepted = True
        except (TimeoutError, ConnectionError):
            await self._leave(sent)

    async def _forward_for_certain(self, sent: Sent) -> None:
        """A record of the Kafka door keeps its place until its job is on its way, under an id of its own."""
        while not sent.accepted:
            try:
                await self._post.forward(sent.job, "")
                sent.accepted = True
            except ConnectionError:
                await asyncio.sleep(0.5)

    async def _leave(self, sent: Sent) -> None:
        sent.left = True
        try:
            await self._records.abandon(sent.job.id, sent.job.deadline_ms - self._chaos.now_ms())
        except RedisUnavailable:
            return
        self._heard(sent.job.id)

    def _made(self) -> Job:
        chance, now_ms = self._chaos.chance, self._chaos.now_ms()
        way, to_inbox = chance.choice(_WAYS), chance.random() < 0.6
        patience_ms = chance.choice((3_000, 20_000, 60_000, 120_000))
        job_id = f"job_{uuid7_hex(now_ms, chance.getrandbits(74))}"
        deadly = self._chaos.weather.deadly and chance.random() < 0.02
        body: JsonObject = {"model": "small", "messages": [{"role": "user", "content": "do"}]}
        marks: JsonObject = {"deadly": True} if deadly else {"blocked": True} if chance.random() < 0.05 else {}
        job = Job(
            id=job_id,
            api=Api.CHAT,
            lane=chance.choice(tuple(Lane)),
            model="small",
            body=body | marks,
            stream=to_inbox and chance.random() < 0.5,
            caller=CALLER.model_copy(update={"team": chance.choice(("fraud", "claims"))}),
            policy=_GOES_ON if self._chaos.habits.random() < 0.5 else EffectivePolicy(version="1"),
            slip=way,
            way=way,
            accepted_ms=now_ms,
            deadline_ms=now_ms + patience_ms,
            reply_to=ReplyTo(kind="inbox", partition=PARTITION) if to_inbox else ReplyTo(kind="results"),
            custom_id=job_id,
            keep_s=chance.choice((0, 600)),
            not_before_ms=now_ms + chance.randrange(12_000) if chance.random() < 0.1 else 0,
        )
        return SIGNER.sign(job)
