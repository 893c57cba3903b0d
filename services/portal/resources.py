"""What is the same for every kind of resource: found, listed page by page, made, changed by a merge patch, deleted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json, to_jsonable_python

from schemas.base import JsonObject
from schemas.control import (
    Environment,
    IdentityProvider,
    Operator,
    Organization,
    Project,
    Team,
    User,
    VirtualKey,
    resource_key,
    resource_name,
)
from schemas.errors import InvalidRequest, NotFound
from services.portal import policy
from services.portal.access import Actor, Right, check
from services.portal.store import Store

R = TypeVar("R", Organization, Team, Project, Environment, User, VirtualKey, Operator, IdentityProvider)

MOST_LISTED = 1000


class Listed(BaseModel):
    """The query of a list. Without `limit` it is as long as a list may be."""

    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)
    after: str = ""


class ListedOfTeam(Listed):
    """The query of a list of what teams have."""

    team: str | None = None


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """What is particular to a kind. `word`: what people call it; `lists`: the command that shows all.

    `settings`: the members that a patch may change. `team`: whose it is; None: the kind stands above teams. `may_write`: raises
    NotAllowed unless the actor may make the second (None: nothing) of the first (None: nothing). `held_by`: what must
    go before it can be deleted; `goes_with`: record keys of what is deleted along with it.
    """

    word: str
    lists: str
    settings: type[BaseModel]
    team: Callable[[R], str] | None
    may_write: Callable[[Actor, R | None, R | None], None]
    held_by: Callable[[R], Sequence[str]] = lambda _: ()
    goes_with: Callable[[R], Sequence[str]] = lambda _: ()


class Resources(Generic[R]):
    """All resources of a kind, which stand in `standing` by their names."""

    def __init__(self, store: Store, kind: Kind[R], standing: Mapping[str, R]) -> None:
        self._store = store
        self._kind = kind
        self._standing = standing

    def find(self, ref: str, actor: Actor) -> R:
        """The resource with this name or id. Raises NotFound, also for what is another team's; NotAllowed."""
        found = self._standing.get(ref) or next((one for one in self._standing.values() if getattr(one, "id", "") == ref), None)
        if self._kind.team is None:
            check(actor, Right.READ, what=f"Looking at a {self._kind.word}")
        if found is None or not self._sees(actor, found):
            raise NotFound(f"There is no {self._kind.word} {ref[:64]!r}. `{self._kind.lists}` shows them.")
        return found

    def page(self, asked: Listed, actor: Actor, wanted: Callable[[R], bool] = lambda _: True) -> tuple[list[R], str | None]:
        """The resources that the actor sees, by name, from behind `after` on, and where to go on. Raises NotAllowed."""
        if self._kind.team is None:
            check(actor, Right.READ, what=f"Looking at a {self._kind.word}")
        behind = {name: one for name, one in self._standing.items() if name > asked.after}
        names = sorted(name for name, one in behind.items() if self._sees(actor, one) and wanted(one))
        shown = names[: asked.limit]
        return [behind[name] for name in shown], shown[-1] if len(names) > len(shown) else None

    async def create(self, resource: R, actor: Actor) -> R:
        """Makes a resource. Raises InvalidRequest if there is one already; NotAllowed."""
        async with self._store.writing():
            return await self.create_within(resource, actor)

    async def create_within(self, resource: R, actor: Actor) -> R:
        """The same, for who is writing already."""
        self._kind.may_write(actor, None, resource)
        if resource_name(resource) in self._standing:
            raise InvalidRequest(
                f"The {self._kind.word} {resource_name(resource)!r} exists already.",
                param="name",
                code=f"{resource.kind}_exists",
            )
        await self._store.write(resource, author=actor.author(f"{resource.kind}.created"))
        return resource

    async def patch(self, ref: str, patch: JsonObject, expected: frozenset[str] | None, actor: Actor) -> R:
        """The resource after a merge patch. Raises NotFound, NotAllowed, VersionConflict; InvalidRequest that names a member."""

        def change(standing: R) -> R:
            settings = self._settings(standing, patch)
            return standing.model_copy(update={name: getattr(settings, name) for name in type(settings).model_fields})

        return await self.change(ref, change, expected, actor, "changed")

    async def change(
        self,
        ref: str,
        change: Callable[[R], R],
        expected: frozenset[str] | None,
        actor: Actor,
        action: str,
        right: Right | None = None,
    ) -> R:
        """The resource as `change` leaves it, one version higher; as it was if nothing changes. Raises as `patch`.

        `right`: what it takes besides what the kind says.
        """
        async with self._store.writing():
            standing = self.find(ref, actor)
            if right is not None:
                check(actor, right, self._kind.team(standing) if self._kind.team else "", f"Changing a {self._kind.word} so")
            changed = change(standing)
            self._kind.may_write(actor, standing, changed)
            policy.check_version(standing.version, expected)
            if changed == standing:
                return standing
            changed = changed.model_copy(update={"version": standing.version + 1})
            await self._store.write(changed, author=actor.author(f"{standing.kind}.{action}"))
            return changed

    async def delete(self, ref: str, expected: frozenset[str] | None, actor: Actor) -> R:
        """Deletes a resource and what goes with it. Raises as `patch`; InvalidRequest if it is in use."""
        async with self._store.writing():
            standing = self.find(ref, actor)
            self._kind.may_write(actor, standing, None)
            policy.check_version(standing.version, expected)
            policy.check_unheld(f"The {self._kind.word} {resource_name(standing)}", self._kind.held_by(standing))
            doomed = (*self._kind.goes_with(standing), resource_key(standing))
            await self._store.delete(*doomed, author=actor.author(f"{standing.kind}.deleted"))
            return standing

    def _sees(self, actor: Actor, one: R) -> bool:
        return actor.sees(self._kind.team(one) if self._kind.team else "")

    def _settings(self, standing: R, patch: JsonObject) -> BaseModel:
        """The settings after the patch. What is misspelt must not look as if it held."""
        model = self._kind.settings
        now = to_jsonable_python({name: getattr(standing, name) for name in model.model_fields})
        try:
            return model.model_validate_json(to_json(policy.merged(now, patch)), extra="forbid")
        except ValidationError as error:
            raise invalid(error) from None


def invalid(error: ValidationError) -> InvalidRequest:
    """What is wrong first."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    return InvalidRequest(f"Invalid value for `{param or 'body'}`: {first['msg']}", param=param or None)
