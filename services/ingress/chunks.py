"""What a chunk of a chat stream, or a whole chat completion, says: read leniently, whoever wrote it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.openai.answers import ChatUsage, CompletionDetails, PromptDetails
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
        usage=_usage(chunk.get("usage")),
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


def _usage(given: JsonValue) -> Usage | None:
    """A chat's usage; a part that exceeds its whole is bent into it."""
    if not isinstance(given, dict):
        return None
    try:
        usage = ChatUsage.model_validate(given)
    except ValidationError:
        return None
    prompt, completion = usage.prompt_tokens_details or PromptDetails(), usage.completion_tokens_details or CompletionDetails()
    input_tokens, output_tokens = max(0, usage.prompt_tokens), max(0, usage.completion_tokens)
    cache_read = _within(prompt.cached_tokens, input_tokens)
    cache_write = _within(prompt.cache_write_tokens, input_tokens - cache_read)
    return Usage(
        input_tokens=input_tokens,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        cache_write_1h_tokens=_within(prompt.cache_write_1h_tokens, cache_write),
        output_tokens=output_tokens,
        reasoning_tokens=_within(completion.reasoning_tokens, output_tokens),
        source="provider",
    )


def _within(part: int | None, whole: int) -> int:
    return min(max(0, part or 0), whole)
