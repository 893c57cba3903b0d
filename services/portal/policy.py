"""What becomes of the resources that stand already, and what a change of them takes. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.control import (
    IdentityProvider,
    Membership,
    Model,
    OldSecret,
    Operator,
    Team,
    User,
    VirtualKey,
)
from schemas.errors import InvalidRequest, NotAllowed, NotFound, VersionConflict
from schemas.job import JobStatus
from schemas.policy import Policy
from services.portal.access import RIGHTS, Actor, Right, check

DEFAULT_ORGANIZATION = "default"
_MOST_NAMED = 5

KeyState = Literal["valid", "throttled", "paused", "expired", "revoked"]

LOOSENING = ("guard", "granted_models", "unpriced", "when_redis_is_away", "runaway", "weight", "webhooks")
"""Members of a policy whose nearer word goes before the farther one, and may allow more: not for those below an organization."""


def the_team(teams: Mapping[str, Team], name: str) -> Team:
    """The team of this name. Raises NotFound that lists the others."""
    if name in teams:
        return teams[name]
    known = ", ".join(sorted(teams)[:10]) or "none yet"
    raise NotFound(f"There is no team {name[:64]!r}. Teams: {known}. Create it with `sluice teams create`.", param="team")


def check_new_team(teams: Mapping[str, Team], name: str) -> None:
    """Raises InvalidRequest if the name is taken."""
    if name in teams:
        raise InvalidRequest(f"The team {name!r} exists already.", param="name", code="team_exists")


def check_version(version: int, expected: frozenset[str] | None) -> None:
    """Raises VersionConflict unless `version` is among those that an If-Match names; None: it names none."""
    if expected is not None and "*" not in expected and str(version) not in expected:
        raise VersionConflict(f"It has been changed since: version {version} stands now. Look at it again, then change it.")


def merged(standing: JsonValue, patch: JsonValue) -> JsonValue:
    """A JSON merge patch (RFC 7396): members of objects one by one, null removes one, all else is taken whole."""
    if not isinstance(patch, dict):
        return patch
    result: JsonObject = dict(standing) if isinstance(standing, dict) else {}
    for member, value in patch.items():
        if value is None:
            result.pop(member, None)
        else:
            result[member] = merged(result.get(member), value)
    return result


def check_policy(actor: Actor, team: str, before: Policy, after: Policy, own: Right, what: str) -> None:
    """Raises NotAllowed unless the actor may make `after` of `before`: `own` is what a policy at that level takes.

    Budgets take the right to budgets, and nothing else does. What could allow more than the organization does takes its admin.
    """
    if not actor.may(Right.BUDGET, team):
        check(actor, own, team, what)
    if before.budgets != after.budgets:
        check(actor, Right.BUDGET, team, "Setting a budget")
    loosened = [name for name in LOOSENING if getattr(before, name) != getattr(after, name)]
    if _namespace(before) != _namespace(after):
        loosened.append("cache.namespace")
    if loosened:
        check(actor, Right.TEAMS, team, f"Setting {', '.join(loosened)} in a policy")
    if before.model_copy(update={"budgets": ()}) != after.model_copy(update={"budgets": ()}):
        check(actor, own, team, what)


def check_memberships(actor: Actor, before: Iterable[Membership], after: Iterable[Membership]) -> None:
    """Raises NotAllowed for a role, given or taken, that can do what the actor can't: nobody rises by his own hand."""
    for membership in set(before) ^ set(after):
        if not all(actor.may(right, membership.team) for right in RIGHTS[membership.role]):
            raise NotAllowed(
                f"The role {membership.role.value} can do more than you can: somebody who has it must give or take it.",
                code="not_admin",
            )


def key_state(key: VirtualKey, now_ms: int) -> KeyState:
    """How a key stands."""
    if key.revoked:
        return "revoked"
    if 0 < key.expires_ms <= now_ms:
        return "expired"
    if key.held is None:
        return "valid"
    return "throttled" if key.held.requests_per_minute else "paused"


def is_live(key: VirtualKey, now_ms: int) -> bool:
    """True if the key is good for something, now or once it is resumed."""
    return key_state(key, now_ms) not in ("revoked", "expired")


def rotated(key: VirtualKey, sha256: str, last4: str, now_ms: int, overlap_ms: int) -> VirtualKey:
    """The key with a new secret; the one before is taken for `overlap_ms` more. Two secrets are taken at most: if one from
    before the last rotation is still taken, it stays so, and the newest is replaced."""
    old = tuple(secret for secret in key.old if secret.until_ms > now_ms)[:1]
    if overlap_ms == 0:
        old = ()
    elif not old:
        old = (OldSecret(sha256=key.sha256, until_ms=now_ms + overlap_ms),)
    return key.model_copy(update={"sha256": sha256, "last4": last4, "old": old, "rotated_ms": now_ms})


def newest_key(keys: Iterable[VirtualKey], team: str, now_ms: int) -> VirtualKey | None:
    """The youngest key of a team that is good, one that isn't held if there is one."""
    own = [key for key in keys if key.team == team and is_live(key, now_ms)]
    return max(own, key=lambda key: (key.held is None, key.created_ms), default=None)


def holds_team(
    name: str,
    keys: Iterable[VirtualKey],
    operators: Iterable[Operator],
    users: Iterable[User],
    providers: Iterable[IdentityProvider],
    now_ms: int,
) -> Iterator[str]:
    """What must go before a team can."""
    yield from _some("keys", [key.id for key in keys if key.team == name and is_live(key, now_ms)])
    yield from _some("operators", [one.id for one in operators if one.team == name and not one.revoked])
    yield from _some("users", [user.name for user in users if any(held.team == name for held in user.memberships)])
    yield from _some("identity providers", [one.name for one in providers if any(rule.team == name for rule in one.groups)])


def holds_place(keys: Iterable[VirtualKey], team: str, project: str, environment: str | None, now_ms: int) -> Iterator[str]:
    """The keys that must go before a project (`environment` None: any of its environments), or an environment, can."""
    place = (team, project)
    own = [k.id for k in keys if (k.team, k.project) == place and environment in (None, k.environment) and is_live(k, now_ms)]
    yield from _some("keys", own)


def check_unheld(what: str, held_by: Sequence[str]) -> None:
    """Raises InvalidRequest if something must go first."""
    if held_by:
        raise InvalidRequest(f"{what} still has {' and '.join(held_by)}: revoke or delete those first.", code="still_in_use")


def changed_models(now: Mapping[str, Model], wanted: Iterable[Model], now_ms: int) -> tuple[list[Model], list[str]]:
    """The models to write (each with its next version) and the record keys of those to delete."""
    by_name = {model.name: model for model in wanted}
    writes: list[Model] = []
    for name, model in by_name.items():
        old = now.get(name)
        if old is None:
            writes.append(model.model_copy(update={"created_ms": model.created_ms or now_ms}))
        elif _content(old) != _content(model):
            writes.append(model.model_copy(update={"version": old.version + 1, "created_ms": old.created_ms}))
    return writes, [f"model/{name}" for name in now if name not in by_name]


def standing(state: str, deadline_ms: int, now_ms: int) -> JobStatus | None:
    """How a job stands whose end isn't known, by the state of its record; None: it has ended, nobody kept how."""
    match state:
        case "leased" | "answered" | "ending":
            return JobStatus.IN_PROGRESS
        case "abandoned":
            return JobStatus.CANCELLED
        case "done":
            return None
        case _:
            return JobStatus.QUEUED if now_ms < deadline_ms else JobStatus.EXPIRED


def _content(model: Model) -> str:
    return model.model_dump_json(exclude={"version", "created_ms"})


def _namespace(policy: Policy) -> str | None:
    return policy.cache.namespace if policy.cache else None


def _some(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield f"{what} ({', '.join(names[:_MOST_NAMED])}{more})"
