"""What a chunk of a chat stream, or a whole chat completion, says: read leniently, whoever wrote it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import JsonValue
from pydantic_core import from_json

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.usage import Usage

TextKind = Literal["output_text", "refusal", "reasoning_text"]

_TEXTS: tuple[tuple[str, TextKind], ...] = (
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
class Thought:
    """A block of thinking as its provider signs it; `redacted`: nobody but the provider can read it."""

    text: str
    signature: str
    redacted: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk, as far as fronts tell of it. `thoughts` say what the text of reasoning says, and who signed it."""

    texts: Sequence[tuple[TextKind, str]]
    thoughts: Sequence[Thought]
    calls: Sequence[CallPiece]
    finish: str
    usage: Usage | None
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
        thoughts=tuple(_thoughts(delta.get("thinking_blocks"))),
        calls=tuple(_calls(delta.get("tool_calls"))),
        finish=finish if isinstance(finish, str) else "",
        usage=canonical(usage) if isinstance(usage := chunk.get("usage"), dict) else None,
        service_tier=tier if isinstance(tier, str) else "",
    )


def _first(choices: JsonValue) -> JsonObject:
    """Only one answer is ever asked for."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _texts(delta: JsonObject) -> Iterator[tuple[TextKind, str]]:
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


def _thoughts(given: JsonValue) -> Iterator[Thought]:
    for block in given if isinstance(given, list) else ():
        if isinstance(block, dict):
            yield Thought(_text(block.get("thinking")), _text(block.get("signature")), _text(block.get("data")))


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
