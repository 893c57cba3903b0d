"""The jobs of all teams, as an administrator sees them: who asked for what, and how it stands. Never what was said."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, Field

from infra.platform import Platform
from infra.redis.listing import older_jobs
from infra.redis.tickets import Found
from schemas.errors import Fault, InvalidRequest, NotFound
from schemas.job import Api, Caller, JobStatus, Labels
from schemas.reply import Failed
from schemas.topics import Lane
from schemas.usage import Usage
from services.portal import policy
from services.portal.access import Actor, Right, check, visible

_AT_ONCE = 100
_MOST_READ = 2_000


class JobsAsked(BaseModel):
    """GET /admin/v1/jobs."""

    team: str | None = None
    status: JobStatus | None = None
    model: str | None = None
    lane: Lane | None = None
    after: str = ""
    limit: int = Field(default=20, ge=1, le=100)


class JobShown(BaseModel):
    """A job. `status` is null where it has ended and its end was not kept: the books know it. Times are unix milliseconds."""

    id: str
    object: Literal["job"] = "job"
    status: JobStatus | None
    api: Api
    lane: Lane
    model: str
    caller: Caller
    labels: Labels
    known_as: Literal["job", "response"]
    stream: bool
    detached: bool
    accepted_ms: int
    deadline_ms: int
    not_before_ms: int
    ended_ms: int | None
    attempts: int
    usage: Usage | None
    cost_usd: Decimal | None
    error: Fault | None


@dataclass(frozen=True, slots=True)
class JobsPage:
    """Jobs, the youngest first. `after`: the id to go on from, or None where nothing older is left."""

    jobs: Sequence[JobShown]
    after: str | None


class Jobs:
    """Looks into the job store."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._tickets = platform.tickets
        self._records = platform.records("portal")
        self._post = platform.post("portal")

    async def page(self, asked: JobsAsked, actor: Actor) -> JobsPage:
        """A page of the jobs that were asked for and are of teams that the actor sees.

        Looks at a bounded number of them, so there may be fewer, or none.

        Raises NotFound for an unknown team, InvalidRequest, RedisUnavailable.
        """
        known = visible(actor, self._platform.control.table.teams)
        teams = [policy.the_team(known, asked.team).name] if asked.team else list(known)
        found: list[JobShown] = []
        read, after = 0, asked.after
        while True:
            ids = await self._older(teams, after)
            for job_id, job in zip(ids, await asyncio.gather(*map(self._tickets.find, ids)), strict=True):
                if len(found) == asked.limit or read == _MOST_READ:
                    return JobsPage(found, after)
                read, after = read + 1, job_id
                if job and is_asked_for(shown := self._shown(job), asked):
                    found.append(shown)
            if len(ids) < _AT_ONCE:
                return JobsPage(found, None)

    async def show(self, job_id: str, actor: Actor) -> JobShown:
        """One job. Raises NotFound if nobody kept it, or no longer, or it is none of the actor's; RedisUnavailable."""
        return self._shown(await self._found(job_id, actor))

    async def cancel(self, job_id: str, actor: Actor) -> JobShown:
        """The job, for which nobody is called any more; one that has ended stays as it is. Raises as `show`, and NotAllowed."""
        found = await self._found(job_id, actor)
        check(actor, Right.OPERATE, found.ticket.caller.team, "Cancelling a job")
        if found.ended is not None:
            return self._shown(found)
        await self._records.abandon(job_id, found.ticket.deadline_ms - self._platform.clock())
        await self._post.cancel(job_id, "an administrator cancelled it")
        return await self.show(job_id, actor)

    async def _older(self, teams: Sequence[str], after: str) -> list[str]:
        try:
            return await older_jobs(self._platform.redis, teams, after, _AT_ONCE)
        except ValueError:
            raise InvalidRequest(f"`after` must be the id of a job, not {after[:64]!r}", param="after") from None

    async def _found(self, job_id: str, actor: Actor) -> Found:
        found = await self._tickets.find(job_id)
        if found is None or not actor.sees(found.ticket.caller.team):
            raise NotFound(
                f"No job {job_id[:64]!r} is kept. Only asynchronous jobs are, for as long as their team's policy says; "
                "`sluice trace` finds others once they have ended."
            )
        return found

    def _shown(self, found: Found) -> JobShown:
        ticket, ended = found.ticket, found.ended
        return JobShown(
            id=ticket.job_id,
            status=ended.status if ended else policy.standing(found.state, ticket.deadline_ms, self._platform.clock()),
            api=ticket.api,
            lane=ticket.lane,
            model=ticket.model,
            caller=ticket.caller,
            labels=ticket.labels,
            known_as=ticket.known_as,
            stream=ticket.stream,
            detached=ticket.detached,
            accepted_ms=ticket.accepted_ms,
            deadline_ms=ticket.deadline_ms,
            not_before_ms=ticket.not_before_ms,
            ended_ms=ended.ended_ms if ended else None,
            attempts=ended.attempts if ended else found.attempts,
            usage=ended.usage if ended else None,
            cost_usd=ended.cost_usd if ended else None,
            error=ended.last.fault if ended and isinstance(ended.last, Failed) else None,
        )


def is_asked_for(job: JobShown, asked: JobsAsked) -> bool:
    """Whether a job is one of those that were asked for."""
    return asked.status in (None, job.status) and asked.model in (None, job.model) and asked.lane in (None, job.lane)
