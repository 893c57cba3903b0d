"""Entries of model_list → deployments. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, cast, get_args

from pydantic import ValidationError
from pydantic_core import to_json

from infra.providers import COMPATIBLE, NATIVE, needs_address, usual_key
from schemas.base import JsonObject
from schemas.control import AwsSettings, Capability, Deployment, EchoSettings, Price, VertexSettings
from services.portal.config.costs import written_price
from services.portal.config.findings import NO_EFFECT, Findings
from services.portal.config.references import ENVIRONMENT, FILE, is_reference, secret_name, wrong_with
from services.portal.config.shape import Entry, Info, Params, explain, likely

OPENAI_KEY = f"{ENVIRONMENT}OPENAI_API_KEY"

_ALL: Final[tuple[Capability, ...]] = get_args(Capability)
_SUPPORTS: Final[Mapping[str, Capability]] = {
    "supports_audio_input": "audio",
    "supports_function_calling": "tools",
    "supports_native_streaming": "streaming",
    "supports_reasoning": "reasoning",
    "supports_response_schema": "json_schema",
    "supports_vision": "images",
}
"""What LiteLLM's users write of a model, in our words."""

_ONLY_OF: Final[Mapping[str, frozenset[str]]] = {
    "api_version": frozenset({"azure", "litellm"}),
    **dict.fromkeys(
        (
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
            "aws_profile_name",
            "aws_role_name",
            "aws_bedrock_runtime_endpoint",
        ),
        frozenset({"bedrock"}),
    ),
    **dict.fromkeys(("vertex_project", "vertex_credentials"), frozenset({"vertex_ai"})),
}
"""Members of `litellm_params` that mean something to these providers only."""

_PLACES: Final = {"azure": "give the address of the resource, such as https://NAME.openai.azure.com"}

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
            self._add(path, entry, raw)
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

    def _add(self, path: str, entry: Entry, raw: JsonObject) -> None:
        params, info = entry.litellm_params, entry.model_info
        provider, _, model = params.model.partition("/")
        deployments = self.by_model.setdefault(entry.model_name, [])
        deployment = Deployment(
            id=self._id(path, info.id, entry.model_name, len(deployments)),
            provider=provider,
            model=model,
            api_base=self._address(path, provider, params),
            api_key=self._key(path, provider, params),
            weight=params.weight,
            timeout_s=params.timeout,
            price=self._price(path, params, info),
            echo=self._echo(path, params) if provider == "echo" else EchoSettings(),
            max_parallel_requests=params.max_parallel_requests,
            rpm=params.rpm,
            tpm=params.tpm,
            region=self._region(path, provider, params),
            hipaa=info.hipaa,
            max_output_tokens=info.max_output_tokens or info.max_tokens,
            max_input_tokens=info.max_input_tokens,
            capabilities=self._capabilities(path, info),
            reserved=info.reserved,
            order=params.order,
            lanes=info.lanes,
            first_token_timeout_s=params.stream_timeout,
            silence_timeout_s=params.silence_timeout,
            api_version=params.api_version,
            aws=self._aws(path, params) if provider == "bedrock" else AwsSettings(),
            vertex=self._vertex(path, params) if provider == "vertex_ai" else VertexSettings(),
            health_check=info.health_check,
            shutdown_date=info.shutdown_date or info.deprecation_date,
            # Bedrock bills the whole answer, whoever has gone (BerriAI/litellm#34147).
            on_disconnect=params.on_disconnect or ("drain" if provider == "bedrock" else "abort"),
        )
        self._tell_of_extras(path, raw, provider)
        deployments.append(deployment)

    def _id(self, path: str, given: str | None, model: str, place: int) -> str:
        if given is None:
            self._unnamed.append((model, place))
            return ""
        if given in self._given_ids:
            self.found.problems.append(f"{path}.model_info.id: {given!r} is another deployment's already; each needs its own")
        self._given_ids.add(given)
        return given

    def _address(self, path: str, provider: str, params: Params) -> str | None:
        where = f"{path}.litellm_params.api_base"
        address = params.api_base
        if provider == "bedrock" and address is None and params.aws_bedrock_runtime_endpoint:
            address, where = params.aws_bedrock_runtime_endpoint, f"{path}.litellm_params.aws_bedrock_runtime_endpoint"
        if address is None and needs_address(provider):
            what = _PLACES.get(provider, f"give the address at which {provider} speaks OpenAI's API")
            self.found.problems.append(f"{where}: {what}{likely(provider, (*COMPATIBLE, *NATIVE))}")
        if address is not None and not address.startswith(("http://", "https://")):
            self.found.problems.append(f"{where}: must begin with http:// or https://")
        return address

    def _region(self, path: str, provider: str, params: Params) -> str | None:
        region = params.region_name or params.aws_region_name or params.vertex_location
        if region is None and provider == "bedrock":
            self.found.problems.append(
                f"{path}.litellm_params.aws_region_name: say in which region it is called, such as eu-central-1"
            )
        return region

    def _key(self, path: str, provider: str, params: Params) -> str | None:
        if params.api_key is None and params.api_base is None and (variable := usual_key(provider)):
            return f"{ENVIRONMENT}{variable}"  # as LiteLLM does; but a provider's key is nobody else's business
        return self._reference(f"{path}.litellm_params.api_key", params.api_key)

    def _reference(self, path: str, credential: str | None) -> str | None:
        """A reference as it is, and one to what stands there literally."""
        if not credential:
            return None
        if is_reference(credential):
            if wrong := wrong_with(credential):
                self.found.problems.append(f"{path}: {wrong}")
            return credential
        name = secret_name(credential)
        self.secrets[name] = credential
        return f"{FILE}{name}"

    def _aws(self, path: str, params: Params) -> AwsSettings:
        where = f"{path}.litellm_params"
        if (params.aws_access_key_id is None) != (params.aws_secret_access_key is None):
            self.found.problems.append(f"{where}: give both aws_access_key_id and aws_secret_access_key, or neither")
        return AwsSettings(
            access_key_id=self._reference(f"{where}.aws_access_key_id", params.aws_access_key_id),
            secret_access_key=self._reference(f"{where}.aws_secret_access_key", params.aws_secret_access_key),
            session_token=self._reference(f"{where}.aws_session_token", params.aws_session_token),
            profile=params.aws_profile_name,
            role_arn=params.aws_role_name,
        )

    def _vertex(self, path: str, params: Params) -> VertexSettings:
        where, credentials = f"{path}.litellm_params.vertex_credentials", params.vertex_credentials
        if isinstance(credentials, dict):
            credentials = to_json(credentials).decode()
        if credentials and credentials.startswith("/"):
            credentials = f"file:{credentials}"  # LiteLLM's way: the path of the service account's JSON
        if credentials and not is_reference(credentials) and not credentials.lstrip().startswith("{"):
            self.found.problems.append(
                f"{where}: write the whole path of the service account's JSON, or a reference to that (env:NAME, file:NAME, "
                "vault:PATH#FIELD)"
            )
            credentials = None
        return VertexSettings(project=params.vertex_project, credentials=self._reference(where, credentials))

    def _capabilities(self, path: str, info: Info) -> tuple[Capability, ...] | None:
        """What it can. What LiteLLM's users deny it counts; what they say it can tells nothing of the rest."""
        lacks = {ours for theirs, ours in _SUPPORTS.items() if getattr(info, theirs) is False}
        if info.capabilities is None:
            return tuple(one for one in _ALL if one not in lacks) if lacks else None
        if odd := lacks & set(info.capabilities):
            self.found.problems.append(
                f"{path}.model_info.capabilities: {', '.join(sorted(odd))} stands there, and a `supports_…` denies it"
            )
        return info.capabilities

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
        return written_price(prices, prices.input_cost_per_token, output)

    def _echo(self, path: str, params: Params) -> EchoSettings:
        try:
            return EchoSettings.model_validate(params.model_extra or {})
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self.found.problems += [explain("", e["loc"], e["msg"], f"{path}.litellm_params.") for e in errors]
            return EchoSettings()

    def _tell_of_extras(self, path: str, raw: JsonObject, provider: str) -> None:
        for member in raw:
            if member not in Entry.model_fields:
                self.found.warnings.append(f"{path}.{member}: {NO_EFFECT}{likely(member, Entry.model_fields)}")
        for section in ("litellm_params", "model_info"):
            known = known_in(section, provider)
            written = raw.get(section)
            strangers = (
                {member: value for member, value in written.items() if member not in known} if isinstance(written, dict) else {}
            )
            self.found.strangers(f"{path}.{section}", section, strangers, known)


def known_in(section: str, provider: str) -> frozenset[str]:
    """The members of a part of an entry that mean something."""
    if section == "model_info":
        return frozenset(Info.model_fields)
    known = frozenset(name for name in Params.model_fields if provider in _ONLY_OF.get(name, (provider,)))
    return known | frozenset(EchoSettings.model_fields) if provider == "echo" else known


def with_provider(raw: JsonObject) -> JsonObject:
    """An entry whose model has its provider: LiteLLM takes `gpt-4o` for `openai/gpt-4o`."""
    params = raw.get("litellm_params")
    if isinstance(params, dict) and isinstance(model := params.get("model"), str) and _OPENAIS.match(model):
        return {**raw, "litellm_params": {**cast("JsonObject", params), "model": f"openai/{model}"}}
    return raw
