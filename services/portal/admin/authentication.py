"""Who calls the admin API: the one place where credentials become an actor."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from infra.clock import Clock
from infra.credentials import key_hash
from infra.kafka.table import ControlTable
from schemas.control import Operator
from schemas.errors import InvalidKey, NotAllowed
from services.portal.access import ADMIN, Actor

Identify = Callable[[str], Awaitable[Actor | None]]
"""Whose identity token (a JWT of an identity provider) it is; None, or InvalidKey raised: nobody's whom we trust."""

_NEEDS_ADMIN = (
    "This needs the admin key, which lies in DATA_DIR/admin.key (or set SLUICE_ADMIN_KEY), an operator's credential "
    "(`sluice operators create`), or an identity token."
)


class VirtualKeyGiven(NotAllowed):
    """Somebody administrates with a virtual key, which is never good for that. `name`: as an actor's."""

    def __init__(self, key_id: str) -> None:
        super().__init__(_NEEDS_ADMIN, code="not_admin")
        self.name = f"key/{key_id}"


class Authentication:
    """Knows callers by the admin key, by the credential of an operator, or by an identity token, if there is who reads those."""

    def __init__(self, admin_key: str, table: ControlTable, clock: Clock, identify: Identify | None = None) -> None:
        self._admin_key = admin_key.encode()
        self._table = table
        self._clock = clock
        self._identify = identify

    async def actor(self, request: Request) -> Actor:
        """Who asks. Raises InvalidKey, and VirtualKeyGiven."""
        _, _, given = request.headers.get("authorization", "").partition(" ")
        secret = given.strip() or request.headers.get("x-api-key", "")
        if hmac.compare_digest(secret.encode(), self._admin_key):
            return ADMIN
        digest = key_hash(secret)
        if operator := self._table.operators_by_hash.get(digest):
            return self._operator(operator)
        if (key := self._table.keys_by_hash.get(digest)) and not key.revoked:
            raise VirtualKeyGiven(key.id)
        if self._identify is not None and secret.count(".") == 2 and (known := await self._identify(secret)):
            return known
        raise InvalidKey(_NEEDS_ADMIN)

    def _operator(self, operator: Operator) -> Actor:
        if operator.revoked or 0 < operator.expires_ms <= self._clock():
            state = "revoked" if operator.revoked else "over"
            raise InvalidKey(f"The credential of this operator ({operator.id}) is {state}. Ask for a new one.")
        return Actor(f"operator/{operator.id}", ((operator.role, operator.team),))
