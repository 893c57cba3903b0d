"""Budgets and limits, set at any level by naming the level: no more of a policy has to be known for that."""

from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from infra.clock import new_id
from schemas.base import JsonObject
from schemas.budget import Budget, Increase, Period, Share, Usd
from schemas.control import Environment, Organization, Project, Team, User, VirtualKey, resource_key
from schemas.errors import NotFound
from schemas.policy import Limits, Policy
from services.portal import policy
from services.portal.access import Actor, Right, check, visible
from services.portal.kinds import Kinds
from services.portal.resources import Listed, Resources
from services.portal.store import Store
from services.portal.wanted import Place

Level = Organization | Team | Project | Environment | VirtualKey | User
Change = Callable[[Policy], Policy]
_SCOPE = ("organization", "team", "project", "environment", "key", "user")


class Scope(BaseModel):
    """A level: `organization`, `user`, `key`, or `team` with a project, an environment, or both."""

    organization: bool = False
    team: str = ""
    project: Place = ""
    environment: Place = ""
    key: str = ""
    user: str = ""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(map(bool, (self.organization, self.team, self.key, self.user))) != 1:
            raise ValueError("say which level: `organization`, `team` (with `project`, `environment`), `key` or `user`")
        if (self.project or self.environment) and not self.team:
            raise ValueError("a project and an environment are a team's: say which `team`")
        return self


class NewBudget(BaseModel):
    """PUT /admin/v1/budgets: the budget of this period at this level, instead of the one that is there."""

    scope: Scope
    usd: Usd | None = None
    tokens: int | None = Field(default=None, ge=0)
    period: Period = Period.MONTH
    hard: bool = True
    alerts: tuple[Share, ...] = (0.8,)

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.usd is None and self.tokens is None:
            raise ValueError("give `usd`, `tokens`, or both")
        return self


class BudgetShown(BaseModel):
    """A budget. `id` names it in lists; `resource` is the record key of the level, `version` that of its document."""

    id: str
    scope: JsonObject
    resource: str
    version: int
    usd: Usd | None
    tokens: int | None
    period: Period
    hard: bool
    alerts: tuple[Share, ...]
    increases: tuple[Increase, ...]


class LevelsAsked(Listed):
    """The query of a list of levels: those that fit what is given; a team's projects, environments and keys are among its own."""

    organization: bool | None = None
    team: str | None = None
    project: str | None = None
    environment: str | None = None
    key: str | None = None
    user: str | None = None


class BudgetAsked(Scope):
    """DELETE /admin/v1/budgets."""

    period: Period = Period.MONTH


class NewLimits(BaseModel):
    """PUT /admin/v1/limits: a limit left out stays as it is, null lifts it."""

    scope: Scope
    limits: Limits


class LimitsShown(BaseModel):
    """The limits of a level."""

    id: str
    scope: JsonObject
    version: int
    limits: Limits


S = TypeVar("S", BudgetShown, LimitsShown)


class Budgets:
    """Budgets and limits of all levels."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    async def put(self, wanted: NewBudget, expected: frozenset[str] | None, actor: Actor) -> BudgetShown:
        """Sets a budget. Raises NotFound, NotAllowed, VersionConflict."""

        def change(before: Policy) -> Policy:
            others = [budget for budget in before.budgets if budget.period != wanted.period]
            same = [budget for budget in before.budgets if budget.period == wanted.period]
            given = wanted.model_dump(exclude={"scope"})
            # What was granted besides goes on until its time is over.
            budget = Budget(**given, increases=tuple(increase for old in same for increase in old.increases))
            return before.model_copy(update={"budgets": (*others, budget)})

        level = await self._change(wanted.scope, change, expected, actor, "budget_set", Right.BUDGET)
        return next(shown for shown in _budgets(level) if shown.period == wanted.period)

    async def remove(self, asked: BudgetAsked, expected: frozenset[str] | None, actor: Actor) -> BudgetShown:
        """Takes a budget away, and gives it as it was. Raises NotFound, NotAllowed, VersionConflict."""
        kind, name = self._place(asked, actor)
        level = kind.find(name, actor)
        check(actor, Right.BUDGET, team_of(level), "Removing a budget")
        removed = next((shown for shown in _budgets(level) if shown.period == asked.period), None)
        if removed is None:
            raise NotFound(f"There is no budget by the {asked.period} there. `sluice budgets list` shows them.")

        def change(before: Policy) -> Policy:
            return before.model_copy(update={"budgets": tuple(b for b in before.budgets if b.period != asked.period)})

        await _changed(kind, name, change, expected, actor, "budget_removed")
        return removed

    def page(self, asked: LevelsAsked, actor: Actor) -> tuple[list[BudgetShown], str | None]:
        """Budgets of the levels that the actor sees."""
        return _part([shown for level in self.levels(asked, actor) for shown in _budgets(level)], asked)

    async def limit(self, wanted: NewLimits, expected: frozenset[str] | None, actor: Actor) -> LimitsShown:
        """Sets limits. Raises NotFound, NotAllowed, VersionConflict."""
        given = {name: getattr(wanted.limits, name) for name in wanted.limits.model_fields_set}

        def change(before: Policy) -> Policy:
            return before.model_copy(update={"limits": before.limits.model_copy(update=given)})

        level = await self._change(wanted.scope, change, expected, actor, "limits_set", _right_to_policy(wanted.scope))
        return _limits(level)

    def limits_page(self, asked: LevelsAsked, actor: Actor) -> tuple[list[LimitsShown], str | None]:
        """Limits of the levels that the actor sees and that have any."""
        return _part([_limits(level) for level in self.levels(asked, actor) if level.policy.limits != Limits()], asked)

    async def _change(
        self, scope: Scope, change: Change, expected: frozenset[str] | None, actor: Actor, action: str, right: Right
    ) -> Level:
        """A level after a change of its policy; a project, an environment or a user that nobody has named before is made."""
        kind, name = self._place(scope, actor)
        if scope.team or scope.user:
            check(actor, right, scope.team, "Changing this policy")
            await self._make(scope, actor)
        return await _changed(kind, name, change, expected, actor, action)

    async def _make(self, scope: Scope, actor: Actor) -> None:
        async with self._store.writing():
            if scope.user and scope.user not in self._store.table.users:
                born = self._store.clock()
                user = User(id=new_id("user", born), name=scope.user, created_ms=born)
                await self._store.write(user, author=actor.author("user.created"))
            await self._store.make_place(scope.team, scope.project, scope.environment, actor)

    def _place(self, scope: Scope, actor: Actor) -> tuple[Resources[Any], str]:
        """Where a level stands. Raises NotFound for a team that isn't there, or isn't the actor's."""
        if scope.organization:
            return self._kinds.organizations, next(iter(self._store.table.organizations), "")
        if scope.key:
            return self._kinds.keys, scope.key
        if scope.user:
            return self._kinds.users, scope.user
        team = policy.the_team(visible(actor, self._store.table.teams), scope.team).name
        if scope.environment:
            return self._kinds.environments, f"{team}/{scope.project}/{scope.environment}"
        return (self._kinds.projects, f"{team}/{scope.project}") if scope.project else (self._kinds.teams, team)

    def levels(self, asked: LevelsAsked, actor: Actor) -> Iterator[Level]:
        """The levels that the query names and the actor sees."""
        table = self._store.table
        own = (*table.teams.values(), *table.projects.values(), *table.environments.values(), *table.keys.values())
        above = (*table.organizations.values(), *table.users.values()) if actor.sees_all() else ()
        for level in (*above, *own):
            team = team_of(level)
            if (not team or actor.sees(team)) and _fits(scope_of(level) | ({"team": team} if team else {}), asked):
                yield level


def team_of(level: Level) -> str:
    """The team that a level is in; empty for an organization and a user."""
    match level:
        case Team():
            return level.name
        case Project() | Environment() | VirtualKey():
            return level.team
        case Organization() | User():
            return ""


def scope_of(level: Level) -> JsonObject:
    """How a level is named, as `Scope`."""
    match level:
        case Organization():
            return {"organization": True}
        case Team():
            return {"team": level.name}
        case Project():
            return {"team": level.team, "project": level.name}
        case Environment():
            return {"team": level.team, **({"project": level.project} if level.project else {}), "environment": level.name}
        case VirtualKey():
            return {"key": level.id}
        case User():
            return {"user": level.name}


async def _changed(
    kind: Resources[Any], name: str, change: Change, expected: frozenset[str] | None, actor: Actor, action: str
) -> Level:
    def changed(level: Level) -> Level:
        return level.model_copy(update={"policy": change(level.policy)})

    return await kind.change(name, changed, expected, actor, action)


def _fits(scope: JsonObject, asked: LevelsAsked) -> bool:
    given = asked.model_dump(include=set(_SCOPE), exclude_none=True)
    return all(scope.get(name, False if name == "organization" else "") == value for name, value in given.items())


def _right_to_policy(scope: Scope) -> Right:
    if scope.organization:
        return Right.PLATFORM
    return Right.POLICY if scope.project or scope.environment or scope.key else Right.TEAMS


def _budgets(level: Level) -> Iterator[BudgetShown]:
    for budget in level.policy.budgets:
        members = budget.model_dump()
        name = resource_key(level)
        yield BudgetShown(id=f"{name}#{budget.period}", scope=scope_of(level), resource=name, version=level.version, **members)


def _limits(level: Level) -> LimitsShown:
    return LimitsShown(id=resource_key(level), scope=scope_of(level), version=level.version, limits=level.policy.limits)


def _part(found: list[S], asked: LevelsAsked) -> tuple[list[S], str | None]:
    behind = sorted((shown for shown in found if shown.id > asked.after), key=lambda shown: shown.id)
    given = behind[: asked.limit]
    return given, given[-1].id if len(behind) > len(given) else None
