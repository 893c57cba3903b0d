"""The shape of sluice.yaml: LiteLLM's (docs.litellm.ai, "Proxy config.yaml"), and `policy`, `teams` and `gates` besides. Pure."""

from collections.abc import Hashable
from decimal import Decimal
from typing import Annotated, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from schemas.base import JsonObject
from schemas.control import Name
from schemas.gates import Gate
from schemas.policy import Policy

NOT_OURS = frozenset({"router_settings", "litellm_settings", "general_settings", "environment_variables", "mcp_servers"})
"""Members of LiteLLM's files that mean nothing here."""

_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


class Prices(BaseModel):
    """USD per token. LiteLLM takes them in either place."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    input_cost_per_token: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost: Decimal | None = Field(default=None, ge=0)


class Params(Prices):
    """Where the calls go. `model` is provider/name; `timeout` in seconds. `on_disconnect` is ours."""

    model: Annotated[str, Field(pattern=r"^[^/]+/.+$")]
    api_base: str | None = None
    api_key: str | None = None
    weight: float = Field(default=1, gt=0, allow_inf_nan=False)
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_parallel_requests: int | None = Field(default=None, ge=1)
    rpm: int | None = Field(default=None, ge=1)
    on_disconnect: Literal["abort", "drain"] = "abort"


class Info(Prices):
    """What is known of a deployment."""

    id: str | None = Field(default=None, min_length=1, max_length=256)
    mode: str | None = None


class Entry(BaseModel):
    """One deployment of the model `model_name`."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^*]+$")]
    litellm_params: Params
    model_info: Info = Info()


class TeamEntry(BaseModel):
    """A team of ours."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy = Policy()


class File(BaseModel):
    """A whole file."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_list: list[Entry] | None = None
    gates: dict[str, list[Gate]] = Field(default_factory=dict[str, list[Gate]])
    policy: Policy | None = None
    teams: dict[Name, TeamEntry] = Field(default_factory=dict[Name, TeamEntry])


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
    where = f"{name}: {path}" if name else f"{prefix}{path}"
    return f"{where}: {hint or message}" if path else f"{where}must hold members such as model_list: {message}"


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two members of one name; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[str]()
        for key, _ in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            written = str(cast("object", key.value)) if isinstance(key, yaml.ScalarNode) else ""
            if written and written != "<<" and written in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{written!r} stands twice", key.start_mark)
            seen.add(written)
        return cast("dict[Hashable, object]", super().construct_mapping(node, deep))
