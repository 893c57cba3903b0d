"""A job with a lease is sent out: tried at one deployment after another, until one has answered or no try is left.

Its own model comes first, then those it may fall back on. Once something has gone out, nobody else is asked.
"""

import asyncio
import logging
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
from schemas.errors import DeadlineExceeded, Fault, InternalError
from schemas.ids import attempt_id
from schemas.job import Job
from services.router import parking, policy
from services.router.answers import NoAnswer, read_answer
from services.router.books import OPERATIONS, AttemptStatus, Books, Call
from services.router.dispatch import Dispatcher, Found
from services.router.leases import LEASE_MS, Run, Running
from services.router.parking import Later
from services.router.places import Place
from services.router.providers.base import Provider, ProviderFailure, ProviderRequest
from services.router.providers.failures import Why, content_refused, leads_to, unavailable
from services.router.purse import Meter, OutOfBudget, Purse
from services.router.route import Route
from services.router.stream import Relay

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Errand:
    """A job while it is sent out, and what has become of it so far. `place`: the right to make its next call, of `model`.

    `calls` of that model so far, the next one included. `failure`: what the job ends with if no other call is made.
    """

    job: Job
    route: Route
    traceparent: str
    place: Place
    n: int = 0
    model: Model = field(init=False)
    calls: int = 1
    failure: ProviderFailure | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    tried: list[str] = field(default_factory=list[str])
    call: Call | None = None
    relay: Relay | None = None
    body: str = ""

    def __post_init__(self) -> None:
        self.model = self.route.model

    def take(self, place: Place) -> None:
        """The next call is made at this place, which is where the route is."""
        self.calls = self.calls + 1 if self.route.model is self.model else 1
        self.model, self.place = self.route.model, place

    @property
    def made(self) -> int:
        """Calls made since the job came here, with those of lives that are over."""
        return self.n - len(self.job.made)

    @property
    def deployment(self) -> Deployment:
        return self.place.deployment

    @property
    def streaming(self) -> bool:
        """True once something has gone out to the caller."""
        return self.relay is not None and self.relay.opened


Sent = Fault | Later | Literal["served", "lost"]
"""What became of an errand: served, the fault with which it ends, put off, or that somebody else has taken the job over."""


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
        dispatcher: Dispatcher,
        purse: Purse,
    ) -> None:
        self._provider_of = provider_of
        self._post = post
        self._records = records
        self._running = running
        self._books = books
        self._clock = clock
        self._tracing = tracing
        self._dispatcher = dispatcher
        self._purse = purse
        self._asks = count(1)

    async def lease(self, job: Job, deployment: Deployment | None, most: int = 0, held: int = 0) -> Lease:
        """Asks for the right to call `deployment`, for one of `most` calls that may be made before the job ends or is put off.

        Without a deployment it asks for nothing but what became of the job. Waits until Redis answers.
        """
        now_ms = self._clock()
        made = len(job.made)
        attempts = made + most if deployment else 0
        note = policy.note(deployment, now_ms) if deployment else ""
        ask = str(next(self._asks))
        while True:
            try:
                rest_ms = job.deadline_ms - self._clock()
                return await self._records.lease(
                    job.id, rest_ms, lease_ms=LEASE_MS, attempts=attempts, ask=ask, held=held, note=note, made=made
                )
            except RedisUnavailable as error:
                if deployment is not None and policy.goes_on_without_redis(job):
                    # Its policy would rather have it served than served once.
                    log.warning("%s; %s is sent out without a lease", error, job.id)
                    return Lease("granted", n=max(held, made) + 1)
                log.warning("%s; %s waits for its lease", error, job.id)
                await asyncio.sleep(0.25)

    async def send(self, errand: Errand, run: Run) -> Sent:
        """Sends the errand out. When this returns, its `attempts` tell what was called, and what went out is acknowledged."""
        try:
            sent, status = await self._within_deadline(errand, run)
        finally:
            errand.place.give_back()
        if errand.call is not None:
            call, error = errand.call, sent.code if isinstance(sent, Fault) else None
            call.hung = error == DeadlineExceeded.code
            attempt = await self._books.attempt(errand.job, call, status, error=error)
            self._dispatcher.strategies.ended(call.deployment, attempt, hung=call.hung)
            self._dispatcher.quotas.took(call.deployment, errand.job, attempt)
            errand.attempts.append(attempt)
        if errand.relay is not None and sent != "served":
            await self._settle(errand.job, errand.relay)
        return sent

    async def _within_deadline(self, errand: Errand, run: Run) -> tuple[Sent, AttemptStatus]:
        """What became of the errand, and of the call that was cut short, if one was."""
        job = errand.job
        try:
            async with run.until(policy.rest_s(job.deadline_ms, self._clock())):
                return await self._try_all(errand, run), "completed"
        except TimeoutError:
            return (policy.cancelled() if run.cancelled else policy.past_deadline(job)), "cancelled"
        except OutOfBudget as cut:
            return cut.fault, "cancelled"
        except Exception:
            log.exception("the router failed on %s", job.id)
            return InternalError(f"The router failed on this request; it is on record as {job.id}.").fault(), "failed"

    async def _try_all(self, errand: Errand, run: Run) -> Sent:
        same = False
        while True:
            with self._running.retry(same):
                failure = await self._try(errand, run)
            errand.place.give_back()
            if run.cancelled:
                # It was let end for its usage alone.
                return policy.cancelled()
            if failure is None:
                return "served"
            found = await self._next(errand, failure)
            if not isinstance(found, Place):
                return found
            same = found.deployment.id in errand.tried
            errand.take(found)
            lease = await self.lease(errand.job, errand.deployment, errand.route.most_calls, held=errand.n)
            if lease.state != "granted":
                return _not_granted(lease, failure)
            errand.n = lease.n

    async def _next(self, errand: Errand, failure: ProviderFailure) -> Found:
        """A place for the next call, at this model or at one it may fall back on; or what becomes of a job that has failed."""
        if errand.streaming:
            return failure.fault
        told = errand.failure = _to_tell(errand.failure, failure)
        after_s = self._wait_s(errand, failure)
        if after_s is None and not _moves(errand, failure):
            return self._given_up(errand, told)
        if not await self._purse.covers(errand.job, errand.attempts):
            return self._given_up(errand, told)
        await asyncio.sleep(after_s or 0)
        found = await self._dispatcher.find(errand.job, errand.route, errand.tried)
        if isinstance(found, Place):
            return found
        if told.kind != "final" and (isinstance(found, Fault) or errand.route.model is not errand.model):
            # Its own model may be well again before those are that it would have fallen back on.
            return self._given_up(errand, told)
        return told.fault if isinstance(found, Later) and len(errand.attempts) >= parking.MOST_MADE else found

    def _given_up(self, errand: Errand, failure: ProviderFailure) -> Later | Fault:
        """What becomes of a job that has failed here: batch comes again, unless it never will do."""
        made, now = len(errand.attempts), self._dispatcher.moment()
        return parking.after_failure(errand.job, failure.kind, made, failure.retry_after_s, now) or failure.fault

    def _wait_s(self, errand: Errand, failure: ProviderFailure) -> float | None:
        model, route = errand.model, errand.route
        return policy.wait_s(
            policy.Situation(
                kind=failure.kind,
                attempts=errand.made,
                rest_s=policy.rest_s(errand.job.deadline_ms, self._clock()),
                other=self._dispatcher.other(model, errand.tried),
                retry_after_s=failure.retry_after_s,
                jitter=self._dispatcher.moment().jitter,
                retrying=self._running.retrying,
                running=len(self._running),
                most=route.most_calls,
                retries=None if model.num_retries is None else max(0, model.num_retries + 1 - errand.calls),
                fallback=any(map(self._dispatcher.other, route.ahead("failed"))),
            )
        )

    async def _try(self, errand: Errand, run: Run) -> ProviderFailure | None:
        """One attempt, booked; the failure, if it is one."""
        refusable = _may_move(errand, "content")
        call = errand.call = Call(errand.n, errand.deployment, self._clock(), errand.model.name, refusable)
        errand.relay = None
        run.drains = call.deployment.on_disconnect == "drain"
        try:
            async with asyncio.timeout(policy.call_s(call.deployment)) as patience:
                await self._call(errand, call, patience, run)
        except TimeoutError:
            call.hung = True
            failure = unavailable(call.deployment.id, "did not answer in time", billable=True)
        except ProviderFailure as error:
            failure = error
        else:
            failure = None
        run.drains = False
        await self._book(errand, call, failure)
        return failure

    async def _book(self, errand: Errand, call: Call, failure: ProviderFailure | None) -> None:
        health = self._dispatcher.health
        if failure is None:
            health.worked(call.deployment.id, call.started_ms)
            attempt = await self._books.attempt(errand.job, call, "completed", http_status=200)
        else:
            errand.tried.append(call.deployment.id)
            if failure.kind != "final":
                health.failed(call.deployment.id, call.started_ms, self._clock(), failure.retry_after_s, errand.model)
            attempt = await self._books.attempt(
                errand.job,
                call,
                "failed",
                http_status=failure.http_status,
                error=failure.fault.code or failure.fault.type,
                billable=failure.billable,
            )
        self._dispatcher.strategies.ended(call.deployment, attempt, hung=call.hung)
        self._dispatcher.quotas.took(call.deployment, errand.job, attempt)
        errand.attempts.append(attempt)
        errand.call = None

    async def _call(self, errand: Errand, call: Call, patience: asyncio.Timeout, run: Run) -> None:
        job, deployment = errand.job, call.deployment
        operation = OPERATIONS[job.api]
        attributes = {
            spans.GEN_AI_OPERATION: operation,
            spans.GEN_AI_PROVIDER: deployment.provider,
            spans.GEN_AI_REQUEST_MODEL: deployment.model,
            spans.SLUICE_JOB: job.id,
        }
        with self._tracing.span(f"{operation} {deployment.model}", errand.traceparent, "client", attributes) as traceparent:
            body = policy.capped(job, deployment)
            request = ProviderRequest(attempt_id(job.id, call.n), job.api, body, deployment, traceparent, call.told)
            provider = self._provider_of(deployment)
            if job.stream:
                relay = errand.relay = self._relay(errand, call, run)
                await _pass_on(relay, provider, request, patience, self._purse.meter(job), call)
            else:
                errand.body = await provider.call(request)
                _read(errand, call)

    def _relay(self, errand: Errand, call: Call, run: Run) -> Relay:
        return Relay(self._post, self._records, errand.job, call, errand.traceparent, lambda: not run.cancelled)

    async def _settle(self, job: Job, relay: Relay) -> None:
        try:
            await relay.settle()
        except Exception:
            log.exception("a part of the stream of %s was not acknowledged", job.id)


async def _pass_on(
    relay: Relay, provider: Provider, request: ProviderRequest, patience: asyncio.Timeout, meter: Meter | None, call: Call
) -> None:
    loop = asyncio.get_running_loop()
    async with aclosing(provider.stream(request)) as batches:
        async for batch in batches:
            await relay.take(batch)
            if meter is not None:
                await meter.flowed(call.text)
            if relay.opened:
                patience.reschedule(loop.time() + policy.SILENCE_S)
    await relay.end()


def _read(errand: Errand, call: Call) -> None:
    try:
        reading = read_answer(errand.job.api, errand.body)
    except NoAnswer as error:
        raise unavailable(call.deployment.id, f"sent what is no answer ({error})", http_status=200, billable=True) from None
    call.usage, call.service_tier = reading.usage, reading.service_tier
    call.text.append(reading.text)
    if reading.refused and call.refusable:
        raise content_refused(call.deployment.id)


def _moves(errand: Errand, failure: ProviderFailure) -> bool:
    """Whether the route has gone on to a model that may be asked after this failure."""
    why = leads_to(failure)
    return why is not None and _may_move(errand, why) and errand.route.move(why)


def _may_move(errand: Errand, why: Why) -> bool:
    """Whether another model may be asked after this call, if it fails for this reason."""
    return errand.made < errand.route.most_calls and bool(errand.route.ahead(why))


def _to_tell(before: ProviderFailure | None, failure: ProviderFailure) -> ProviderFailure:
    """The last failure tells; but what another try may help stays so, whatever a fallback says for good."""
    return before if before and before.kind != "final" and failure.kind == "final" else failure


def _not_granted(lease: Lease, failure: ProviderFailure) -> Sent:
    match lease.state:
        case "exhausted":
            return failure.fault
        case "abandoned":
            return policy.cancelled()
        case "interrupted":
            # A dead life's stream had begun after all, which Redis heard late.
            return policy.interrupted()
        case _:
            return "lost"
