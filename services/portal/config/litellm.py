"""LiteLLM's sections beside model_list: `router_settings`, `litellm_settings`, `general_settings`. Pure.

What they say of routing goes into each model, what they say of time and cache into the organization's policy. The rest is listed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.base import JsonObject
from schemas.control import Deployment, Model, StrategyName
from schemas.policy import CachePolicy
from services.portal.config.findings import Findings
from services.portal.config.models import FALLBACKS, Said, check
from services.portal.config.shape import explain

B = TypeVar("B", bound=BaseModel)
Fallbacks = list[dict[str, list[str | JsonObject]]]

SEMANTIC_LATER = "so far only equal requests get a kept answer: the threshold is written down and has no effect yet"
LANGFUSE = frozenset({"langfuse", "langfuse_otel"})
_CALLBACKS_ELSEWHERE = {
    "prometheus": "each process shows its metrics at /metrics always",
    "otel": "set SLUICE_OTLP_ENDPOINT (and SLUICE_OTLP_HEADERS) where Sluice is started",
    "arize_phoenix": "set SLUICE_OTLP_ENDPOINT (and SLUICE_OTLP_HEADERS) where Sluice is started",
}
_KEPT_TTL_S, _LONGEST_TTL_S = 3600, 30 * 86_400


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Either(_Section):
    """What may stand in `router_settings` and in `litellm_settings`."""

    num_retries: int | None = Field(default=None, ge=0, le=10)
    allowed_fails: int | None = Field(default=None, ge=0)
    cooldown_time: float | None = Field(default=None, gt=0, le=3600)
    stream_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    fallbacks: Fallbacks | None = None
    context_window_fallbacks: Fallbacks | None = None
    content_policy_fallbacks: Fallbacks | None = None
    default_fallbacks: list[str] | None = None


class Alias(_Section):
    """The longer form of an alias."""

    model: str
    hidden: bool = False


class RouterSettings(_Either):
    """How models are asked. `timeout`: of each call, in seconds; `stream_timeout`: to its first token."""

    routing_strategy: Literal[StrategyName, "usage-based-routing-v2"] | None = None
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    model_group_alias: dict[str, str | Alias] | None = None


class CacheParams(_Section):
    """Where answers are kept. `ttl` in seconds."""

    type: (
        Literal[
            "redis",
            "valkey",
            "redis-semantic",
            "valkey-semantic",
            "qdrant-semantic",
            "local",
            "disk",
            "s3",
            "gcs",
            "azure-blob",
        ]
        | None
    ) = None
    ttl: float | None = Field(default=None, gt=0, le=_LONGEST_TTL_S)
    similarity_threshold: float | None = Field(default=None, ge=0, le=1)


class LitellmSettings(_Either):
    """Cache, callbacks, and what may stand in router_settings too. `request_timeout` in seconds."""

    cache: bool | None = None
    cache_params: JsonObject | None = None
    callbacks: str | list[str] | None = None
    success_callback: str | list[str] | None = None
    failure_callback: str | list[str] | None = None
    request_timeout: float | None = Field(default=None, gt=0, le=86_400)


class GeneralSettings(_Section):
    """`master_key`: the admin key, or a reference to it."""

    master_key: str | None = None


KNOWN: Mapping[str, frozenset[str]] = {
    "router_settings": frozenset(RouterSettings.model_fields),
    "litellm_settings": frozenset(LitellmSettings.model_fields),
    "litellm_settings.cache_params": frozenset(CacheParams.model_fields),
    "general_settings": frozenset(GeneralSettings.model_fields),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the sections say. `policy`: members of the organization's; `master_key`: a reference, or the key itself."""

    path: str = ""
    routing: RouterSettings = field(default_factory=RouterSettings)
    policy: Mapping[str, object] = field(default_factory=dict[str, object])
    langfuse: bool = False
    master_key: str = field(default="", repr=False)

    def routes(self) -> bool:
        """True if they say how models are asked."""
        return any(getattr(self.routing, member) is not None for member in RouterSettings.model_fields)


Sections = Mapping[str, tuple[str, JsonObject]]
"""By name: the file that has it, and what stands there."""


def understand(sections: Sections, found: Findings) -> Settings:
    """Reads the sections; whatever is wrong or without effect is told to `found`."""
    router_path, routes = _section("router_settings", sections, RouterSettings, found)
    litellm_path, others = _section("litellm_settings", sections, LitellmSettings, found)
    _, rest = _section("general_settings", sections, GeneralSettings, found)
    policy: dict[str, object] = dict(_cache(litellm_path, others, found))
    if others.request_timeout is not None:
        policy["timeout_s"] = others.request_timeout
    routing = _joined(litellm_path, routes, others, found)
    langfuse = _callbacks(litellm_path, others, found)
    return Settings(router_path or litellm_path, routing, policy, langfuse, rest.master_key or "")


def routed(models: Sequence[Model], settings: Settings, of_files: Mapping[str, Said], found: Findings) -> tuple[Model, ...]:
    """The models as these settings have them, and as `of_files`, our own section by model, has each of them.

    An alias is a further model with the same deployments and, unless something is said of it, all that is said of the other. A
    model of which only our own section tells has no deployments.
    """
    routing, path = settings.routing, settings.path
    aliased = routing.model_group_alias or {}
    known = {model.name for model in models} | set(aliased)
    without = [Model(name=name, deployments=()) for name in of_files if name not in known]
    all_models = [*models, *without, *_aliases([*models, *without], routing, path, found)]
    names = {model.name for model in all_models}
    _check_names(f"{path}.default_fallbacks", routing.default_fallbacks or (), names, found)
    by_kind = {kind: _fallbacks(kind, routing, names, path, found) for kind in FALLBACKS}
    by_kind["fallbacks"].setdefault("*", tuple(routing.default_fallbacks or ()))
    of_all = _of_all(routing)
    done: list[Model] = []
    for model in all_models:
        entry = of_files.get(model.name) or of_files.get(_target(aliased.get(model.name, "")))
        update = {
            **of_all,
            **{kind: _of(model.name, lists) for kind, lists in by_kind.items()},
            "deployments": tuple(_timed(d, routing) for d in model.deployments),
            **(entry.members if entry else {}),
        }
        done.append(model.model_copy(update=update))
    check(done, of_files, found)
    return tuple(done)


def _of_all(routing: RouterSettings) -> dict[str, object]:
    strategy = routing.routing_strategy or "simple-shuffle"
    return {
        "strategy": "usage-based-routing" if strategy == "usage-based-routing-v2" else strategy,
        "num_retries": routing.num_retries,
        "allowed_fails": routing.allowed_fails,
        "cooldown_s": routing.cooldown_time,
    }


def _section(section: str, sections: Sections, model: type[B], found: Findings) -> tuple[str, B]:
    name, raw = sections.get(section, ("", {}))
    path = f"{name}: {section}" if name else ""
    return path, _read(path, section, raw, model, found)


def _read(path: str, section: str, raw: JsonObject | None, model: type[B], found: Findings) -> B:
    try:
        read = model.model_validate(raw or {})
    except ValidationError as error:
        found.problems += [
            explain("", e["loc"], e["msg"], f"{path}.") for e in error.errors(include_url=False, include_input=False)
        ]
        return model()
    found.strangers(path, section, read.model_extra, KNOWN[section])
    return read


def _joined(path: str, routes: RouterSettings, others: LitellmSettings, found: Findings) -> RouterSettings:
    """`router_settings` with what only `litellm_settings` says."""
    update: dict[str, object] = {}
    for member in _Either.model_fields:
        here, there = getattr(routes, member), getattr(others, member)
        if here is None:
            update[member] = there
        elif there is not None and here != there:
            found.warnings.append(f"{path}.{member}: router_settings says otherwise, and that holds")
    return routes.model_copy(update=update)


def _cache(path: str, settings: LitellmSettings, found: Findings) -> Iterator[tuple[str, CachePolicy]]:
    params = _read(f"{path}.cache_params", "litellm_settings.cache_params", settings.cache_params, CacheParams, found)
    if settings.cache is None:
        if settings.cache_params is not None:
            found.warnings.append(f"{path}.cache_params: without `cache: true` they have no effect")
        return
    if not settings.cache:
        yield "cache", CachePolicy(enabled=False)
        return
    if params.type not in (None, "redis", "valkey", "redis-semantic", "valkey-semantic"):
        found.notes.append(f"{path}.cache_params.type: answers are kept in Sluice's own Redis, not in {params.type}")
    if params.similarity_threshold is not None:
        found.warnings.append(f"{path}.cache_params.similarity_threshold: {SEMANTIC_LATER}")
    ttl_s = _KEPT_TTL_S if params.ttl is None else max(1, round(params.ttl))
    yield "cache", CachePolicy(ttl_s=ttl_s, similarity_threshold=params.similarity_threshold)


def _callbacks(path: str, settings: LitellmSettings, found: Findings) -> bool:
    langfuse = False
    for member in ("callbacks", "success_callback", "failure_callback"):
        written: str | list[str] | None = getattr(settings, member)
        for callback in [written] if isinstance(written, str) else written or []:
            if callback in LANGFUSE:
                langfuse = True
            elif callback == "prometheus":
                found.notes.append(f"{path}.{member}: {callback}: {_CALLBACKS_ELSEWHERE[callback]}")
            else:
                reason = _CALLBACKS_ELSEWHERE.get(callback, "not supported; it has no effect")
                found.warnings.append(f"{path}.{member}: {callback}: {reason}")
    return langfuse


def _aliases(models: Sequence[Model], routing: RouterSettings, path: str, found: Findings) -> Iterator[Model]:
    by_name = {model.name: model for model in models}
    for alias, target in (routing.model_group_alias or {}).items():
        where = f"{path}.model_group_alias.{alias}"
        name = _target(target)
        if isinstance(target, Alias) and target.hidden:
            found.warnings.append(f"{where}.hidden: each model is listed to those who may ask for it; it has no effect")
        if alias in by_name:
            found.problems.append(f"{where}: a model of this name stands in model_list; leave one of them out")
        elif name not in by_name:
            found.problems.append(f"{where}: no model {name!r} stands in model_list")
        else:
            yield by_name[name].model_copy(update={"name": alias})


def _fallbacks(kind: str, routing: RouterSettings, names: set[str], path: str, found: Findings) -> dict[str, tuple[str, ...]]:
    """By model. A fallback that nobody can answer is an error: it would be found out when it's needed."""
    lists: dict[str, tuple[str, ...]] = {}
    written: Fallbacks = getattr(routing, kind) or []
    for number, entry in enumerate(written):
        for model, others in entry.items():
            where = f"{path}.{kind}[{number}].{model}"
            plain = [other for other in others if isinstance(other, str)]
            if len(plain) < len(others):
                found.warnings.append(
                    f"{where}: a fallback is a model's name here, without parameters of its own; it has no effect"
                )
            _check_names(where, plain, names, found)
            if model != "*" and model not in names:
                found.problems.append(f"{where}: no model {model!r} stands in model_list")
            if model in lists:
                found.problems.append(f"{where}: its fallbacks stand twice; leave one of them out")
            lists[model] = tuple(plain)
    return lists


def _of(name: str, lists: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A model's own fallbacks, or else those of all models but itself."""
    return lists.get(name) or tuple(other for other in lists.get("*", ()) if other != name)


def _check_names(path: str, others: Sequence[str], names: set[str], found: Findings) -> None:
    found.problems += [f"{path}: no model {other!r} stands in model_list" for other in others if other not in names]


def _target(alias: str | Alias) -> str:
    return alias if isinstance(alias, str) else alias.model


def _timed(deployment: Deployment, routing: RouterSettings) -> Deployment:
    """With the times of all, where it has none of its own."""
    update = {
        member: seconds
        for member, seconds in (("timeout_s", routing.timeout), ("first_token_timeout_s", routing.stream_timeout))
        if seconds is not None and getattr(deployment, member) is None
    }
    return deployment.model_copy(update=update) if update else deployment
