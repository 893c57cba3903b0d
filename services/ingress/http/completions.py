"""POST /v1/chat/completions and /v1/embeddings: admitted, sent on their way, answered plain or as a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.faults import error_response
from infra.platform import Platform
from infra.telemetry import metrics
from infra.telemetry.spans import GEN_AI_OPERATION, GEN_AI_REQUEST_MODEL
from schemas.errors import InternalError, SluiceError
from schemas.job import Api, Job
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened
from services.ingress import policy
from services.ingress.handler import Admissions, Admitted, Answers, CallerGone, refused
from services.ingress.http.requests import bearer, parse_object, read_body, read_request
from services.ingress.http.responses import (
    JSON,
    EventStream,
    job_headers,
    served_headers,
    sse,
    sse_error,
)

_KEEP_ALIVE = b": keep-alive\n\n"
_DONE = b"data: [DONE]\n\n"
_CLIENT_CLOSED = 499

Endpoint = Callable[[HttpRequest], Awaitable[Response]]


class Completions:
    """The endpoints that make jobs."""

    def __init__(self, platform: Platform, admissions: Admissions, answers: Answers) -> None:
        self._platform = platform
        self._admissions = admissions
        self._answers = answers

    def endpoint(self, api: Api) -> Endpoint:
        """The endpoint of one API."""

        async def serve(http: HttpRequest) -> Response:
            try:
                return await self._serve(api, http)
            except CallerGone:
                return Response(status_code=_CLIENT_CLOSED)

        return serve

    async def _serve(self, api: Api, http: HttpRequest) -> Response:
        began = time.perf_counter()
        identity = self._admissions.identify(bearer(http.headers))
        body = parse_object(await read_body(http, self._platform.settings.max_body_bytes))
        request = read_request(api, http.headers, body, "")
        attributes = {GEN_AI_OPERATION: policy.operation(api), GEN_AI_REQUEST_MODEL: str(body.get("model", ""))[:256]}
        with self._platform.tracing.span(f"POST {http.scope['path']}", request.traceparent, "server", attributes) as traceparent:
            try:
                admitted = await self._admissions.admit(identity, request, self._answers.reply_to())
            except SluiceError as error:
                raise refused(error) from None
            metrics.ADMITTED.labels(admitted.job.lane.value, "http").inc()
            return await self._answer(http, admitted, traceparent, began)

    async def _answer(self, http: HttpRequest, admitted: Admitted, traceparent: str, began: float) -> Response:
        job, gone = admitted.job, _gone(http)
        headers = job_headers(job, admitted.rate)
        events = self._answers.events(job, traceparent, gone)
        try:
            first = await anext(events)
            while first is None and not job.stream:
                first = await anext(events)
        except SluiceError as error:
            return error_response(error.fault(), headers)
        if isinstance(first, Opened):
            headers |= served_headers(first.served, _ms(began))
        if first is None or isinstance(first, Opened):
            return EventStream(self._stream(job, events, began), headers)
        await events.aclose()
        return self._plain(job, first, headers, began)

    def _plain(self, job: Job, event: Event, headers: dict[str, str], began: float) -> Response:
        metrics.SERVER_SECONDS.labels(policy.operation(job.api)).observe(time.perf_counter() - began)
        match event:
            case Answer(status=status, body=body, served=served):
                return Response(body, status, headers | served_headers(served, _ms(began)), JSON)
            case Failed(fault=fault, served=served):
                return error_response(fault, headers | served_headers(served, _ms(began)))
            case _:
                raise InternalError(f"The answer began with {event.kind!r}; it is on record as {job.id}")

    async def _stream(self, job: Job, events: AsyncGenerator[Event | None], began: float) -> AsyncGenerator[bytes]:
        operation = policy.operation(job.api)
        metrics.FIRST_TOKEN_SECONDS.labels(operation).observe(time.perf_counter() - began)
        yield _KEEP_ALIVE
        async with aclosing(events):
            try:
                async for event in events:
                    yield _part(event)
            except SluiceError as error:
                yield sse_error(error.fault())
            except CallerGone:
                return
        metrics.SERVER_SECONDS.labels(operation).observe(time.perf_counter() - began)


def _part(event: Event | None) -> bytes:
    """What an event is on the wire; a comment keeps proxies from cutting a silent connection."""
    match event:
        case Delta(data=data):
            return sse(data)
        case Closed():
            return _DONE
        case Failed(fault=fault):
            return sse_error(fault)
        case None | Opened():
            return _KEEP_ALIVE
        case Answer():
            raise InternalError("a stream was answered by a whole body")


def _gone(http: HttpRequest) -> "asyncio.Future[None]":
    """Is done when the client has closed its connection."""

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    return asyncio.ensure_future(watch())


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
