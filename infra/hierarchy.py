"""The levels above a caller: organization, team, project, environment, key, user. What each of them says is its policy.

Ingress asks at admission, the router before a batch job is sent out, accounting when it is settled: all by the control table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.kafka.table import ControlTable
from schemas.control import GroupRule, IdentityProvider
from schemas.job import Caller
from schemas.policy import EffectivePolicy, Policy, inherit


@dataclass(frozen=True, slots=True)
class Level:
    """One level. `scope` names it in counters, such as `team/fraud`; `version` 0: nobody has written anything there.

    `by` tells several documents of one level apart: those of a user's groups.
    """

    scope: str
    version: int
    policy: Policy
    by: str = ""


def levels(table: ControlTable, caller: Caller) -> tuple[Level, ...]:
    """The levels of a caller, the farthest first. What nobody knows has no policy, but a scope: what is spent is counted."""
    team, project, environment = caller.team, caller.project, caller.environment
    asked = [
        (f"organization/{caller.organization}", table.organizations.get(caller.organization)),
        (f"team/{team}", table.teams.get(team)),
        (f"project/{team}/{project}", table.projects.get(f"{team}/{project}") if project else None),
        (f"environment/{team}/{project}/{environment}", table.environments.get(f"{team}/{project}/{environment}")),
        (f"key/{caller.key_id}", table.keys.get(caller.key_id)),
        (f"user/{plain(caller.user)}", table.users.get(caller.user)),
    ]
    named = (True, True, bool(project), bool(environment), bool(caller.key_id), bool(caller.user))
    return tuple(
        Level(scope, resource.version if resource else 0, resource.policy if resource else Policy())
        if is_named
        else Level("", 0, Policy())
        for (scope, resource), is_named in zip(asked, named, strict=True)
    )


def user_name(table: ControlTable, identity: str, subject: str) -> str:
    """The user that a person is: by `<provider>:<subject>`; by the subject alone only while there is a single provider, for
    each may call anybody so."""
    return identity if identity in table.users or len(table.identity_providers) > 1 else subject


def plain(name: str) -> str:
    """A name that may stand in a list of lines: control characters are written as `%0a`."""
    return name if name.isprintable() else "".join(c if c.isprintable() else f"%{ord(c):02x}" for c in name)


def group_rules(provider: IdentityProvider, groups: Sequence[str]) -> tuple[GroupRule, ...]:
    """The rules of an identity provider for members of these groups, in the order in which they are written."""
    return tuple(rule for rule in provider.groups if rule.group in groups)


def effective(
    found: Sequence[Level], provider: IdentityProvider | None = None, rules: Sequence[GroupRule] = ()
) -> EffectivePolicy:
    """What applies after inheritance. Its version names each document: organization.team.project.environment.key.user, and the
    identity provider if a token spoke."""
    version = ".".join(str(level.version) for level in found)
    if provider is not None:
        version += f".{provider.version}"
    return inherit([*(level.policy for level in found), *(rule.policy for rule in rules)], version)
