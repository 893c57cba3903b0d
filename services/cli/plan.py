"""What a configuration would change, and what was changed by hand since it was applied. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, JsonValue

from schemas.base import JsonObject
from schemas.policy import Policy
from services.portal.config import Parsed
from services.portal.declared import Configuration, settled

Action = Literal["create", "change", "delete"]
SIGNS: Mapping[Action, str] = {"create": "+", "change": "~", "delete": "-"}
DRIFTS: Mapping[Action, str] = {"create": "missing", "change": "changed", "delete": "undeclared"}
"""What was done by hand, by what would undo it."""


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


@dataclass(frozen=True, slots=True)
class Drift:
    """What was changed by hand, each as the change that would undo it; and how many changes of the files aren't applied yet."""

    found: tuple[Change, ...]
    pending: int

    def to_json(self) -> list[JsonValue]:
        return [
            {
                "resource": change.resource,
                "what": DRIFTS[change.action],
                "path": difference.path,
                "declared": difference.after,
                "standing": difference.before,
            }
            for change in self.found
            for difference in change.differences or (Difference("", None, None),)
        ]


def changes(standing: Configuration, parsed: Parsed) -> list[Change]:
    """What `parsed` would change, sorted by resource."""
    return _changes(standing, parsed.over(standing))


def drift(standing: Configuration, applied: Configuration | None, parsed: Parsed) -> Drift:
    """What stands otherwise than it was `applied`, unless the files say so too. None: nobody knows, so they are believed."""
    wanted = changes(standing, parsed)
    if applied is None:
        return Drift(tuple(wanted), 0)
    still = {(change.resource, path) for change in wanted for path in _paths(change)}
    by_hand = [_narrowed(change, still) for change in _changes(standing, applied)]
    found = tuple(change for change in by_hand if change is not None)
    told = {(change.resource, path) for change in found for path in _paths(change)}
    return Drift(found, len(still - told))


def render(found: Iterable[Change]) -> Iterator[str]:
    """Lines for a person."""
    for change in found:
        yield f"{SIGNS[change.action]} {change.resource}"
        for difference in change.differences:
            yield f"    {difference.path}: {_shown(difference.before)} -> {_shown(difference.after)}"


def render_drift(drift: Drift) -> Iterator[str]:
    """Lines for a person."""
    for change in drift.found:
        yield f"{change.resource}: {DRIFTS[change.action]}"
        for difference in change.differences:
            yield f"    {difference.path}: declared {_shown(difference.after)}, standing {_shown(difference.before)}"


def _changes(standing: Configuration, asked: Configuration) -> list[Change]:
    wanted = settled(asked, standing)
    then, now = _contents(wanted), _contents(standing)
    if wanted.organization_policy is not None or wanted.time_zone is not None:
        then["organization"] = _organization(wanted, wanted)
        now["organization"] = _organization(standing, wanted)
    owns = {"model/": wanted.owns_models, "price/": wanted.owns_prices}
    as_they_are = tuple(kind for kind, owned in owns.items() if not owned)
    whole = tuple(kind for kind, owned in owns.items() if owned)
    then = {key: content for key, content in then.items() if not key.startswith(as_they_are)}
    now = {key: content for key, content in now.items() if key in then or key.startswith(whole)}
    found = [_change(key, now.get(key), then.get(key)) for key in sorted(now | then)]
    return [change for change in found if change is not None]


def _contents(configuration: Configuration) -> dict[str, JsonObject]:
    """All but the organization, by key on the control topic."""
    return {
        **{f"model/{m.name}": _content(m) for m in configuration.models},
        **{f"team/{t.name}": _content(t.policy) for t in configuration.teams},
        **{f"project/{p.team}/{p.name}": _content(p.policy) for p in configuration.projects},
        **{f"environment/{e.team}/{e.project}/{e.name}": _content(e.policy) for e in configuration.environments},
        **{f"user/{u.name}": _content(u.policy) | _content(u, only={"memberships"}) for u in configuration.users},
        **{f"identity_provider/{p.name}": _content(p) for p in configuration.identity_providers},
        **{f"price/{p.name}": _content(p) for p in configuration.prices},
        **({"alerting/default": _content(configuration.alerts)} if configuration.alerts else {}),
    }


def _organization(configuration: Configuration, asked: Configuration) -> JsonObject:
    """What a configuration says of the members of the organization that are asked for."""
    content: JsonObject = {}
    if asked.organization_policy is not None:
        content = _content(configuration.organization_policy or Policy())
    if asked.time_zone is not None:
        content["time_zone"] = configuration.time_zone
    return content


def _change(resource: str, before: JsonObject | None, after: JsonObject | None) -> Change | None:
    if before == after:
        return None
    action: Action = "create" if before is None else "delete" if after is None else "change"
    old, new = dict(_flat(before or {})), dict(_flat(after or {}))
    differences = tuple(
        Difference(path, old.get(path), new.get(path)) for path in sorted(old | new) if old.get(path) != new.get(path)
    )
    return Change(action, resource, differences if action == "change" else ())


def _paths(change: Change) -> list[str]:
    return [difference.path for difference in change.differences] or [change.action]


def _narrowed(change: Change, still: set[tuple[str, str]]) -> Change | None:
    """A change as far as it concerns what differs `still`."""
    if not change.differences:
        return change if any(resource == change.resource for resource, _ in still) else None
    if (change.resource, "create") in still or (change.resource, "delete") in still:
        return change
    differences = tuple(d for d in change.differences if (change.resource, d.path) in still)
    return Change(change.action, change.resource, differences) if differences else None


def _content(resource: BaseModel, only: set[str] | None = None) -> JsonObject:
    """What somebody wrote: not what the portal adds."""
    dumped: JsonObject = resource.model_dump(mode="json", include=only, exclude={"kind", "version", "created_ms", "since_ms"})
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
