"""Analysts: users of ClickHouse who read one organization's rows. Made, rotated, revoked; accounting tells ClickHouse."""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field

from infra.credentials import key_hash, new_key
from infra.secret_files import SERVICE
from schemas.control import Analyst
from schemas.errors import InvalidRequest, NotFound
from services.portal import policy
from services.portal.access import Actor, Right, check
from services.portal.resources import Listed
from services.portal.store import Store

_TAKEN: Final = frozenset({"default", SERVICE, "service", "analyst", "sluice_analyst"})


class NewAnalyst(BaseModel):
    """POST /admin/v1/analysts. `organization`: empty: the house's. `teams`: none: all of the organization."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    organization: str = Field(default="", max_length=64)
    teams: tuple[str, ...] = Field(default=(), max_length=1000)


class AnalystShown(BaseModel):
    """An analyst without what its password is known by."""

    name: str
    organization: str
    teams: tuple[str, ...]
    last4: str
    version: int
    revoked: bool
    created_ms: int
    rotated_ms: int


class AnalystMade(BaseModel):
    """A user and its password, shown only this once. `url`: with both, for tools that take one; empty: it isn't known here."""

    user: str
    password: str
    url: str
    organization: str
    teams: tuple[str, ...]
    version: int


class Analysts:
    """Acts on analysts."""

    def __init__(self, store: Store, clickhouse_url: str) -> None:
        self._store = store
        self._standing = store.table.analysts
        self._url = clickhouse_url

    async def create(self, wanted: NewAnalyst, actor: Actor) -> AnalystMade:
        """A new user. Raises NotAllowed, NotFound for an unknown organization or team, InvalidRequest if the name is taken."""
        check(actor, Right.PLATFORM, what="Making an analyst")
        table = self._store.table
        async with self._store.writing():
            before = self._standing.get(wanted.name)
            if wanted.name in _TAKEN or (before is not None and not before.revoked):
                raise InvalidRequest(f"There is a user {wanted.name!r} already.", param="name", code="analyst_exists")
            organization = wanted.organization or next(iter(table.organizations), "")
            if organization not in table.organizations:
                known = ", ".join(table.organizations)
                raise NotFound(f"There is no organization {organization!r}. There is: {known}.", param="organization")
            for team in wanted.teams:
                policy.the_team(table.teams, team)
            secret, born = new_key(), self._store.clock()
            analyst = Analyst(
                name=wanted.name,
                organization=organization,
                teams=wanted.teams,
                sha256=key_hash(secret),
                last4=secret[-4:],
                version=before.version + 1 if before else 1,
                created_ms=born,
            )
            await self._store.write(analyst, author=actor.author("analyst.created"))
        return self._made(analyst, secret)

    async def rotate(self, name: str, expected: frozenset[str] | None, actor: Actor) -> AnalystMade:
        """A new password; the one before is taken no longer. Raises NotFound, NotAllowed, VersionConflict, InvalidRequest."""
        secret = new_key()

        def change(analyst: Analyst) -> Analyst:
            if analyst.revoked:
                raise InvalidRequest(f"The analyst {name!r} is revoked. `sluice analysts create` makes it anew.")
            words = {"sha256": key_hash(secret), "last4": secret[-4:], "rotated_ms": self._store.clock()}
            return analyst.model_copy(update=words)

        return self._made(await self._change(name, change, expected, actor, "rotated"), secret)

    async def revoke(self, name: str, expected: frozenset[str] | None, actor: Actor) -> AnalystShown:
        """ClickHouse lets nobody in by it any more, within a second. Raises NotFound, NotAllowed, VersionConflict."""

        def change(analyst: Analyst) -> Analyst:
            return analyst.model_copy(update={"revoked": True})

        return shown(await self._change(name, change, expected, actor, "revoked"))

    def find(self, name: str, actor: Actor) -> AnalystShown:
        """The analyst. Raises NotFound, NotAllowed."""
        check(actor, Right.READ, what="Looking at an analyst")
        return shown(self._known(name))

    def page(self, asked: Listed, actor: Actor) -> tuple[list[AnalystShown], str | None]:
        """Analysts by name, and where to go on. Raises NotAllowed."""
        check(actor, Right.READ, what="Looking at analysts")
        names = sorted(name for name in self._standing if name > asked.after)
        given = names[: asked.limit]
        return [shown(self._standing[name]) for name in given], given[-1] if len(names) > len(given) else None

    async def _change(
        self, name: str, change: Callable[[Analyst], Analyst], expected: frozenset[str] | None, actor: Actor, what: str
    ) -> Analyst:
        check(actor, Right.PLATFORM, what="Changing an analyst")
        async with self._store.writing():
            before = self._known(name)
            policy.check_version(before.version, expected)
            after = change(before).model_copy(update={"version": before.version + 1})
            await self._store.write(after, author=actor.author(f"analyst.{what}"))
            return after

    def _known(self, name: str) -> Analyst:
        found = self._standing.get(name)
        if found is None:
            raise NotFound(f"There is no analyst {name[:64]!r}. `sluice analysts list` shows them.")
        return found

    def _made(self, analyst: Analyst, secret: str) -> AnalystMade:
        url = address(self._url, analyst.name, secret)
        return AnalystMade(
            user=analyst.name,
            password=secret,
            url=url,
            organization=analyst.organization,
            teams=analyst.teams,
            version=analyst.version,
        )


def address(clickhouse: str, user: str, password: str) -> str:
    """ClickHouse's URL with this user in place of the one that we have."""
    if not clickhouse:
        return ""
    parts = urlsplit(clickhouse if "://" in clickhouse else f"http://{clickhouse}")
    return f"{parts.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"


def shown(analyst: Analyst) -> AnalystShown:
    """As people see it."""
    return AnalystShown.model_validate(analyst.model_dump())
