"""A LiteLLM config.yaml → the sluice.yaml that says the same, and the list of what it can't say. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import JsonValue
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.policy import Policy
from services.portal.config.deployments import known_in, with_provider
from services.portal.config.environment import Lookup
from services.portal.config.litellm import Alias, RouterSettings, Settings, understand
from services.portal.config.models import FALLBACKS
from services.portal.config.reading import ConfigError, Reading
from services.portal.config.references import ENVIRONMENT, is_reference, secret_name
from services.portal.config.shape import SECRETS, load

_OURS = ("organization", "policy", "teams", "users", "identity_providers", "gates", "models")
_HEADER = "# Made by `sluice config import-litellm`. See what it would change with `sluice config plan`.\n"


@dataclass(frozen=True, slots=True)
class Imported:
    """A sluice.yaml; what of the file isn't in it (path and reason); and what to know besides."""

    text: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def import_litellm(name: str, text: str, environment: Lookup = lambda _: None) -> Imported:
    """Maps a file. Raises ConfigError where it can't be read at all; an entry that can't be used is left out and listed."""
    reading = Reading(environment)
    reading.add(name, text)
    found, rejected = reading.found, reading.deployments.rejected
    settings = understand(reading.sections, found)
    of_entries = [problem for problem in found.problems if problem.partition("].")[0] + "]" in rejected]
    if others := [problem for problem in found.problems if problem not in of_entries]:
        raise ConfigError(others)
    writing = _Writing(name, load(text), rejected)
    document = writing.document(settings)
    kept = [unset for unset in found.unset if ": model_list[" in unset]
    return Imported(
        _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120),
        (*of_entries, *found.warnings, *(unset for unset in found.unset if unset not in kept), *writing.left_out),
        (*found.notes, *(f"{unset} where Sluice is started" for unset in kept), *writing.notes),
    )


class _Writing:
    """The document that is written. Entries are as they were read, less what has no effect; a secret in them is a reference."""

    def __init__(self, name: str, raw: JsonObject, rejected: set[str]) -> None:
        self._name, self._raw = name, raw
        written = raw.get("model_list")
        paths = {f"{name}: model_list[{n}]": entry for n, entry in enumerate(written if isinstance(written, list) else [])}
        self._entries = {p: with_provider(e) for p, e in paths.items() if p not in rejected and isinstance(e, dict)}
        self._variables: dict[str, str] = {}
        self.left_out: list[str] = []
        self.notes: list[str] = []

    def document(self, settings: Settings) -> JsonObject:
        """The whole file, without what is empty."""
        document: dict[str, Any] = {
            "model_list": [self._entry(path, entry) for path, entry in self._entries.items()],
            "router_settings": self._routing(settings),
            "litellm_settings": {"callbacks": ["langfuse"]} if settings.langfuse else {},
            "general_settings": self._general(settings),
            **{section: self._raw[section] for section in _OURS if section in self._raw},
        }
        if settings.policy:
            document["policy"] = {**(document.get("policy") or {}), **_policy(settings.policy)}
        return {section: value for section, value in document.items() if value or section == "model_list"}

    def _entry(self, path: str, entry: JsonObject) -> JsonObject:
        params, info = _object(entry.get("litellm_params")), _object(entry.get("model_info"))
        provider = str(params.get("model", "")).partition("/")[0]
        params = {k: v for k, v in params.items() if k in known_in("litellm_params", provider) and v is not None}
        for member in sorted(SECRETS & params.keys()):
            params[member] = self._reference(f"{path}.litellm_params.{member}", provider, member, params[member])
        info = {k: v for k, v in info.items() if k in known_in("model_info", provider) and v is not None}
        written: dict[str, Any] = {"model_name": entry.get("model_name"), "litellm_params": params}
        if info:
            written["model_info"] = info
        return written

    def _reference(self, path: str, provider: str, member: str, credential: JsonValue) -> str:
        """A reference as it is; for a credential that stands there literally, a variable, and which it is."""
        text = to_json(credential).decode() if isinstance(credential, dict) else str(credential)
        if not text or is_reference(text):
            return text
        if member == "vertex_credentials" and text.startswith("/"):
            return f"file:{text}"
        variable = self._variable(provider, member, text)
        self.notes.append(f"{path}: the key stands literally in the file; set {variable} to it instead")
        return f"{ENVIRONMENT}{variable}"

    def _variable(self, provider: str, member: str, secret: str) -> str:
        """A variable for a secret: OPENAI_API_KEY, or, where that is another's, OPENAI_API_KEY_2."""
        base = re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY" if member == "api_key" else member.upper()
        taken = set(re.findall(rf"{ENVIRONMENT}(\w+)", str(self._raw))) | set(self._variables.values())
        number, name = 1, base
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        return self._variables.setdefault(secret_name(secret), name)

    def _routing(self, settings: Settings) -> JsonObject:
        routing = settings.routing
        written: dict[str, Any] = routing.model_dump(mode="json", exclude_none=True, include=set(RouterSettings.model_fields))
        names = {str(entry["model_name"]) for entry in self._entries.values()}
        aliases = {a: t.model if isinstance(t, Alias) else t for a, t in (routing.model_group_alias or {}).items()}
        if aliases:
            written["model_group_alias"] = {alias: target for alias, target in aliases.items() if target in names}
            self._tell(f"{settings.path}.model_group_alias", {a: [t] for a, t in aliases.items()}, names)
        names |= {alias for alias, target in aliases.items() if target in names}
        for kind in FALLBACKS:
            written[kind] = [
                {model: [other for other in others if other in names]}
                for entry in written.get(kind, [])
                for model, others in entry.items()
                if model in names or model == "*"
            ]
            for number, entry in enumerate(getattr(routing, kind) or []):
                lists = {model: [*others, *([] if model == "*" else [model])] for model, others in entry.items()}
                self._tell(f"{settings.path}.{kind}[{number}]", lists, names)
        if routing.default_fallbacks:
            written["default_fallbacks"] = [other for other in routing.default_fallbacks if other in names]
            self._tell(settings.path, {"default_fallbacks": routing.default_fallbacks}, names)
        return {member: value for member, value in written.items() if value not in ([], {})}

    def _tell(self, path: str, lists: Mapping[str, Sequence[object]], names: set[str]) -> None:
        """Models that aren't there, or that were left out themselves."""
        for member, others in lists.items():
            self.left_out += [
                f"{path}.{member}: no model {other!r} stands in what was mapped; it is left out"
                for other in others
                if isinstance(other, str) and other not in names
            ]

    def _general(self, settings: Settings) -> JsonObject:
        if not settings.master_key:
            return {}
        if settings.master_key.startswith(ENVIRONMENT):
            return {"master_key": settings.master_key}
        self.notes.append(
            f"{self._name}: general_settings.master_key: it stands literally in the file; set SLUICE_ADMIN_KEY to it"
        )
        return {}


def _policy(members: Mapping[str, object]) -> JsonObject:
    """Members of a policy as somebody would write them."""
    written = Policy.model_validate(members).model_dump(mode="json", exclude_defaults=True)
    return {member: value or {"enabled": True} for member, value in written.items()}


def _object(value: object) -> JsonObject:
    return dict(value) if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
