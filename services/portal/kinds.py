"""The kinds of resources that the admin API writes: whose they are, and what it takes to change them."""

from collections.abc import Callable, Sequence

from infra.clock import Clock
from infra.kafka.table import ControlTable
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
)
from schemas.policy import Policy
from services.portal import policy
from services.portal.access import Actor, Right, check
from services.portal.resources import Kind, Resources
from services.portal.store import Store
from services.portal.wanted import (
    KeySettings,
    OperatorSettings,
    OrganizationSettings,
    PolicySettings,
    ProviderSettings,
    UserSettings,
)

NONE = Policy()
"""The policy of what isn't there."""


class Kinds:
    """All resources by kind."""

    def __init__(self, store: Store) -> None:
        table, clock = store.table, store.clock
        self.organizations = Resources(store, _organization(), table.organizations)
        self.teams = Resources(store, _team(table, clock), table.teams)
        self.projects = Resources(store, _project(table, clock), table.projects)
        self.environments = Resources(store, _environment(table, clock), table.environments)
        self.users = Resources(store, _user(), table.users)
        self.keys = Resources(store, _key(), table.keys)
        self.operators = Resources(store, _operator(), table.operators)
        self.identity_providers = Resources(store, _identity_provider(), table.identity_providers)


def _organization() -> Kind[Organization]:
    def may_write(actor: Actor, before: Organization | None, after: Organization | None) -> None:
        what = "Changing the organization"
        if before is None or after is None or before.time_zone != after.time_zone:
            check(actor, Right.PLATFORM, what=what)
        policy.check_policy(actor, "", before.policy if before else NONE, after.policy if after else NONE, Right.PLATFORM, what)

    return Kind("organization", "sluice organization show", OrganizationSettings, None, may_write)


def _team(table: ControlTable, clock: Clock) -> Kind[Team]:
    def may_write(actor: Actor, before: Team | None, after: Team | None) -> None:
        if before is None or after is None:
            check(actor, Right.TEAMS, what="Making and deleting teams")
        name = before.name if before else ""
        old, new = before.policy if before else NONE, after.policy if after else NONE
        policy.check_policy(actor, name, old, new, Right.TEAMS, "Changing a team's policy")

    def held_by(team: Team) -> Sequence[str]:
        others = (table.operators.values(), table.users.values(), table.identity_providers.values())
        return list(policy.holds_team(team.name, table.keys.values(), *others, clock()))

    def goes_with(team: Team) -> Sequence[str]:
        places = (*table.keys.values(), *table.environments.values(), *table.projects.values())
        return [resource_key(place) for place in places if place.team == team.name]

    return Kind("team", "sluice teams list", PolicySettings, lambda team: team.name, may_write, held_by, goes_with)


def _project(table: ControlTable, clock: Clock) -> Kind[Project]:
    def held_by(project: Project) -> Sequence[str]:
        return list(policy.holds_place(table.keys.values(), project.team, project.name, None, clock()))

    def goes_with(project: Project) -> Sequence[str]:
        place = (project.team, project.name)
        return [resource_key(one) for one in table.environments.values() if (one.team, one.project) == place]

    return Kind("project", "sluice projects list", PolicySettings, lambda one: one.team, _place("project"), held_by, goes_with)


def _environment(table: ControlTable, clock: Clock) -> Kind[Environment]:
    def held_by(one: Environment) -> Sequence[str]:
        return list(policy.holds_place(table.keys.values(), one.team, one.project, one.name, clock()))

    command = "sluice environments list"
    return Kind("environment", command, PolicySettings, lambda one: one.team, _place("environment"), held_by)


def _place(word: str) -> Callable[[Actor, Project | Environment | None, Project | Environment | None], None]:
    def may_write(actor: Actor, before: Project | Environment | None, after: Project | Environment | None) -> None:
        one = before or after
        assert one is not None
        if before is None or after is None:
            check(actor, Right.POLICY, one.team, f"Making and deleting a {word}")
        old, new = before.policy if before else NONE, after.policy if after else NONE
        policy.check_policy(actor, one.team, old, new, Right.POLICY, f"Changing the policy of a {word}")

    return may_write


def _user() -> Kind[User]:
    def may_write(actor: Actor, before: User | None, after: User | None) -> None:
        old, new = before.policy if before else NONE, after.policy if after else NONE
        roles = before.memberships if before else (), after.memberships if after else ()
        if before is None or after is None or roles[0] != roles[1]:
            check(actor, Right.TEAMS, what="Making, deleting and placing users")
        policy.check_memberships(actor, *roles)
        policy.check_policy(actor, "", old, new, Right.TEAMS, "Changing a user's policy")

    return Kind("user", "sluice users list", UserSettings, None, may_write)


def _key() -> Kind[VirtualKey]:
    def may_write(actor: Actor, before: VirtualKey | None, after: VirtualKey | None) -> None:
        one = before or after
        assert one is not None
        old, new = before.policy if before else NONE, after.policy if after else NONE
        if _but_policy(before) != _but_policy(after):
            check(actor, Right.KEYS, one.team, "Making, changing, rotating and revoking keys")
        # Who makes a key may say its limits; budgets and what loosens a policy are others' to give, as ever.
        own = Right.KEYS if before is None else Right.POLICY
        policy.check_policy(actor, one.team, old, new, own, "Changing a key's policy")

    return Kind("key", "sluice keys list", KeySettings, lambda key: key.team, may_write)


def _but_policy(key: VirtualKey | None) -> VirtualKey | None:
    return key.model_copy(update={"policy": NONE}) if key else None


def _operator() -> Kind[Operator]:
    def may_write(actor: Actor, before: Operator | None, after: Operator | None) -> None:
        check(actor, Right.PLATFORM, what="Making, changing and revoking operators")

    return Kind("operator", "sluice operators list", OperatorSettings, None, may_write)


def _identity_provider() -> Kind[IdentityProvider]:
    def may_write(actor: Actor, before: IdentityProvider | None, after: IdentityProvider | None) -> None:
        check(actor, Right.PLATFORM, what="Setting up identity providers")

    return Kind("identity provider", "sluice identity-providers list", ProviderSettings, None, may_write)
