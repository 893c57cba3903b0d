"""/admin/v1/audit: what is kept of jobs for auditors, and what is erased of whom."""

from starlette.requests import Request
from starlette.responses import Response

from infra.audit import Link
from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, body, page, query, unkept
from services.portal.audit import AuditAsked, AuditDesk, AuditShown
from services.portal.erasure import Erasures
from services.portal.erasure_policy import Erasure, ErasureAsked


def audit_endpoints(desk: AuditDesk, erasures: Erasures) -> Endpoints:
    """Who answers auditors, and those who erase."""

    async def read(request: Request, actor: Actor) -> Response:
        return unkept(page(*await desk.page(query(request, AuditAsked), actor)))

    async def heads(_: Request, actor: Actor) -> Response:
        return page(await desk.heads(actor), None)

    async def erase(request: Request, actor: Actor) -> Response:
        return answer(await erasures.ask(await body(request, ErasureAsked), actor), 202)

    async def list_erasures(_: Request, actor: Actor) -> Response:
        return page(await erasures.all(actor), None)

    async def show_erasure(request: Request, actor: Actor) -> Response:
        return answer(await erasures.show(str(request.path_params["id"]), actor))

    return [
        Operation("GET", "/audit", read, "Prompts and answers, as they were kept", AuditAsked, AuditShown, many=True),
        Operation("GET", "/audit/heads", heads, "The last link of each chain of the audit log", gives=Link, many=True),
        Operation("GET", "/audit/erasures", list_erasures, "Certificates of erasure", gives=Erasure, many=True),
        Operation("POST", "/audit/erasures", erase, "Erase what a user or a key has asked", ErasureAsked, Erasure, 202),
        Operation("GET", "/audit/erasures/{id}", show_erasure, "A certificate of erasure", gives=Erasure),
    ]
