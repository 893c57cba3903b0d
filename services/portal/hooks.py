"""POST /hooks/itsm: somebody decides in an ITSM system, which says so with a signed webhook (standard-webhooks)."""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from infra.clock import Clock
from infra.redis.client import RedisUnavailable
from infra.redis.once import Once
from infra.settings import Settings
from infra.webhooks.signing import TOLERANCE_S, is_signed, secret_in
from schemas.control import Approval
from schemas.errors import Conflict, InvalidKey, RequestTooLarge, SluiceError, Unavailable
from services.portal import approval_policy, itsm
from services.portal.admin.wire import answer, checked, invalid
from services.portal.approval_wanted import AskFor, Grant
from services.portal.approvals import CLAIM_MS, Approvals, Taken

log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024
# An id with a dot could pass for another id and another time under the same signature.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")
_UNDER_WAY_MS = 20_000
_REMEMBERED_MS = (2 * TOLERANCE_S + 60) * 1000
"""A webhook is good from five minutes before its timestamp to five minutes after; a minute more for clocks that differ."""


class Told(BaseModel):
    """What came of a webhook: the request as it stands now; null if there was nothing to do."""

    approval: Approval | None


def itsm_secrets(settings: Settings) -> tuple[bytes, ...]:
    """What webhooks may be signed with; none: there is no hook. Raises ValueError that doesn't repeat them."""
    try:
        return tuple(secret_in(one) for one in settings.itsm_secret.get_secret_value().split())
    except ValueError as error:
        raise ValueError(
            f"SLUICE_ITSM_SECRET can't be used: {error}. `echo whsec_$(openssl rand -base64 32)` makes one."
        ) from None


class ItsmHook:
    """Checks webhooks, and decides as they say."""

    def __init__(self, approvals: Approvals, once: Once, clock: Clock, secrets: Sequence[bytes]) -> None:
        self._approvals, self._once, self._clock, self._secrets = approvals, once, clock, secrets

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Without a secret there is no hook."""
        return [Route("/hooks/itsm", self.take, methods=["POST"])] if self._secrets else []

    async def take(self, request: Request) -> Response:
        """Raises InvalidKey for what isn't signed, Conflict for a replay, RedisUnavailable, and what deciding raises."""
        body = await _body(request)
        name = f"itsm:{self._checked_id(request, body)}"
        match await self._once.begin(name, _UNDER_WAY_MS):
            case "done":
                raise Conflict("This webhook was handled before.", code="webhook_replayed")
            case "begun":
                raise Unavailable("This webhook is being handled.", retry_after_s=_UNDER_WAY_MS // 1000)
            case _:
                pass
        try:
            told = await self._act(checked(body, itsm.Ticket))
        except Taken as error:
            await self._note(name, is_over=False)
            raise Unavailable(error.message, retry_after_s=CLAIM_MS // 1000) from None
        except SluiceError as error:
            await self._note(name, is_over=error.status < 500)
            raise
        except Exception:
            await self._note(name, is_over=False)
            raise
        await self._note(name, is_over=True)
        return answer(told)

    def _checked_id(self, request: Request, body: bytes) -> str:
        """The webhook's id, if one who has the secret sent it, just now. Raises InvalidKey."""
        headers = request.headers
        event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not _ID.fullmatch(event_id) or not _TIMESTAMP.fullmatch(timestamp):
            raise _unsigned("`webhook-id` (letters, digits, - and _) and `webhook-timestamp` (unix seconds) have to be there")
        if not is_signed(self._secrets, event_id, int(timestamp), body, headers.get("webhook-signature", "")):
            raise _unsigned("`webhook-signature` doesn't fit: check the secret, and that the body is signed as it is sent")
        if abs(self._clock() - int(timestamp) * 1000) > TOLERANCE_S * 1000:
            raise _unsigned(f"`webhook-timestamp` is more than {TOLERANCE_S} s away from our clock")
        return event_id

    async def _act(self, ticket: itsm.Ticket) -> Told:
        verdict = itsm.verdict(ticket)
        if verdict is None:
            return Told(approval=None)
        actor, grant = itsm.decider(ticket), Grant(reason=ticket.reason)
        if ticket.u_sluice_request and verdict == "rejected":
            return Told(approval=await self._approvals.refuse(actor, ticket.u_sluice_request, ticket.reason, ticket.number))
        if ticket.u_sluice_request:
            return Told(approval=await self._approvals.grant(actor, ticket.u_sluice_request, grant, ticket.number))
        if verdict == "rejected":
            return Told(approval=None)
        approval = self._approvals.by_ticket(ticket.number)
        if approval is None:
            requester = itsm.requester(ticket)
            approval_policy.check_four_eyes(requester, actor.name)
            approval = await self._approvals.ask(actor, _asked(ticket), requester, ticket.number)
        return Told(approval=await self._approvals.grant(actor, approval.id, grant, ticket.number))

    async def _note(self, name: str, *, is_over: bool) -> None:
        """What is over is not done again. If Redis goes away just now, a replay finds the request decided."""
        with suppress(RedisUnavailable):
            await (self._once.done(name, _REMEMBERED_MS) if is_over else self._once.forget(name))


def _asked(ticket: itsm.Ticket) -> AskFor:
    try:
        return AskFor.model_validate(itsm.asked(ticket))
    except ValidationError as error:
        raise invalid(error) from None


async def _body(request: Request) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BYTES:
            raise RequestTooLarge(f"A webhook has at most {_MAX_BYTES:,} bytes.")
    return bytes(chunks)


def _unsigned(why: str) -> InvalidKey:
    log.warning("hooks/itsm: refused: %s", why)
    return InvalidKey(f"{why}.", code="invalid_signature")
