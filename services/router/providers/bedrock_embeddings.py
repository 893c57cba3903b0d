"""Embeddings of Bedrock, of which each family has bodies of its own: Amazon's Titan and Cohere's. Pure."""

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.bedrock.answers import ByType, CohereVectors, TitanVector
from services.router.providers.bedrock_answer import NoAnswer
from services.router.providers.chat import refusal

_COHERE_MOST = 96
_TOKENS = "x-amzn-bedrock-input-token-count"


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one call gave; `tokens` None if it isn't told."""

    rows: list[list[float]]
    tokens: int | None


Read = Callable[[Mapping[str, str], bytes], Vectors]
"""Reads an answer: its headers, its body. Raises NoAnswer."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The bodies that together ask for all texts, in their order, and how each answer is read."""

    bodies: Sequence[JsonObject]
    read: Read


def calls_of(body: JsonObject, model: str) -> Calls:
    """Raises ProviderFailure for what can't be embedded."""
    texts, dimensions = _texts(body), body.get("dimensions")
    if "cohere.embed" in model:
        batches = [texts[at : at + _COHERE_MOST] for at in range(0, len(texts), _COHERE_MOST)]
        return Calls([_cohere(batch, body) for batch in batches], _read_cohere)
    if "amazon.titan-embed-image" in model:
        config: JsonObject = {"embeddingConfig": {"outputEmbeddingLength": dimensions}} if dimensions else {}
    elif "amazon.titan-embed" in model:
        config = {"dimensions": dimensions} if dimensions else {}
    else:
        raise refusal("Of Bedrock's models, amazon.titan-embed-… and cohere.embed-… make embeddings.", "model")
    return Calls([{"inputText": text, **config} for text in texts], _read_titan)


def embeddings(vectors: Sequence[Vectors], model: str, form: Literal["float", "base64"]) -> str:
    """OpenAI's answer; without a usage, if that isn't told."""
    rows = [row for part in vectors for row in part.rows]
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(row) if form == "base64" else row}
        for index, row in enumerate(rows)
    ]
    answer: dict[str, object] = {"object": "list", "data": data, "model": model}
    counted = [part.tokens for part in vectors if part.tokens is not None]
    if len(counted) == len(vectors):
        answer["usage"] = {"prompt_tokens": sum(counted), "total_tokens": sum(counted)}
    return to_json(answer).decode()


def _texts(body: JsonObject) -> list[str]:
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    found = [text for text in texts if isinstance(text, str)]
    if not found or len(found) != len(texts):
        raise refusal("This model has a tokenizer of its own: send `input` as text, not as token numbers.", "input")
    return found


def _cohere(texts: Sequence[str], body: JsonObject) -> JsonObject:
    """`input_type` is Cohere's own word, which LiteLLM's callers send too."""
    asked: JsonObject = {"texts": [*texts], "input_type": body.get("input_type") or "search_document"}
    if dimensions := body.get("dimensions"):
        asked["output_dimension"] = dimensions
    return {**asked, "embedding_types": ["float"]}


def _read_titan(headers: Mapping[str, str], body: bytes) -> Vectors:
    try:
        answer = TitanVector.model_validate_json(body)
    except ValidationError:
        raise NoAnswer("no embedding") from None
    told = answer.input_text_token_count
    return Vectors([answer.embedding], told if told is not None else _told(headers))


def _read_cohere(headers: Mapping[str, str], body: bytes) -> Vectors:
    try:
        answer = CohereVectors.model_validate_json(body).embeddings
    except ValidationError:
        raise NoAnswer("no embeddings") from None
    return Vectors(answer.floats if isinstance(answer, ByType) else answer, _told(headers))


def _told(headers: Mapping[str, str]) -> int | None:
    told = headers.get(_TOKENS, "")
    return int(told) if told.isdecimal() else None


def _base64(row: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
