"""From the body of a chat completion to that of generateContent. Pure.

Google refuses members that it doesn't know, so only what is named here goes out. What would change the answer and can't be told
is refused with its name; the rest (`user`, `store`, `metadata`, `verbosity`, `service_tier`…) is left out.
"""

import math
import re

from pydantic import JsonValue

from schemas.base import JsonObject
from services.router.providers.chat import refusal
from services.router.providers.google.contents import conversation
from services.router.providers.google.parts import Dialect

_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_SAYS_NOTHING: JsonObject = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "top_logprobs": 0}
"""What is so anyway. Not all models take these members."""

_NOT_HERE = {
    "functions": "use `tools`.",
    "function_call": "use `tool_choice`.",
    "logit_bias": "leave it out.",
    "audio": "ask for text.",
    "web_search_options": "leave it out.",
}

_THINKS = 2.5
_HAS_LEVELS = 3.0
_MOST_BUDGET = 24_576
"""What every model that thinks takes (2.5 Flash takes no more)."""

_BUDGETS = {"low": 1024, "minimal": 1024, "medium": 8192, "high": _MOST_BUDGET, "xhigh": _MOST_BUDGET, "max": _MOST_BUDGET}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
"""Both as in Google's own API for OpenAI's SDKs."""


def generation(model: str) -> float:
    """2.5 of gemini-2.5-pro; names without a number mean the newest one; 0 for what is no Gemini by its name."""
    found = re.search(r"gemini-(\d+(?:\.\d+)?)", model)
    return float(found[1]) if found else math.inf if "gemini" in model else 0


def generate_request(body: JsonObject, model: str, fetches: tuple[str, ...] = ()) -> JsonObject:
    """The body that asks the same of `model`. Raises ProviderFailure, which names the member that can't be told."""
    for name, instead in _NOT_HERE.items():
        if body.get(name):
            raise refusal(f"Gemini has no `{name}`: {instead}", name)
    if body.get("modalities") not in (None, ["text"]):
        raise refusal("This provider answers with text only.", "modalities")
    system, contents = conversation(body.get("messages"), Dialect(generation(model), fetches))
    request: JsonObject = {"contents": [*contents], **_tools(body)}
    if system:
        request["systemInstruction"] = {"parts": [*system]}
    if config := _config(body, model):
        request["generationConfig"] = config
    return request


def _config(body: JsonObject, model: str) -> JsonObject:
    config: JsonObject = {
        theirs: body[ours]
        for ours, theirs in _SAME.items()
        if body.get(ours) is not None and body[ours] != _SAYS_NOTHING.get(ours)
    }
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is not None:
        config["maxOutputTokens"] = most
    if stop := body.get("stop"):
        config["stopSequences"] = stop if isinstance(stop, list) else [stop]
    config |= _form(body.get("response_format"))
    if thinking := _thinking(body, model):
        config["thinkingConfig"] = thinking
    return config


def _form(form: JsonValue) -> JsonObject:
    match form:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"responseMimeType": "application/json"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"responseMimeType": "application/json", "responseJsonSchema": schema}
        case _:
            raise refusal("It must be text, json_object, or a json_schema with its `schema`.", "response_format")


def _thinking(body: JsonObject, model: str) -> JsonObject:
    """By the budget if one is given, else by the effort; None for a model that can't think, or isn't told how."""
    number = generation(model)
    effort = body.get("reasoning_effort")
    if number < _THINKS:
        return {}
    match body.get("thinking"):
        case {"type": "enabled", "budget_tokens": int(budget)}:
            if number < _HAS_LEVELS:
                return {"thinkingBudget": min(budget, _MOST_BUDGET), "includeThoughts": True}
            effort = next((name for name, most in _BUDGETS.items() if budget <= most), "max")
        case {"type": "disabled"}:
            effort = "none"
        case {"type": _} if effort is None:
            return {"includeThoughts": True}
        case _:
            pass
    if effort is None:
        return {}
    if effort == "none":
        return _least(number, model)
    if not isinstance(effort, str) or effort not in _LEVELS:
        raise refusal(f"It must be one of none, {', '.join(_LEVELS)}.", "reasoning_effort")
    if number < _HAS_LEVELS:
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    return {"thinkingLevel": "LOW" if effort == "minimal" and "pro" in model else _LEVELS[effort], "includeThoughts": True}


def _least(number: float, model: str) -> JsonObject:
    """As little thinking as the model can do with: the Pro ones can't do without."""
    if number < _HAS_LEVELS:
        return {"thinkingBudget": 128 if "pro" in model else 0}
    return {"thinkingLevel": "LOW" if "pro" in model else "MINIMAL"}


def _tools(body: JsonObject) -> JsonObject:
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools:
        return {}
    declared = [_declaration(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    request: JsonObject = {"tools": [{"functionDeclarations": [*declared]}]}
    if calling := _choice(body.get("tool_choice")):
        request["toolConfig"] = {"functionCallingConfig": calling}
    return request


def _declaration(tool: JsonValue, where: str) -> JsonObject:
    match tool:
        case {"type": "function", "function": {"name": str(name), **rest}}:
            declared: JsonObject = {"name": name}
        case _:
            raise refusal("Only functions with a name, which you run yourself, can be tools here.", where)
    if description := rest.get("description"):
        declared["description"] = description
    if parameters := rest.get("parameters"):
        # JSON Schema as it is; `parameters` would take OpenAPI's part of it only.
        declared["parametersJsonSchema"] = parameters
    return declared


def _choice(choice: JsonValue) -> JsonObject:
    match choice:
        case None:
            return {}
        case "auto" | "none":
            return {"mode": choice.upper()}
        case "required":
            return {"mode": "ANY"}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            names: list[JsonValue] = [_name(tool) for tool in tools]
            return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": names}
        case _:
            raise refusal("It must be none, auto, required, or name functions.", "tool_choice")


def _name(tool: JsonValue) -> str:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            raise refusal("Each of the allowed tools must be a function with a name.", "tool_choice")
