"""From a chat body to a request of Anthropic's Messages API. Pure.

Left out, because Anthropic refuses them: blank texts, samplers beside thinking, `top_p` beside `temperature`, and samplers and
`strict` where the model knows none.
"""

import hashlib
import re
from collections.abc import Iterator

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.control import Deployment
from services.router.providers.anthropic_schema import narrowed
from services.router.providers.chat import (
    DATA_URL,
    JSON_ONLY,
    Chat,
    ChatMessage,
    ChatTool,
    ContentPart,
    ToolCall,
    answered_call,
    arguments,
    only_text,
    read_chat,
    refusal,
    untakeable,
)
from services.router.providers.claude import (
    BUDGETS,
    LEAST_BUDGET,
    calls_without_thoughts,
    keeps_to_schemas,
    signed,
    takes_samplers,
    thinks_adaptively,
)

_DEFAULT_TOKENS = 4096
_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_PERSONAL = re.compile(r"@|^[+\d][\d\s().-]{6,}$")
_MOST_USER_ID = 256


def messages_request(body: JsonObject, deployment: Deployment, *, stream: bool) -> JsonObject:
    """The request that asks the same of the deployment. Raises ProviderFailure for what Anthropic can't be asked."""
    chat = read_chat(body)
    most_tokens, turns = _most_tokens(chat, deployment), [*_turns(chat)]
    if not turns:
        raise refusal("There is nothing to answer: send at least one message of a user that isn't blank.", "messages")
    asked: JsonObject = {"model": deployment.model, "max_tokens": most_tokens, "messages": [*turns]}
    if stream:
        asked["stream"] = True
    if system := _system(chat):
        asked["system"] = [*system]
    asked |= _tools(chat, deployment.model) | _thinking(chat, most_tokens, deployment.model) | _service(chat)
    if format_ := _format(chat):
        config = asked.get("output_config")
        asked["output_config"] = {**(config if isinstance(config, dict) else {}), "format": format_}
    return asked | _sampling(chat, asked, deployment.model)


def _most_tokens(chat: Chat, deployment: Deployment) -> int:
    """Anthropic must be told. Thinking is a part of it, so who doesn't say gets as much more."""
    budget = (chat.thinking or {}).get("budget_tokens") or BUDGETS.get(chat.reasoning_effort or "", 0)
    return chat.most_tokens or deployment.max_output_tokens or _DEFAULT_TOKENS + (budget if isinstance(budget, int) else 0)


def _system(chat: Chat) -> list[JsonObject]:
    """All that isn't said by user, assistant or tool, wherever it stands."""
    blocks: list[JsonObject] = []
    for index, message in enumerate(chat.messages):
        if message.role in ("system", "developer"):
            blocks += _blocks(message, f"messages[{index}]", texts_only=True)
    if chat.response_format and chat.response_format.type == "json_object":
        blocks.append({"type": "text", "text": JSON_ONLY})
    return blocks


def _turns(chat: Chat) -> Iterator[JsonObject]:
    """The messages; the results of tools that were called together are one turn."""
    results: list[JsonValue] = []
    last = len(chat.messages) - 1
    for index, message in enumerate(chat.messages):
        where = f"messages[{index}]"
        if message.role == "tool":
            results.append(_result(message, where))
            continue
        if results and message.role in ("user", "assistant"):
            yield {"role": "user", "content": results}
            results = []
        if message.role == "user" and (blocks := _blocks(message, where)):
            yield {"role": "user", "content": [*blocks]}
        if message.role == "assistant" and (blocks := _said(message, where, is_last=index == last)):
            yield {"role": "assistant", "content": [*blocks]}
    if results:
        yield {"role": "user", "content": results}


def _said(message: ChatMessage, where: str, *, is_last: bool) -> list[JsonObject]:
    """What the assistant thought, said and called. What it is to go on with must not end in white space."""
    blocks = [*signed(message.thinking_blocks), *_blocks(message, where)]
    if is_last and blocks and isinstance(text := blocks[-1].get("text"), str):
        blocks[-1]["text"] = text.rstrip()
    calls = enumerate(message.tool_calls)
    return blocks + [_call(call, f"{where}.tool_calls[{number}]") for number, call in calls]


def _call(call: ToolCall, where: str) -> JsonObject:
    return {"type": "tool_use", "id": _id(call.id), "name": call.function.name, "input": arguments(call, where)}


def _result(message: ChatMessage, where: str) -> JsonObject:
    result: JsonObject = {"type": "tool_result", "tool_use_id": _id(answered_call(message, where))}
    blocks = _blocks(message, where)
    # Only the whole result can be a breakpoint of the cache.
    marks = [mark for block in blocks if (mark := block.pop("cache_control", None))]
    if blocks:
        result["content"] = [*blocks]
    if mark := message.cache_control or (marks[-1] if marks else None):
        result["cache_control"] = mark
    return result


def _blocks(message: ChatMessage, where: str, *, texts_only: bool = False) -> list[JsonObject]:
    """The content; a mark for the cache on the message goes to its last block."""
    blocks: list[JsonObject] = []
    for index, part in enumerate(message.content):
        place = f"{where}.content[{index}]"
        if texts_only:
            only_text(message, part, place)
        if (block := _block(part, place)) is not None:
            blocks.append({**block, "cache_control": part.cache_control} if part.cache_control else block)
    if blocks and message.cache_control:
        blocks[-1]["cache_control"] = message.cache_control
    return blocks


def _block(part: ContentPart, place: str) -> JsonObject | None:
    """None for a blank text."""
    match part:
        case ContentPart(type="text", text=str(text)) | ContentPart(type="refusal", refusal=str(text)):
            return {"type": "text", "text": text} if text.strip() else None
        case ContentPart(type="image_url", image_url=image) if image is not None:
            return {"type": "image", "source": _image(image.url, f"{place}.image_url.url")}
        case ContentPart(type="file", file=file) if file is not None:
            found = DATA_URL.fullmatch(file.file_data or "")
            if not found or found[1] != "application/pdf":
                raise refusal(f"'{place}': a file must be a PDF, in a data URL with base64.", f"{place}.file.file_data")
            source: JsonObject = {"type": "base64", "media_type": found[1], "data": found[2]}
            return {"type": "document", "source": source, **({"title": file.filename} if file.filename else {})}
        case _:
            raise untakeable(part, place)


def _image(url: str, where: str) -> JsonObject:
    """Anthropic fetches what is behind a URL itself."""
    if found := DATA_URL.fullmatch(url):
        return {"type": "base64", "media_type": found[1].replace("image/jpg", "image/jpeg"), "data": found[2]}
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise refusal(f"'{where}' must be an https URL, or a data URL with base64.", where)


def _id(given: str) -> str:
    """Others name calls as they like; Anthropic doesn't take every character."""
    return _NOT_IN_IDS.sub("_", given)


def _tools(chat: Chat, model: str) -> JsonObject:
    called = {call.function.name for message in chat.messages for call in message.tool_calls}
    if not chat.tools and called:
        # Without tools, nothing may be said of calls.
        named: list[JsonValue] = [{"name": name, "input_schema": {"type": "object"}} for name in sorted(called)]
        return {"tools": named, "tool_choice": {"type": "none"}}
    if not chat.tools:
        return {}
    body: JsonObject = {"tools": [_tool(tool, strict=keeps_to_schemas(model)) for tool in chat.tools]}
    if choice := _choice(chat):
        body["tool_choice"] = choice
    return body


def _tool(tool: ChatTool, *, strict: bool) -> JsonObject:
    function = tool.function
    strict = strict and function.strict is True
    schema = function.parameters or {"type": "object", "properties": {}}
    body: JsonObject = {"name": function.name, "input_schema": narrowed(schema) if strict else {"type": "object", **schema}}
    if function.description:
        body["description"] = function.description
    if strict:
        body["strict"] = True
    if mark := tool.cache_control or function.cache_control:
        body["cache_control"] = mark
    return body


def _choice(chat: Chat) -> JsonObject | None:
    name, given = chat.forced_tool, chat.tool_choice
    alone = chat.parallel_tool_calls is False
    if given is None and not alone:
        return None
    choice: JsonObject = {"type": "tool", "name": name} if name is not None else {"type": _CHOICES[str(given or "auto")]}
    if alone and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _thinking(chat: Chat, most_tokens: int, model: str) -> JsonObject:
    """The caller's own `thinking`, or what `reasoning_effort` means. An effort gives way to a tool that must be called."""
    effort = chat.reasoning_effort
    if effort is not None and effort != "none" and effort not in BUDGETS:
        raise refusal(f"reasoning_effort must be one of none, {', '.join(BUDGETS)}.", "reasoning_effort")
    body: JsonObject = {"thinking": chat.thinking} if chat.thinking else {}
    if effort is None:
        return body
    if effort == "none":
        return body or {"thinking": {"type": "disabled"}}
    forced = bool(chat.tools) and (chat.tool_choice == "required" or chat.forced_tool is not None)
    if thinks_adaptively(model):
        body["output_config"] = {"effort": "low" if effort == "minimal" else effort}
        if not chat.thinking and not forced:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        return body
    budget = min(BUDGETS[effort], most_tokens // 2)
    if not chat.thinking and not forced and budget >= LEAST_BUDGET and not calls_without_thoughts(chat):
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    return body


def _format(chat: Chat) -> JsonObject | None:
    """Structured outputs rather than a forced tool: they stream as text, and go with tools and with thinking."""
    wanted = chat.wanted_schema
    return {"type": "json_schema", "schema": narrowed(wanted)} if wanted is not None else None


def _sampling(chat: Chat, asked: JsonObject, model: str) -> JsonObject:
    body: JsonObject = {}
    if chat.stop:
        if not all(stop.strip() for stop in chat.stop):
            raise refusal("The model that is to answer can't stop at white space alone: leave that out of `stop`.", "stop")
        body["stop_sequences"] = [*chat.stop]
    thinking = asked.get("thinking")
    if not takes_samplers(model) or (isinstance(thinking, dict) and thinking.get("type") != "disabled"):
        return body
    if chat.temperature is not None:
        body["temperature"] = min(chat.temperature, 1.0)
    elif chat.top_p is not None:
        body["top_p"] = chat.top_p
    if chat.top_k is not None:
        body["top_k"] = chat.top_k
    return body


def _service(chat: Chat) -> JsonObject:
    body: JsonObject = {}
    if user := chat.user or chat.safety_identifier:
        # Anthropic refuses what looks like an e-mail address or a telephone number.
        personal = _PERSONAL.search(user) or len(user) > _MOST_USER_ID
        body["metadata"] = {"user_id": hashlib.sha256(user.encode()).hexdigest() if personal else user}
    if tier := _TIERS.get(chat.service_tier or ""):
        body["service_tier"] = tier
    return body
