"""Who administrates, and what each role may do. Pure.

The role is checked at each handler, with the team whose thing it is. What belongs to a team that isn't one's own isn't there
(404); what one may see but not do is refused (403).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.control import Team
from schemas.errors import NotAllowed, NotFound
from schemas.event import Author
from schemas.roles import Role


class Right(StrEnum):
    """What can be done with things of a kind."""

    READ = "read"
    """Look at teams, keys, policies, jobs, budgets, events."""
    ASK = "ask"
    """Ask for a key, a budget, a model."""
    KEYS = "keys"
    """Make, rotate, revoke and resume keys; mint job tokens; see webhook secrets."""
    POLICY = "policy"
    """Change the policy of a project, an environment or a key."""
    BUDGET = "budget"
    """Set budgets, and decide about requests for more."""
    APPROVE = "approve"
    """Decide about requests for keys and models."""
    TEAMS = "teams"
    """Make teams, change their policies; users and their memberships."""
    OPERATE = "operate"
    """Cancel and replay jobs, replay dead letters."""
    AUDIT = "audit"
    """Look at what is kept of prompts and answers."""
    ERASE = "erase"
    """Erase what a person or a key has asked."""
    PLATFORM = "platform"
    """Models, identity providers, operators, the configuration, the organization itself."""


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.PLATFORM_ADMIN: frozenset(Right),
    Role.ORGANIZATION_ADMIN: frozenset(Right) - {Right.PLATFORM},
    Role.TEAM_ADMIN: frozenset({Right.READ, Right.ASK, Right.KEYS, Right.POLICY, Right.OPERATE}),
    Role.MEMBER: frozenset({Right.READ, Right.ASK}),
    Role.AUDITOR: frozenset({Right.READ, Right.AUDIT}),
    Role.FINANCE: frozenset({Right.READ, Right.BUDGET}),
}

OF_A_TEAM = frozenset({Role.TEAM_ADMIN, Role.MEMBER})
"""Roles that mean nothing without a team. The others hold over all teams, unless they are given for one."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls: `admin`, `operator/op_…` or `user/…`, and the roles held: (role, team), without a team for those above teams."""

    name: str
    roles: tuple[tuple[Role, str], ...]

    def author(self, action: str = "", reason: str = "") -> Author:
        """How what is done now is signed."""
        return Author(actor=self.name, action=action, reason=reason)

    def may(self, right: Right, team: str = "") -> bool:
        """True if a role has this right, over all teams or, where the thing is a team's, over this one."""
        return any(right in RIGHTS[role] and (_is_above(role, held) or (held and held == team)) for role, held in self.roles)

    def sees_all(self) -> bool:
        """True for who sees all teams."""
        return any(_is_above(role, held) for role, held in self.roles)

    def sees(self, team: str) -> bool:
        """True for who may look at what is this team's."""
        return self.may(Right.READ, team)

    def teams(self) -> frozenset[str]:
        """The teams that somebody with roles in teams alone sees."""
        return frozenset(team for _, team in self.roles if team)


def _is_above(role: Role, held: str) -> bool:
    return not held and role not in OF_A_TEAM


ADMIN = Actor("admin", ((Role.PLATFORM_ADMIN, ""),))
"""The holder of the admin key."""


def visible(actor: Actor, teams: Mapping[str, Team]) -> Mapping[str, Team]:
    """The teams that an actor sees, by name."""
    return teams if actor.sees_all() else {name: team for name, team in teams.items() if actor.sees(name)}


def check_any(actor: Actor, what: str) -> None:
    """Raises NotAllowed for somebody who may look at nothing at all."""
    if not any(Right.READ in RIGHTS[role] and (held or role not in OF_A_TEAM) for role, held in actor.roles):
        check(actor, Right.READ, what=what)


def check(actor: Actor, right: Right, team: str = "", what: str = "This") -> None:
    """Raises NotFound for what is another team's, NotAllowed for what the actor's roles don't allow."""
    if actor.may(right, team):
        return
    if team and not actor.may(Right.READ, team):
        raise NotFound(f"There is no team {team[:64]!r}.", param="team")
    held = ", ".join(sorted({role.value for role, _ in actor.roles})) or "none"
    allowed = ", ".join(role.value for role in Role if right in RIGHTS[role])
    raise NotAllowed(f"{what} needs one of the roles {allowed}; you have: {held}.", code="not_admin")
