"""A line of a batch becomes a job, under the key that ordered the batch, as any other request of that key."""

import asyncio
import logging
from typing import Protocol

from infra.kafka.post import Post, result_id
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.telemetry import genai, metrics
from schemas.batch import BatchError, BatchLine, BatchOrder, BatchResponse, BatchResult
from schemas.errors import DeadlineExceeded, KeyPaused, Overloaded, RateLimited, SluiceError, Unavailable
from schemas.ids import uuid7_hex
from schemas.job import ReplyTo
from schemas.topics import Lane
from services.ingress.batches.policy import results_partition
from services.ingress.handler import Admissions, Admitted, Request, refused

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0


class Lines(Protocol):
    """What a batch does with its lines. A line that is submitted twice is one job."""

    async def submit(self, order: BatchOrder, line: BatchLine) -> None:
        """Sends a line on its way, or its refusal to where the ends of lines are told."""
        ...

    async def abandon(self, order: BatchOrder, custom_id: str) -> None:
        """No provider is called for this line any more, and who is at work on it stops."""
        ...

    def result_id(self, order: BatchOrder, custom_id: str) -> str:
        """The id that a line has in the files."""
        ...


class Submission(Lines):
    """Admits lines, and sends them to the first stage on their way."""

    def __init__(self, platform: Platform, admissions: Admissions, post: Post) -> None:
        self._platform = platform
        self._admissions = admissions
        self._post = post
        self._records = platform.records("ingress")

    async def submit(self, order: BatchOrder, line: BatchLine) -> None:
        reply_to = ReplyTo(kind="batch", partition=results_partition(order.id), batch_id=order.id)
        with self._platform.tracing.span("submit batch line", "", "internal", self._sample(order)) as span:
            try:
                admitted = await self._admit(order, line, reply_to)
            except SluiceError as error:
                span.fail(error)
                await self._post.refuse_line(reply_to, self._refusal(order, line, refused(error)), span.context)
                return
            span.set({genai.SLUICE_JOB: admitted.job.id})
            metrics.ADMITTED.labels(Lane.BATCH.value, "batch").inc()
            await self._post.forward(admitted.job, span.context)

    def _sample(self, order: BatchOrder) -> float:
        """The share of its lines whose traces are recorded."""
        try:
            return self._admissions.identify_again(order.caller, order.groups).policy.tracing.sample
        except SluiceError:
            return 0

    async def abandon(self, order: BatchOrder, custom_id: str) -> None:
        job_id = self._job_id(order, custom_id)
        try:
            await self._records.abandon(job_id, max(0, order.deadline_ms - self._platform.clock()))
        except RedisUnavailable as error:
            log.warning("%s could not be abandoned: %s", job_id, error)
        await self._post.cancel(job_id, "the batch has ended")

    def result_id(self, order: BatchOrder, custom_id: str) -> str:
        return result_id(self._job_id(order, custom_id))

    async def _admit(self, order: BatchOrder, line: BatchLine, reply_to: ReplyTo) -> Admitted:
        """Patient with what passes: whoever came through the queue waits."""
        job_id = self._job_id(order, line.custom_id)
        request = Request(
            api=order.api,
            body=line.body,
            lane=Lane.BATCH,
            labels=order.labels,
            custom_id=line.custom_id,
            deadline_ms=order.deadline_ms,
        )
        while True:
            if self._platform.clock() >= order.deadline_ms:
                raise DeadlineExceeded("The batch expired before this line was run.")
            try:
                # Looked up for each line: a key that is revoked meanwhile runs no more of them.
                identity = self._admissions.identify_again(order.caller, order.groups)
                return await self._admissions.admit(identity, request, reply_to, job_id)
            except KeyPaused:
                await asyncio.sleep(_LONGEST_PAUSE_S)
            except (RateLimited, Unavailable, Overloaded) as error:
                await asyncio.sleep(min(error.retry_after_s or 1, _LONGEST_PAUSE_S))

    def _job_id(self, order: BatchOrder, custom_id: str) -> str:
        bits = self._platform.signer.derive("batch", order.id, custom_id)
        return f"job_{uuid7_hex(order.created_ms, bits)}"

    def _refusal(self, order: BatchOrder, line: BatchLine, error: SluiceError) -> BatchResult:
        job_id, fault = self._job_id(order, line.custom_id), error.fault()
        if isinstance(error, DeadlineExceeded):
            told = BatchError(code="batch_expired", message=fault.message)
            return BatchResult(id=result_id(job_id), custom_id=line.custom_id, error=told)
        response = BatchResponse(status_code=fault.status, request_id=job_id, body=fault.openai())
        return BatchResult(id=result_id(job_id), custom_id=line.custom_id, response=response)
