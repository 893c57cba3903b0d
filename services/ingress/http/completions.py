"""What makes one job, such as POST /v1/chat/completions: admitted, sent on its way, answered: whole, as a stream, or later."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.telemetry import metrics
from schemas.base import JsonObject
from schemas.errors import InternalError, SluiceError
from schemas.job import Api, Job
from schemas.reply import Answer, Event, Failed, Opened
from services.ingress import policy
from services.ingress.answers import Answers, Client, retold, whereabouts
from services.ingress.handler import Admissions, Admitted, CallerGone, Repeated, Request, refused
from services.ingress.http.fronts import Front, OpenAIFront
from services.ingress.http.requests import credentials, disconnected, parse_object, read_body, read_request
from services.ingress.http.responses import accepted, job_headers, served_headers
from services.ingress.http.streams import EventStream
from services.ingress.http.tracing import opened, traced
from services.ingress.idempotency import repeatable
from services.ingress.identities import Identity
from services.ingress.job_object import NOT_KNOWN_YET, job_object

CLIENT_CLOSED = 499
_RESEND_AFTER_MS = 2_500
"""Who sent a job has given up by then, if it isn't known to be on its way."""

OPENAI = OpenAIFront()

Endpoint = Callable[[HttpRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way: when it began (perf_counter), what it would rather have than to wait, and who answers it."""

    began: float
    preference: policy.Preference
    traceparent: str
    front: Front = OPENAI


class Completions:
    """The endpoints that make jobs."""

    def __init__(self, platform: Platform, admissions: Admissions, answers: Answers) -> None:
        self._platform = platform
        self._admissions = admissions
        self._answers = answers
        self._tickets = platform.tickets
        self._models = platform.control.table.models

    def endpoint(self, api: Api, front: Front = OPENAI) -> Endpoint:
        """The endpoint of one API."""

        async def serve(http: HttpRequest) -> Response:
            try:
                return await self._serve(api, front, http)
            except CallerGone:
                return Response(status_code=CLIENT_CLOSED)

        return serve

    async def _serve(self, api: Api, front: Front, http: HttpRequest) -> Response:
        began = time.perf_counter()
        identity = await self._admissions.identify(credentials(http))
        data = await read_body(http, self._platform.settings.max_body_bytes)
        given = parse_object(data)
        again = repeatable(http.headers, http.url.path, data, identity.team.name, identity.asker)
        if again is not None and not again.by_key and not identity.policy.attach_retries:
            again = None
        preference = policy.preference(http.headers.get("prefer"))
        body = front.body(given, later=preference.respond_async)
        request = replace(read_request(api, http.headers, body, again), endpoint=front.endpoint)
        sample = identity.policy.tracing.sample
        span = opened(self._platform.tracing, http, request.traceparent, policy.operation(api), given, sample)
        return await traced(span, self._admitted(http, identity, request, Asked(began, preference, span.context, front)))

    async def _admitted(self, http: HttpRequest, identity: Identity, request: Request, asked: Asked) -> Response:
        try:
            admitted = await self._admissions.admit_once(identity, request, self._answers.reply_to())
        except SluiceError as error:
            raise refused(error) from None
        again = request.repeatable
        stays = request.detached or (again is not None and again.by_key)
        client = Client(disconnected(http), stays=stays, again=again)
        if isinstance(admitted, Repeated):
            client.number = admitted.number
            return await self._repeat(admitted, client, asked)
        metrics.ADMITTED.labels(admitted.job.lane.value, "http").inc()
        if admitted.job.detached:
            return await self._detach(admitted, client, asked)
        events = self._answers.events(admitted.job, asked.traceparent, client)
        return await self._answer(admitted.job, events, job_headers(admitted.job, self._models, admitted.rates), asked)

    async def _detach(self, admitted: Admitted, client: Client, asked: Asked) -> Response:
        """202, and where to ask; or the answer, if it comes within what the client would wait."""
        job = admitted.job
        await self._answers.submit(job, asked.traceparent, client.again)
        return await self._later(job, client, asked, job_headers(job, self._models, admitted.rates))

    async def _later(self, job: Job, client: Client, asked: Asked, headers: dict[str, str]) -> Response:
        if asked.preference.wait_s:
            events = self._answers.follow(whereabouts(job), client)
            try:
                async with asyncio.timeout(asked.preference.wait_s):
                    return await self._answer(job, events, headers, asked)
            except TimeoutError:
                await events.aclose()
        return accepted(await self._told(job), asked.front.headers(headers))

    async def _told(self, job: Job) -> JsonObject:
        """The job as it stands; also while that can't be asked, for it is on its way and nobody may take it for refused."""
        try:
            found = await self._tickets.find(job.id)
        except RedisUnavailable:
            found = None
        return job_object(found) or NOT_KNOWN_YET | {"id": job.id}

    async def _repeat(self, repeated: Repeated, client: Client, asked: Asked) -> Response:
        """The job that the same request became before: its answer, if it has ended, or else its events from the first on."""
        job = repeated.job
        headers = job_headers(job, self._models) | {"idempotent-replayed": "true"}
        found = await self._tickets.find(job.id) if job.keep_s else None
        if found is None or not found.ended:
            await self.send_again(repeated, client, asked.traceparent)
        if job.detached:
            return await self._later(job, client, asked, headers)
        if found is not None and found.ended and (found.ended.stream or not job.stream):
            return await self._answer(job, retold(found.ended), headers, asked)
        return await self._answer(job, self._answers.follow(whereabouts(job), client), headers, asked)

    async def send_again(self, repeated: Repeated, client: Client, traceparent: str) -> None:
        """Sends a job that perhaps never left its dead ingress. If it did, one of two copies finds the other at work and ends.

        Raises Unavailable; the job is not abandoned then: its client came back once and may do so again.
        """
        job = repeated.job
        if repeated.sent or client.again is None:
            return
        # Nobody but us is left to send what is answered by 202.
        if job.detached or self._age_ms(job) > _RESEND_AFTER_MS:
            await self._answers.submit(job, traceparent, client.again)
        else:
            self._answers.insist(job, traceparent, client.again, (_RESEND_AFTER_MS - self._age_ms(job)) / 1000)

    def _age_ms(self, job: Job) -> int:
        return self._platform.clock() - job.accepted_ms

    async def _answer(self, job: Job, events: AsyncGenerator[Event | None], headers: dict[str, str], asked: Asked) -> Response:
        try:
            first = await anext(events)
            while first is None and not job.stream:
                first = await anext(events)
        except SluiceError as error:
            return asked.front.error(error.fault(), headers)
        except RedisUnavailable as error:
            raise InternalError(f"The answer can't be read at the moment ({error}); it is on record as {job.id}") from None
        if isinstance(first, Opened):
            headers |= served_headers(first.served, _ms(asked.began))
        if first is None or isinstance(first, Opened):
            return EventStream(self._stream(job, events, asked), asked.front.headers(headers))
        await events.aclose()
        return await self._plain(job, first, headers, asked)

    async def _plain(self, job: Job, event: Event, headers: dict[str, str], asked: Asked) -> Response:
        metrics.SERVER_SECONDS.labels(policy.operation(job.api)).observe(time.perf_counter() - asked.began)
        match event:
            case Answer(served=served):
                told = asked.front.headers(headers | served_headers(served, _ms(asked.began)))
                return await asked.front.whole(job, event, told)
            case Failed(fault=fault, served=served):
                return asked.front.error(fault, headers | served_headers(served, _ms(asked.began)))
            case _:
                raise InternalError(f"The answer began with {event.kind!r}; it is on record as {job.id}")

    async def _stream(self, job: Job, events: AsyncGenerator[Event | None], asked: Asked) -> AsyncGenerator[bytes]:
        operation = policy.operation(job.api)
        metrics.FIRST_TOKEN_SECONDS.labels(operation).observe(time.perf_counter() - asked.began)
        async with aclosing(asked.front.stream(job, events)) as parts:
            async for part in parts:
                yield part
        metrics.SERVER_SECONDS.labels(operation).observe(time.perf_counter() - asked.began)


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
