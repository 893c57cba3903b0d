"""What admission decides: who may ask for what, which stages the job goes through, what to say on refusal. Pure."""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from schemas.base import JsonObject
from schemas.errors import InvalidRequest, ModelNotFound, NotAllowed
from schemas.job import Api, CacheRequest, Labels
from schemas.policy import EffectivePolicy
from schemas.slip import RoutingSlip, Stage
from schemas.topics import Lane

MAX_METADATA_BYTES = 4096
MAX_METADATA_MEMBERS = 16
MAX_TIMEOUT_S = 86_400.0
MAX_WAIT_S = 120.0
LONGEST_WAIT_MS = 2_000
"""An interactive request that would wait longer before a stage is refused at once (RELIABILITY.md 5.9)."""
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def slip(policy: EffectivePolicy, cache: CacheRequest) -> RoutingSlip:
    """The stages a job goes through: one that the policy doesn't want costs no hop."""
    stages = [Stage.GUARD] if policy.guard.actions else []
    if policy.cache.enabled and (cache.read or cache.write):
        stages.append(Stage.CACHE)
    return (*stages, Stage.ROUTER)


def check_default(model: str, known: Container[str]) -> None:
    """Raises InvalidRequest where no model was named and there is none by the usual name."""
    if model not in known:
        raise InvalidRequest(
            f"Name a `model`, or have one called `{model}` added, which is asked where none is named", param="model"
        )


def check_model(model: str, policy: EffectivePolicy, known: Mapping[str, object], now_ms: int) -> None:
    """Raises ModelNotFound or NotAllowed with a sentence that says what may be asked for."""
    if model not in known:
        names = ", ".join(sorted(known)[:10]) or "none: apply a config with a model_list"
        raise ModelNotFound(f"The model `{model[:100]}` does not exist. Known models: {names}", param="model")
    if not policy.allows(model, now_ms):
        allowed = ", ".join(policy.models or ()) or "none"
        raise NotAllowed(f"This key may not use the model `{model[:100]}`. It may use: {allowed}", param="model")


def check_rights(lane: Lane, labels: Labels, policy: EffectivePolicy) -> None:
    """Raises NotAllowed for a lane that isn't the caller's, InvalidRequest for metadata that its policy demands."""
    if policy.lanes is not None and lane not in policy.lanes:
        allowed = ", ".join(policy.lanes) or "none"
        raise NotAllowed(f"This key may not use the lane `{lane.value}`. It may use: {allowed}", code="lane_not_allowed")
    given = {"feature": labels.feature, "segment": labels.segment} | labels.metadata
    missing = [name for name in policy.metadata_required if not given.get(name)]
    if missing:
        raise InvalidRequest(
            f"Your team's policy asks for metadata: send x-sluice-metadata, a JSON object, with {', '.join(missing)}",
            param="x-sluice-metadata",
            code="metadata_required",
        )


def lane(header: str | None) -> Lane:
    """`x-sluice-lane`; interactive unless said otherwise. Raises InvalidRequest."""
    try:
        return Lane(header) if header else Lane.INTERACTIVE
    except ValueError:
        raise InvalidRequest("x-sluice-lane must be `interactive` or `batch`", param="x-sluice-lane") from None


def timeout_s(header: str | None, policy: EffectivePolicy, default_s: float) -> float:
    """`x-sluice-timeout` in seconds, else the policy's, else the default. Raises InvalidRequest."""
    if header is None:
        return policy.timeout_s or default_s
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise InvalidRequest("x-sluice-timeout must be a number of seconds above 0, at most 86400", param="x-sluice-timeout")
    return seconds


def deadline_ms(header: str | None) -> int | None:
    """`x-sluice-deadline` in unix milliseconds. Raises InvalidRequest."""
    return _time_ms(header, "x-sluice-deadline") if header else None


def not_before_ms(header: str | None) -> int:
    """`x-sluice-not-before` in unix milliseconds; 0: at once. Raises InvalidRequest."""
    return _time_ms(header, "x-sluice-not-before") if header else 0


def check_deadline(deadline_ms: int, now_ms: int) -> int:
    """The deadline, if it lies ahead and no farther than a day. Raises InvalidRequest."""
    if not 0 < deadline_ms - now_ms <= MAX_TIMEOUT_S * 1000:
        raise InvalidRequest("x-sluice-deadline must lie ahead, by at most 24 hours", param="x-sluice-deadline")
    return deadline_ms


@dataclass(frozen=True, slots=True)
class Preference:
    """`Prefer: respond-async, wait=10` (RFC 7240): answer at once, or, after so many seconds, with where to ask."""

    respond_async: bool = False
    wait_s: float = 0


def preference(header: str | None) -> Preference:
    """What the client would like; what can't be understood is no preference (RFC 7240, section 2)."""
    wanted = [part.strip().lower() for part in (header or "").replace(";", ",").split(",")]
    if "respond-async" not in wanted:
        return Preference()
    waits = (part.removeprefix("wait=") for part in wanted if part.startswith("wait="))
    wait = next((float(wait) for wait in waits if wait.isdecimal()), 0.0)
    return Preference(True, min(wait, MAX_WAIT_S))


def _time_ms(header: str, name: str) -> int:
    """RFC 3339 or unix seconds."""
    try:
        moment = datetime.fromisoformat(header)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except ValueError:
        pass
    if header.isdecimal() and len(header) <= 11:
        return int(header) * 1000
    raise InvalidRequest(f"{name} must be a time, such as 2026-11-21T18:00:00Z, or unix seconds", param=name)


def cache_request(cache_control: str | None, ttl: str | None) -> CacheRequest:
    """What `cache-control` (RFC 9111: no-cache, no-store, max-age) and `x-sluice-cache-ttl` ask for. Raises InvalidRequest."""
    directives = {part.strip().lower() for part in (cache_control or "").split(",") if part.strip()}
    max_age = next((d.removeprefix("max-age=") for d in directives if d.startswith("max-age=")), None)
    if max_age is not None and not max_age.isdecimal():
        raise InvalidRequest("cache-control: max-age must be a whole number of seconds", param="cache-control")
    if ttl is not None and not (ttl.isdecimal() and 1 <= int(ttl) <= 30 * 86_400):
        raise InvalidRequest("x-sluice-cache-ttl must be 1 to 2592000 seconds", param="x-sluice-cache-ttl")
    store = "no-store" not in directives
    return CacheRequest(
        read=store and "no-cache" not in directives,
        write=store,
        max_age_s=int(max_age) if max_age is not None else None,
        ttl_s=int(ttl) if ttl is not None else None,
    )


def labels(header: str | None) -> Labels:
    """`x-sluice-metadata`: a JSON object of short texts; `feature` and `segment` have columns of their own.

    Raises InvalidRequest.
    """
    if not header:
        return Labels()
    try:
        given = _OBJECT.validate_json(header) if len(header) <= MAX_METADATA_BYTES else None
    except ValidationError:
        given = None
    if given is None or len(given) > MAX_METADATA_MEMBERS:
        raise InvalidRequest(
            f"x-sluice-metadata must be a JSON object of at most {MAX_METADATA_MEMBERS} members and {MAX_METADATA_BYTES} bytes",
            param="x-sluice-metadata",
        )
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
    feature, segment = texts.pop("feature", ""), texts.pop("segment", "")
    return Labels(feature=feature, segment=segment, metadata=texts)


def operation(api: Api) -> str:
    """OpenTelemetry's `gen_ai.operation.name`."""
    return "chat" if api is Api.CHAT else api.value


def is_too_late(lane: Lane, wait_ms: int, rest_ms: int) -> bool:
    """True for a job that had better not be accepted: nobody waits for a chat so long, or it would miss its deadline."""
    if lane is Lane.BATCH:
        return wait_ms > rest_ms
    return wait_ms > min(LONGEST_WAIT_MS, rest_ms / 2)


def overload(lane: Lane, wait_ms: int) -> str:
    """The sentence for a job that would wait too long."""
    if lane is Lane.BATCH:
        return f"The batch lane is {wait_ms / 1000:.0f} s behind, which is more than this request's deadline allows."
    return (
        f"Too much is waiting: an answer would take {wait_ms / 1000:.0f} s longer than usual. Try again, or use the batch lane."
    )
