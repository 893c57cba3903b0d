"""What the mock provider says, without any I/O: same prompt, same words and tokens, on every machine.

A token is a word (`str.split`). A model's name is also its fault script, so that a test picks a fault by
asking for a model: `mock-429-retry-7`, `mock-cut`, `mock-latency-5000`, `mock-words-200-chunkms-20`. See
`parse_behaviour`.
"""

import base64
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import Literal, cast

from pydantic import BaseModel, Field

Ending = Literal["whole", "hang", "cut", "garbage", "truncate", "error"]

_VOCABULARY = """
amber basin cedar delta ember fjord grove harbor inlet juniper kelp lagoon meadow nectar orchard
pebble quarry ridge saddle timber upland valley willow yarrow zephyr anchor barley canopy dune
estuary fern glacier heath island jetty knoll ledge marsh north oasis prairie quartz reef shore
tundra umber vista wharf yonder acorn brook cliff drift elm field grain hill iris jade kite lake
maple night olive
"""
WORDS: tuple[str, ...] = tuple(_VOCABULARY.split())
_ENDINGS: tuple[Ending, ...] = ("hang", "cut", "garbage", "truncate", "error")
_NUMBER = re.compile(r"-(retry|latency|slow|chunkms|words|cached)-(\d{1,6})s?(?=-|$)")
_STATUS = re.compile(r"-([45]\d\d)(?=-|$)")
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)
_USUAL_WORDS = 12
_MAX_WORDS = 20_000
_DONE = b"data: [DONE]\n\n"


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The members of a chat completion request that change the mock's answer; others are ignored."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    user: str | None = None

    def prompt(self) -> str:
        """All text of all messages, a line each."""
        return "\n".join(message.text() for message in self.messages)


class EmbeddingRequest(BaseModel):
    """The members of an embedding request that change the answer; arrays of tokens are not understood."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int = Field(default=16, ge=1, le=4096)
    user: str | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class ModerationRequest(BaseModel):
    """The members of a moderation request that change the answer; pictures are not looked at."""

    model: str
    input: str | list[str] | list[_Part]
    user: str | None = None

    def texts(self) -> list[str]:
        """What is judged, each by itself; the parts of a message are judged together."""
        match self.input:
            case str(text):
                return [text]
            case [str(), *_]:
                return [*self.input]
            case parts:
                return ["\n".join(part.text for part in parts if isinstance(part, _Part))]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer one request. `words` is the length of a chat answer before `max_tokens` cuts it."""

    status: int = 200
    retry_after_s: int | None = None
    latency_ms: int = 0
    chunk_ms: int = 0
    words: int = _USUAL_WORDS
    ending: Ending = "whole"
    usage: bool = True
    cached: int = 0


@lru_cache(maxsize=1024)
def parse_behaviour(name: str) -> Behaviour:
    """The fault script in a model's name; a name that does not begin with `mock` gets the plain behaviour.

    Parts, in any order, joined by `-`: a status `400`..`599`; `retry-N` (seconds of retry-after; 429 has 1
    without it); `latency-N` (ms) or `slow-Ns`; `chunkms-N` (ms between the chunks of a stream); `words-N`;
    `nousage`; `cached-N` (so many of the prompt's tokens, if it has them, came from a cache); and one ending: `hang`
    (never answers), `cut` (the connection closes half way), `garbage` (not JSON), `truncate` (a clean end half way),
    `error` (an error object inside a 200). Other parts are just part of the name.
    """
    if name.split("-", 1)[0] != "mock":
        return Behaviour()
    numbers = {key: int(value) for key, value in cast("list[tuple[str, str]]", _NUMBER.findall(name))}
    rest = _NUMBER.sub("", name)
    found = _STATUS.search(rest)
    status = int(found[1]) if found else 200
    parts = rest.split("-")
    endings: list[Ending] = [ending for ending in _ENDINGS if ending in parts]
    return Behaviour(
        status=status,
        retry_after_s=numbers.get("retry", 1 if status == 429 else None),
        latency_ms=numbers.get("latency", 1000 * numbers.get("slow", 0)),
        chunk_ms=numbers.get("chunkms", 0),
        words=min(numbers.get("words", _USUAL_WORDS), _MAX_WORDS),
        ending=endings[0] if endings else "whole",
        usage="nousage" not in parts,
        cached=numbers.get("cached", 0),
    )


def count_tokens(text: str) -> int:
    """Tokens of `text` as the mock bills them: words."""
    return len(text.split())


def answer_words(prompt: str, count: int) -> list[str]:
    """`count` words that depend on the prompt alone."""
    digest = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return [WORDS[byte & 63] for byte in islice(cycle(digest), count)]


def answer_text(prompt: str, count: int = _USUAL_WORDS) -> str:
    """The text the mock answers to a prompt (`ChatRequest.prompt`) when nothing cuts it."""
    return " ".join(answer_words(prompt, count))


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat answer before it is written down as one body or as a stream."""

    id: str
    created: int
    model: str
    prompt_tokens: int
    words: Sequence[str]
    cut_by_limit: bool = False
    cached_tokens: int = 0

    @property
    def finish_reason(self) -> str:
        return "length" if self.cut_by_limit else "stop"

    def usage(self) -> str:
        """OpenAI's usage object as JSON text."""
        given = len(self.words)
        cached = f',"prompt_tokens_details":{{"cached_tokens":{self.cached_tokens}}}' if self.cached_tokens else ""
        total = self.prompt_tokens + given
        return f'{{"prompt_tokens":{self.prompt_tokens},"completion_tokens":{given},"total_tokens":{total}{cached}}}'


def chat_answer(request: ChatRequest, behaviour: Behaviour, answer_id: str, created: int) -> Answer:
    """Decide the words of an answer, cut at the request's `max_completion_tokens` or `max_tokens`."""
    prompt = request.prompt()
    limit = request.max_completion_tokens or request.max_tokens or _MAX_WORDS
    words = answer_words(prompt, min(behaviour.words, limit))
    tokens = count_tokens(prompt)
    cached = min(behaviour.cached, tokens)
    return Answer(answer_id, created, request.model, tokens, words, limit < behaviour.words, cached)


def chat_body(answer: Answer, behaviour: Behaviour) -> bytes:
    """A whole `chat.completion`, spoiled as the ending wants it (`cut` is for the connection to do)."""
    usage = f',"usage":{answer.usage()}' if behaviour.usage else ""
    body = (
        f'{{"id":"{answer.id}","object":"chat.completion","created":{answer.created},'
        f'"model":{_quoted(answer.model)},"choices":[{{"index":0,'
        f'"message":{{"role":"assistant","content":"{" ".join(answer.words)}","refusal":null}},'
        f'"logprobs":null,"finish_reason":"{answer.finish_reason}"}}]{usage},"system_fingerprint":"fp_mock"}}'
    ).encode()
    match behaviour.ending:
        case "garbage":
            return b"<html>this is not JSON</html>"
        case "truncate":
            return body[: len(body) // 2]
        case "error":
            return error_body(200, "error")
        case _:
            return body


def chat_events(answer: Answer, behaviour: Behaviour, include_usage: bool) -> list[bytes]:
    """The SSE events of a stream: role, one event a word, reason of the end, usage if asked for, `[DONE]`.

    A spoiled ending keeps the first half and then adds what its name says, never `[DONE]`.
    """
    head = (
        f'data: {{"id":"{answer.id}","object":"chat.completion.chunk","created":{answer.created},'
        f'"model":{_quoted(answer.model)},"system_fingerprint":"fp_mock","choices":['
    )
    tail = ',"usage":null}\n\n' if include_usage else "}\n\n"
    choice = '{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]'
    deltas = ['{"role":"assistant","content":""}', *_deltas(answer.words)]
    events = [f"{head}{choice % (delta, 'null')}{tail}".encode() for delta in deltas]
    if behaviour.ending != "whole":
        return [*events[: 1 + len(answer.words) // 2], *_SPOILED.get(behaviour.ending, ())]
    reason = f'"{answer.finish_reason}"'
    events.append(f"{head}{choice % ('{}', reason)}{tail}".encode())
    if include_usage and behaviour.usage:
        events.append(f'{head}],"usage":{answer.usage()}}}\n\n'.encode())
    return [*events, _DONE]


def embeddings_body(request: EmbeddingRequest) -> tuple[bytes, int]:
    """An embeddings list of unit-free deterministic vectors, and its prompt tokens."""
    texts = request.texts()
    tokens = sum(map(count_tokens, texts))
    data = [{"object": "embedding", "index": index, "embedding": _encode(text, request)} for index, text in enumerate(texts)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return json.dumps(body).encode(), tokens


def moderations_body(request: ModerationRequest, behaviour: Behaviour, answer_id: str) -> tuple[bytes, int]:
    """Who says "kill" is violent, and all else is fine; and the prompt's tokens, which OpenAI itself tells nobody."""
    texts = request.texts()
    tokens = sum(map(count_tokens, texts))
    body: dict[str, object] = {"id": answer_id, "model": request.model, "results": list(map(_judged, texts))}
    if behaviour.usage:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps(body).encode(), tokens


def _judged(text: str) -> dict[str, object]:
    violent = "kill" in text.split()
    categories = {name: violent and name == "violence" for name in _CATEGORIES}
    return {
        "flagged": violent,
        "categories": categories,
        "category_scores": {name: float(yes) for name, yes in categories.items()},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }


def vector(text: str, dimensions: int) -> list[float]:
    """A vector that depends on the text alone, each member in [-1, 1)."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=64).digest()
    return [byte / 128 - 1 for byte in islice(cycle(digest), dimensions)]


def models_body(names: Iterable[str]) -> bytes:
    """OpenAI's list of models."""
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "mock"} for name in names]
    return json.dumps({"object": "list", "data": data}).encode()


_ERROR_TYPES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def error_body(status: int, why: str) -> bytes:
    """OpenAI's error object for a status."""
    kind, code = _ERROR_TYPES.get(status, ("server_error", None))
    return json.dumps({"error": {"message": f"mock provider: {why}", "type": kind, "param": None, "code": code}}).encode()


_SPOILED: dict[Ending, tuple[bytes, ...]] = {
    "garbage": (b'data: {"id": this is not JSON\n\n',),
    "error": (b"data: " + error_body(200, "error") + b"\n\n",),
}


def _deltas(words: Sequence[str]) -> list[str]:
    return [f'{{"content":"{" " if index else ""}{word}"}}' for index, word in enumerate(words)]


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(text)


def _encode(text: str, request: EmbeddingRequest) -> list[float] | str:
    values = vector(text, request.dimensions)
    if request.encoding_format == "float":
        return values
    return base64.b64encode(array("f", values).tobytes()).decode()
