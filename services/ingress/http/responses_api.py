"""POST /v1/responses: OpenAI's Responses in front of any provider: whole, as a stream, or in the background."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from pydantic_core import to_json
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.faults import error_response
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.telemetry import metrics
from schemas.base import JsonObject
from schemas.errors import InternalError, InvalidRequest, SluiceError, Unavailable
from schemas.job import Api, Job
from schemas.openai.responses import KeptResponse, ResponsesRequest
from schemas.reply import Answer, Event, Failed, Opened
from services.ingress import policy
from services.ingress.answers import Answers, Client, whereabouts
from services.ingress.handler import Admissions, Admitted, CallerGone, Repeated, Request, checked, refused
from services.ingress.http.completions import Asked, Completions
from services.ingress.http.jobs import Jobs
from services.ingress.http.requests import credentials, disconnected, parse_object, read_body, read_request
from services.ingress.http.responses import ASK_AGAIN_S, job_headers, served_headers
from services.ingress.http.responses_kept import Keeper, Whole
from services.ingress.http.responses_lookup import OVER, object_response
from services.ingress.http.responses_stream import FROM_THE_FIRST, preceded, stream
from services.ingress.http.streams import EventStream
from services.ingress.http.tracing import opened, traced
from services.ingress.idempotency import Repeatable, repeatable
from services.ingress.identities import Identity
from services.ingress.responses.ids import response_id
from services.ingress.responses.items import input_items, named
from services.ingress.responses.request import MAX_CONTEXT_BYTES, chat_body, check, told
from services.ingress.responses.response_object import frame, status_before_end, unfinished
from services.ingress.responses.telling import Telling

_CLIENT_CLOSED = 499


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that is understood: as a chat job, and what is to be kept of it."""

    request: Request
    kept: KeptResponse
    asked: Asked
    stream: bool
    store: bool


class Responses:
    """The endpoints of responses."""

    def __init__(
        self, platform: Platform, admissions: Admissions, answers: Answers, completions: Completions, jobs: Jobs, keeper: Keeper
    ) -> None:
        self._platform = platform
        self._admissions = admissions
        self._answers = answers
        self._completions = completions
        self._tickets = platform.tickets
        self._models = platform.control.table.models
        self._jobs = jobs
        self._keeper = keeper

    async def create(self, http: HttpRequest) -> Response:
        """POST /v1/responses."""
        try:
            return await self._create(http)
        except CallerGone:
            return Response(status_code=_CLIENT_CLOSED)

    async def _create(self, http: HttpRequest) -> Response:
        began = time.perf_counter()
        identity = await self._admissions.identify(credentials(http))
        data = await read_body(http, self._platform.settings.max_body_bytes)
        again = repeatable(http.headers, http.url.path, data, identity.team.name, identity.asker)
        if again is not None and not again.by_key and not identity.policy.attach_retries:
            again = None
        given = parse_object(data)
        context, sample = read_request(Api.CHAT, http.headers, {}).traceparent, identity.policy.tracing.sample
        span = opened(self._platform.tracing, http, context, policy.operation(Api.CHAT), given, sample)
        asked = Asked(began, policy.preference(http.headers.get("prefer")), span.context)
        return await traced(span, self._drafted(http, identity, given, again, asked))

    async def _drafted(
        self, http: HttpRequest, identity: Identity, given: JsonObject, again: Repeatable | None, asked: Asked
    ) -> Response:
        try:
            draft = await self._draft(http, identity, given, again, asked)
        except SluiceError as error:
            raise refused(error) from None
        return await self._admitted(http, identity, draft)

    async def _draft(
        self, http: HttpRequest, identity: Identity, given: JsonObject, again: Repeatable | None, how: Asked
    ) -> Draft:
        """What the request asks for. Raises InvalidRequest, NotFound."""
        asked = checked(ResponsesRequest, given)
        background = bool(asked.background) or how.preference.respond_async
        check(asked, given, background=background)
        streamed = bool(asked.stream) and not how.preference.respond_async
        team = identity.team.name
        items = await self._keeper.in_full(team, input_items(asked.input))
        before: tuple[JsonObject, ...] = ()
        if asked.previous_response_id:
            before = await self._keeper.conversation(team, asked.previous_response_id)
        kept = KeptResponse(told=told(asked, given, background=background), items=items, before=before)
        body = chat_body(asked, given, (*before, *items), stream=background or streamed)
        if before and len(to_json(body)) > MAX_CONTEXT_BYTES:
            raise InvalidRequest(
                f"The conversation is longer than {MAX_CONTEXT_BYTES:,} bytes: send a shortened one as `input`.",
                param="previous_response_id",
            )
        store = asked.store is not False or background
        request = replace(read_request(Api.CHAT, http.headers, body, again), detached=background, kept=store, known_as="response")
        return Draft(request, kept, how, streamed, store)

    async def _admitted(self, http: HttpRequest, identity: Identity, draft: Draft) -> Response:
        try:
            admitted = await self._admissions.admit_once(identity, draft.request, self._answers.reply_to())
        except SluiceError as error:
            raise refused(error) from None
        await self._keep(admitted.job, draft)
        again = draft.request.repeatable
        client = Client(disconnected(http), draft.request.detached or (again is not None and again.by_key), again)
        if isinstance(admitted, Repeated):
            client.number = admitted.number
            return await self._repeat(admitted, draft, client)
        metrics.ADMITTED.labels(admitted.job.lane.value, "http").inc()
        return await self._begin(admitted, draft, client)

    async def _keep(self, job: Job, draft: Draft) -> None:
        """Before the job is sent: whoever sees it may ask for it."""
        if not draft.store:
            return
        items = named(draft.kept.items, response_id(job.id))
        life_ms = job.deadline_ms - job.accepted_ms + job.keep_s * 1000
        try:
            await self._keeper.keep(job.id, draft.kept.model_copy(update={"items": items}), life_ms)
        except Unavailable:
            if draft.request.repeatable is not None:
                await self._forget(draft.request.repeatable)
            raise

    async def _forget(self, again: Repeatable) -> None:
        """A request that never became a job must not bind those that come after it."""
        try:
            await self._tickets.forget(again.key)
        except RedisUnavailable:
            return

    async def _begin(self, admitted: Admitted, draft: Draft, client: Client) -> Response:
        """Sends the job on its way, and answers: now, in parts, or later."""
        job, traceparent = admitted.job, draft.asked.traceparent
        headers = job_headers(job, self._models, admitted.rates)
        if not job.detached:
            return await self._answer(job, draft, self._answers.events(job, traceparent, client), headers)
        if draft.stream:
            events = self._keeper.noted(job.id, self._answers.events_of_detached(job, traceparent, client))
            return await self._answer(job, draft, events, headers)
        await self._answers.submit(job, traceparent, client.again)
        return await self._later(job, draft, client, headers)

    async def _repeat(self, repeated: Repeated, draft: Draft, client: Client) -> Response:
        """The response that the same request became before."""
        job = repeated.job
        headers = job_headers(job, self._models) | {"idempotent-replayed": "true"}
        found = await self._tickets.find(job.id) if job.keep_s else None
        if found is None or not found.ended:
            await self._completions.send_again(repeated, client, draft.asked.traceparent)
        if job.detached and not draft.stream:
            return await self._later(job, draft, client, headers)
        events = self._keeper.events(found, client) if found else self._answers.follow(whereabouts(job), client)
        return await self._answer(job, draft, events, headers)

    async def _answer(self, job: Job, draft: Draft, events: AsyncGenerator[Event | None], headers: dict[str, str]) -> Response:
        try:
            first = await anext(events)
            while first is None and not draft.stream:
                first = await anext(events)
        except SluiceError as error:
            return error_response(error.fault(), headers)
        except RedisUnavailable as error:
            raise InternalError(f"The answer can't be read at the moment ({error}); it is on record as {job.id}") from None
        began = draft.asked.began
        if isinstance(first, Opened | Answer | Failed):
            headers |= served_headers(first.served, _ms(began))
        if draft.stream and not isinstance(first, Failed):
            return EventStream(self._stream(job, draft, preceded(first, events), began), headers)
        await events.aclose()
        metrics.SERVER_SECONDS.labels(policy.operation(job.api)).observe(time.perf_counter() - began)
        match first:
            case Answer():
                telling = Telling(_frame(job, draft))
                telling.take(first)
                return object_response(telling.response() | {"completed_at": self._platform.clock() // 1000}, headers)
            case Failed(fault=fault):
                return error_response(fault, headers)
            case _:
                raise InternalError(f"The answer did not come as one; it is on record as {job.id}")

    async def _stream(self, job: Job, draft: Draft, events: AsyncGenerator[Event | None], began: float) -> AsyncGenerator[bytes]:
        operation = policy.operation(job.api)
        metrics.FIRST_TOKEN_SECONDS.labels(operation).observe(time.perf_counter() - began)
        async with aclosing(stream(Telling(_frame(job, draft)), events, FROM_THE_FIRST)) as parts:
            async for part in parts:
                yield part
        metrics.SERVER_SECONDS.labels(operation).observe(time.perf_counter() - began)

    async def _later(self, job: Job, draft: Draft, client: Client, headers: dict[str, str]) -> Response:
        """The response as it stands; to who would rather have waited a while, as it has ended by then."""
        preference = draft.asked.preference
        ended = bool(preference.wait_s) and await self._ends_within(preference.wait_s, job, client)
        found = await self._tickets.find(job.id)
        if ended:
            found = await self._jobs.ended_soon(found)
        if found is not None and found.ended is not None:
            response = await self._keeper.told(Whole(response_id(job.id), found, draft.kept))
        else:
            response = unfinished(_frame(job, draft), status_before_end(found))
        if not preference.respond_async:
            return object_response(response, headers)
        headers |= {"preference-applied": "respond-async"}
        if response["status"] in OVER:
            return object_response(response, headers)
        where = {"location": f"/v1/jobs/{job.id}", "retry-after": str(ASK_AGAIN_S)}
        return object_response(response, headers | where, 202)

    async def _ends_within(self, seconds: float, job: Job, client: Client) -> bool:
        try:
            async with asyncio.timeout(seconds), aclosing(self._answers.follow(whereabouts(job), client)) as events:
                async for _ in events:
                    continue
        except (TimeoutError, SluiceError):
            return False
        return True


def _frame(job: Job, draft: Draft) -> JsonObject:
    return frame(response_id(job.id), job.accepted_ms, draft.kept.told)


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
