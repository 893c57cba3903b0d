"""The shape of a sluice.yaml: LiteLLM's (docs.litellm.ai, "Proxy config.yaml"), and what is ours besides. Pure.

Sections that are ours refuse what they don't know. LiteLLM's take anything: what of it has no meaning here is listed.
"""

from collections.abc import Hashable, Iterable, Iterator
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from schemas.base import JsonObject
from schemas.control import Capability, Label, Membership, Name
from schemas.gates import Gate
from schemas.policy import Policy
from schemas.topics import Lane

SPELLING = "check the spelling"

_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


class Prices(BaseModel):
    """USD per token. LiteLLM takes them in either place."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    input_cost_per_token: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost: Decimal | None = Field(default=None, ge=0)
    cache_creation_input_token_cost: Decimal | None = Field(default=None, ge=0)
    cache_creation_input_token_cost_above_1hr: Decimal | None = Field(default=None, ge=0)
    output_cost_per_reasoning_token: Decimal | None = Field(default=None, ge=0)
    input_cost_per_audio_token: Decimal | None = Field(default=None, ge=0)
    output_cost_per_audio_token: Decimal | None = Field(default=None, ge=0)
    input_cost_per_image_token: Decimal | None = Field(default=None, ge=0)
    output_cost_per_image_token: Decimal | None = Field(default=None, ge=0)
    input_cost_per_request: Decimal | None = Field(default=None, ge=0)
    input_cost_per_second: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_batches: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_batches: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_flex: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_flex: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost_flex: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_priority: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_priority: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost_priority: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_above_128k_tokens: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_above_128k_tokens: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_above_200k_tokens: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_above_200k_tokens: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost_above_200k_tokens: Decimal | None = Field(default=None, ge=0)
    cache_creation_input_token_cost_above_200k_tokens: Decimal | None = Field(default=None, ge=0)
    input_cost_per_token_above_272k_tokens: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token_above_272k_tokens: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost_above_272k_tokens: Decimal | None = Field(default=None, ge=0)


class Params(Prices):
    """Where the calls go. `model` is provider/name; times in seconds; a region by three names. The credentials (SECRETS) are
    references, or what they refer to. Ours: `on_disconnect`, `silence_timeout`."""

    model: Annotated[str, Field(pattern=r"^[^/]+/.+$")]
    api_base: str | None = None
    api_key: str | None = None
    api_version: str | None = Field(default=None, max_length=64)
    weight: float = Field(default=1, gt=0, allow_inf_nan=False)
    order: int = 0
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    stream_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    silence_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_parallel_requests: int | None = Field(default=None, ge=1)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    region_name: str | None = Field(default=None, max_length=64)
    aws_region_name: str | None = Field(default=None, max_length=64)
    vertex_location: str | None = Field(default=None, max_length=64)
    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None
    aws_session_token: str | None = None
    aws_profile_name: str | None = None
    aws_role_name: str | None = None
    aws_bedrock_runtime_endpoint: str | None = None
    vertex_project: str | None = None
    vertex_credentials: str | JsonObject | None = None
    on_disconnect: Literal["abort", "drain"] | None = None


SECRETS = frozenset({"api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "vertex_credentials"})
"""Members of `litellm_params` that are credentials, or refer to them."""


class Info(Prices):
    """What is known of a deployment. `max_tokens` is the older name of `max_output_tokens`, `deprecation_date` LiteLLM's of
    `shutdown_date`. Ours: that, `hipaa`, `capabilities`, `reserved`, `lanes`, `health_check`."""

    id: str | None = Field(default=None, min_length=1, max_length=256)
    mode: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_input_tokens: int | None = Field(default=None, ge=1)
    hipaa: bool = False
    capabilities: tuple[Capability, ...] | None = None
    supports_audio_input: bool | None = None
    supports_function_calling: bool | None = None
    supports_native_streaming: bool | None = None
    supports_reasoning: bool | None = None
    supports_response_schema: bool | None = None
    supports_vision: bool | None = None
    reserved: bool = False
    lanes: tuple[Lane, ...] | None = None
    health_check: bool = False
    shutdown_date: date | None = None
    deprecation_date: date | None = None


class Entry(BaseModel):
    """One deployment of the model `model_name`."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^*]+$")]
    litellm_params: Params
    model_info: Info = Info()


class _Ours(BaseModel):
    """A section of ours: what is misspelt must not look as if it held."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy = Policy()


class EnvironmentEntry(_Ours):
    """dev, staging, prod…"""


class ProjectEntry(_Ours):
    """A project of a team, and its environments by name."""

    environments: dict[Label, EnvironmentEntry] = Field(default_factory=dict[Label, EnvironmentEntry])


class TeamEntry(ProjectEntry):
    """A team, its projects by name, and the environments of keys without a project."""

    projects: dict[Label, ProjectEntry] = Field(default_factory=dict[Label, ProjectEntry])


class UserEntry(_Ours):
    """A person, by the name that the identity provider gives."""

    memberships: tuple[Membership, ...] = ()


class OrganizationEntry(BaseModel):
    """The house."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy | None = None
    time_zone: str | None = None


class File(BaseModel):
    """A whole file. `policy` is short for `organization.policy`. Sections whose members are checked elsewhere are JsonObject."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_list: list[JsonObject] | None = None
    gates: dict[str, list[Gate]] = Field(default_factory=dict[str, list[Gate]])
    models: dict[str, JsonObject] = Field(default_factory=dict[str, JsonObject])
    policy: Policy | None = None
    organization: OrganizationEntry | None = None
    teams: dict[Name, TeamEntry] = Field(default_factory=dict[Name, TeamEntry])
    users: dict[str, UserEntry] = Field(default_factory=dict[str, UserEntry])
    identity_providers: dict[Name, JsonObject] = Field(default_factory=dict[Name, JsonObject])
    alerts: JsonObject | None = None
    prices: dict[str, JsonObject] | None = None
    router_settings: JsonObject | None = None
    litellm_settings: JsonObject | None = None
    general_settings: JsonObject | None = None
    environment_variables: JsonObject | None = None


def load(text: str) -> JsonObject:
    """The mapping in a YAML text. Raises yaml.YAMLError, or ValidationError if it holds none."""
    return _OBJECT.validate_python(yaml.load(text, _Loader) or {})


HINTS = {
    "model": "write the provider first, such as openai/gpt-4o-mini",
    "model_name": "wildcards are not supported: name each model",
}


def explain(name: str, location: tuple[int | str, ...], message: str, prefix: str = "") -> str:
    """`sluice.yaml: model_list[2].litellm_params.weight: Input should be greater than 0`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    path = path.removeprefix(".")
    hint = HINTS.get(str(location[-1])) if location and "pattern" in message else None
    if message == "Extra inputs are not permitted":
        hint = f"no such member; {SPELLING}"
    where = f"{name}: {path}" if name else f"{prefix}{path}"
    if not path and prefix:
        return f"{prefix.removesuffix('.')}: {message.removeprefix('Value error, ')}"
    return f"{where}: {hint or message}" if path else f"{where}must hold members such as model_list: {message}"


def unknown(path: str, raw: JsonValue, known: JsonValue) -> Iterator[tuple[str, str]]:
    """Members that were written and are not `known`, which is the same thing as it was read: the path, and the likely name."""
    if isinstance(raw, list) and isinstance(known, list):
        for number, (value, read) in enumerate(zip(raw, known, strict=False)):
            yield from unknown(f"{path}[{number}]", value, read)
    if not isinstance(raw, dict) or not isinstance(known, dict):
        return
    for member, value in raw.items():
        if member in known:
            yield from unknown(f"{path}.{member}", value, known[member])
        else:
            yield f"{path}.{member}", likely(member, known)


def likely(written: str, known: Iterable[str]) -> str:
    """` (did you mean model_list?)`, or nothing."""
    found = get_close_matches(written, list(known), 1, 0.75)
    return f" (did you mean {found[0]}?)" if found else ""


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two members of one name; here that is an error. Dates stay the texts that JSON has for them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[str]()
        for key, _ in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            written = str(cast("object", key.value)) if isinstance(key, yaml.ScalarNode) else ""
            if written and written != "<<" and written in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{written!r} stands twice", key.start_mark)
            seen.add(written)
        return cast("dict[Hashable, object]", super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
