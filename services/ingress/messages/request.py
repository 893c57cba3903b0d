"""From a request for a message to one for a chat completion. Pure."""

import hashlib

from pydantic import JsonValue

from schemas.anthropic.requests import MessagesRequest, Prompt, Tool, ToolChoice
from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from services.ingress.messages.conversation import cached, chat_messages

_NOT_HERE = {
    "container": "Containers are Anthropic's own: run code with a tool of yours.",
    "mcp_servers": "MCP servers are not called from here: offer their tools as tools of yours.",
    "inference_geo": "Where a request is served is said by your team's policy: leave `inference_geo` out.",
}
_CHOICES: dict[str, JsonValue] = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}

_LONGEST_USER = 64
"""OpenAI's limit. Claude Code's ids are longer."""


def check(given: JsonObject) -> None:
    """Raises InvalidRequest for what no chat can do, with a sentence that says what can be done instead."""
    for name, why in _NOT_HERE.items():
        if given.get(name):
            raise InvalidRequest(why, param=name)


def prompt_body(asked: Prompt) -> JsonObject:
    """What of a chat completion's body says what the model is given. Raises InvalidRequest."""
    body: JsonObject = {"model": asked.model, "messages": [*chat_messages(asked)]}
    if asked.tools:
        body |= _tools(asked.tools, asked.tool_choice)
    if asked.thinking:
        body["thinking"] = asked.thinking
    return body


def chat_body(asked: MessagesRequest, *, stream: bool) -> JsonObject:
    """The body of the chat completion that answers the request. Raises InvalidRequest."""
    body = prompt_body(asked) | {"max_completion_tokens": asked.max_tokens} | _writing(asked)
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    passed: JsonObject = {"temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k}
    body |= {name: value for name, value in passed.items() if value is not None}
    if asked.stop_sequences:
        body["stop"] = [*asked.stop_sequences]
    if asked.metadata and asked.metadata.user_id:
        body["user"] = _user(asked.metadata.user_id)
    if asked.service_tier:
        body["service_tier"] = _TIERS[asked.service_tier]
    return body


def _tools(tools: list[Tool], choice: ToolChoice | None) -> JsonObject:
    body: JsonObject = {"tools": [_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]}
    if choice is not None:
        body["tool_choice"] = _choice(choice)
        if choice.disable_parallel_tool_use:
            body["parallel_tool_calls"] = False
    return body


def _tool(tool: Tool, where: str) -> JsonObject:
    if tool.type not in (None, "custom"):
        raise InvalidRequest(
            f"Tools of type '{tool.type[:64]}' are Anthropic's own; only tools that you run yourself, with an `input_schema`, "
            "can be used with every provider.",
            param=f"{where}.type",
        )
    if not tool.name or tool.input_schema is None:
        raise InvalidRequest("A tool needs a `name` and an `input_schema`", param=where)
    function: JsonObject = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    told: JsonObject = {"type": "function", "function": function}
    return told | cached(tool)


def _choice(choice: ToolChoice) -> JsonValue:
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if not choice.name:
        raise InvalidRequest("A tool_choice of type `tool` needs a `name`", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _writing(asked: Prompt) -> JsonObject:
    """How the answer is to be thought out and written."""
    body: JsonObject = {}
    config = asked.output_config
    if config and config.effort:
        body["reasoning_effort"] = config.effort
    if form := (config and config.format) or asked.output_format:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": form.form, "strict": _is_strict(form.form)},
        }
    return body


def _is_strict(schema: JsonValue) -> bool:
    """True if each object is closed and requires all of its members: OpenAI refuses to be strict about any other."""
    match schema:
        case {"type": "object", **rest} if rest.get("additionalProperties") is not False:
            return False
        case {"properties": dict(members), **rest}:
            required = rest.get("required")
            if not isinstance(required, list) or not members.keys() <= {name for name in required if isinstance(name, str)}:
                return False
        case _:
            pass
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return all(_is_strict(child) for child in children)


def _user(name: str) -> str:
    return name if len(name) <= _LONGEST_USER else hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
