"""How a job passes a stage: decoded, checked, handed to the service's handler, and sent on, answered or put aside.

A handler says what is to become of a job by the outcome it returns; it never publishes the end itself. So the runtime can one
day hand a job to the next stage in memory, when that lives in the same process, with the same guarantees.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from infra.clock import Clock
from infra.files import FileStore
from infra.kafka.envelope import H_DATAREF, H_TRACEPARENT, Poison, decode, header
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from infra.signing import Signer
from infra.telemetry import metrics, spans
from schemas.completion import Completion, completion_of
from schemas.errors import DeadlineExceeded, Fault, InternalError, SluiceError
from schemas.job import Job, JobStatus
from schemas.reply import Event, Failed, Served
from schemas.slip import Stage as StageName

log = logging.getLogger(__name__)

MAX_DELIVERIES = 3
_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a job came. `suspect`: it may have been delivered before."""

    traceparent: str
    suspect: bool


@dataclass(frozen=True, slots=True)
class Forward:
    """The job goes to the next stage on its slip."""

    job: Job


@dataclass(frozen=True, slots=True)
class Finish:
    """The job ends here: its completion, and the last event for whoever waits."""

    completion: Completion
    last: Event
    attempt: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Nothing:
    """Somebody else ended the job, or nobody waits for it: nothing is to be sent."""


Outcome = Forward | Finish | Nothing
Handler = Callable[[Job, Delivery], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Carriage:
    """The work of a job stage. `leased` stages (the router) count and recognise deliveries themselves."""

    stage: StageName
    handler: Handler
    post: Post
    records: JobRecords
    signer: Signer
    files: FileStore
    clock: Clock
    tracing: spans.Tracing
    leased: bool = False

    async def work(self, record: Incoming, suspect: bool) -> None:
        """Works on one record to its acknowledged end; what can't be handled goes to the dead letters."""
        message = await read_job(record, self.files, self.signer, self.stage)
        if isinstance(message, Poison):
            log.warning("%s: %s from %s: %s", self.stage.value, message.reason, record.topic, message.detail)
            await self.post.dead(record, message)
            return
        while True:
            try:
                await self._pass(message, record, suspect)
                return
            except RedisUnavailable as error:
                # The job keeps its place until Redis is back or its deadline has passed.
                log.warning("%s: %s; %s waits", self.stage.value, error, message.id)
                await asyncio.sleep(_RETRY_S)

    async def _pass(self, job: Job, record: Incoming, suspect: bool) -> None:
        attributes = {
            spans.MESSAGING_SYSTEM: "kafka",
            spans.MESSAGING_DESTINATION: record.topic,
            spans.MESSAGING_PARTITION: str(record.partition),
            spans.MESSAGING_OFFSET: record.offset,
            spans.SLUICE_STAGE: self.stage.value,
            spans.SLUICE_LANE: job.lane.value,
            spans.SLUICE_JOB: job.id,
        }
        parent = header(record.headers, H_TRACEPARENT)
        with self.tracing.span(f"{self.stage.value} {job.lane.value}", parent, "consumer", attributes) as traceparent:
            if suspect and not self.leased and not await self._may_go_on(job, record, traceparent):
                metrics.REDELIVERED.labels(self.stage.value).inc()
                return
            await self._carry_out(job, await self._decide(job, Delivery(traceparent, suspect)), traceparent)

    async def _decide(self, job: Job, delivery: Delivery) -> Outcome:
        status = JobStatus.FAILED
        if self.clock() >= job.deadline_ms:
            status, fault = JobStatus.EXPIRED, deadline_passed(job, self.stage.value)
        else:
            try:
                outcome = await self.handler(job, delivery)
            except SluiceError as error:
                fault = error.fault()
            except RedisUnavailable:
                raise
            except Exception:
                log.exception("%s: the handler failed on %s", self.stage.value, job.id)
                fault = InternalError(f"The {self.stage.value} failed on this request; it is on record as {job.id}").fault()
            else:
                # A leased stage ends only what its lease entitles it to.
                return outcome if self.leased or not isinstance(outcome, Finish) else await self._gated(job, outcome, delivery)
        return await self._gated(job, self._end(job, status, fault, delivery), delivery)

    async def _gated(self, job: Job, finish: Finish, delivery: Delivery) -> Finish | Nothing:
        entitled = await self.records.may_end(job.id, self._rest_ms(job), suspect=delivery.suspect)
        return finish if entitled else Nothing()

    def _end(self, job: Job, status: JobStatus, fault: Fault, delivery: Delivery) -> Finish:
        trace_id = spans.trace_id(delivery.traceparent)
        completion = completion_of(job, status, self.stage.value, self.clock(), fault=fault, trace_id=trace_id)
        return Finish(completion, Failed(fault=fault, served=Served(model=job.model, cache=completion.cache)))

    async def _carry_out(self, job: Job, outcome: Outcome, traceparent: str) -> None:
        match outcome:
            case Forward(job=onward):
                await self.post.forward(onward, traceparent)
            case Finish(completion=completion, last=last, attempt=attempt, seq=seq):
                await self.post.finish(job, completion, last, attempt, seq, traceparent)
                keep = completion.cache_key is not None and completion.status is JobStatus.COMPLETED
                await self.records.done(job.id, self._rest_ms(job), keep_answer=keep)
            case Nothing():
                return

    async def _may_go_on(self, job: Job, record: Incoming, traceparent: str) -> bool:
        """False for a job that has ended, or that was begun so often that it must be what kills the process."""
        seen = await self.records.seen(job.id, self._rest_ms(job))
        if seen == 0:
            return False
        if seen > MAX_DELIVERIES:
            fault = InternalError(f"The job was begun {MAX_DELIVERIES} times without an end and was put aside").fault()
            delivery = Delivery(traceparent, suspect=True)
            ended = await self._gated(job, self._end(job, JobStatus.FAILED, fault, delivery), delivery)
            await self._carry_out(job, ended, traceparent)
            await self.post.dead(record, Poison("deliveries", f"delivered more than {MAX_DELIVERIES} times without an end"))
            return False
        return True

    def _rest_ms(self, job: Job) -> int:
        return job.deadline_ms - self.clock()


async def read_job(record: Incoming, files: FileStore, signer: Signer, stage: StageName) -> Job | Poison:
    """The job in a record of an internal topic, its body fetched if it lies elsewhere; or why it is none of ours."""
    resolved = await fetched(record, files)
    if isinstance(resolved, Poison):
        return resolved
    job = decode(resolved, Job)
    if isinstance(job, Poison):
        return job
    if not signer.holds(job):
        return Poison("signature", "the job was not admitted by this gateway, or was changed on its way")
    if not job.slip or job.slip[0] is not stage:
        return Poison("slip", f"the slip {[s.value for s in job.slip]} does not begin with {stage.value}")
    return job


@dataclass(frozen=True, slots=True)
class Resolved:
    """A record whose body was fetched from the file store."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


async def fetched(record: Incoming, files: FileStore) -> Incoming | Poison:
    """The record with its body, wherever that lies (claim check)."""
    reference = header(record.headers, H_DATAREF)
    if not reference:
        return record
    try:
        value = await files.get(reference)
    except FileNotFoundError:
        return Poison("dataref", "the body that the record refers to is gone")
    return Resolved(record.topic, record.partition, record.offset, record.timestamp, record.key, value, tuple(record.headers))


def deadline_passed(job: Job, where: str) -> Fault:
    """The fault of a job whose deadline passed while it waited."""
    seconds = (job.deadline_ms - job.accepted_ms) / 1000
    return DeadlineExceeded(
        f"The deadline of {seconds:g} s passed while the request waited before the {where}; "
        "send it again, with a longer x-sluice-timeout or in the batch lane"
    ).fault()
