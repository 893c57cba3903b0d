"""Who may administrate, and what becomes of the resources that stand already. Pure."""

import hmac
from collections.abc import Iterable, Mapping

from schemas.control import Model, Organization, Team, VirtualKey
from schemas.errors import InvalidKey, InvalidRequest, NotAllowed, NotFound
from schemas.job import JobStatus
from schemas.policy import Policy

DEFAULT_ORGANIZATION = "default"
_NEEDS_ADMIN = "This needs the admin key: it lies in DATA_DIR/admin.key, or set SLUICE_ADMIN_KEY."


def check_admin(given: str, admin_key: str, virtual: VirtualKey | None) -> None:
    """Raises unless the admin key was given (compared in constant time): NotAllowed for a `virtual` key, else InvalidKey."""
    if hmac.compare_digest(given.encode(), admin_key.encode()):
        return
    if virtual and not virtual.revoked:
        raise NotAllowed(_NEEDS_ADMIN, code="not_admin")
    raise InvalidKey(_NEEDS_ADMIN)


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


def newest_key(keys: Iterable[VirtualKey], team: str) -> VirtualKey | None:
    """The youngest key of a team that is not revoked."""
    own = [key for key in keys if key.team == team and not key.revoked]
    return max(own, key=lambda key: key.created_ms, default=None)


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


def with_policy(resource: Organization | Team, policy: Policy) -> Organization | Team | None:
    """The resource under a new policy, its version one higher; None if nothing changes."""
    if resource.policy == policy:
        return None
    return resource.model_copy(update={"policy": policy, "version": resource.version + 1})


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
