"""/v1/jobs: what became of jobs that nobody's connection waits for."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.redis.tickets import Found
from schemas.base import JsonObject
from schemas.errors import InvalidRequest, NotFound, SluiceError, Unavailable
from schemas.job import JobStatus
from schemas.reply import Answer, Event, Failed
from schemas.topics import Lane
from services.ingress import policy
from services.ingress.answers import Answers, Client, Whereabouts, is_last, retold
from services.ingress.handler import Admissions
from services.ingress.http.paging import whole_number
from services.ingress.http.requests import credentials, disconnected
from services.ingress.http.responses import ASK_AGAIN_S
from services.ingress.http.streams import KEEP_ALIVE, EventStream, Numbered, chat_stream, last_seen
from services.ingress.job_object import job_object, matches
from services.ingress.text_completions import COMPLETIONS, told_text

_MOST = 100
_LOOKED_AT = 1_000
_CANCEL_S = 2.0
_LOOK_AGAIN_S = 0.05


class Jobs:
    """The endpoints of the job store. A job of another team doesn't exist."""

    def __init__(self, platform: Platform, admissions: Admissions, answers: Answers) -> None:
        self._tickets = platform.tickets
        self._loads = platform.loads
        self._admissions = admissions
        self._answers = answers

    async def retrieve(self, http: HttpRequest) -> Response:
        """GET /v1/jobs/{id}."""
        found = await self._find(http)
        headers = {} if found.ended else {"retry-after": str(ASK_AGAIN_S)}
        return JSONResponse(job_object(found, self._lag(found.ticket.lane)), headers=headers)

    async def list(self, http: HttpRequest) -> Response:
        """GET /v1/jobs?status=&model=&lane=&after=&limit=: the youngest first."""
        team = (await self._admissions.identify(credentials(http))).team.name
        asked = http.query_params
        status, model = asked.get("status"), asked.get("model")
        if status is not None and status not in [known.value for known in JobStatus]:
            raise InvalidRequest(f"status must be one of {', '.join(JobStatus)}", param="status")
        lane = policy.lane(asked["lane"]) if "lane" in asked else None
        limit = whole_number(asked, "limit", 20, _MOST)
        found, more = await self._page(team, asked.get("after", ""), limit, lambda one: matches(one, status, model, lane))
        data = [_in_list(one) for one in found]
        ids = [str(one["id"]) for one in data] or [None]
        return JSONResponse({"object": "list", "data": data, "first_id": ids[0], "last_id": ids[-1], "has_more": more})

    async def cancel(self, http: HttpRequest) -> Response:
        """DELETE /v1/jobs/{id}: no provider is called any more; gives the job, in most cases as it has ended by that."""
        found = await self._find(http)
        if found.ended is None:
            await self._answers.cancel(found.ticket.job_id, found.ticket.deadline_ms)
            found = await self.ended_soon(found)
        return JSONResponse(job_object(found))

    async def events(self, http: HttpRequest) -> Response:
        """GET /v1/jobs/{id}/events: its events so far and as they come, from behind `Last-Event-ID` on."""
        found = await self._find(http)
        ticket = found.ticket
        after = last_seen(http.headers.get("last-event-id") or http.query_params.get("last_event_id"), ticket.job_id)
        client = Client(disconnected(http), stays=True)
        if found.ended is not None and (found.ended.stream or not ticket.stream or isinstance(found.ended.last, Failed)):
            events = retold(found.ended)
        else:
            place = Whereabouts(ticket.job_id, ticket.partition, ticket.accepted_ms, ticket.deadline_ms)
            events = self._answers.follow(place, client)
        told = partial(told_text, ticket.job_id) if ticket.endpoint == COMPLETIONS else None
        parts = chat_stream(events, Numbered(ticket.job_id, after, told)) if ticket.stream else self._whole(events, ticket.job_id)
        return EventStream(parts, {"x-request-id": ticket.job_id, "x-sluice-job": ticket.job_id})

    async def _whole(self, events: AsyncGenerator[Event | None], job_id: str) -> AsyncGenerator[bytes]:
        """Of a job without a stream: one event with the job as it has ended."""
        yield KEEP_ALIVE
        async with aclosing(events):
            try:
                async for event in events:
                    if is_last(event):
                        yield await self._end_event(job_id, event)
                    else:
                        yield KEEP_ALIVE
            except SluiceError as error:
                yield Numbered(job_id).error(error.fault())

    async def _end_event(self, job_id: str, event: Event | None) -> bytes:
        found = await self.ended_soon(await self._tickets.find(job_id))
        told = job_object(found) or {"id": job_id, "object": "job"}
        if found is None or found.ended is None:
            told |= {"status": "completed" if isinstance(event, Answer) else "failed"}
        return f"id: {job_id}:1\nevent: job.{told['status']}\ndata: {json.dumps(told)}\n\n".encode()

    def _lag(self, lane: Lane) -> JsonObject:
        load = self._loads.lane(lane)
        return {"lane_depth": load.depth, "lane_wait_s": round(load.wait_ms / 1000, 1)}

    async def _find(self, http: HttpRequest) -> Found:
        """The caller's job. Raises NotFound, Unavailable."""
        team = (await self._admissions.identify(credentials(http))).team.name
        job_id = str(http.path_params["id"])
        try:
            found = await self._tickets.find(job_id)
        except RedisUnavailable:
            raise Unavailable("The job store does not answer. Try again.", code="jobs_unavailable", retry_after_s=1) from None
        if found is None or found.ticket.caller.team != team:
            raise NotFound(
                f"There is no job {job_id[:64]!r}, or its result is no longer kept. Only asynchronous requests and those with an "
                "Idempotency-Key can be asked for.",
                code="job_not_found",
            )
        return found

    async def ended_soon(self, found: Found | None) -> Found | None:
        """The job once its end is noted, or as it stands after a while."""
        until = asyncio.get_running_loop().time() + _CANCEL_S
        while found is not None and found.ended is None and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_AGAIN_S)
            found = await self._tickets.find(found.ticket.job_id) or found
        return found

    async def _page(self, team: str, after: str, limit: int, fits: Callable[[Found], bool]) -> tuple["list[Found]", bool]:
        """A page of jobs that fit, and whether there may be more."""
        fitting: list[Found] = []
        looked_at = 0
        while looked_at < _LOOKED_AT:
            ids = await self._tickets.page(team, after, _MOST)
            looked_at += len(ids)
            for job_id in ids:
                found = await self._tickets.find(job_id)
                if found is not None and fits(found):
                    if len(fitting) == limit:
                        return fitting, True
                    fitting.append(found)
            if len(ids) < _MOST:
                return fitting, False
            after = ids[-1]
        return fitting, True


def _in_list(found: Found) -> JsonObject:
    """Without its result, which may be long."""
    told = job_object(found) or {}
    return {name: value for name, value in told.items() if name != "result"}
