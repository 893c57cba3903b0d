"""One call of a deployment for a job: asked whole, or as a stream that is passed on as it comes."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from infra.kafka.post import Post
from infra.redis.jobs import JobRecords
from infra.telemetry import genai, spans
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.ids import attempt_id
from schemas.job import Job
from services.router import policy
from services.router.answers import NoAnswer, read_answer
from services.router.books import Call
from services.router.places import Place
from services.router.providers.base import Provider, ProviderFailure, ProviderRequest
from services.router.providers.failures import content_refused, unavailable
from services.router.purse import Meter
from services.router.stream import Relay


@dataclass(slots=True, eq=False)
class Flight:
    """A call while it is made. `body`: what is asked; `answer`: what a whole answer says; `relay`: where a stream goes.

    `begun`: its deployment is asked, or was; `beaten`: another call was first, and nobody waits for this one. `span`: open until
    it is in the books.
    """

    call: Call
    place: Place
    body: JsonObject
    relay: Relay | None = None
    answer: str = ""
    begun: bool = False
    beaten: bool = False
    span: spans.Span = field(default_factory=lambda: spans.Span(""))

    def land(self) -> None:
        """It is over."""
        self.call.over()
        self.place.give_back()

    def tell(self, job: Job, attempt: Attempt) -> None:
        """What it was, for whoever collects traces."""
        if not self.span.recording:
            return
        self.span.set(genai.answered(attempt, self.call.facts))
        if genai.tells_content(job):
            self.span.set(genai.said(self.answer, self.call.text, self.call.facts.reasons))
        ended = self.call.ended
        self.span.end(time.perf_counter() - ended if ended is not None else 0)

    @property
    def deployment(self) -> Deployment:
        return self.call.deployment

    @property
    def streaming(self) -> bool:
        """True once something has gone out to the caller."""
        return self.relay is not None and self.relay.opened


class Calls:
    """Makes calls. Each is bounded by what its deployment says of time."""

    def __init__(
        self, provider_of: Callable[[Deployment], Provider], post: Post, records: JobRecords, tracing: spans.Tracing
    ) -> None:
        self._provider_of = provider_of
        self._post = post
        self._records = records
        self._tracing = tracing

    def relay(self, job: Job, call: Call, traceparent: str, wanted: Callable[[], bool]) -> Relay:
        """Where the stream of a call goes, as long as it is `wanted`."""
        return Relay(self._post, self._records, job, call, traceparent, wanted)

    async def make(self, job: Job, flight: Flight, traceparent: str, meter: Meter | None) -> ProviderFailure | None:
        """Makes the call: None if it went well. Raises OutOfBudget."""
        call, deployment = flight.call, flight.deployment
        first_s, whole_s = policy.patience_s(deployment, job.stream)
        try:
            async with asyncio.timeout(whole_s), asyncio.timeout(first_s) as patience:
                await self._call(job, flight, traceparent, meter, patience)
        except TimeoutError:
            call.hung = True
            return unavailable(deployment.id, "did not answer in time", billable=True)
        except ProviderFailure as failure:
            flight.call.usage = flight.call.usage or failure.usage
            return failure
        return None

    async def _call(self, job: Job, flight: Flight, traceparent: str, meter: Meter | None, patience: asyncio.Timeout) -> None:
        call, deployment = flight.call, flight.deployment
        span = flight.span = self._tracing.open(f"{genai.OPERATIONS[job.api]} {deployment.model}", traceparent, "client")
        if span.recording:
            span.set(genai.call(job, deployment, flight.body, call.n, hedge=call.hedge))
        told = spans.traceparent_of(span.context) if job.policy.tracing.to_providers else ""
        request = ProviderRequest(attempt_id(job.id, call.n), job.api, flight.body, deployment, told, call.told)
        provider = self._provider_of(deployment)
        if flight.relay is not None:
            await _pass_on(flight.relay, provider, request, patience, meter)
        else:
            flight.answer = await provider.call(request)
            _read(job, flight)


async def _pass_on(
    relay: Relay, provider: Provider, request: ProviderRequest, patience: asyncio.Timeout, meter: Meter | None
) -> None:
    loop = asyncio.get_running_loop()
    silence_s = request.deployment.silence_timeout_s or policy.SILENCE_S
    async with aclosing(provider.stream(request)) as batches:
        async for batch in batches:
            waits_until = patience.when()
            # What follows waits for our own servers.
            patience.reschedule(None)
            await relay.take(batch)
            if meter is not None:
                await meter.flowed(relay.call.text)
            patience.reschedule(loop.time() + silence_s if relay.speaks else waits_until)
    patience.reschedule(None)
    await relay.end()


def _read(job: Job, flight: Flight) -> None:
    call = flight.call
    try:
        reading = read_answer(job.api, flight.answer)
    except NoAnswer as error:
        raise unavailable(call.deployment.id, f"sent what is no answer ({error})", http_status=200, billable=True) from None
    call.usage, call.service_tier = reading.usage, reading.service_tier
    call.text.append(reading.text)
    call.facts.hear(reading.id, reading.model, reading.reasons)
    if reading.refused and call.refusable:
        raise content_refused(call.deployment.id)
