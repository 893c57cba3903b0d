"""The items of a conversation: as they are kept, and as the messages of a chat. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from services.ingress.responses.ids import item_id
from services.ingress.responses.parts import chat_content, plain_text

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""Not every provider knows `developer`; OpenAI's take the one for the other."""


def input_items(given: str | Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    """The input as items, as OpenAI lists them: each with its type, the content of messages as parts."""
    if isinstance(given, str):
        return (_message({"role": "user", "content": given}),)
    return tuple(_message(item) if kind_of(item) == "message" else item for item in given)


def named(items: Iterable[JsonObject], response_id: str) -> tuple[JsonObject, ...]:
    """The items, each with an id: its own, or one of this response."""
    return tuple(
        {**item, "id": item["id"] if isinstance(item.get("id"), str) else _id(item, response_id, index)}
        for index, item in enumerate(items)
    )


def kind_of(item: Mapping[str, JsonValue]) -> str:
    """What an item is; a message need not say so."""
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    return "message" if "role" in item else ""


def references(items: Iterable[JsonObject]) -> list[str]:
    """The ids of items that are only named."""
    return [str(item.get("id")) for item in items if kind_of(item) == "item_reference"]


def resolved(items: Iterable[JsonObject], known: Mapping[str, JsonObject]) -> tuple[JsonObject, ...]:
    """The items, with those that are only named in full. Raises InvalidRequest for one that isn't known."""
    whole: list[JsonObject] = []
    for index, item in enumerate(items):
        if kind_of(item) != "item_reference":
            whole.append(item)
            continue
        name = str(item.get("id"))
        if name not in known:
            text = f"Item with id '{name[:100]}' not found: it is no longer kept, or was never stored. Send the item itself."
            raise InvalidRequest(text, param=f"input[{index}].id")
        whole.append(known[name])
    return tuple(whole)


def chat_messages(items: Iterable[JsonObject], where: str = "input") -> list[JsonObject]:
    """The messages of a chat that say the same. Raises InvalidRequest for what a chat can't say."""
    messages: list[JsonObject] = []
    for index, item in enumerate(items):
        _add(messages, item, f"{where}[{index}]")
    return messages


def _add(messages: list[JsonObject], item: JsonObject, where: str) -> None:
    match kind_of(item):
        case "message":
            messages.append(_chat_message(item, where))
        case "function_call":
            _add_call(messages, item, where)
        case "function_call_output":
            content = plain_text(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", where), "content": content})
        case "reasoning":
            # A provider of chats has no use for what it thought before.
            return
        case kind:
            raise InvalidRequest(
                f"Items of type '{kind[:64]}' can't be sent to every provider: send messages, function calls and their outputs.",
                param=f"{where}.type",
            )


def _chat_message(item: JsonObject, where: str) -> JsonObject:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise InvalidRequest(f"The role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
    content = item.get("content")
    if role == "user":
        return {"role": role, "content": chat_content(content, f"{where}.content")}
    return {"role": role, "content": plain_text(content, f"{where}.content")}


def _add_call(messages: list[JsonObject], item: JsonObject, where: str) -> None:
    """Calls that were made together, and the text before them, are one message."""
    function: JsonObject = {"name": _text(item, "name", where), "arguments": _text(item, "arguments", where)}
    call: JsonObject = {"id": _text(item, "call_id", where), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    cast("list[JsonValue]", messages[-1].setdefault("tool_calls", [])).append(call)


def _text(item: JsonObject, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"Missing required parameter: '{where}.{name}'.", param=f"{where}.{name}")
    return value


def _message(item: JsonObject) -> JsonObject:
    content: JsonValue = item.get("content")
    if isinstance(content, str):
        part: JsonObject = {"type": "input_text", "text": content}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": content, "annotations": []}
        content = [part]
    return {"status": "completed", **item, "type": "message", "content": content}


def _id(item: JsonObject, response_id: str, index: int) -> str:
    return item_id(kind_of(item), response_id, index, output=False)
