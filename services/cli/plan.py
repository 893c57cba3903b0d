"""What a configuration would change: the difference between what stands and what is wanted. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, JsonValue

from schemas.base import JsonObject
from services.portal.config import Configuration, Parsed

Action = Literal["create", "change", "delete"]
SIGNS: Mapping[Action, str] = {"create": "+", "change": "~", "delete": "-"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A member that changes; None: it isn't there."""

    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one resource, named by its key on the control topic."""

    action: Action
    resource: str
    differences: tuple[Difference, ...]

    def to_json(self) -> JsonObject:
        differences: list[JsonValue] = [{"path": d.path, "before": d.before, "after": d.after} for d in self.differences]
        return {"action": self.action, "resource": self.resource, "differences": differences}


def changes(standing: Configuration, parsed: Parsed) -> list[Change]:
    """What `parsed` would change, sorted by resource."""
    wanted = parsed.over(standing)
    now = {f"model/{m.name}": _content(m) for m in standing.models}
    then = {f"model/{m.name}": _content(m) for m in wanted.models}
    policies = {team.name: team.policy for team in standing.teams}
    for team in wanted.teams:
        key = f"team/{team.name}"
        then[key] = _content(team.policy)
        if team.name in policies:
            now[key] = _content(policies[team.name])
    if wanted.organization_policy is not None:
        then["organization"] = _content(wanted.organization_policy)
        now["organization"] = {} if standing.organization_policy is None else _content(standing.organization_policy)
    found = [_change(key, now.get(key), then.get(key)) for key in sorted(now | then)]
    return [change for change in found if change is not None]


def render(found: Iterable[Change]) -> Iterator[str]:
    """Lines for a person."""
    for change in found:
        yield f"{SIGNS[change.action]} {change.resource}"
        for difference in change.differences:
            yield f"    {difference.path}: {_shown(difference.before)} -> {_shown(difference.after)}"


def _change(resource: str, before: JsonObject | None, after: JsonObject | None) -> Change | None:
    if before == after:
        return None
    action: Action = "create" if before is None else "delete" if after is None else "change"
    old, new = dict(_flat(before or {})), dict(_flat(after or {}))
    differences = tuple(
        Difference(path, old.get(path), new.get(path)) for path in sorted(old | new) if old.get(path) != new.get(path)
    )
    return Change(action, resource, differences if action == "change" else ())


def _content(resource: BaseModel) -> JsonObject:
    """What somebody wrote: not what the portal adds, nor what is as it is by default."""
    dumped: JsonObject = resource.model_dump(mode="json", exclude={"kind", "version", "created_ms"})
    return dumped


def _flat(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Leaves by their path. Deployments go by id, so that a new one doesn't make its successors look changed."""
    if isinstance(value, dict) and value:
        for member, inner in value.items():
            yield from _flat(inner, f"{path}.{member}" if path else member)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            name = item.get("id", place) if isinstance(item, dict) else place
            yield from _flat(item, f"{path}[{name}]")
    elif path:
        yield path, value


def _shown(value: JsonValue) -> str:
    return "(nothing)" if value is None or value in ({}, []) else str(value)
