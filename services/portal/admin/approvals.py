"""/admin/v1/approvals: requests for a key, more budget or a model."""

from starlette.requests import Request
from starlette.responses import Response

from schemas.control import Approval
from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, body, page, query, unkept
from services.portal.approval_wanted import AskFor, Grant, Refusal
from services.portal.approvals import Approvals, ApprovalsAsked, KeyCollected


def approval_operations(approvals: Approvals) -> Endpoints:
    """Who asks, who decides, who collects."""

    async def ask(request: Request, actor: Actor) -> Response:
        return answer(await approvals.ask(actor, await body(request, AskFor)), 201)

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*approvals.page(actor, query(request, ApprovalsAsked)))

    async def show(request: Request, actor: Actor) -> Response:
        return answer(approvals.show(actor, _id(request)))

    async def grant(request: Request, actor: Actor) -> Response:
        return answer(await approvals.grant(actor, _id(request), await body(request, Grant)))

    async def refuse(request: Request, actor: Actor) -> Response:
        return answer(await approvals.refuse(actor, _id(request), (await body(request, Refusal)).reason))

    async def collect(request: Request, actor: Actor) -> Response:
        return unkept(answer(await approvals.collect(actor, _id(request))))

    one = "/approvals/{id}"
    return [
        Operation("POST", "/approvals", ask, "Ask for a key, more budget, or a model", AskFor, Approval, 201),
        Operation("GET", "/approvals", list_, "List requests, the youngest first", ApprovalsAsked, Approval, many=True),
        Operation("GET", one, show, "Show a request", gives=Approval),
        Operation("POST", f"{one}/grant", grant, "Grant a request", Grant, Approval),
        Operation("POST", f"{one}/refuse", refuse, "Refuse a request", Refusal, Approval),
        Operation("POST", f"{one}/collect", collect, "Collect the key that was asked for", gives=KeyCollected),
    ]


def _id(request: Request) -> str:
    return str(request.path_params["id"])
