"""What a chunk of a chat stream, or a whole chat completion, says: read leniently, whoever wrote it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.openai.answers import ChatUsage
from services.ingress.responses.output import PartKind

_TEXTS: tuple[tuple[str, PartKind], ...] = (
    ("reasoning_content", "reasoning_text"),
    ("reasoning", "reasoning_text"),
    ("content", "output_text"),
    ("refusal", "refusal"),
)
"""Members of a delta that hold text, in the order in which they are said. The first two mean the same at different providers."""


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a function call; `index` says of which."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk, as far as a response tells of it."""

    texts: Sequence[tuple[PartKind, str]]
    calls: Sequence[CallPiece]
    finish: str
    usage: JsonObject | None
    service_tier: str


def read_chunk(data: str) -> Chunk:
    """A chunk of a stream, or a completion as if it had come in one. Raises ValueError for what is no JSON object."""
    given = from_json(data)
    if not isinstance(given, dict):
        raise ValueError("no JSON object")
    chunk = cast("JsonObject", given)
    tier = chunk.get("service_tier")
    choice = _first(chunk.get("choices"))
    said = choice.get("delta") or choice.get("message")
    delta = said if isinstance(said, dict) else {}
    finish = choice.get("finish_reason")
    return Chunk(
        texts=tuple(_texts(delta)),
        calls=tuple(_calls(delta.get("tool_calls"))),
        finish=finish if isinstance(finish, str) else "",
        usage=_usage(chunk.get("usage")),
        service_tier=tier if isinstance(tier, str) else "",
    )


def _first(choices: JsonValue) -> JsonObject:
    """Only one answer is ever asked for."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _texts(delta: JsonObject) -> Iterator[tuple[PartKind, str]]:
    thought = False
    for member, kind in _TEXTS:
        text = _text(delta.get(member))
        if text and not (kind == "reasoning_text" and thought):
            thought |= kind == "reasoning_text"
            yield kind, text


def _text(value: JsonValue) -> str:
    """A text, or that of the parts in which some providers write it."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _calls(given: JsonValue) -> Iterator[CallPiece]:
    for position, piece in enumerate(given if isinstance(given, list) else ()):
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(piece, dict) or not isinstance(function, dict):
            continue
        index = piece.get("index")
        yield CallPiece(
            index=index if isinstance(index, int) else position,
            call_id=_text(piece.get("id")),
            name=_text(function.get("name")),
            arguments=_text(function.get("arguments")),
        )


def _usage(given: JsonValue) -> JsonObject | None:
    """A chat's usage in the words of responses."""
    if not isinstance(given, dict):
        return None
    try:
        usage = ChatUsage.model_validate(given)
    except ValidationError:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return usage_object(
        usage.prompt_tokens,
        usage.completion_tokens,
        cached=(prompt.cached_tokens if prompt else 0) or 0,
        cache_write=(prompt.cache_write_tokens if prompt else 0) or 0,
        reasoning=(completion.reasoning_tokens if completion else 0) or 0,
    )


def usage_object(input_tokens: int, output_tokens: int, *, cached: int, cache_write: int, reasoning: int) -> JsonObject:
    """The usage of a response."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }
