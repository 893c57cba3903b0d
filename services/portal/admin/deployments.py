"""/admin/v1/deployments: how each one is, and taking it out."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.resources import named
from services.portal.admin.wire import Endpoints, Operation, answer, checked, page, query, raw
from services.portal.deployments import Deployments, DeploymentsAsked, DeploymentShown, Said


def deployment_endpoints(deployments: Deployments) -> Endpoints:
    """Who answers those who look after deployments."""

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*await deployments.page(query(request, DeploymentsAsked), actor))

    async def drain(request: Request, actor: Actor) -> Response:
        return answer(await deployments.drain(named(request), await _said(request), actor))

    async def resume(request: Request, actor: Actor) -> Response:
        return answer(await deployments.resume(named(request), await _said(request), actor))

    path, one = "/deployments", "/deployments/{id:path}"
    drains = "Take a deployment out: it gets no new calls"
    resumes = "Ask a deployment again, though it is drained, failing or in quarantine"
    return [
        Operation("GET", path, list_, "List deployments and how they are, by id", DeploymentsAsked, DeploymentShown, many=True),
        Operation("POST", f"{one}/drain", drain, drains, Said, DeploymentShown),
        Operation("POST", f"{one}/resume", resume, resumes, Said, DeploymentShown),
    ]


async def _said(request: Request) -> Said:
    return checked(await raw(request) or b"{}", Said, extra="forbid")
