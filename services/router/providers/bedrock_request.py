"""From a chat body to Converse's. Pure.

Left out, because Bedrock refuses them: blank texts, samplers beside thinking, and what the model doesn't know.
"""

from dataclasses import dataclass

from pydantic_core import to_json

from schemas.base import JsonObject
from services.router.providers.anthropic_schema import narrowed
from services.router.providers.bedrock_messages import marked, system_blocks, turns_of
from services.router.providers.bedrock_models import Traits, traits_of
from services.router.providers.chat import Chat, ChatTool, read_chat, refusal
from services.router.providers.claude import BUDGETS, LEAST_BUDGET, calls_without_thoughts

ANSWER_TOOL = "json_answer"
"""The tool whose input is the answer, where a model has no other way to keep to a schema."""

_LOW_TO_HIGH = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_TIERS = frozenset({"default", "flex", "priority", "reserved"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of Converse. `answers_by_tool`: the answer comes as the input of ANSWER_TOOL."""

    body: JsonObject
    answers_by_tool: bool


def converse_request(body: JsonObject, model: str) -> Asked:
    """The request that asks the same of the model. Raises ProviderFailure for what Bedrock can't be asked."""
    chat, traits = read_chat(body), traits_of(model)
    system, turns = system_blocks(chat, traits), turns_of(chat, traits)
    if not turns:
        raise refusal("There is nothing to answer: send at least one message of a user that isn't blank.", "messages")
    schema = chat.wanted_schema
    by_tool = schema is not None and not traits.text_format
    thinking = _thinking(chat, traits, forced=by_tool or chat.forced_tool is not None or chat.tool_choice == "required")
    asked: JsonObject = {
        "messages": [*turns],
        "system": [*system],
        "inferenceConfig": _inference(chat, traits, thinking),
        "toolConfig": _tools(chat, traits, schema if by_tool else None),
        "additionalModelRequestFields": _more(chat, traits, thinking),
        "outputConfig": _output(chat, traits, None if by_tool else schema),
        "serviceTier": {"type": chat.service_tier} if chat.service_tier in _TIERS else None,
    }
    return Asked({name: value for name, value in asked.items() if value}, by_tool)


# Tools


def _tools(chat: Chat, traits: Traits, schema: JsonObject | None) -> JsonObject | None:
    """Bedrock knows no `none`: the tools are left out, unless something is said of calls, which it takes with tools only."""
    called = {call.function.name for message in chat.messages for call in message.tool_calls}
    offered = chat.tools if chat.tool_choice != "none" or called else ()
    tools = [block for tool in offered for block in _tool(tool, traits)]
    tools += [] if tools else [_spec(name, None, None) for name in sorted(called)]
    if schema is not None:
        tools.append(_spec(ANSWER_TOOL, "Call this to give the answer, which is its input.", schema))
    if not tools:
        return None
    choice = _choice(chat) if schema is None else _answering(chat)
    return {"tools": [*tools], **({"toolChoice": choice} if choice else {})}


def _tool(tool: ChatTool, traits: Traits) -> list[JsonObject]:
    function = tool.function
    strict = traits.text_format and function.strict is True
    parameters = function.parameters
    if strict and parameters and traits.claude:
        parameters = narrowed(parameters)
    spec = _spec(function.name, function.description, parameters, strict=strict)
    mark = tool.cache_control or function.cache_control
    return [spec] if traits.caches == "messages" else marked(mark, [spec], traits)


def _spec(name: str, description: str | None, parameters: JsonObject | None, *, strict: bool = False) -> JsonObject:
    spec: JsonObject = {"name": name, "inputSchema": {"json": {"type": "object", **(parameters or {"properties": {}})}}}
    if description:
        spec["description"] = description
    if strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _choice(chat: Chat) -> JsonObject | None:
    """None where the model may choose, which it does unasked."""
    if (name := chat.forced_tool) is not None:
        return {"tool": {"name": name}}
    return {"any": {}} if chat.tool_choice == "required" else None


def _answering(chat: Chat) -> JsonObject | None:
    """How the answer is had from ANSWER_TOOL: other tools may have to be called first, and who thinks can't be forced."""
    if chat.thinking and chat.thinking.get("type") != "disabled":
        return None
    return {"any": {}} if chat.tools and chat.tool_choice != "none" else {"tool": {"name": ANSWER_TOOL}}


# Everything else


def _inference(chat: Chat, traits: Traits, thinking: JsonObject | None) -> JsonObject:
    config: JsonObject = {}
    if chat.most_tokens is not None:
        config["maxTokens"] = chat.most_tokens
    if stops := [stop for stop in chat.stop if stop]:
        config["stopSequences"] = [*stops]
    if not traits.samplers or _thinks(thinking):
        return config
    if chat.temperature is not None:
        # OpenAI's goes up to 2.
        config["temperature"] = min(chat.temperature, 1.0)
    if chat.top_p is not None and not (traits.family == "anthropic" and chat.temperature is not None):
        config["topP"] = chat.top_p
    return config


def _thinking(chat: Chat, traits: Traits, *, forced: bool) -> JsonObject | None:
    """A Claude's `thinking`: the caller's own, or what an effort means, which gives way to a tool that must be called."""
    if chat.thinking is not None:
        return chat.thinking if traits.claude else None
    effort = chat.reasoning_effort
    if forced or effort not in BUDGETS:
        return None
    if traits.effort == "adaptive":
        return {"type": "adaptive", "display": "summarized"}
    most = chat.most_tokens
    budget = BUDGETS[effort] if most is None else min(BUDGETS[effort], most // 2)
    if traits.effort != "budget" or budget < LEAST_BUDGET or calls_without_thoughts(chat):
        return None
    return {"type": "enabled", "budget_tokens": budget}


def _thinks(thinking: JsonObject | None) -> bool:
    return thinking is not None and thinking.get("type") != "disabled"


def _more(chat: Chat, traits: Traits, thinking: JsonObject | None) -> JsonObject:
    """What Converse has no name for, in the model's own words."""
    fields: JsonObject = {"thinking": thinking} if thinking is not None else {}
    level = _LOW_TO_HIGH.get(chat.reasoning_effort or "")
    if level and traits.effort == "reasoning_effort":
        fields["reasoning_effort"] = level
    if level and traits.effort == "reasoningConfig":
        fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
    if chat.top_k is not None and traits.samplers and not _thinks(thinking):
        fields |= {"inferenceConfig": {"topK": chat.top_k}} if traits.family == "amazon" else {"top_k": chat.top_k}
    return fields


def _output(chat: Chat, traits: Traits, schema: JsonObject | None) -> JsonObject:
    """Bedrock's effort, and its structured outputs."""
    output: JsonObject = {}
    effort = chat.reasoning_effort
    if traits.effort == "adaptive" and effort in BUDGETS:
        output["effort"] = "low" if effort == "minimal" else effort
    if schema is not None:
        wanted = to_json(narrowed(schema) if traits.claude else schema).decode()
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": {"name": "answer", "schema": wanted}}}
    return output
