"""/admin/v1/policy/explain and /admin/v1/events: who may do what and why, and who changed what."""

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from infra.clock import Clock
from infra.kafka.table import ControlTable
from schemas.control import VirtualKey
from schemas.errors import InvalidRequest, NotFound
from schemas.ids import job_id_in
from schemas.job import Caller
from services.portal import policy
from services.portal.access import Actor, Right, check
from services.portal.admin.wire import Endpoints, Operation, answer, page, query
from services.portal.books import Books, EventsAsked, EventShown
from services.portal.explain import Explanation, caller_of_job, caller_of_key, explain_caller, explain_job, versions_of


class ExplainAsked(BaseModel):
    """GET /admin/v1/policy/explain: of one of `key`, `team` and `job`. Project, environment and user where the key has none."""

    key: str = Field(default="", description="id of a virtual key")
    team: str = ""
    project: str = ""
    environment: str = ""
    user: str = ""
    job: str = Field(default="", description="id of a job that has ended")


def explain_endpoints(table: ControlTable, books: Books, clock: Clock) -> Endpoints:
    """Who answers those who ask why."""

    async def explain(request: Request, actor: Actor) -> Response:
        asked = query(request, ExplainAsked)
        if sum(map(bool, (asked.key, asked.team, asked.job))) != 1:
            raise InvalidRequest("Say whose policy: one of `key` (its id), `team` and `job`.", param="key")
        if asked.job:
            return answer(await of_job(asked.job, actor))
        return answer(explain_caller(table, caller_of(asked, actor), clock()))

    def caller_of(asked: ExplainAsked, actor: Actor) -> Caller:
        named = {"project": asked.project, "environment": asked.environment, "user": asked.user}
        if asked.key:
            return caller_of_key(table, key_of(asked.key, actor), **named)
        check(actor, Right.READ, asked.team)
        team = policy.the_team(table.teams, asked.team)
        return Caller(organization=team.organization, team=team.name, key_id="", **named)

    def key_of(key_id: str, actor: Actor) -> VirtualKey:
        key = table.keys.get(key_id)
        if key is None or not actor.may(Right.READ, key.team):
            raise NotFound(f"There is no key {key_id[:64]!r}. `sluice keys list` shows them.", param="key")
        return key

    async def of_job(name: str, actor: Actor) -> Explanation:
        job_id = job_id_in(name)
        job = await books.job(job_id) if job_id else None
        if job is None or not actor.may(Right.READ, job.team):
            raise NotFound(
                f"There is no job {name[:64]!r} in the books. What has just ended is there after two seconds.", param="job"
            )
        try:
            versions = versions_of(job.policy_version, caller_of_job(job))
        except ValueError:
            versions = {}
        documents = await books.documents({key: version for key, version in versions.items() if version})
        return explain_job(table, job, documents, clock())

    async def list_events(request: Request, actor: Actor) -> Response:
        asked = query(request, EventsAsked)
        own = None if actor.sees_all() else actor.teams()
        if asked.team is not None or not (own is None or own):
            check(actor, Right.READ, asked.team or "", what="Looking at events")
        return page(*await books.events(asked, own))

    return [
        Operation("GET", "/policy/explain", explain, "Why a caller may do what it may", ExplainAsked, Explanation),
        Operation("GET", "/events", list_events, "Who changed what, the latest first", EventsAsked, EventShown, many=True),
    ]
