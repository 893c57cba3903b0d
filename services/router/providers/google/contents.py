"""From the messages of a chat to Gemini's system instruction and contents. Pure.

Reasoning of earlier answers is left out: Gemini takes back the signatures of its thoughts, which come with calls and texts as
`extra_content.google.thought_signature` (as in Google's own API for OpenAI's SDKs), and not their summaries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json

from schemas.base import JsonObject
from services.router.providers.chat import refusal
from services.router.providers.google.parts import Dialect, parts, texts

SIGNS_CALLS = 3.0
"""From this generation on a call has an id, and one of the current turn without a signature is refused."""

_UNSIGNED = "skip_thought_signature_validator"
"""Google's word for calls that another model made (ai.google.dev, "Thought signatures", FAQ)."""

_ROLES = "system, developer, user, assistant, tool"


@dataclass(slots=True)
class _Conversation:
    """`calls` by id: their place among those of their message, and the name of the function."""

    dialect: Dialect
    last_user: int
    system: list[JsonObject] = field(default_factory=list[JsonObject])
    contents: list[JsonObject] = field(default_factory=list[JsonObject])
    calls: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])

    def add(self, role: str, found: Sequence[JsonObject]) -> None:
        if found:
            self.contents.append({"role": role, "parts": [*found]})


_Numbered = tuple[int, JsonObject]


def conversation(messages: JsonValue, dialect: Dialect) -> tuple[list[JsonObject], list[JsonObject]]:
    """The parts of the system instruction, and the contents. Raises ProviderFailure for what Gemini can't be told."""
    numbered = list(enumerate(_objects(messages)))
    talk = _Conversation(dialect, max((n for n, message in numbered if message.get("role") == "user"), default=-1))
    for of_tools, run in groupby(numbered, lambda one: one[1].get("role") == "tool"):
        if of_tools:
            talk.add("user", _results(list(run), talk))
        else:
            for index, message in run:
                _say(message, f"messages[{index}]", index > talk.last_user, talk)
    if talk.contents:
        return talk.system, talk.contents
    if not talk.system:
        raise refusal("`messages` say nothing.", "messages")
    # Gemini wants somebody to speak.
    return [], [{"role": "user", "parts": [*talk.system]}]


def _objects(messages: JsonValue) -> list[JsonObject]:
    found = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    if not found or len(found) != len(cast("list[JsonValue]", messages)):
        raise refusal("`messages` must be a list of objects.", "messages")
    return found


def _say(message: JsonObject, where: str, current: bool, talk: _Conversation) -> None:
    content = message.get("content")
    match message.get("role"):
        case "system" | "developer":
            talk.system += texts(content, f"{where}.content")
        case "user":
            talk.add("user", list(parts(content, f"{where}.content", talk.dialect)))
        case "assistant":
            talk.add("model", _answered(message, where, current, talk))
        case _:
            raise refusal(f"The role must be one of {_ROLES}.", f"{where}.role")


def _answered(message: JsonObject, where: str, current: bool, talk: _Conversation) -> list[JsonObject]:
    """What the model has said. Its signature goes back with the last of its texts."""
    said = list(parts(message.get("content"), f"{where}.content", talk.dialect))
    if signature := _signature(message):
        said = [*said[:-1], {**(said[-1] if said else {"text": ""}), "thoughtSignature": signature}]
    given = message.get("tool_calls")
    calls = [
        _call(call, place, f"{where}.tool_calls[{place}]", talk)
        for place, call in enumerate(given if isinstance(given, list) else ())
    ]
    if calls and current and talk.dialect.generation >= SIGNS_CALLS and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = _UNSIGNED
    return said + calls


def _call(call: JsonValue, place: int, where: str, talk: _Conversation) -> JsonObject:
    match call:
        case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
            talk.calls[call_id] = (place, name)
        case _:
            raise refusal("A call needs an `id`, and a `function` with `name` and `arguments`.", where)
    made: JsonObject = {"name": name, "args": _arguments(arguments, f"{where}.function.arguments")}
    part: JsonObject = {"functionCall": _named(made, call_id, talk.dialect)}
    if signature := _signature(call):
        part["thoughtSignature"] = signature
    return part


def _named(said: JsonObject, call_id: str, dialect: Dialect) -> JsonObject:
    return {"id": call_id, **said} if dialect.generation >= SIGNS_CALLS else said


def _arguments(text: str, where: str) -> JsonObject:
    try:
        given = cast("object", from_json(text or "{}"))
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise refusal("The arguments of a call must be a JSON object.", where)
    return cast("JsonObject", given)


def _results(run: Iterable[_Numbered], talk: _Conversation) -> list[JsonObject]:
    """What tools said, in the order of the calls, by which older models tell two calls of one function apart.

    Pictures of a tool follow on what all of them said.
    """
    answers: list[tuple[int, JsonObject]] = []
    media: list[JsonObject] = []
    for index, message in run:
        where = f"messages[{index}]"
        call_id = str(message.get("tool_call_id"))
        if call_id not in talk.calls:
            raise refusal("No call before this message has that id.", f"{where}.tool_call_id")
        place, name = talk.calls[call_id]
        said = list(parts(message.get("content"), f"{where}.content", talk.dialect))
        text = "".join(str(part["text"]) for part in said if "text" in part)
        media += (part for part in said if "text" not in part)
        answers.append((place, {"functionResponse": _named({"name": name, "response": _object(text)}, call_id, talk.dialect)}))
    answers.sort(key=lambda answer: answer[0])
    return [answer for _, answer in answers] + media


def _object(text: str) -> JsonObject:
    """Gemini takes nothing but an object; `output` is its own word for what is none."""
    try:
        said = cast("object", from_json(text))
    except ValueError:
        said = None
    return cast("JsonObject", said) if isinstance(said, dict) else {"output": text}


def _signature(said: JsonValue) -> str:
    match said:
        case {"extra_content": {"google": {"thought_signature": str(signature)}}}:
            return signature
        case _:
            return ""
