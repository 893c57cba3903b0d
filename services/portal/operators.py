"""Credentials of people and programs that administrate: made, changed, revoked; shown without their hashes."""

from pydantic import BaseModel

from infra.clock import new_id
from infra.credentials import key_hash, new_key
from schemas.control import Operator
from schemas.roles import Role
from services.portal import policy
from services.portal.access import RIGHTS, Actor, Right
from services.portal.keys import in_future
from services.portal.kinds import Kinds
from services.portal.store import Store
from services.portal.wanted import NewOperator


class OperatorMade(BaseModel):
    """A new credential; the only time that its secret is shown."""

    id: str
    key: str
    name: str
    role: Role
    team: str
    last4: str
    version: int = 1
    expires_ms: int = 0


class OperatorShown(BaseModel):
    """An operator's credential without what its secret is known by."""

    id: str
    name: str
    role: Role
    team: str
    last4: str
    version: int
    revoked: bool
    created_ms: int
    expires_ms: int


class HeldRole(BaseModel):
    """A role, in a team or (empty) above teams, and what may be done by it."""

    role: Role
    team: str
    rights: tuple[Right, ...]


class Whoami(BaseModel):
    """Who asks, as changes are signed, and the roles held."""

    actor: str
    roles: tuple[HeldRole, ...]


class Operators:
    """Acts on operators."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    async def create(self, wanted: NewOperator, actor: Actor) -> OperatorMade:
        """A new credential. Raises NotAllowed, NotFound for an unknown team, InvalidRequest."""
        if wanted.team:
            policy.the_team(self._store.table.teams, wanted.team)
        secret, born = new_key(), self._store.clock()
        operator = Operator(
            id=new_id("op", born),
            name=wanted.name,
            role=wanted.role,
            team=wanted.team,
            sha256=key_hash(secret),
            last4=secret[-4:],
            created_ms=born,
            expires_ms=in_future(wanted.expires_ms(born), born),
        )
        made = await self._kinds.operators.create(operator, actor)
        return OperatorMade.model_validate({**made.model_dump(), "key": secret})

    async def revoke(self, ref: str, expected: frozenset[str] | None, actor: Actor) -> OperatorShown:
        """The credential, which nobody can use from now on. Raises NotFound, NotAllowed, VersionConflict."""

        def change(operator: Operator) -> Operator:
            return operator.model_copy(update={"revoked": True})

        return shown(await self._kinds.operators.change(ref, change, expected, actor, "revoked"))


def shown(operator: Operator) -> OperatorShown:
    """As people see it."""
    return OperatorShown.model_validate(operator.model_dump())


def whoami(actor: Actor) -> Whoami:
    """Who asks."""
    held = [HeldRole(role=role, team=team, rights=tuple(sorted(RIGHTS[role]))) for role, team in actor.roles]
    return Whoami(actor=actor.name, roles=tuple(held))
