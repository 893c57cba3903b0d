"""/admin/v1/jobs and /admin/v1/dead: what operators look at, cancel and replay."""

from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from infra.redis.client import RedisUnavailable
from schemas.errors import Unavailable
from services.portal.admin.wire import Endpoint, Endpoints, answer, body, page, query
from services.portal.dead import Dead, LettersAsked
from services.portal.jobs import Jobs, JobsAsked
from services.portal.replay import Replay, ReplayAsked


def operator_endpoints(jobs: Jobs, dead: Dead, replay: Replay) -> Endpoints:
    """Who answers operators."""

    async def list_jobs(request: Request) -> Response:
        found = await jobs.page(query(request, JobsAsked))
        return page(found.jobs, found.after)

    async def show_job(request: Request) -> Response:
        return answer(await jobs.show(str(request.path_params["id"])))

    async def cancel_job(request: Request) -> Response:
        return answer(await jobs.cancel(str(request.path_params["id"])))

    async def list_letters(request: Request) -> Response:
        return page(*await dead.page(query(request, LettersAsked)))

    async def open_letter(request: Request) -> Response:
        return answer(await dead.open(str(request.path_params["id"])))

    async def replay_letters(request: Request) -> Response:
        return page(*await replay.replay(await body(request, ReplayAsked)))

    endpoints: Endpoints = [
        ("GET", "/jobs", list_jobs),
        ("GET", "/jobs/{id}", show_job),
        ("DELETE", "/jobs/{id}", cancel_job),
        ("GET", "/dead", list_letters),
        ("POST", "/dead/replay", replay_letters),
        ("GET", "/dead/{id:path}", open_letter),
    ]
    return [(method, path, _patient(endpoint)) for method, path, endpoint in endpoints]


def _patient(endpoint: Endpoint) -> Endpoint:
    """While Redis is away, who asks is told to come again."""

    @wraps(endpoint)
    async def asked(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RedisUnavailable as error:
            raise Unavailable(f"The job store doesn't answer ({error}). Try again.", retry_after_s=1) from None

    return asked
