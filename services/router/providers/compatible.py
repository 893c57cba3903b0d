"""How servers that speak OpenAI's API differ from OpenAI's own, and the body that each of them takes. Pure.

Strict ones refuse whole requests for a member they don't know (Mistral 422, Groq 400), so what our chat carries beyond OpenAI's
API goes only to those who are known to take it. A body that has nothing of that kind is passed on as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import JsonValue

from infra import providers
from schemas.base import JsonObject
from schemas.control import Deployment

Cap = Literal["max_completion_tokens", "max_tokens", "either"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`cap`: its name for the most tokens of an answer. `keeps`: members beyond OpenAI's API that it takes, wherever they stand.

    `developer`: it knows that role. `effort`: it knows `reasoning_effort`. `drops`: members of OpenAI's that it refuses, none of
    which changes what is said. `renames`: members that it calls otherwise.
    """

    cap: Cap = "max_tokens"
    developer: bool = False
    effort: bool = True
    keeps: frozenset[str] = frozenset()
    drops: frozenset[str] = frozenset()
    renames: Mapping[str, str] = field(default_factory=dict[str, str])


OPENAIS: Final = Dialect(cap="max_completion_tokens", developer=True)
AZURE_BEFORE_REASONING: Final = Dialect(effort=False, drops=frozenset({"stream_options"}))
"""Azure's dated API before 2024-09-01: no reasoning models, and what came with them is refused."""

_TOP_K = frozenset({"top_k"})
_REASONED = frozenset({"reasoning_content"})
_ANY = Dialect(keeps=_TOP_K)
_ELSEWHERE = Dialect(cap="either", keeps=_TOP_K)
_MISTRAL = Dialect(
    effort=False,
    drops=frozenset({"service_tier", "store", "stream_options", "user", "prompt_cache_key", "safety_identifier"}),
    renames={"seed": "random_seed"},
)

_DIALECTS: Final[Mapping[str, Dialect]] = {
    "cerebras": Dialect(cap="either"),
    "codestral": _MISTRAL,
    "cohere": Dialect(),
    "cohere_chat": Dialect(),
    # Both want the reasoning of earlier turns back, and have a switch `thinking` themselves.
    "deepseek": Dialect(effort=False, keeps=_REASONED | {"thinking"}),
    "moonshot": Dialect(effort=False, keeps=_REASONED | {"thinking"}),
    "zai": Dialect(effort=False, keeps=_REASONED | {"thinking"}),
    "github": Dialect(cap="either"),
    "groq": Dialect(cap="either"),
    "hosted_vllm": Dialect(keeps=_TOP_K | _REASONED),
    "meta_llama": Dialect(cap="either", keeps=_TOP_K),
    "mistral": _MISTRAL,
    "openrouter": Dialect(cap="either", keeps=_TOP_K | {"cache_control"}),
    "perplexity": Dialect(keeps=_TOP_K),
    "vllm": Dialect(keeps=_TOP_K | _REASONED),
    "xai": Dialect(cap="either"),
}

_BODY = frozenset(
    {"thinking", "top_k", "cache_control", "max_tokens", "max_completion_tokens", *_MISTRAL.drops, *_MISTRAL.renames}
)
"""Members of a body that anybody is particular about."""

_DEEPER = frozenset({"cache_control", "extra_content", "is_error", "reasoning_content", "thinking_blocks"})
_EXTENSIONS = _DEEPER | {"thinking", "top_k"}
_LOW, _MEDIUM = 2048, 16_384


def dialect_of(deployment: Deployment) -> Dialect:
    """What the server of a deployment takes. `openai` at somebody else's address may be anybody."""
    if deployment.provider == "openai":
        base = deployment.api_base
        return OPENAIS if base is None or _is_openais(base) else _ELSEWHERE
    return _DIALECTS.get(deployment.provider, _ANY)


def _is_openais(base: str) -> bool:
    """Also with data residency, such as eu.api.openai.com."""
    return base.split("/", 3)[2:3] == ["api.openai.com"] or ".api.openai.com/" in f"{base}/"


def spoken(body: JsonObject, dialect: Dialect, deployment: Deployment) -> JsonObject:
    """A chat's body as a server takes it; messages that have nothing to change stay the same objects."""
    if not _BODY.isdisjoint(body):
        body = _renamed(body, dialect, deployment)
    leaves_out = _DEEPER - dialect.keeps
    messages = body.get("messages")
    if isinstance(messages, list) and any(_is_foreign(message, leaves_out, dialect.developer) for message in messages):
        body = {**body, "messages": [_without(message, leaves_out, dialect.developer) for message in messages]}
    tools = body.get("tools")
    if isinstance(tools, list) and any(_has(tool, leaves_out) for tool in tools):
        body = {**body, "tools": [_less(tool, leaves_out) for tool in tools]}
    return body


def effort_of(thinking: JsonValue) -> str | None:
    """OpenAI's `reasoning_effort` for Anthropic's `thinking`; None where that says nothing of how much."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) and thinking.get("type") == "enabled" else None
    if not isinstance(budget, int) or isinstance(budget, bool):
        return None
    return "low" if budget < _LOW else "medium" if budget < _MEDIUM else "high"


def _renamed(body: JsonObject, dialect: Dialect, deployment: Deployment) -> JsonObject:
    gone = dialect.drops | (_EXTENSIONS - dialect.keeps)
    then: JsonObject = {dialect.renames.get(name, name): value for name, value in body.items() if name not in gone}
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and "thinking" in then:
        then["thinking"] = {"type": "disabled" if thinking.get("type") == "disabled" else "enabled"}
    elif dialect.effort and "reasoning_effort" not in body and _may_reason(deployment) and (effort := effort_of(thinking)):
        then["reasoning_effort"] = effort
    if dialect.cap != "either":
        other = "max_tokens" if dialect.cap == "max_completion_tokens" else "max_completion_tokens"
        if (most := then.pop(other, None)) is not None:
            then.setdefault(dialect.cap, most)
    return then


def _may_reason(deployment: Deployment) -> bool:
    return deployment.capabilities is None or "reasoning" in deployment.capabilities


def _is_foreign(message: JsonValue, leaves_out: frozenset[str], knows_developer: bool) -> bool:
    if not isinstance(message, dict):
        return False
    if not leaves_out.isdisjoint(message) or (message.get("role") == "developer" and not knows_developer):
        return True
    content, calls = message.get("content"), message.get("tool_calls")
    return (isinstance(content, list) and any(_has(part, leaves_out) for part in content)) or (
        isinstance(calls, list) and any(_has(call, leaves_out) for call in calls)
    )


def _without(message: JsonValue, leaves_out: frozenset[str], knows_developer: bool) -> JsonValue:
    if not isinstance(message, dict):
        return message
    then = {name: value for name, value in message.items() if name not in leaves_out}
    if then.get("role") == "developer" and not knows_developer:
        then["role"] = "system"
    for name in ("content", "tool_calls"):
        if isinstance(items := then.get(name), list):
            then[name] = [_less(item, leaves_out) for item in items]
    return then


def _has(item: JsonValue, names: frozenset[str]) -> bool:
    """True for a content part, a tool or a call that has a member of these names, also within its function."""
    if not isinstance(item, dict):
        return False
    function = item.get("function")
    return not names.isdisjoint(item) or (isinstance(function, dict) and not names.isdisjoint(function))


def _less(item: JsonValue, names: frozenset[str]) -> JsonValue:
    if not isinstance(item, dict):
        return item
    return {name: _less(value, names) if name == "function" else value for name, value in item.items() if name not in names}


def base_of(deployment: Deployment) -> str | None:
    """Where a deployment is called, without a slash at its end; None if nobody says."""
    base = deployment.api_base
    if base is None:
        return providers.address(deployment.provider)
    base = base.rstrip("/")
    # LiteLLM's files name Ollama's own API, beside which OpenAI's lies.
    return f"{base}/v1" if deployment.provider in _OLLAMA and not base.endswith("/v1") else base


_OLLAMA = frozenset({"ollama", "ollama_chat"})
