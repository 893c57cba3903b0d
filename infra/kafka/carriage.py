"""How a job passes a stage: decoded, checked, handed to the service's handler, and sent on, answered or put aside.

A handler says what is to become of a job by the outcome it returns; it never publishes the end itself. So a job can go to the
next stage in memory when that lives in the same process, with the same guarantees.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from infra.clock import Clock
from infra.files import FileStore
from infra.kafka.envelope import H_DATAREF, Poison, decode, header, trace_context
from infra.kafka.log import Incoming
from infra.kafka.post import Post, result_id
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from infra.redis.tickets import Tickets
from infra.signing import Signer
from infra.telemetry import genai, metrics, spans
from schemas.audit import Heard, audit_of
from schemas.completion import Completion, completion_of
from schemas.errors import DeadlineExceeded, Fault, InternalError, SluiceError
from schemas.job import Job, JobStatus
from schemas.reply import Event, Failed, Served
from schemas.slip import Stage as StageName
from schemas.ticket import Ended
from schemas.topics import job_topic

log = logging.getLogger(__name__)

MAX_DELIVERIES = 3

T = TypeVar("T")


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
    """The job ends here: its completion, and the last event for whoever waits. `again`: a dead life may have told it already.

    `stream`: what went out before the last event, for whoever asks later; `heard`: what it said, where that is audited.
    """

    completion: Completion
    last: Event
    attempt: int = 0
    seq: int = 0
    again: bool = False
    stream: tuple[str, ...] = ()
    heard: Heard | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """Somebody else ended the job, or nobody waits for it: nothing is to be sent."""


@dataclass(frozen=True, slots=True)
class Booked:
    """Somebody else ended the job meanwhile; what it cost here is told all the same, and nobody is answered twice."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class PutOff:
    """The job may not be sent out now: it comes back to this stage when its `not_before_ms` has come."""

    job: Job


Outcome = Forward | Finish | Booked | PutOff | Nothing
Handler = Callable[[Job, Delivery], Awaitable[Outcome]]
Told = Callable[[str, str, int], Awaitable[bool]]
"""Whether a team was told a result, which can't have been before a time: team, id of the result, unix milliseconds."""

HandOver = Callable[[Job, Incoming, Delivery], Awaitable[bool]]
"""Has the next stage work on the job here and now; False if it is elsewhere, and Kafka has to carry the job."""


@dataclass(frozen=True, slots=True)
class Carriage:
    """The work of a job stage.

    `leased` stages (the router) recognise deliveries by their lease. They also look at the deadline themselves, after the lease:
    an answer that was kept before a death is published even if it is late, and what was called is told.
    """

    stage: StageName
    handler: Handler
    post: Post
    records: JobRecords
    tickets: Tickets
    signer: Signer
    files: FileStore
    clock: Clock
    tracing: spans.Tracing
    hand_over: HandOver
    told: Told
    leased: bool = False
    retry_s: float = 0.25

    async def work(self, record: Incoming, suspect: bool) -> None:
        """Works on one record to its acknowledged end; what can't be handled goes to the dead letters."""
        job = await read_job(record, self.files, self.signer, self.stage)
        if isinstance(job, Poison):
            log.warning("%s: %s from %s: %s", self.stage.value, job.reason, record.topic, job.detail)
            await self.post.dead(record, job)
            return
        delivery = Delivery(trace_context(record.headers), suspect)
        if suspect and not self.leased and not await self._may_go_on(job, record, delivery):
            metrics.REDELIVERED.labels(self.stage.value).inc()
            return
        await self.take_over(job, record, delivery)

    async def take_over(self, job: Job, record: Incoming, delivery: Delivery) -> None:
        """Works on a job to its acknowledged end. `record`: what it came in, to this process."""
        job = job.taken(self.stage, self.clock())
        topic = job_topic(self.stage.value, job.lane)
        with self.tracing.span(f"process {topic}", delivery.traceparent, "consumer") as span:
            if span.recording:
                span.set(self._told(topic, job, record))
            await self._pass(job, record, Delivery(span.context, delivery.suspect), span)

    def _told(self, topic: str, job: Job, record: Incoming) -> genai.Attributes:
        """What the span says of the hop. What was handed over in memory has no offset here."""
        group, told = f"sluice-{self.stage.value}", genai.job(job, self.stage.value)
        if record.topic != topic:
            return told | genai.hop(topic, group, "process")
        return told | genai.record(topic, record.partition, record.offset, group, "process")

    async def _pass(self, job: Job, record: Incoming, delivery: Delivery, span: spans.Span) -> None:
        decision = await self._patiently(job, lambda: self._decide(job, delivery))
        if span.recording:
            span.set(_decided(decision))
        if isinstance(decision, Fault):
            await self._fail(job, record, decision, delivery)
        elif isinstance(decision, Finish) and not self.leased:
            await self._finish_once(job, record, decision, delivery)
        else:
            # What a leased stage ends itself, its lease entitles it to.
            await self._carry_out(job, record, decision, delivery)

    async def _decide(self, job: Job, delivery: Delivery) -> Outcome | Fault:
        """What the handler says, or the fault that ends the job because it couldn't say."""
        if self.clock() >= job.deadline_ms and not self.leased:
            return deadline_passed(job, self.stage.value)
        try:
            return await self.handler(job, delivery)
        except RedisUnavailable:
            raise
        except SluiceError as error:
            return error.fault()
        except Exception:
            log.exception("%s: the handler failed on %s", self.stage.value, job.id)
            return InternalError(f"The {self.stage.value} failed on this request; it is on record as {job.id}").fault()

    async def _may_go_on(self, job: Job, record: Incoming, delivery: Delivery) -> bool:
        """False for a job that has ended, or that was begun so often that it must be what kills the process."""
        ask = secrets.token_hex(8)
        seen = await self._patiently(job, lambda: self.records.seen(job.id, self._rest_ms(job), ask))
        if seen > MAX_DELIVERIES:
            fault = InternalError(f"The job was begun {MAX_DELIVERIES} times without an end and was put aside").fault()
            if await self._fail(job, record, fault, delivery):
                await self.post.dead(record, Poison("deliveries", f"delivered more than {MAX_DELIVERIES} times without an end"))
        return 0 < seen <= MAX_DELIVERIES

    async def _fail(self, job: Job, record: Incoming, fault: Fault, delivery: Delivery) -> bool:
        status = JobStatus.EXPIRED if fault.code == DeadlineExceeded.code else JobStatus.FAILED
        trace_id = spans.trace_id(delivery.traceparent)
        completion = completion_of(job, status, self.stage.value, self.clock(), fault=fault, attempts=job.made, trace_id=trace_id)
        last = Failed(fault=fault, served=Served(model=job.model, cache=completion.cache))
        return await self._finish_once(job, record, Finish(completion, last), delivery)

    async def _finish_once(self, job: Job, record: Incoming, finish: Finish, delivery: Delivery) -> bool:
        """Ends the job unless somebody else does; False then."""
        copy = _copy(record)
        while True:
            ending = await self._patiently(job, lambda: self.records.may_end(job.id, self._rest_ms(job), copy, books=self.leased))
            match ending.state:
                case "granted" | "again":
                    finish = replace(finish, again=finish.again or ending.state == "again")
                    await self._carry_out(job, record, finish, delivery)
                    return True
                case "done":
                    return False
                case "answered" | "called" if not self.leased:
                    # The router will find the answer that is kept, or what was called, and end the job with it.
                    await self.post.forward(job.at(StageName.ROUTER), delivery.traceparent)
                    return False
                case "leased":
                    await asyncio.sleep(min(ending.left_ms / 1000, self.retry_s))
                case "answered" | "called":
                    await asyncio.sleep(self.retry_s)

    async def _carry_out(self, job: Job, record: Incoming, outcome: Outcome, delivery: Delivery) -> None:
        match outcome:
            case Forward(job=onward):
                if delivery.suspect and not self.leased and await self._has_ended(job, record):
                    return
                if not await self.hand_over(onward, record, delivery):
                    await self.post.forward(onward, delivery.traceparent)
            case PutOff(job=later):
                await self.post.forward(later, delivery.traceparent)
                # Only now: until it is acknowledged, this copy is the only one.
                await self._patiently(job, lambda: self.records.put_off(later.id, len(later.made)))
            case Finish(completion=completion, last=last, attempt=attempt, seq=seq, again=again):
                audited = await self._audit(job, outcome, delivery) if job.policy.audited != "none" else None
                if await self._is_told(job, completion, again, delivery):
                    await self.post.book(completion, delivery.traceparent)
                else:
                    note = partial(self._note_end, job, _ended(completion, outcome)) if job.keep_s else None
                    await self.post.finish(job, completion, last, attempt, seq, delivery.traceparent, note)
                if audited is not None:
                    await audited
                keep = completion.cache_key is not None and completion.status is JobStatus.COMPLETED
                done = partial(self.records.done, job.id, self._rest_ms(job), keep_answer=keep)
                if job.policy.when_redis_is_away == "open":
                    # It was told: nobody is kept from its place until Redis is back.
                    with suppress(RedisUnavailable):
                        await done()
                else:
                    await self._patiently(job, done)
            case Booked(completion=completion):
                await self.post.book(completion, delivery.traceparent)
            case Nothing():
                return

    async def _audit(self, job: Job, end: Finish, delivery: Delivery) -> Awaitable[object]:
        """On its way together with the end; it must have arrived before the job is done."""
        record = audit_of(job, end.completion, end.last, end.stream, end.heard, secrets.token_hex(16))
        return await self.post.begin_audit(record, delivery.traceparent)

    async def _has_ended(self, job: Job, record: Incoming) -> bool:
        """Whether this copy, which is to go on, has ended the job before: a cache may not find again what it found then."""
        copy = _copy(record)
        if not await self._patiently(job, lambda: self.records.was_ending(job.id, copy)):
            return False
        if job.reply_to.kind == "results" and await self.told(job.caller.team, result_id(job.id), job.accepted_ms):
            await self._patiently(job, lambda: self.records.done(job.id, self._rest_ms(job), keep_answer=False))
            return True
        await self._patiently(job, lambda: self.records.was_ending(job.id, copy, forget=True))
        return False

    async def _is_told(self, job: Job, completion: Completion, again: bool, delivery: Delivery) -> bool:
        """A connection drops what it was told before; the reader of a results topic can't.

        Another life may have ended the job without a call, of which a lease knows nothing.
        """
        if job.reply_to.kind != "results" or not (again or (self.leased and delivery.suspect)):
            return False
        attempts = completion.attempts if again else ()
        began_ms = min((attempt.started_ms for attempt in attempts), default=job.accepted_ms)
        return await self.told(job.caller.team, result_id(job.id), began_ms)

    async def _note_end(self, job: Job, ended: Ended) -> None:
        await self._patiently(job, lambda: self.tickets.end(job.id, ended, job.keep_s))

    async def _patiently(self, job: Job, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until Redis answers: meanwhile the job keeps its place. Each step by itself, so that none is done twice."""
        while True:
            try:
                return await ask()
            except RedisUnavailable as error:
                log.warning("%s: %s; %s waits", self.stage.value, error, job.id)
                await asyncio.sleep(self.retry_s)

    def _rest_ms(self, job: Job) -> int:
        return job.deadline_ms - self.clock()


def _decided(decision: Outcome | Fault) -> genai.Attributes:
    """What the span says of a decision."""
    match decision:
        case Fault(code=code, type=type):
            return {genai.ERROR_TYPE: code or type}
        case Forward(job=job):
            return genai.passed(job)
        case Finish(completion=completion) | Booked(completion=completion):
            return genai.ended(completion)
        case PutOff() | Nothing():
            return {}


def _copy(record: Incoming) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"


def _ended(completion: Completion, finish: Finish) -> Ended:
    return Ended(
        status=completion.status,
        ended_ms=completion.ended_ms,
        last=finish.last,
        stream=finish.stream,
        usage=completion.usage,
        cost_usd=completion.cost_usd,
        attempts=len(completion.attempts),
    )


async def read_job(record: Incoming, files: FileStore, signer: Signer, stage: StageName) -> Job | Poison:
    """The job in a record of a stage's topic, its body fetched if it lies elsewhere; or why it is none of ours."""
    job = await read_waiting_job(record, files, signer)
    if isinstance(job, Job) and (not job.slip or job.slip[0] is not stage):
        return Poison("slip", f"the slip {[s.value for s in job.slip]} does not begin with {stage.value}")
    return job


async def read_waiting_job(record: Incoming, files: FileStore, signer: Signer) -> Job | Poison:
    """The job in a record of any internal topic; or why it is none of ours."""
    resolved = await fetched(record, files)
    if isinstance(resolved, Poison):
        return resolved
    job = decode(resolved, Job)
    if isinstance(job, Poison):
        return job
    if not signer.holds(job):
        return Poison("signature", "the job was not admitted by this gateway, or was changed on its way")
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
