"""Entries of model_list → deployments. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import cast

from pydantic import ValidationError

from schemas.base import JsonObject
from schemas.control import Deployment, EchoSettings, Price
from services.portal.config.findings import NO_EFFECT, Findings
from services.portal.config.shape import Entry, Info, Params, explain, likely

ENVIRONMENT, FILE = "os.environ/", "file/"
OPENAI_KEY = f"{ENVIRONMENT}OPENAI_API_KEY"
OWN_ADDRESS = frozenset({"openai", "echo", "local"})
"""Providers that need no `api_base`. Whoever else is named speaks OpenAI's API at its address."""

_OPENAIS = re.compile(r"^(gpt-|chatgpt-|o\d|text-embedding-)[^/]*$")
"""Names that LiteLLM takes for OpenAI's where no provider stands before them."""


@dataclass(slots=True)
class Deployments:
    """The deployments read so far, by model. `rejected`: paths of entries that can't be used.

    `secrets` are the keys that stood literally in a file, by the name under which a deployment refers to them (`file/NAME`).
    """

    found: Findings
    by_model: dict[str, list[Deployment]] = field(default_factory=dict[str, list[Deployment]])
    secrets: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    rejected: set[str] = field(default_factory=set[str])
    _given_ids: set[str] = field(default_factory=set[str])
    _unnamed: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def add(self, path: str, raw: JsonObject) -> None:
        """Takes one more entry in."""
        known_problems = len(self.found.problems)
        try:
            entry = Entry.model_validate(with_provider(raw))
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self.found.problems += [explain("", e["loc"], e["msg"], f"{path}.") for e in errors]
        else:
            self._add(path, entry)
        if len(self.found.problems) > known_problems:
            self.rejected.add(path)

    def named(self) -> Mapping[str, list[Deployment]]:
        """All of them, those without an id named `<provider>/<model>`, with a number behind it from the second of them on."""
        taken = set(self._given_ids)
        for model, place in self._unnamed:
            deployment = self.by_model[model][place]
            base, number = f"{deployment.provider}/{deployment.model}", 1
            name = base
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            taken.add(name)
            self.by_model[model][place] = deployment.model_copy(update={"id": name})
        self._unnamed.clear()
        return self.by_model

    def _add(self, path: str, entry: Entry) -> None:
        params, info = entry.litellm_params, entry.model_info
        provider, _, model = params.model.partition("/")
        deployments = self.by_model.setdefault(entry.model_name, [])
        deployment = Deployment(
            id=self._id(path, info.id, entry.model_name, len(deployments)),
            provider=provider,
            model=model,
            api_base=self._address(path, provider, params.api_base),
            api_key=self._reference(provider, params),
            weight=params.weight,
            timeout_s=params.timeout,
            price=self._price(path, params, info),
            echo=self._echo(path, params) if provider == "echo" else EchoSettings(),
            max_parallel_requests=params.max_parallel_requests,
            rpm=params.rpm,
            tpm=params.tpm,
            region=params.region_name or params.aws_region_name or params.vertex_location,
            hipaa=info.hipaa,
            max_output_tokens=info.max_output_tokens or info.max_tokens,
            on_disconnect=params.on_disconnect,
        )
        self._tell_of_extras(path, entry, provider)
        deployments.append(deployment)

    def _id(self, path: str, given: str | None, model: str, place: int) -> str:
        if given is None:
            self._unnamed.append((model, place))
            return ""
        if given in self._given_ids:
            self.found.problems.append(f"{path}.model_info.id: {given!r} is another deployment's already; each needs its own")
        self._given_ids.add(given)
        return given

    def _address(self, path: str, provider: str, address: str | None) -> str | None:
        where = f"{path}.litellm_params.api_base"
        if address is None and provider not in OWN_ADDRESS:
            self.found.problems.append(f"{where}: give the address at which {provider} speaks OpenAI's API")
        if address is not None and not address.startswith(("http://", "https://")):
            self.found.problems.append(f"{where}: must begin with http:// or https://")
        return address

    def _reference(self, provider: str, params: Params) -> str | None:
        api_key = params.api_key
        if api_key is None and provider == "openai" and params.api_base is None:
            return OPENAI_KEY  # as LiteLLM does; but OpenAI's key is nobody else's business
        if not api_key or api_key.startswith((ENVIRONMENT, FILE)):
            return api_key or None
        name = secret_name(api_key)
        self.secrets[name] = api_key
        return f"{FILE}{name}"

    def _price(self, path: str, params: Params, info: Info) -> Price | None:
        written = [p for p in (info, params) if p.input_cost_per_token is not None or p.output_cost_per_token is not None]
        if not written:
            return None
        prices = written[0]
        output = Decimal(0) if info.mode == "embedding" and prices.output_cost_per_token is None else prices.output_cost_per_token
        if prices.input_cost_per_token is None or output is None:
            where = "model_info" if prices is info else "litellm_params"
            self.found.problems.append(
                f"{path}.{where}: give both input_cost_per_token and output_cost_per_token (0 where nothing is charged)"
            )
            return None
        return Price(input_usd=prices.input_cost_per_token, output_usd=output, cache_read_usd=prices.cache_read_input_token_cost)

    def _echo(self, path: str, params: Params) -> EchoSettings:
        try:
            return EchoSettings.model_validate(params.model_extra or {})
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self.found.problems += [explain("", e["loc"], e["msg"], f"{path}.litellm_params.") for e in errors]
            return EchoSettings()

    def _tell_of_extras(self, path: str, entry: Entry, provider: str) -> None:
        for member in entry.model_extra or {}:
            self.found.warnings.append(f"{path}.{member}: {NO_EFFECT}{likely(member, Entry.model_fields)}")
        for section, part in (("litellm_params", entry.litellm_params), ("model_info", entry.model_info)):
            known = known_in(section, provider)
            strangers = {member: value for member, value in (part.model_extra or {}).items() if member not in known}
            self.found.strangers(f"{path}.{section}", section, strangers, known)


def known_in(section: str, provider: str) -> frozenset[str]:
    """The members of a part of an entry that mean something."""
    if section == "model_info":
        return frozenset(Info.model_fields)
    known = frozenset(Params.model_fields)
    return known | frozenset(EchoSettings.model_fields) if provider == "echo" else known


def with_provider(raw: JsonObject) -> JsonObject:
    """An entry whose model has its provider: LiteLLM takes `gpt-4o` for `openai/gpt-4o`."""
    params = raw.get("litellm_params")
    if isinstance(params, dict) and isinstance(model := params.get("model"), str) and _OPENAIS.match(model):
        return {**raw, "litellm_params": {**cast("JsonObject", params), "model": f"openai/{model}"}}
    return raw


def secret_name(secret: str) -> str:
    """The same name for the same secret, from which nobody learns it."""
    return f"key-{hashlib.sha256(b'sluice credential ' + secret.encode()).hexdigest()[:16]}"
