"""What services send: a job on its way, reply events, the completion, a cancel, a dead letter. Typed, and acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from infra.clock import Clock
from infra.files import FileStore
from infra.kafka.envelope import MAX_INLINE_BYTES, Poison, by_reference, encode
from infra.kafka.log import Incoming, Outgoing, Sink
from infra.kafka.shards import Choice, by_chance, partition_of
from infra.telemetry import meters, metrics
from schemas.audit import AuditRecord
from schemas.base import JsonObject
from schemas.batch import BatchError, BatchOrder, BatchResponse, BatchResult
from schemas.cancel import Cancel
from schemas.completion import Completion
from schemas.errors import Fault, ProviderError
from schemas.feedback import Feedback
from schemas.job import Job, ReplyTo
from schemas.reply import Answer, Event, Failed, Reply
from schemas.topics import (
    AUDIT,
    AUDIT_DRAFTS,
    BATCH_RESULTS,
    BATCHES,
    CANCELS,
    COMPLETIONS,
    DEAD,
    DELAY,
    FEEDBACK,
    REPLIES,
    ROUTER,
    Delay,
    delay_topic,
    results_topic,
    webhook_topic,
)
from schemas.webhook import WebhookDelivery

MAX_RESULT_BYTES = 1_900_000
"""Of a result in its record: what the topic takes, less headers. Its reader can't follow a reference into our file store."""

_LEAST_WAIT_MS = 20

_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


@dataclass(frozen=True, slots=True)
class Post:
    """Sends in the name of one service. Every method returns when the brokers have acknowledged."""

    sink: Sink
    files: FileStore
    clock: Clock
    source: str
    choose: Choice = by_chance

    async def forward(self, job: Job, traceparent: str) -> None:
        """Sends the job to the next stage on its slip, or, if it may not be sent out yet, to where it waits."""
        # After its deadline it has nothing to wait for.
        delay = delay_for(min(job.not_before_ms, job.deadline_ms) - self.clock())
        topic, partitions = (delay_topic(delay), DELAY.partitions) if delay else (job.next_topic(), ROUTER.partitions)
        await self._send(
            encode(
                job,
                topic=topic,
                key=job.caller.team,
                partition=partition_of(job.caller.team, job.id, topic, partitions, self.choose),
                event_id=job.id,
                source=self.source,
                now_ms=self.clock(),
                traceparent=traceparent,
                expires_ms=job.deadline_ms,
                subject=job.id,
            )
        )

    async def reply(self, job: Job, event: Event, attempt: int, seq: int, traceparent: str) -> None:
        """Sends one event to whoever waits for the job."""
        await (await self.begin_reply(job, event, attempt, seq, traceparent))

    async def begin_reply(self, job: Job, event: Event, attempt: int, seq: int, traceparent: str) -> Awaitable[object]:
        """Hands one event over, in order with those before; what it gives is done when the event is acknowledged."""
        return await self._handed_over(self._reply_record(job, event, attempt, seq, traceparent))

    async def book(self, completion: Completion, traceparent: str) -> None:
        """Sends the completion alone: for the books, of a job that somebody else has answered."""
        await self._send(self._completion_record(completion, traceparent))

    async def finish(
        self,
        job: Job,
        completion: Completion,
        last: Event,
        attempt: int,
        seq: int,
        traceparent: str,
        note: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Sends the last event and the completion, and waits for both.

        A result comes second: whoever finds it in its topic, after a death, may rely on the completion. So does the last event of
        a job whose end is noted for who asks later: `note` is awaited before anybody can know that there is something to ask for.
        """
        completed = self._completion_record(completion, traceparent)
        if job.reply_to.kind == "nowhere":
            await self._send(completed)
            meters.ended(completion)
            return
        reply = self._reply_record(job, last, attempt, seq, traceparent)
        if job.reply_to.kind == "inbox" and note is None:
            await asyncio.gather(await self._handed_over(reply), await self._handed_over(completed))
        else:
            await self._send(completed)
            if note is not None:
                await note()
            await self._send(reply)
        if job.webhook:
            await self.webhook(ended_event(job, completion, self.clock()), None)
        meters.ended(completion)

    async def begin_audit(self, record: AuditRecord, traceparent: str) -> Awaitable[object]:
        """Hands over what is kept for auditors; what it gives is done when that is acknowledged."""
        return await self._handed_over(
            encode(
                record,
                topic=AUDIT_DRAFTS.name if record.kinds else AUDIT.name,
                key=record.job_id,
                event_id=record.job_id,
                source=self.source,
                now_ms=record.ended_ms,
                traceparent=traceparent,
                subject=record.job_id,
            )
        )

    async def refuse(self, team: str, result: BatchResult, traceparent: str) -> None:
        """Answers a line of the Kafka door that never became a job."""
        await self._send(self._result_record(team, result, traceparent))

    async def refuse_line(self, reply_to: ReplyTo, result: BatchResult, traceparent: str) -> None:
        """Answers a line of a batch that never became a job."""
        await self._send(self._batch_record(reply_to, result, traceparent))

    async def order(self, order: BatchOrder) -> None:
        """Sends a batch to whoever runs it."""
        await self._send(
            encode(order, topic=BATCHES.name, key=order.id, event_id=order.id, source=self.source, now_ms=self.clock())
        )

    async def webhook(self, delivery: WebhookDelivery, delay: Delay | None) -> None:
        """Sends an event to whoever delivers it, now or after a wait."""
        await self._send(
            encode(
                delivery,
                topic=webhook_topic(delay),
                key=delivery.id,
                event_id=delivery.id,
                source=self.source,
                now_ms=self.clock(),
            )
        )

    async def feedback(self, given: Feedback) -> None:
        """Sends what somebody thinks of an answer."""
        now_ms, job_id = given.at_ms, given.job_id
        await self._send(encode(given, topic=FEEDBACK.name, key=job_id, event_id=given.id, source=self.source, now_ms=now_ms))

    async def cancel(self, job_id: str, reason: str) -> None:
        """Tells everybody to stop working on a job."""
        cancel = Cancel(job_id=job_id, reason=reason)
        record = encode(
            cancel, topic=CANCELS.name, key=job_id, event_id=job_id, source=self.source, now_ms=self.clock(), subject=job_id
        )
        await self._send(record)

    async def dead(self, record: Incoming, poison: Poison) -> None:
        """Puts a record aside as it came, with its origin and the reason in the headers."""
        origin = f"{record.topic}/{record.partition}@{record.offset}"
        headers = [(name, value) for name, value in record.headers if value is not None and name.lower() != "authorization"]
        headers += [
            ("sluice_dead_reason", poison.reason.encode()),
            ("sluice_dead_detail", poison.detail[:1000].encode()),
            ("sluice_dead_origin", origin.encode()),
            ("sluice_dead_stage", self.source.encode()),
        ]
        await self._send(Outgoing(DEAD.name, record.key or origin.encode(), record.value or b"", _text_only(headers)))
        metrics.DEAD.labels(self.source, poison.reason).inc()

    def _completion_record(self, completion: Completion, traceparent: str) -> Outgoing:
        return encode(
            completion,
            topic=COMPLETIONS.name,
            key=completion.job_id,
            event_id=completion.job_id,
            source=self.source,
            now_ms=completion.ended_ms,
            traceparent=traceparent,
            subject=completion.job_id,
        )

    def _reply_record(self, job: Job, event: Event, attempt: int, seq: int, traceparent: str) -> Outgoing:
        if job.reply_to.kind == "results":
            return self._result_record(job.caller.team, batch_result(job, event), traceparent)
        if job.reply_to.kind == "batch":
            return self._batch_record(job.reply_to, batch_result(job, event), traceparent)
        return encode(
            Reply(job_id=job.id, attempt=attempt, seq=seq, event=event),
            topic=REPLIES.name,
            key=job.id,
            partition=job.reply_to.partition,
            event_id=f"{job.id}/{attempt}/{seq}",
            source=self.source,
            now_ms=self.clock(),
            traceparent=traceparent,
            subject=job.id,
            # The kind of an event is its default: left out, nobody could tell one from the other.
            exclude_defaults=False,
        )

    def _batch_record(self, reply_to: ReplyTo, result: BatchResult, traceparent: str) -> Outgoing:
        return encode(
            result,
            topic=BATCH_RESULTS.name,
            key=reply_to.batch_id,
            partition=reply_to.partition,
            event_id=result.id,
            source=self.source,
            now_ms=self.clock(),
            traceparent=traceparent,
            exclude_defaults=False,
        )

    def _result_record(self, team: str, result: BatchResult, traceparent: str) -> Outgoing:
        return encode(
            result,
            topic=results_topic(team),
            key=result.custom_id,
            event_id=result.id,
            source=self.source,
            now_ms=self.clock(),
            traceparent=traceparent,
            exclude_defaults=False,
        )

    async def _send(self, record: Outgoing) -> None:
        await (await self._handed_over(record))

    async def _handed_over(self, record: Outgoing) -> Awaitable[object]:
        most = MAX_RESULT_BYTES if record.topic.startswith(results_topic("")) else MAX_INLINE_BYTES
        if record.value is not None and len(record.value) > most:
            record = by_reference(record, await self.files.put(record.value))
        return await self.sink.send(record)


def delay_for(wait_ms: int) -> Delay | None:
    """Where a job waits for so long: in the longest delay that isn't too long. None: so short a wait is none."""
    if wait_ms < _LEAST_WAIT_MS:
        return None
    return next((delay for delay in reversed(Delay) if delay.ms <= wait_ms), Delay.SHORT)


def ended_event(job: Job, completion: Completion, now_ms: int) -> WebhookDelivery:
    """The event that tells of a job's end: the same whoever sends it."""
    digits = job.id.removeprefix("job_")
    known_as = f"resp_{digits}" if job.known_as == "response" else job.id
    payload: JsonObject = {
        "id": f"evt_{digits}",
        "object": "event",
        "type": f"{job.known_as}.{completion.status.value}",
        "created_at": completion.ended_ms // 1000,
        "data": {"id": known_as},
    }
    return WebhookDelivery(
        id=f"evt_{digits}",
        url=job.webhook,
        team=job.caller.team,
        key_id=job.caller.key_id,
        payload=payload,
        created_ms=now_ms,
    )


def batch_result(job: Job, event: Event) -> BatchResult:
    """The line of batch output that tells how a job ended."""
    match event:
        case Answer(status=status, body=body):
            try:
                answer = _OBJECT.validate_json(body)
            except ValidationError:
                return _failed(job, ProviderError("the provider's answer was no JSON object").fault())
            response = BatchResponse(status_code=status, request_id=job.id, body=answer)
            return BatchResult(id=result_id(job.id), custom_id=job.custom_id, response=response)
        case Failed(fault=fault):
            return _failed(job, fault)
        case _:
            raise ValueError(f"a batch line is never streamed, yet it got {event.kind!r}")


def result_id(job_id: str) -> str:
    """The id of the result of a job, the same whoever publishes it."""
    return f"batch_req_{job_id.removeprefix('job_')}"


def _failed(job: Job, fault: Fault) -> BatchResult:
    """As OpenAI: an HTTP error is a response with its status; what has none (expiry, cancel) is an error."""
    if fault.code in ("deadline_exceeded", "cancelled"):
        code = "batch_expired" if fault.code == "deadline_exceeded" else "batch_cancelled"
        return BatchResult(id=result_id(job.id), custom_id=job.custom_id, error=BatchError(code=code, message=fault.message))
    response = BatchResponse(status_code=fault.status, request_id=job.id, body=fault.openai())
    return BatchResult(id=result_id(job.id), custom_id=job.custom_id, response=response)


def _text_only(headers: list[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    """Headers that a strict reader accepts too: bytes that are no UTF-8 become question marks."""
    return tuple((name, value.decode("utf-8", "replace").encode()) for name, value in headers)
