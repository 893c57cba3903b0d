"""/admin/v1/jobs and /admin/v1/dead: what operators look at, cancel and replay."""

from dataclasses import replace
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from infra.events import Acts
from infra.redis.client import RedisUnavailable
from schemas.errors import Unavailable
from services.portal.access import Actor, Right, check
from services.portal.admin.wire import Endpoint, Endpoints, Operation, answer, body, page, query
from services.portal.dead import Dead, LetterOpened, LettersAsked, LetterShown
from services.portal.jobs import Jobs, JobsAsked, JobShown
from services.portal.replay import Replay, ReplayAsked, Replayed


def operator_endpoints(jobs: Jobs, dead: Dead, replay: Replay, acts: Acts) -> Endpoints:
    """Who answers operators. Dead letters may be anybody's: they are for those who see all teams."""

    async def list_jobs(request: Request, actor: Actor) -> Response:
        found = await jobs.page(query(request, JobsAsked), actor)
        return page(found.jobs, found.after)

    async def show_job(request: Request, actor: Actor) -> Response:
        return answer(await jobs.show(_id(request), actor))

    async def cancel_job(request: Request, actor: Actor) -> Response:
        shown = await jobs.cancel(_id(request), actor)
        await acts.tell(actor.name, "job.cancelled", f"job/{shown.id}", after={"status": shown.status, "team": shown.caller.team})
        return answer(shown)

    async def list_letters(request: Request, actor: Actor) -> Response:
        check(actor, Right.READ, what="Looking at dead letters")
        return page(*await dead.page(query(request, LettersAsked)))

    async def open_letter(request: Request, actor: Actor) -> Response:
        check(actor, Right.READ, what="Looking at dead letters")
        return answer(await dead.open(_id(request)))

    async def replay_letters(request: Request, actor: Actor) -> Response:
        check(actor, Right.OPERATE, what="Replaying dead letters")
        replayed, after = await replay.replay(await body(request, ReplayAsked), actor)
        for done in replayed:
            if done.result == "replayed":
                await acts.tell(actor.name, "dead.replayed", f"dead/{done.id}", after={"became": done.became})
        return page(replayed, after)

    endpoints = [
        Operation("GET", "/jobs", list_jobs, "Asynchronous jobs, the youngest first", JobsAsked, JobShown, many=True),
        Operation("GET", "/jobs/{id}", show_job, "How a job stands", gives=JobShown),
        Operation("DELETE", "/jobs/{id}", cancel_job, "Cancel a job", gives=JobShown),
        Operation("GET", "/dead", list_letters, "Dead letters, the youngest first", LettersAsked, LetterShown, many=True),
        Operation("POST", "/dead/replay", replay_letters, "Replay dead letters", ReplayAsked, Replayed, many=True),
        Operation("GET", "/dead/{id:path}", open_letter, "A dead letter with all that stands in it", gives=LetterOpened),
    ]
    return [replace(operation, endpoint=patient(operation.endpoint)) for operation in endpoints]


def patient(endpoint: Endpoint) -> Endpoint:
    """While Redis is away, who asks is told to come again."""

    @wraps(endpoint)
    async def asked(request: Request, actor: Actor) -> Response:
        try:
            return await endpoint(request, actor)
        except RedisUnavailable as error:
            raise Unavailable(f"The job store doesn't answer ({error}). Try again.", retry_after_s=1) from None

    return asked


def _id(request: Request) -> str:
    return str(request.path_params["id"])
