"""/admin/v1/keys, job_tokens, operators and whoami: whatever has a secret. No hash of one is ever shown."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.resources import named
from services.portal.admin.wire import Endpoints, Operation, answer, checked, if_match, page, patch, query, raw, unkept
from services.portal.admin.wire import body as body_of
from services.portal.handler import Admin, TokenMade
from services.portal.keys import KeyMade, KeyRotated, KeysAsked, KeyShown
from services.portal.operators import OperatorMade, OperatorShown, Whoami, shown, whoami
from services.portal.resources import Listed
from services.portal.wanted import KeySettings, NewJobToken, NewKey, NewOperator, OperatorSettings, Rotation


def credential_endpoints(admin: Admin) -> Endpoints:
    """The endpoints of keys, of the tokens minted from them, and of operators."""
    return [*_keys(admin), *_operators(admin)]


def _keys(admin: Admin) -> Endpoints:
    keys, kind = admin.keys, admin.kinds.keys

    async def create(request: Request, actor: Actor) -> Response:
        return unkept(answer(await keys.create(await body_of(request, NewKey), actor), 201))

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*await keys.page(query(request, KeysAsked), actor))

    async def show(request: Request, actor: Actor) -> Response:
        return answer(await keys.shown(kind.find(named(request), actor)))

    async def change(request: Request, actor: Actor) -> Response:
        changed = await kind.patch(named(request), await patch(request), if_match(request), actor)
        return answer(await keys.shown(changed))

    async def rotate(request: Request, actor: Actor) -> Response:
        wanted = checked(await raw(request) or b"{}", Rotation, extra="forbid")
        return unkept(answer(await keys.rotate(named(request), wanted, if_match(request), actor)))

    async def revoke(request: Request, actor: Actor) -> Response:
        return answer(await keys.revoke(named(request), if_match(request), actor))

    async def resume(request: Request, actor: Actor) -> Response:
        return answer(await keys.resume(named(request), if_match(request), actor))

    async def job_token(request: Request, actor: Actor) -> Response:
        return unkept(answer(await admin.job_token(await body_of(request, NewJobToken), actor), 201))

    one = "/keys/{id}"
    return [
        Operation("POST", "/keys", create, "Create a virtual key, shown only this once", NewKey, KeyMade, 201),
        Operation("GET", "/keys", list_, "List virtual keys, the oldest first", KeysAsked, KeyShown, many=True),
        Operation("GET", one, show, "Show a virtual key", gives=KeyShown),
        Operation("PATCH", one, change, "Change a virtual key by a merge patch", KeySettings, KeyShown),
        Operation("DELETE", one, revoke, "Revoke a virtual key", gives=KeyShown),
        Operation("POST", f"{one}/rotate", rotate, "A new secret; the one before is taken for a while", Rotation, KeyRotated),
        Operation("POST", f"{one}/revoke", revoke, "Revoke a virtual key", gives=KeyShown),
        Operation("POST", f"{one}/resume", resume, "Lift what holds a virtual key that ran away", gives=KeyShown),
        Operation("POST", "/job_tokens", job_token, "Mint a token for the Kafka door", NewJobToken, TokenMade, 201),
    ]


def _operators(admin: Admin) -> Endpoints:
    operators, kind = admin.operators, admin.kinds.operators

    async def create(request: Request, actor: Actor) -> Response:
        return unkept(answer(await operators.create(await body_of(request, NewOperator), actor), 201))

    async def list_(request: Request, actor: Actor) -> Response:
        found, after = kind.page(query(request, Listed), actor)
        return page([shown(one) for one in found], after)

    async def show(request: Request, actor: Actor) -> Response:
        return answer(shown(kind.find(named(request), actor)))

    async def change(request: Request, actor: Actor) -> Response:
        return answer(shown(await kind.patch(named(request), await patch(request), if_match(request), actor)))

    async def revoke(request: Request, actor: Actor) -> Response:
        return answer(await operators.revoke(named(request), if_match(request), actor))

    async def tell_who(_: Request, actor: Actor) -> Response:
        return answer(whoami(actor))

    path, one = "/operators", "/operators/{id}"
    return [
        Operation("POST", path, create, "Create a credential for this API, shown only this once", NewOperator, OperatorMade, 201),
        Operation("GET", path, list_, "List operators", Listed, OperatorShown, many=True),
        Operation("GET", one, show, "Show an operator", gives=OperatorShown),
        Operation("PATCH", one, change, "Change an operator by a merge patch", OperatorSettings, OperatorShown),
        Operation("DELETE", one, revoke, "Revoke an operator's credential", gives=OperatorShown),
        Operation("GET", "/whoami", tell_who, "Who asks, and what he may do", gives=Whoami),
    ]
