"""What can be declared in files, and what of it has to be written. Pure.

What is declared is owned by its files: a policy that they give is theirs as a whole. What they don't name stays as it is; only
the models are exactly those of the files, where files name any. What an approver has granted isn't theirs: it stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, Field, field_validator

from infra.kafka.table import ControlTable
from schemas.alerting import Alerting
from schemas.budget import Budget, is_time_zone
from schemas.control import (
    Environment,
    IdentityProvider,
    Label,
    Membership,
    Model,
    Name,
    Organization,
    Project,
    Resource,
    Team,
    User,
    resource_name,
)
from schemas.errors import InvalidRequest
from schemas.ids import IdPrefix
from schemas.policy import Policy
from schemas.prices import PriceEntry
from services.portal import policy as portal_policy

R = TypeVar("R", Team, Project, Environment, User, IdentityProvider)
Fresh = Callable[[IdPrefix], str]
"""Gives a new id with this prefix."""

_TOLD_OF_PROVIDERS = frozenset(IdentityProvider.model_fields) - {"kind", "version", "created_ms"}


class TeamPolicy(BaseModel):
    """A team's policy in a configuration."""

    name: Name
    policy: Policy = Policy()


class ProjectPolicy(BaseModel):
    """A project of a team."""

    team: Name
    name: Label
    policy: Policy = Policy()


class EnvironmentPolicy(BaseModel):
    """An environment of a project, or, without one, of a team."""

    team: Name
    project: str = ""
    name: Label
    policy: Policy = Policy()


class UserPolicy(BaseModel):
    """A person: roles, and the policy at the level of the user."""

    name: str = Field(min_length=1, max_length=256)
    policy: Policy = Policy()
    memberships: tuple[Membership, ...] = ()


class Configuration(BaseModel):
    """PUT and GET /admin/v1/config: everything that is set by policy as code.

    `models`: these and no others, unless `owns_models` is false: then they stay as they are; so `prices`. `organization_members`:
    which members of the organization's policy are meant; null: all. All else that isn't named stays.
    """

    models: list[Model] = Field(default_factory=list[Model])
    owns_models: bool = True
    organization_policy: Policy | None = None
    organization_members: list[str] | None = None
    time_zone: str | None = None
    teams: list[TeamPolicy] = Field(default_factory=list[TeamPolicy])
    projects: list[ProjectPolicy] = Field(default_factory=list[ProjectPolicy])
    environments: list[EnvironmentPolicy] = Field(default_factory=list[EnvironmentPolicy])
    users: list[UserPolicy] = Field(default_factory=list[UserPolicy])
    identity_providers: list[IdentityProvider] = Field(default_factory=list[IdentityProvider])
    alerts: Alerting | None = None
    prices: list[PriceEntry] = Field(default_factory=list[PriceEntry])
    owns_prices: bool = False

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and not is_time_zone(name):
            raise ValueError(f"{name!r} is no time zone; write one such as Europe/Berlin")
        return name


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to be written, in this order, and the record keys of what has to be deleted after that."""

    writes: tuple[Resource, ...]
    deletes: tuple[str, ...]

    def new_teams(self) -> list[Team]:
        """Teams that aren't there yet: each needs its topic."""
        return [resource for resource in self.writes if isinstance(resource, Team) and resource.version == 1]


def standing(table: ControlTable) -> Configuration:
    """The configuration as it stands."""
    organization = next(iter(table.organizations.values()), None)
    return Configuration(
        models=sorted(table.models.values(), key=lambda model: model.name),
        organization_policy=organization.policy if organization else None,
        time_zone=organization.time_zone if organization else None,
        teams=[TeamPolicy(name=t.name, policy=t.policy) for _, t in sorted(table.teams.items())],
        projects=[ProjectPolicy(team=p.team, name=p.name, policy=p.policy) for _, p in sorted(table.projects.items())],
        environments=[
            EnvironmentPolicy(team=e.team, project=e.project, name=e.name, policy=e.policy)
            for _, e in sorted(table.environments.items())
        ],
        users=[UserPolicy(name=u.name, policy=u.policy, memberships=u.memberships) for _, u in sorted(table.users.items())],
        identity_providers=[p for _, p in sorted(table.identity_providers.items())],
        alerts=table.alertings.get("default"),
        prices=[entry for _, entry in sorted(table.prices.items())],
    )


def settled(wanted: Configuration, now: Configuration) -> Configuration:
    """What stands when `wanted` is in force: the organization's other rules, and what was granted, are in it."""
    teams = {team.name: team.policy for team in now.teams}
    projects = {(p.team, p.name): p.policy for p in now.projects}
    environments = {(e.team, e.project, e.name): e.policy for e in now.environments}
    users = {user.name: user.policy for user in now.users}
    update: dict[str, object] = {
        "organization_policy": _of_organization(wanted, now.organization_policy or Policy()),
        "teams": [_granted(team, teams.get(team.name)) for team in wanted.teams],
        "projects": [_granted(p, projects.get((p.team, p.name))) for p in wanted.projects],
        "environments": [_granted(e, environments.get((e.team, e.project, e.name))) for e in wanted.environments],
        "users": [_granted(user, users.get(user.name)) for user in wanted.users],
    }
    return wanted.model_copy(update=update)


def changes(table: ControlTable, asked: Configuration, now_ms: int, fresh: Fresh) -> Changes:
    """What makes what stands what is asked for. Raises InvalidRequest for what refers to a team that isn't there."""
    wanted = settled(asked, standing(table))
    _check_references(table, wanted)
    organization = next(iter(table.organizations.values()), None)
    writes: list[Resource] = []
    if organization is not None:
        writes += _changed_organization(organization, wanted)
    at_home = organization.name if organization else portal_policy.DEFAULT_ORGANIZATION
    for t in wanted.teams:
        born_team = Team(id=fresh("team"), name=t.name, organization=at_home, created_ms=now_ms)
        writes += _written(table.teams.get(t.name), born_team, policy=t.policy)
    for p in wanted.projects:
        born_project = Project(id=fresh("proj"), team=p.team, name=p.name, created_ms=now_ms)
        writes += _written(table.projects.get(resource_name(born_project)), born_project, policy=p.policy)
    for e in wanted.environments:
        born_place = Environment(id=fresh("env"), team=e.team, project=e.project, name=e.name, created_ms=now_ms)
        writes += _written(table.environments.get(resource_name(born_place)), born_place, policy=e.policy)
    for u in wanted.users:
        born_user = User(id=fresh("user"), name=u.name, created_ms=now_ms)
        writes += _written(table.users.get(u.name), born_user, policy=u.policy, memberships=u.memberships)
    for provider in wanted.identity_providers:
        told = {name: getattr(provider, name) for name in _TOLD_OF_PROVIDERS}
        born_provider = IdentityProvider(**told, created_ms=now_ms)
        writes += _written(table.identity_providers.get(provider.name), born_provider, **told)
    writes += _alerting(table.alertings.get("default"), wanted.alerts, now_ms)
    deletes: list[str] = []
    if wanted.owns_prices:
        named = {entry.name for entry in wanted.prices}
        writes += [write for entry in wanted.prices for write in _priced(table.prices.get(entry.name), entry, now_ms)]
        deletes += [f"price/{name}" for name in table.prices if name not in named]
    if wanted.owns_models:
        models, gone = portal_policy.changed_models(table.models, wanted.models, now_ms)
        writes += models
        deletes += gone
    return Changes(tuple(writes), tuple(deletes))


def keeping_grants(policy: Policy, now: Policy | None) -> Policy:
    """A policy as written, with what approvals have added to the one that it replaces: models, and increases of its budgets."""
    if now is None:
        return policy
    known = {grant.approval for grant in policy.granted_models}
    grants = [grant for grant in now.granted_models if grant.approval and grant.approval not in known]
    budgets = tuple(_increased(budget, now.budgets) for budget in policy.budgets)
    if not grants and budgets == policy.budgets:
        return policy
    return policy.model_copy(update={"granted_models": (*policy.granted_models, *grants), "budgets": budgets})


def _increased(budget: Budget, standing: Sequence[Budget]) -> Budget:
    """A budget with what was granted to the one of its kind: of the same period, in the same currency."""
    known = {increase.approval for increase in budget.increases}
    more = tuple(
        increase
        for old in standing
        if _kind(old) == _kind(budget)
        for increase in old.increases
        if increase.approval and increase.approval not in known
    )
    return budget.model_copy(update={"increases": (*budget.increases, *more)}) if more else budget


def _kind(budget: Budget) -> tuple[object, ...]:
    return budget.period, budget.hard, budget.usd is None, budget.tokens is None


P = TypeVar("P", TeamPolicy, ProjectPolicy, EnvironmentPolicy, UserPolicy)


def _granted(declared: P, now: Policy | None) -> P:
    return declared.model_copy(update={"policy": keeping_grants(declared.policy, now)})


def _of_organization(wanted: Configuration, now: Policy) -> Policy | None:
    written = wanted.organization_policy
    if written is None:
        return None
    if wanted.organization_members is not None:
        members = [member for member in wanted.organization_members if member in Policy.model_fields]
        return now.model_copy(update={member: getattr(written, member) for member in members})
    return keeping_grants(written, now)


def _check_references(table: ControlTable, wanted: Configuration) -> None:
    known = {*table.teams, *(team.name for team in wanted.teams), ""}
    named = [
        *((f"project {p.name!r}", p.team) for p in wanted.projects),
        *((f"environment {e.name!r}", e.team) for e in wanted.environments),
        *((f"user {u.name!r}", m.team) for u in wanted.users for m in u.memberships),
        *((f"identity provider {p.name!r}, group {g.group!r}", g.team) for p in wanted.identity_providers for g in p.groups),
    ]
    for what, team in named:
        if team not in known:
            raise InvalidRequest(f"{what}: there is no team {team[:64]!r}; declare it under `teams` too.", param="teams")
    projects = {*table.projects, *(f"{p.team}/{p.name}" for p in wanted.projects)}
    for environment in wanted.environments:
        if environment.project and f"{environment.team}/{environment.project}" not in projects:
            raise InvalidRequest(
                f"environment {environment.name!r}: there is no project {environment.project!r} of team {environment.team}.",
                param="environments",
            )


def _changed_organization(now: Organization, wanted: Configuration) -> list[Resource]:
    update: dict[str, object] = {}
    if wanted.organization_policy is not None:
        update["policy"] = wanted.organization_policy
    if wanted.time_zone is not None:
        update["time_zone"] = wanted.time_zone
    then = now.model_copy(update=update)
    return [] if then == now else [then.model_copy(update={"version": now.version + 1})]


def _alerting(now: Alerting | None, wanted: Alerting | None, now_ms: int) -> list[Resource]:
    """Rules and channels as a whole; a channel that stays is as old as it was."""
    if wanted is None:
        return []
    known = now.since_ms if now else {}
    since = {channel.name: known.get(channel.name, now_ms) for channel in wanted.channels}
    then = wanted.model_copy(update={"since_ms": since, "version": now.version if now else 1})
    if now is None or then == now:
        return [then] if now is None else []
    return [then.model_copy(update={"version": now.version + 1})]


def _priced(now: PriceEntry | None, wanted: PriceEntry, now_ms: int) -> list[Resource]:
    """One version higher: the version is in the rows of what was priced by it."""
    if now is None:
        return [wanted.model_copy(update={"version": 1, "created_ms": now_ms})]
    then = wanted.model_copy(update={"version": now.version, "created_ms": now.created_ms})
    return [] if then == now else [then.model_copy(update={"version": now.version + 1})]


def _written(old: R | None, born: R, **members: object) -> list[R]:
    """The resource to write: born with these members, or with them and its version one higher. None if it stays as it is."""
    if old is None:
        return [born.model_copy(update=members)]
    then = old.model_copy(update=members)
    return [] if then == old else [then.model_copy(update={"version": old.version + 1})]
