"""Tokens as OpenAI's newer models count them (o200k): for what no provider counted, and for the echo.

The ranks are inside the package rs-bpe: 50 ms to load, 10 µs for 800 characters.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol, cast

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.job import Api

# OpenAI's cookbook, "How to count tokens": what frames a message, and what primes the answer.
_PER_MESSAGE = 3
_PRIMING = 3

# A picture of 2,048 by 768 pixels has eight tiles, of 170 tokens each and 85 for the whole.
_LOW_DETAIL, _HIGH_DETAIL = 85, 1445
# MP3 of 16 kbit/s, ten tokens a second, in base64.
_AUDIO_CHARACTERS_A_TOKEN = 266
_FILE_CHARACTERS_A_TOKEN = 4
_THREAD_FROM = 50_000


class _Tokenizer(Protocol):
    def count(self, text: str) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: list[int]) -> str | None: ...


@cache
def _tokenizer() -> _Tokenizer:
    # Here, because only few jobs need it and the service should be back at work at once after a death.
    from rs_bpe.bpe import openai  # pyright: ignore[reportMissingModuleSource, reportUnknownVariableType]

    return cast("_Tokenizer", openai.o200k_base())  # pyright: ignore[reportUnknownMemberType]


def count(text: str) -> int:
    """Tokens of a text."""
    return _tokenizer().count(_encodable(text)) if text else 0


def pieces(text: str) -> Iterator[str]:
    """The text token by token; tokens that are only together a character come together."""
    tokenizer, open_tokens = _tokenizer(), list[int]()
    for token in tokenizer.encode(_encodable(text)):
        open_tokens.append(token)
        if (piece := tokenizer.decode(open_tokens)) is not None:
            yield piece
            open_tokens = []


def prompt_tokens(api: Api, body: JsonObject) -> int:
    """About what a provider counts as the input of a request; images and sound count nothing."""
    if api is not Api.CHAT:
        return sum(_input_tokens(body.get("input")))
    messages = body.get("messages")
    if not isinstance(messages, list):
        return 0
    tools = count(to_json(body["tools"]).decode()) if body.get("tools") else 0
    return _PRIMING + tools + sum(_PER_MESSAGE + count(text) for text in map(message_text, messages))


async def counted(api: Api, body: JsonObject) -> int:
    """As `prompt_tokens`, without holding up others while a long one is counted."""
    return await asyncio.to_thread(prompt_tokens, api, body) if length(body) >= _THREAD_FROM else prompt_tokens(api, body)


def length(body: JsonObject) -> int:
    """About how many characters of text a request has, without writing it down."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return sum(len(message_text(message)) for message in messages)
    given = body.get("input")
    return sum(map(_input_length, given)) if isinstance(given, list) else len(str(given))


def _input_length(part: JsonValue) -> int:
    match part:
        case str() | list():
            return len(part)
        case {"text": str(text)}:
            return len(text)
        case _:
            return 1


def media_tokens(body: JsonObject) -> int:
    """The most that pictures, sound and files in the messages may count, by OpenAI's formulas (docs, "Images and vision")."""
    messages = body.get("messages")
    return sum(map(_part_tokens, _parts(messages))) if isinstance(messages, list) else 0


def _parts(messages: Sequence[object]) -> Iterator[JsonObject]:
    for message in messages:
        content = cast("JsonObject", message).get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, dict))


def _part_tokens(part: JsonObject) -> int:
    match part.get("type"):
        case "image_url":
            image = part.get("image_url")
            return _LOW_DETAIL if isinstance(image, dict) and image.get("detail") == "low" else _HIGH_DETAIL
        case "input_audio":
            return len(str(part.get("input_audio"))) // _AUDIO_CHARACTERS_A_TOKEN
        case "file":
            return len(str(part.get("file"))) // _FILE_CHARACTERS_A_TOKEN
        case _:
            return 0


def message_text(message: object) -> str:
    """All text of a chat message: role, name, content, parts of it, and the calls of tools."""
    if not isinstance(message, dict):
        return ""
    given = cast("JsonObject", message)
    words = [given.get("role"), given.get("name"), content_text(given.get("content"))]
    if calls := given.get("tool_calls"):
        words.append(to_json(calls).decode())
    return " ".join(word for word in words if isinstance(word, str) and word)


def content_text(content: object) -> str:
    """The text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = cast("list[object]", content)
    texts = (cast("JsonObject", part).get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _input_tokens(given: object) -> Iterator[int]:
    match given:
        case str():
            yield count(given)
        case int():
            yield 1
        case list():
            for part in cast("Sequence[object]", given):
                yield from _input_tokens(part)
        case {"text": str(text)}:
            yield count(text)
        case _:
            return


def _encodable(text: str) -> str:
    """JSON may carry half a surrogate pair, which is no Unicode text."""
    return text.encode(errors="replace").decode()
