"""From a request for a response to one for a chat completion. Pure."""

from collections.abc import Iterable

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.openai.responses import ResponsesRequest
from services.ingress.responses.items import chat_messages

MAX_CONTEXT_BYTES = 8 * 1024 * 1024
"""Of a conversation that is kept: what is longer has to be sent anew, shortened."""

_PASSED = (
    "temperature",
    "top_p",
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
)
"""Members that mean the same in a chat."""

_NOT_HERE = {
    "conversation": "Conversations are not kept: use `previous_response_id`, or send the items in `input`.",
    "prompt": "Prompt templates are not kept: send `instructions` and `input`.",
    "top_logprobs": "Log probabilities are not told by responses: leave `top_logprobs` out, or use /v1/chat/completions.",
}
_INCLUDABLE = ("reasoning.encrypted_content", "message.input_image.image_url")
"""The first never exists here, and SDKs ask for it unbidden; the second is always told."""

_REPEATED: JsonObject = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "metadata": {},
    "user": None,
}
"""The members of a request that its response repeats, and what they are if they weren't given."""


def check(asked: ResponsesRequest, given: JsonObject, *, background: bool) -> None:
    """Raises InvalidRequest for what no chat can do, with a sentence that says what can be done instead."""
    for name, why in _NOT_HERE.items():
        if given.get(name):
            raise InvalidRequest(why, param=name)
    for index, what in enumerate(asked.include or ()):
        if what not in _INCLUDABLE:
            raise InvalidRequest(f"'{what[:64]}' can't be included here: leave it out.", param=f"include[{index}]")
    if background and asked.store is False:
        raise InvalidRequest("Background mode requires store=true: leave `store` out.", param="store")


def told(asked: ResponsesRequest, given: JsonObject, *, background: bool) -> JsonObject:
    """What each Response object repeats of its request."""
    repeated = {name: given.get(name) if given.get(name) is not None else default for name, default in _REPEATED.items()}
    return {"model": asked.model, **repeated, "background": background, "truncation": "disabled"}


def chat_body(asked: ResponsesRequest, given: JsonObject, items: Iterable[JsonObject], *, stream: bool) -> JsonObject:
    """The body of the chat completion that answers the request. `items`: the whole conversation. Raises InvalidRequest."""
    messages = chat_messages(items)
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    if not messages:
        raise InvalidRequest("The input says nothing: send at least one message", param="input")
    body: JsonObject = {"model": asked.model, "messages": [*messages]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.max_output_tokens is not None:
        body["max_completion_tokens"] = asked.max_output_tokens
    body |= {name: given[name] for name in _PASSED if given.get(name) is not None}
    return body | _tools(asked) | _writing(asked, given)


def _tools(asked: ResponsesRequest) -> JsonObject:
    if not asked.tools:
        return {}
    body: JsonObject = {"tools": [_tool(tool, f"tools[{index}]") for index, tool in enumerate(asked.tools)]}
    if asked.tool_choice is not None:
        body["tool_choice"] = _choice(asked.tool_choice)
    if asked.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = asked.parallel_tool_calls
    return body


def _tool(tool: JsonObject, where: str) -> JsonObject:
    if tool.get("type") != "function":
        raise InvalidRequest(
            f"Tools of type '{str(tool.get('type'))[:64]}' are OpenAI's own; only functions, which you run yourself, can be used "
            "with every provider.",
            param=f"{where}.type",
        )
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(f"Missing required parameter: '{where}.name'.", param=f"{where}.name")
    members = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in members if tool.get(name) is not None}}


def _choice(choice: str | JsonObject) -> JsonValue:
    if isinstance(choice, str):
        return choice
    if choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise InvalidRequest("tool_choice must be none, auto, required, or name a function", param="tool_choice")


def _writing(asked: ResponsesRequest, given: JsonObject) -> JsonObject:
    """How the answer is to be thought out and written."""
    body: JsonObject = {}
    if asked.reasoning and asked.reasoning.effort:
        body["reasoning_effort"] = asked.reasoning.effort
    if asked.text and asked.text.verbosity:
        body["verbosity"] = asked.text.verbosity
    if asked.text and asked.text.format and asked.text.format.type != "text":
        text = given["text"]
        form = text["format"] if isinstance(text, dict) else None
        assert isinstance(form, dict), "it was checked as one"
        body["response_format"] = _form(form)
    return body


def _form(form: JsonObject) -> JsonObject:
    if form["type"] == "json_object":
        return {"type": "json_object"}
    if not isinstance(form.get("name"), str) or not isinstance(form.get("schema"), dict):
        raise InvalidRequest("A json_schema needs a `name` and a `schema`", param="text.format")
    members = ("name", "description", "schema", "strict")
    return {"type": "json_schema", "json_schema": {name: form[name] for name in members if form.get(name) is not None}}
