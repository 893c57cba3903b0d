"""What must be known of a provider's answer: its usage, its end, its text. The rest passes as it came. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.job import Api

_MOST_NAME = 256


class NoAnswer(ValueError):
    """What came is no answer of this API: broken JSON, another shape, or an error object."""


@dataclass(slots=True)
class Reading:
    """What an answer, or one event of a stream, says. `text`: what was generated; `content`: what of it, in a stream, is
    the answer itself; `usage`: the provider's own object.

    `answers`: it is more than thoughts. `refused`: it ends because the provider's filter won't have the content; `only_text`:
    nothing but plain text, of one choice. `id`, `model` and `reasons` to finish: in the provider's words, at its end.
    """

    text: str = ""
    content: str = ""
    usage: JsonObject | None = None
    finished: bool = False
    says_something: bool = False
    answers: bool = False
    usage_only: bool = False
    refused: bool = False
    only_text: bool = True
    service_tier: str = ""
    id: str = ""
    model: str = ""
    reasons: tuple[str, ...] = ()


def read_answer(api: Api, body: str) -> Reading:
    """Reads a whole answer. Raises NoAnswer."""
    answer = _object(body)
    if api is not Api.CHAT:
        _listed(answer, "data" if api is Api.EMBEDDINGS else "results")
        return Reading(usage=_usage(answer), finished=True, model=_named(answer, "model"))
    choices = _listed(answer, "choices")
    usage = _usage(answer)
    # The text is of use only where nobody has counted it.
    text = "" if usage else _text(choices)
    refused = any(map(_is_refused, choices))
    return Reading(
        text=text,
        usage=usage,
        finished=True,
        refused=refused,
        service_tier=_tier(answer),
        id=_named(answer, "id"),
        model=_named(answer, "model"),
        reasons=tuple(reason for choice in choices if (reason := _named(choice, "finish_reason"))),
    )


def text_of(body: str) -> str:
    """What a whole chat answer says. Raises NoAnswer."""
    return _text(_listed(_object(body), "choices"))


def read_event(data: str) -> Reading:
    """Reads one event of a chat stream; one without choices is not for us to judge. Raises NoAnswer."""
    chunk = _object(data)
    reading = Reading(usage=_usage(chunk), service_tier=_tier(chunk))
    choices = _listed(chunk, "choices") if "choices" in chunk else []
    reading.usage_only = not choices and reading.usage is not None
    for choice in choices:
        if choice.get("finish_reason") is not None:
            reading.finished = True
            reading.reasons += (_named(choice, "finish_reason"),)
            reading.id, reading.model = _named(chunk, "id"), _named(chunk, "model")
            reading.refused |= _is_refused(choice)
        if choice.get("index"):
            reading.only_text = False
        delta = choice.get("delta")
        content = delta.get("content") if isinstance(delta, dict) and len(delta) == 1 else None
        if isinstance(content, str):
            # Nearly every event is this one.
            reading.text += content
            reading.content += content
            reading.says_something |= bool(content)
            reading.answers |= bool(content)
        elif isinstance(delta, dict):
            _read_delta(reading, delta)
    reading.says_something |= reading.finished
    reading.answers |= reading.finished
    return reading


_THOUGHTS = frozenset({"reasoning_content", "reasoning", "thinking_blocks"})
_NOT_TEXT = frozenset({"tool_calls", "function_call", "refusal", "audio"})


def _read_delta(reading: Reading, delta: JsonObject) -> None:
    """Takes in a delta that is more than a piece of text.

    The role, with which each stream begins, says nothing; nor does a member that is null, as OpenAI's first delta has a refusal.
    """
    said = {name for name, value in delta.items() if value and name != "role"}
    content = delta.get("content")
    reading.text += "".join(_pieces(delta))
    reading.says_something |= bool(said)
    reading.answers |= bool(said - _THOUGHTS)
    if isinstance(content, str):
        reading.content += content
    reading.only_text &= not said & _NOT_TEXT and (not content or isinstance(content, str))


def _is_refused(choice: JsonObject) -> bool:
    return choice.get("finish_reason") == "content_filter"


def _object(text: str) -> JsonObject:
    try:
        parsed = cast("object", from_json(text))
    except ValueError:
        raise NoAnswer("the answer is not JSON") from None
    if not isinstance(parsed, dict):
        raise NoAnswer("the answer is no JSON object")
    answer = cast("JsonObject", parsed)
    if answer.get("error") is not None:
        raise NoAnswer("an error where the answer should be")
    return answer


def _listed(answer: JsonObject, name: str) -> list[JsonObject]:
    """The objects in a list of an answer."""
    listed = answer.get(name)
    if not isinstance(listed, list):
        raise NoAnswer(f"the answer has no {name}")
    return [entry for entry in listed if isinstance(entry, dict)]


def _usage(answer: JsonObject) -> JsonObject | None:
    usage = answer.get("usage")
    return usage if isinstance(usage, dict) else None


def _tier(answer: JsonObject) -> str:
    return _named(answer, "service_tier")


def _named(told: JsonObject, member: str) -> str:
    """A name that a provider gives: it stands in the books, so it is kept short."""
    name = told.get(member)
    return name[:_MOST_NAME] if isinstance(name, str) else ""


def _text(choices: Sequence[JsonObject]) -> str:
    return "".join(piece for choice in choices for piece in _pieces(choice.get("message")))


def _pieces(message: JsonValue) -> Iterator[str]:
    """All that was generated in a message or a delta: text, refusal, reasoning, the arguments of calls."""
    if not isinstance(message, dict):
        return
    for member in ("content", "refusal", "reasoning_content", "reasoning"):
        if isinstance(piece := message.get(member), str):
            yield piece
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (piece for piece in (function.get("name"), function.get("arguments")) if isinstance(piece, str))
