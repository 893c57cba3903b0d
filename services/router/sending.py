"""A job with a lease is sent out: tried at one deployment after another, until one has answered or no try is left."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from infra.clock import Clock
from infra.kafka.post import Post
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from infra.telemetry import spans
from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from schemas.errors import Fault, InternalError
from schemas.ids import attempt_id
from schemas.job import Job
from services.router import policy
from services.router.answers import NoAnswer, read_answer
from services.router.books import OPERATIONS, AttemptStatus, Books, Call
from services.router.health import Health
from services.router.leases import LEASE_MS, Run, Running
from services.router.providers.base import Provider, ProviderFailure, ProviderRequest
from services.router.providers.failures import unavailable
from services.router.strategies.base import Chance, Strategy
from services.router.strategies.weighted import Weighted
from services.router.stream import Relay

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Errand:
    """A job while it is sent out, and what has become of it so far."""

    job: Job
    model: Model
    traceparent: str
    deployment: Deployment
    n: int = 0
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    tried: list[str] = field(default_factory=list[str])
    call: Call | None = None
    relay: Relay | None = None
    body: str = ""

    @property
    def streaming(self) -> bool:
        """True once something has gone out to the caller."""
        return self.relay is not None and self.relay.opened


Sent = Fault | Literal["served", "lost"]
"""What became of an errand: served, the fault with which it ends, or that somebody else has taken the job over."""


class Sender:
    """Calls providers for jobs. Bounded by each job's deadline, and by a cancel."""

    def __init__(
        self,
        provider_of: Callable[[Deployment], Provider],
        post: Post,
        records: JobRecords,
        running: Running,
        books: Books,
        clock: Clock,
        tracing: spans.Tracing,
        chance: Chance = random.random,
        strategy: Strategy | None = None,
    ) -> None:
        self._provider_of = provider_of
        self._post = post
        self._records = records
        self._running = running
        self._books = books
        self._clock = clock
        self._tracing = tracing
        self._chance = chance
        self._strategy = strategy or Weighted()
        self._health = Health()
        self._asks = count(1)

    def choose(self, model: Model, tried: list[str]) -> Deployment:
        """The deployment to ask next."""
        return self._strategy.choose(model.deployments, tried, self._health.cooling(self._clock()), self._chance)

    async def lease(self, job: Job, deployment: Deployment | None, held: int = 0) -> Lease:
        """Asks for the right to call `deployment`, or for nothing but what became of the job. Waits until Redis answers."""
        now_ms = self._clock()
        attempts = policy.MAX_ATTEMPTS if deployment and now_ms < job.deadline_ms else 0
        note = policy.note(deployment, now_ms) if deployment else ""
        ask = str(next(self._asks))
        while True:
            try:
                rest_ms = job.deadline_ms - self._clock()
                return await self._records.lease(
                    job.id, rest_ms, lease_ms=LEASE_MS, attempts=attempts, ask=ask, held=held, note=note
                )
            except RedisUnavailable as error:
                log.warning("%s; %s waits for its lease", error, job.id)
                await asyncio.sleep(0.25)

    async def send(self, errand: Errand, run: Run) -> Sent:
        """Sends the errand out. When this returns, its `attempts` tell what was called, and what went out is acknowledged."""
        sent, status = await self._within_deadline(errand, run)
        if errand.call is not None:
            error = sent.code if isinstance(sent, Fault) else None
            errand.attempts.append(await self._books.attempt(errand.job, errand.call, status, error=error))
        if errand.relay is not None and sent != "served":
            await self._settle(errand.job, errand.relay)
        return sent

    async def _within_deadline(self, errand: Errand, run: Run) -> tuple[Sent, AttemptStatus]:
        """What became of the errand, and of the call that was cut short, if one was."""
        job = errand.job
        try:
            async with run.until(policy.rest_s(job.deadline_ms, self._clock())):
                return await self._try_all(errand), "completed"
        except TimeoutError:
            return (policy.cancelled() if run.cancelled else policy.past_deadline(job)), "cancelled"
        except Exception:
            log.exception("the router failed on %s", job.id)
            return InternalError(f"The router failed on this request; it is on record as {job.id}.").fault(), "failed"

    async def _try_all(self, errand: Errand) -> Sent:
        same = False
        while True:
            with self._running.retry(same):
                failure = await self._try(errand)
            if failure is None:
                return "served"
            after_s = None if errand.streaming else self._wait_s(errand, failure)
            if after_s is None:
                return failure.fault
            errand.deployment = self.choose(errand.model, errand.tried)
            same = errand.deployment.id in errand.tried
            await asyncio.sleep(after_s)
            lease = await self.lease(errand.job, errand.deployment, held=errand.n)
            if lease.state != "granted":
                return _not_granted(lease, failure)
            errand.n = lease.n

    def _wait_s(self, errand: Errand, failure: ProviderFailure) -> float | None:
        return policy.wait_s(
            policy.Situation(
                kind=failure.kind,
                attempts=errand.n,
                rest_s=policy.rest_s(errand.job.deadline_ms, self._clock()),
                other=any(deployment.id not in errand.tried for deployment in errand.model.deployments),
                retry_after_s=failure.retry_after_s,
                jitter=self._chance(),
                retrying=self._running.retrying,
                running=len(self._running),
            )
        )

    async def _try(self, errand: Errand) -> ProviderFailure | None:
        """One attempt, booked; the failure, if it is one."""
        call = errand.call = Call(errand.n, errand.deployment, self._clock())
        errand.relay = None
        try:
            async with asyncio.timeout(policy.call_s(call.deployment)) as patience:
                await self._call(errand, call, patience)
        except TimeoutError:
            failure = unavailable(call.deployment.id, "did not answer in time", billable=True)
        except ProviderFailure as error:
            failure = error
        else:
            failure = None
        await self._book(errand, call, failure)
        return failure

    async def _book(self, errand: Errand, call: Call, failure: ProviderFailure | None) -> None:
        if failure is None:
            self._health.worked(call.deployment.id)
            attempt = await self._books.attempt(errand.job, call, "completed", http_status=200)
        else:
            errand.tried.append(call.deployment.id)
            if failure.kind != "final":
                self._health.failed(call.deployment.id, self._clock())
            attempt = await self._books.attempt(
                errand.job,
                call,
                "failed",
                http_status=failure.http_status,
                error=failure.fault.code or failure.fault.type,
                billable=failure.billable,
            )
        errand.attempts.append(attempt)
        errand.call = None

    async def _call(self, errand: Errand, call: Call, patience: asyncio.Timeout) -> None:
        job, deployment = errand.job, call.deployment
        operation = OPERATIONS[job.api]
        attributes = {
            spans.GEN_AI_OPERATION: operation,
            spans.GEN_AI_PROVIDER: deployment.provider,
            spans.GEN_AI_REQUEST_MODEL: deployment.model,
            spans.SLUICE_JOB: job.id,
        }
        with self._tracing.span(f"{operation} {deployment.model}", errand.traceparent, "client", attributes) as traceparent:
            request = ProviderRequest(attempt_id(job.id, call.n), job.api, job.body, deployment, traceparent)
            provider = self._provider_of(deployment)
            if job.stream:
                await self._relay(errand, call, provider, request, patience)
            else:
                errand.body = await provider.call(request)
                _read(errand, call)

    async def _relay(
        self, errand: Errand, call: Call, provider: Provider, request: ProviderRequest, patience: asyncio.Timeout
    ) -> None:
        relay = errand.relay = Relay(self._post, self._records, errand.job, call, errand.traceparent)
        loop = asyncio.get_running_loop()
        async with aclosing(provider.stream(request)) as batches:
            async for batch in batches:
                await relay.take(batch)
                if relay.opened:
                    patience.reschedule(loop.time() + policy.SILENCE_S)
        await relay.end()

    async def _settle(self, job: Job, relay: Relay) -> None:
        try:
            await relay.settle()
        except Exception:
            log.exception("a part of the stream of %s was not acknowledged", job.id)


def _read(errand: Errand, call: Call) -> None:
    try:
        reading = read_answer(errand.job.api, errand.body)
    except NoAnswer as error:
        raise unavailable(call.deployment.id, f"sent what is no answer ({error})", http_status=200, billable=True) from None
    call.usage, call.service_tier = reading.usage, reading.service_tier
    call.text.append(reading.text)


def _not_granted(lease: Lease, failure: ProviderFailure) -> Sent:
    match lease.state:
        case "exhausted":
            return failure.fault
        case "abandoned":
            return policy.cancelled()
        case _:
            return "lost"
