"""A stream of chat chunks as the one answer that it would have been. Pure."""

from collections.abc import Iterable
from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json

from schemas.base import JsonObject

_OF_ALL = ("id", "created", "model", "system_fingerprint", "service_tier")


def assembled(stream: Iterable[str]) -> JsonObject:
    """The chat completion that the chunks make up; texts and arguments of calls are joined, all else is taken from the last."""
    whole: JsonObject = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    choices: dict[int, JsonObject] = {}
    for text in stream:
        chunk = cast("JsonObject", from_json(text))
        whole |= {name: chunk[name] for name in _OF_ALL if chunk.get(name) is not None}
        if chunk.get("usage") is not None:
            whole["usage"] = chunk["usage"]
        listed = chunk.get("choices")
        for choice in listed if isinstance(listed, list) else ():
            if isinstance(choice, dict):
                _add(choices, choice)
    whole["choices"] = [choices[index] for index in sorted(choices)]
    return whole


def _add(choices: dict[int, JsonObject], choice: JsonObject) -> None:
    index = choice.get("index")
    index = index if isinstance(index, int) else 0
    known = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None})
    delta = choice.get("delta")
    if isinstance(delta, dict):
        _join(cast("JsonObject", known["message"]), delta)
    known |= {name: choice[name] for name in ("finish_reason", "logprobs") if choice.get(name) is not None}


def _join(message: JsonObject, delta: JsonObject) -> None:
    for name, value in delta.items():
        if name == "tool_calls" and isinstance(value, list):
            _join_calls(message, value)
        elif name == "thinking_blocks" and isinstance(value, list):
            cast("list[JsonValue]", message.setdefault(name, [])).extend(value)
        elif isinstance(value, str) and name != "role":
            before = message.get(name)
            message[name] = (before if isinstance(before, str) else "") + value
        elif value is not None:
            message[name] = value


def _join_calls(message: JsonObject, pieces: list[JsonValue]) -> None:
    calls = cast("list[JsonObject]", message.setdefault("tool_calls", []))
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        at = piece.get("index")
        at = at if isinstance(at, int) and 0 <= at <= len(calls) else len(calls)
        if at == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        _join_call(calls[at], piece)


def _join_call(call: JsonObject, piece: JsonObject) -> None:
    call |= {name: piece[name] for name in ("id", "type") if piece.get(name)}
    function, added = cast("JsonObject", call["function"]), piece.get("function")
    if isinstance(added, dict):
        function |= {
            name: f"{function.get(name, '')}{added[name]}" for name in ("name", "arguments") if isinstance(added.get(name), str)
        }
