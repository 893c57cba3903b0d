"""sluice.yaml → resources. Pure: text in, resources out.

The shape is LiteLLM's (docs.litellm.ai, "Proxy config.yaml"): `model_list` with `model_name`, `litellm_params` and
`model_info`; the same `model_name` twice means two deployments. Ours besides: `policy` (of the organization),
`teams: {NAME: {policy: …}}` and `gates: {MODEL: […]}`. What can't be understood is an error, what is not supported is a
warning: nothing is dropped in silence.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import cast

import yaml
from pydantic import BaseModel, Field, JsonValue, ValidationError

from schemas.base import JsonObject
from schemas.control import Deployment, EchoSettings, Model, Name, Price
from schemas.gates import Gate
from schemas.policy import Policy
from services.portal import gates
from services.portal.litellm import NOT_OURS, Entry, File, Info, Params, explain, load

ENVIRONMENT, FILE = "os.environ/", "file/"
OPENAI_KEY = f"{ENVIRONMENT}OPENAI_API_KEY"
OWN_ADDRESS = frozenset({"openai", "echo", "local"})
"""Providers that need no `api_base`. Whoever else is named speaks OpenAI's API at its address."""

Lookup = Callable[[str], str | None]


class ConfigError(Exception):
    """The files can't be used. `problems` each name file, path and what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TeamPolicy(BaseModel):
    """A team's policy in a configuration."""

    name: Name
    policy: Policy = Policy()


class Configuration(BaseModel):
    """PUT and GET /admin/v1/config: everything that is set by policy as code."""

    models: list[Model] = Field(default_factory=list[Model])
    organization_policy: Policy | None = None
    teams: list[TeamPolicy] = Field(default_factory=list[TeamPolicy])


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the files say. `models` and `organization_policy` None: nothing, so they stay as they are.

    `secrets` are the keys that stood literally in a file, by the name under which a deployment refers to them (`file/NAME`).
    """

    models: tuple[Model, ...] | None
    organization_policy: Policy | None
    teams: tuple[TeamPolicy, ...]
    secrets: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...]

    def over(self, standing: Configuration) -> Configuration:
        """The configuration to be asked for, where `standing` is the one there is."""
        return Configuration(
            models=standing.models if self.models is None else list(self.models),
            organization_policy=self.organization_policy,
            teams=list(self.teams),
        )


def read(texts: Sequence[tuple[str, str]], environment: Lookup = lambda _: None) -> Parsed:
    """Reads files (name, text) as one configuration. Raises ConfigError with everything that is wrong.

    `environment` gives what a reference `os.environ/NAME` stands for; it's asked only for what is no secret (`api_base`).
    """
    reading = _Reading(environment)
    for name, text in texts:
        reading.add(name, text)
    return reading.result()


class _Reading:
    """What has been read so far."""

    def __init__(self, environment: Lookup) -> None:
        self._environment = environment
        self._models: dict[str, list[Deployment]] | None = None
        self._given_ids: set[str] = set()
        self._unnamed: list[tuple[str, int]] = []
        self._policy: Policy | None = None
        self._teams: dict[str, Policy] = {}
        self._gates: dict[str, tuple[str, tuple[Gate, ...]]] = {}
        self._secrets: dict[str, str] = {}
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def add(self, name: str, text: str) -> None:
        """Takes one more file in."""
        try:
            raw = load(text)
            document = File.model_validate(raw)
        except yaml.YAMLError as error:
            self._problems.append(f"{name}: not YAML: {_flat(str(error))}")
        except ValidationError as error:
            self._problems += [explain(name, e["loc"], e["msg"]) for e in error.errors(include_url=False, include_input=False)]
        else:
            self._check_members(name, raw, document)
            self._add_policies(name, document)
            self._add_gates(name, raw, document)
            for number, entry in enumerate(document.model_list or []):
                self._add_deployment(f"{name}: model_list[{number}]", entry)
            if document.model_list is not None and self._models is None:
                self._models = {}

    def result(self) -> Parsed:
        """Raises ConfigError."""
        for model, (path, _) in self._gates.items():
            if model not in (self._models or {}):
                self._problems.append(f"{path}: no model of this name stands in model_list")
        if self._problems:
            raise ConfigError(self._problems)
        self._name_the_unnamed()
        models = None if self._models is None else tuple(self._model(*item) for item in self._models.items())
        teams = tuple(TeamPolicy(name=name, policy=policy) for name, policy in self._teams.items())
        return Parsed(models, self._policy, teams, self._secrets, tuple(self._warnings))

    def _check_members(self, name: str, raw: JsonObject, document: File) -> None:
        for member in document.model_extra or {}:
            what = "a setting of LiteLLM's that Sluice doesn't have" if member in NOT_OURS else "not known"
            self._warnings.append(f"{name}: {member}: {what}; it has no effect")
        if document.policy is not None:
            self._refuse_unknown(f"{name}: policy", raw["policy"], document.policy)
        for team, given in document.teams.items():
            written = cast("JsonObject", cast("JsonObject", raw["teams"])[team])
            self._refuse_unknown(f"{name}: teams.{team}.policy", written.get("policy"), given.policy)

    def _refuse_unknown(self, path: str, raw: JsonValue, policy: Policy) -> None:
        """A rule that is misspelt must not look as if it held."""
        known = policy.model_dump(mode="json", by_alias=True)
        self._problems += [f"{unknown}: no such member of a policy; check the spelling" for unknown in _unknown(path, raw, known)]

    def _add_policies(self, name: str, document: File) -> None:
        if document.policy is not None:
            if self._policy is not None:
                self._problems.append(f"{name}: policy: another file has one already; leave one of them out")
            self._policy = document.policy
        for team, given in document.teams.items():
            if team in self._teams:
                self._problems.append(f"{name}: teams.{team}: another file has it already; leave one of them out")
            self._teams[team] = given.policy

    def _add_gates(self, name: str, raw: JsonObject, document: File) -> None:
        for model, given in document.gates.items():
            path = f"{name}: gates.{model}"
            if model in self._gates:
                self._problems.append(f"{path}: another file has them already; leave one of them out")
            written = cast("dict[str, list[object]]", raw["gates"])[model]
            self._problems += gates.problems(path, written, given)
            self._gates[model] = path, tuple(given)

    def _add_deployment(self, path: str, entry: Entry) -> None:
        params, info = entry.litellm_params, entry.model_info
        provider, _, model = params.model.partition("/")
        deployments = (self._models if self._models is not None else {}).get(entry.model_name, [])
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
            on_disconnect=params.on_disconnect,
        )
        self._warn_of_extras(path, entry, provider)
        self._models = self._models or {}
        self._models.setdefault(entry.model_name, []).append(deployment)

    def _id(self, path: str, given: str | None, model: str, place: int) -> str:
        if given is None:
            self._unnamed.append((model, place))
            return ""
        if given in self._given_ids:
            self._problems.append(f"{path}.model_info.id: {given!r} is another deployment's already; each needs its own")
        self._given_ids.add(given)
        return given

    def _name_the_unnamed(self) -> None:
        """`<provider>/<model>`, with a number behind it from the second of them on, in the order of the files."""
        taken = set(self._given_ids)
        for model, place in self._unnamed:
            deployments = (self._models or {})[model]
            deployment = deployments[place]
            base, number = f"{deployment.provider}/{deployment.model}", 1
            name = base
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            taken.add(name)
            deployments[place] = deployment.model_copy(update={"id": name})

    def _address(self, path: str, provider: str, written: str | None) -> str | None:
        address = written
        if written is None and provider not in OWN_ADDRESS:
            self._problems.append(f"{path}.litellm_params.api_base: give the address at which {provider} speaks OpenAI's API")
        if written is not None and written.startswith(ENVIRONMENT):
            address = self._environment(written)
            if not address:
                self._problems.append(f"{path}.litellm_params.api_base: {written.removeprefix(ENVIRONMENT)} is not set; set it")
                return None
        if address is not None and not address.startswith(("http://", "https://")):
            self._problems.append(f"{path}.litellm_params.api_base: must begin with http:// or https://")
        return address

    def _reference(self, provider: str, params: Params) -> str | None:
        api_key = params.api_key
        if api_key is None and provider == "openai" and params.api_base is None:
            return OPENAI_KEY  # as LiteLLM does; but OpenAI's key is nobody else's business
        if not api_key or api_key.startswith((ENVIRONMENT, FILE)):
            return api_key or None
        name = secret_name(api_key)
        self._secrets[name] = api_key
        return f"{FILE}{name}"

    def _price(self, path: str, params: Params, info: Info) -> Price | None:
        written = [p for p in (info, params) if p.input_cost_per_token is not None or p.output_cost_per_token is not None]
        if not written:
            return None
        prices = written[0]
        output = Decimal(0) if info.mode == "embedding" and prices.output_cost_per_token is None else prices.output_cost_per_token
        if prices.input_cost_per_token is None or output is None:
            where = "model_info" if prices is info else "litellm_params"
            self._problems.append(
                f"{path}.{where}: give both input_cost_per_token and output_cost_per_token (0 where nothing is charged)"
            )
            return None
        return Price(input_usd=prices.input_cost_per_token, output_usd=output, cache_read_usd=prices.cache_read_input_token_cost)

    def _echo(self, path: str, params: Params) -> EchoSettings:
        try:
            return EchoSettings.model_validate(params.model_extra or {})
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self._problems += [explain("", e["loc"], e["msg"], f"{path}.litellm_params.") for e in errors]
            return EchoSettings()

    def _model(self, name: str, deployments: Sequence[Deployment]) -> Model:
        _, held_by = self._gates.get(name, ("", ()))
        return Model(name=name, deployments=tuple(deployments), owned_by=deployments[0].provider, gates=held_by)

    def _warn_of_extras(self, path: str, entry: Entry, provider: str) -> None:
        known = EchoSettings.model_fields if provider == "echo" else {}
        for part, members in (
            ("", entry.model_extra),
            ("litellm_params.", entry.litellm_params.model_extra),
            ("model_info.", entry.model_info.model_extra),
        ):
            for member in members or {}:
                if part != "litellm_params." or member not in known:
                    self._warnings.append(f"{path}.{part}{member}: not supported; it has no effect")


def secret_name(secret: str) -> str:
    """The same name for the same secret, from which nobody learns it."""
    return f"key-{hashlib.sha256(b'sluice credential ' + secret.encode()).hexdigest()[:16]}"


def _unknown(path: str, raw: JsonValue, known: JsonValue) -> Iterator[str]:
    if not isinstance(raw, dict) or not isinstance(known, dict):
        return
    for member, value in raw.items():
        if member not in known:
            yield f"{path}.{member}"
        else:
            yield from _unknown(f"{path}.{member}", value, known[member])


def _flat(text: str) -> str:
    return " ".join(text.split())
