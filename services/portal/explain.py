"""Why a caller may do what he may: every level with its document, the policy that comes of them, and who decided each member.

And of a job that has ended: the policy that decided it, from the very documents that its version names, against today's. Pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, JsonValue, ValidationError

from infra.hierarchy import Level, effective, levels
from infra.kafka.table import ControlTable
from schemas.base import JsonObject, Part
from schemas.control import RESOURCE, Deployment, IdentityProvider, Model, Resource, VirtualKey
from schemas.job import Caller
from schemas.policy import DataPolicy, EffectivePolicy, Policy, RoutePolicy, inherit
from services.portal.books import Document, JobBooked, without_hashes

_UNSAID: Final[Mapping[str, Part]] = {"route": RoutePolicy(), "data": DataPolicy()}
_IN_PARTS: Final = ("guard", "route", "data")
_ADDS_UP: Final = frozenset({"models", "granted_models", "lanes", "metadata_required", "identity"})
_BEFORE_THE_HIERARCHY: Final = (0, 1, 4)
"""What the three numbers of an old policy version stood for: organization, team, key."""


class LevelShown(BaseModel):
    """A level: its record key, the version that holds, and the document. `version` 0: nobody has written one.

    `document` is null with a version where that version is known no more.
    """

    level: str
    version: int
    document: JsonObject | None


class MemberShown(BaseModel):
    """A member of the effective policy. `decided_by`: the level that had the last word; empty: nobody said anything.

    `narrowed_from`: the levels before it that said something too, where all of them count.
    """

    member: str
    value: JsonValue
    decided_by: str = ""
    version: int = 0
    narrowed_from: list[str] = []


class LimitsShown(BaseModel):
    """Limits and budgets of a level: each holds where it stands."""

    level: str
    version: int
    limits: JsonObject
    budgets: list[JsonValue]


class PolicyShown(BaseModel):
    """An effective policy, and what it was made from."""

    version: str
    levels: list[LevelShown]
    members: list[MemberShown]
    limits: list[LimitsShown]


class Difference(BaseModel):
    """What isn't today as it was; null: nothing."""

    member: str
    then: JsonValue
    now: JsonValue


class Explanation(BaseModel):
    """GET /admin/v1/policy/explain. `job`, `then` and `differences` are of a job; `now` is today's policy.

    `today`: whether the same would be admitted now, as far as policies decide that; `reasons` say why not, `notes` what could
    not be looked at.
    """

    object: Literal["policy_explanation"] = "policy_explanation"
    caller: Caller
    job: JobBooked | None = None
    then: PolicyShown | None = None
    now: PolicyShown
    differences: list[Difference] = []
    today: Literal["admitted", "refused"]
    reasons: list[str] = []
    notes: list[str] = []


@dataclass(frozen=True, slots=True)
class Standing:
    """A level as it stood at a time. `resource` None with a version: what was written then is known no more."""

    key: str
    version: int
    resource: Resource | None

    def level(self) -> Level:
        policy = getattr(self.resource, "policy", None)
        return Level(self.key, self.version, policy if isinstance(policy, Policy) else Policy())

    def shown(self) -> LevelShown:
        if self.resource is None:
            return LevelShown(level=self.key, version=self.version, document=None)
        # Who asks about his own team learns nothing of others that a person or a group belongs to.
        document = without_hashes(self.resource.model_dump(mode="json", exclude={"memberships", "groups"}))
        return LevelShown(level=self.key, version=self.version, document=document if isinstance(document, dict) else None)


# Who asks


def caller_of_key(table: ControlTable, key: VirtualKey, project: str = "", environment: str = "", user: str = "") -> Caller:
    """Who asks with this key; the key's own project, environment and user go before those that are named."""
    team = table.teams.get(key.team)
    return Caller(
        organization=team.organization if team else "",
        team=key.team,
        project=key.project or project,
        environment=key.environment or environment,
        key_id=key.id,
        user=key.user or user,
    )


def caller_of_job(job: JobBooked) -> Caller:
    """Who asked for it."""
    return Caller.model_validate(job.model_dump(include=set(Caller.model_fields)))


def record_keys(caller: Caller) -> tuple[str, ...]:
    """The record keys of the levels above a caller, the farthest first; empty where there is none.

    After the user comes the identity provider, if a token said who asks.
    """
    team, project, environment = caller.team, caller.project, caller.environment
    provider, _, _ = caller.identity.partition(":")
    return (
        f"organization/{caller.organization}" if caller.organization else "",
        f"team/{team}" if team else "",
        f"project/{team}/{project}" if project else "",
        f"environment/{team}/{project}/{environment}" if environment else "",
        f"key/{caller.key_id}" if caller.key_id else "",
        f"user/{caller.user}" if caller.user else "",
        *([f"identity_provider/{provider}"] if provider else []),
    )


# Then


def versions_of(policy_version: str, caller: Caller) -> dict[str, int]:
    """The version of each document that a policy was made from, by record key. Raises ValueError for what is no such version."""
    numbers = [int(part) for part in policy_version.split(".")]
    keys = record_keys(caller)
    if len(numbers) == len(_BEFORE_THE_HIERARCHY):
        keys = tuple(keys[place] for place in _BEFORE_THE_HIERARCHY)
    if len(numbers) > len(keys):
        raise ValueError(f"a policy version of {len(numbers)} documents")
    return {key: number for key, number in zip(keys, numbers, strict=False) if key}


def stood_then(
    versions: Mapping[str, int], documents: Iterable[Document], table: ControlTable, accepted_ms: int
) -> list[Standing]:
    """The levels as they stood when a job was accepted, as far as anybody knows."""
    by_key: dict[str, list[Document]] = {}
    for document in documents:
        by_key.setdefault(document.resource, []).append(document)
    return [
        Standing(key, version, _resource(version, by_key.get(key, ()), table.get(key), accepted_ms) if version else None)
        for key, version in versions.items()
    ]


def _resource(version: int, written: Collection[Document], today: Resource | None, accepted_ms: int) -> Resource | None:
    """What was made anew has versions twice: the last one written before the job counts."""
    before = [document for document in written if document.at_ms <= accepted_ms]
    for document in [*reversed(before), *(document for document in written if document.at_ms > accepted_ms)]:
        try:
            return RESOURCE.validate_json(document.after)
        except ValidationError:
            continue
    return today if today is not None and today.version == version else None


# Now


def stands_now(table: ControlTable, caller: Caller) -> list[Standing]:
    """The levels as they stand."""
    return [
        Standing(key, resource.version if resource else 0, resource)
        for key in record_keys(caller)
        if key
        for resource in [table.get(key)]
    ]


def policy_now(table: ControlTable, caller: Caller) -> EffectivePolicy:
    """Today's policy of a caller, without what groups of an identity token would give: nobody has written those down."""
    provider = table.identity_providers.get(caller.identity.partition(":")[0])
    return effective(levels(table, caller), provider)


# What comes of it


def shown(policy: EffectivePolicy, standing: Sequence[Standing]) -> PolicyShown:
    """A policy with everything that it was made from."""
    found = [one.level() for one in standing]
    return PolicyShown(
        version=policy.version,
        levels=[one.shown() for one in standing],
        members=decided(found),
        limits=[_limits(level) for level in found if level.policy.budgets or _set_limits(level.policy)],
    )


def decided(found: Sequence[Level]) -> list[MemberShown]:
    """The effective policy of levels, member by member, with the level that had the last word."""
    steps = [_members(inherit([level.policy for level in found[:n]], "")) for n in range(len(found) + 1)]
    members = steps[-1]
    for level in found:
        # What a level lets pass is no member of the result, and yet somebody has said so.
        members |= {f"guard.{kind}": "allow" for kind in _guarded(level.policy) if f"guard.{kind}" not in members}
    return [_decided(member, value, found, steps) for member, value in members.items()]


def _decided(member: str, value: JsonValue, found: Sequence[Level], steps: Sequence[JsonObject]) -> MemberShown:
    said = [place for place, level in enumerate(found) if _says(level.policy, member)]
    if not said:
        return MemberShown(member=member, value=value)
    if not _adds_up(member):
        last, before = said[-1], list[int]()
    else:
        changed = [place for place in said if steps[place].get(member) != steps[place + 1].get(member)]
        last = changed[-1] if changed else said[0]
        before = [place for place in said if place < last]
    level = found[last]
    farther = [f"{found[place].scope} v{found[place].version}" for place in before]
    return MemberShown(member=member, value=value, decided_by=level.scope, version=level.version, narrowed_from=farther)


def _members(policy: EffectivePolicy) -> JsonObject:
    """The members of a policy, with those parts unfolded that are inherited piece by piece."""
    found: JsonObject = {}
    for name, value in policy.model_dump(mode="json", exclude={"version"}).items():
        parts = value["actions"] if name == "guard" else value
        if name in _IN_PARTS:
            found |= {f"{name}.{part}": one for part, one in parts.items()}
        else:
            found[name] = value
    return found


def _guarded(policy: Policy) -> Collection[str]:
    return policy.guard.actions if policy.guard else ()


def _says(policy: Policy, member: str) -> bool:
    """Whether a level says something about this member."""
    name, _, part = member.partition(".")
    if name == "guard":
        return part in _guarded(policy)
    value = getattr(policy, name)
    if name in _IN_PARTS:
        return value is not None and getattr(value, part) != getattr(_UNSAID[name], part)
    return value != Policy.model_fields[name].default


def _adds_up(member: str) -> bool:
    return member in _ADDS_UP or member.startswith(("route.", "data."))


def _set_limits(policy: Policy) -> JsonObject:
    return policy.limits.model_dump(mode="json", exclude_none=True)


def _limits(level: Level) -> LimitsShown:
    budgets: list[JsonValue] = [budget.model_dump(mode="json", exclude_none=True) for budget in level.policy.budgets]
    return LimitsShown(level=level.scope, version=level.version, limits=_set_limits(level.policy), budgets=budgets)


def differences(then: PolicyShown, now: PolicyShown) -> list[Difference]:
    """What isn't today as it was: members of the effective policy, and limits and budgets of each level."""
    was, stands = _flat(then), _flat(now)
    return [
        Difference(member=member, then=was.get(member), now=stands.get(member))
        for member in dict.fromkeys([*was, *stands])
        if was.get(member) != stands.get(member)
    ]


def _flat(policy: PolicyShown) -> JsonObject:
    found: JsonObject = {member.member: member.value for member in policy.members}
    for level in policy.limits:
        found |= {f"{level.level} {name}": value for name, value in level.limits.items()}
        if level.budgets:
            found[f"{level.level} budgets"] = level.budgets
    return found


# Would it be admitted today?


def caller_refused(table: ControlTable, caller: Caller, now_ms: int) -> list[str]:
    """Why nothing at all would be admitted from this caller now."""
    found: list[str] = []
    if caller.team not in table.teams:
        found.append(f"the team {caller.team} is gone")
    if caller.key_id:
        found += _key_refused(table.keys.get(caller.key_id), caller.key_id, now_ms)
    return found


def _key_refused(key: VirtualKey | None, key_id: str, now_ms: int) -> Iterable[str]:
    if key is None:
        yield f"the key {key_id} is gone"
        return
    if key.revoked:
        yield f"the key {key_id} is revoked"
    if 0 < key.expires_ms <= now_ms:
        yield f"the key {key_id} has expired"
    if key.held and key.held.requests_per_minute is None:
        yield f"the key {key_id} is paused: {key.held.reason}"


def job_refused(job: JobBooked, policy: EffectivePolicy, models: Mapping[str, Model], now_ms: int) -> list[str]:
    """Why a job like this one would be refused by this policy now."""
    found: list[str] = []
    model = models.get(job.model)
    if model is None:
        found.append(f"the model {job.model} is not known")
    if not policy.allows(job.model, now_ms):
        found.append(f"the model {job.model} is not allowed, but {', '.join(policy.models or ()) or 'none'}")
    elif model is not None and not any(_may_go(policy, deployment) for deployment in model.deployments):
        found.append(f"no deployment of {job.model} is where route and data policy let it go")
    if policy.lanes is not None and job.lane not in policy.lanes:
        found.append(f"the {job.lane} lane is not allowed")
    if missing := [name for name in policy.metadata_required if name not in _labels(job)]:
        found.append(f"x-sluice-metadata must have {', '.join(missing)}")
    if policy.identity == "required" and not job.identity:
        found.append("an identity token is required, and there was none")
    return found


def _may_go(policy: EffectivePolicy, deployment: Deployment) -> bool:
    providers, regions = policy.route.providers, policy.data.regions
    return (
        (providers is None or deployment.provider in providers)
        and (regions is None or deployment.region in regions)
        and (deployment.hipaa or not policy.data.hipaa)
    )


def _labels(job: JobBooked) -> Collection[str]:
    return {*job.metadata, *(name for name in ("feature", "segment") if getattr(job, name))}


# The whole answer


def explain_caller(table: ControlTable, caller: Caller, now_ms: int) -> Explanation:
    """A caller's policy as it stands."""
    reasons = caller_refused(table, caller, now_ms)
    return Explanation(
        caller=caller,
        now=shown(policy_now(table, caller), stands_now(table, caller)),
        today="refused" if reasons else "admitted",
        reasons=reasons,
        notes=_throttled(table, caller),
    )


def explain_job(table: ControlTable, job: JobBooked, documents: Iterable[Document], now_ms: int) -> Explanation:
    """The policy that decided a job, and what today's would do."""
    caller = caller_of_job(job)
    notes = ["limits, budgets and what else depends on the moment are not looked at", *_throttled(table, caller)]
    try:
        versions = versions_of(job.policy_version, caller)
    except ValueError:
        versions = {}
        notes.append(f"{job.policy_version!r} names no documents: what decided the job is not known")
    standing = stood_then(versions, documents, table, job.accepted_ms)
    notes += [
        f"{one.key} v{one.version} is known no more: it is left out" for one in standing if one.version and not one.resource
    ]
    if any(isinstance(one.resource, IdentityProvider) for one in standing):
        notes.append("what the identity provider's rules gave for the groups of the token is not known: it is left out")
    now = policy_now(table, caller)
    reasons = [*caller_refused(table, caller, now_ms), *job_refused(job, now, table.models, now_ms)]
    then_shown = shown(inherit([one.level().policy for one in standing], job.policy_version), standing)
    now_shown = shown(now, stands_now(table, caller))
    return Explanation(
        caller=caller,
        job=job,
        then=then_shown,
        now=now_shown,
        differences=differences(then_shown, now_shown),
        today="refused" if reasons else "admitted",
        reasons=reasons,
        notes=notes,
    )


def _throttled(table: ControlTable, caller: Caller) -> list[str]:
    key = table.keys.get(caller.key_id)
    if key is None or key.held is None or key.held.requests_per_minute is None:
        return []
    return [f"the key {key.id} is throttled to {key.held.requests_per_minute} requests a minute: {key.held.reason}"]
