"""`os.environ/NAME` in a file: what isn't secret is looked up when the file is read. Pure.

Credentials stay references, which the router resolves; sections that have no effect are not looked at.
"""

from collections.abc import Callable, Iterable

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.control import EchoSettings
from services.portal.config.findings import Findings
from services.portal.config.litellm import KNOWN
from services.portal.config.references import ENVIRONMENT
from services.portal.config.shape import SECRETS, File, Info, Params

Lookup = Callable[[str], str | None]
"""Gives what a reference stands for."""

NOWHERE = "http://unset.invalid"
"""In the place of an address that is not set, so that this is said and nothing else."""

_PARAMS_LOOKED_UP = (frozenset(Params.model_fields) | frozenset(EchoSettings.model_fields)) - SECRETS
_OF_LITELLM = frozenset({"router_settings", "litellm_settings", "general_settings", "environment_variables"})


class Environment:
    """Puts values in the place of references; those that lead nowhere are told to `found`."""

    def __init__(self, lookup: Lookup, found: Findings) -> None:
        self._lookup, self._found = lookup, found

    def resolved(self, name: str, raw: JsonObject) -> JsonObject:
        """A whole file, with values."""
        done: JsonObject = {}
        for section, value in raw.items():
            path = f"{name}: {section}"
            if section == "model_list" and isinstance(value, list):
                done[section] = [self._entry(f"{path}[{n}]", entry) for n, entry in enumerate(value)]
            elif section in ("router_settings", "litellm_settings") and isinstance(value, dict):
                done[section] = self._settings(path, section, value)
            elif section in File.model_fields and section not in _OF_LITELLM:
                done[section] = self._deep(path, value)
            else:
                done[section] = value
        return done

    def _entry(self, path: str, entry: JsonValue) -> JsonValue:
        if not isinstance(entry, dict):
            return entry
        known = {"litellm_params": _PARAMS_LOOKED_UP, "model_info": frozenset(Info.model_fields)}
        return {
            part: self._members(f"{path}.{part}", value, known[part]) if part in known and isinstance(value, dict) else value
            for part, value in entry.items()
        }

    def _settings(self, path: str, section: str, value: JsonObject) -> JsonObject:
        done = self._members(path, value, KNOWN[section] - {"cache_params"})
        params = done.get("cache_params")
        if isinstance(params, dict):
            done["cache_params"] = self._members(f"{path}.cache_params", params, KNOWN[f"{section}.cache_params"])
        return done

    def _members(self, path: str, value: JsonObject, known: Iterable[str]) -> JsonObject:
        done: JsonObject = {}
        for member, inner in value.items():
            found = self._deep(f"{path}.{member}", inner) if member in known else inner
            if found is not None or inner is None:
                done[member] = found
            elif member == "api_base":
                done[member] = NOWHERE
        return done

    def _deep(self, path: str, value: JsonValue) -> JsonValue:
        """None in the place of what is not set."""
        if isinstance(value, dict):
            return self._members(path, value, value)
        if isinstance(value, list):
            return [self._deep(f"{path}[{n}]", inner) for n, inner in enumerate(value)]
        if not isinstance(value, str) or not value.startswith(ENVIRONMENT):
            return value
        if found := self._lookup(value):
            return found
        self._found.unset.append(f"{path}: {value.removeprefix(ENVIRONMENT)} is not set; set it")
        return None
