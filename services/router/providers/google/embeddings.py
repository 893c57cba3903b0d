"""Between OpenAI's embeddings and Google's, which has two ways to ask for them. Pure."""

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.google.answers import BatchEmbedContentsResponse, Embedding, PredictResponse
from services.router.providers.chat import refusal


@dataclass(frozen=True, slots=True)
class EmbeddingWay:
    """`method` of the model's address; at most so many texts a call. `read` raises ValueError for what is no answer."""

    method: str
    most_texts: int
    ask: Callable[[Sequence[str], int | None], JsonObject]
    read: Callable[[bytes], Sequence[Embedding]]


def batch_embed(model: str) -> EmbeddingWay:
    """The Gemini API's; `model` with its path, which each of the texts names again."""
    return EmbeddingWay("batchEmbedContents", 100, partial(_batch, model), _read_batch)


def predict(model: str) -> EmbeddingWay:
    """Vertex AI's. Its models named gemini take one text a call."""
    return EmbeddingWay("predict", 1 if "gemini" in model else 250, _instances, _read_predictions)


def wanted(body: JsonObject) -> tuple[list[str], int | None]:
    """The texts, and how many dimensions their vectors shall have. Raises ProviderFailure."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    strings = [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    if not strings or not isinstance(texts, list) or len(strings) != len(texts):
        message = "Gemini has a tokenizer of its own: send `input` as a text or a list of texts, not as token numbers."
        raise refusal(message, "input")
    dimensions = body.get("dimensions")
    return strings, dimensions if isinstance(dimensions, int) else None


def embeddings_answer(model: str, found: Sequence[Embedding], body: JsonObject) -> str:
    """OpenAI's answer; with usage only if Google has counted."""
    encode = _packed if body.get("encoding_format") == "base64" else _plain
    data = [{"object": "embedding", "index": index, "embedding": encode(one.values)} for index, one in enumerate(found)]
    answer: dict[str, object] = {"object": "list", "data": data, "model": model}
    if found and all(one.statistics is not None for one in found):
        used = sum(one.statistics.token_count for one in found if one.statistics)
        answer["usage"] = {"prompt_tokens": used, "total_tokens": used}
    return to_json(answer).decode()


def _batch(model: str, texts: Sequence[str], dimensions: int | None) -> JsonObject:
    size: JsonObject = {"outputDimensionality": dimensions} if dimensions else {}
    requests: list[JsonValue] = [{"model": model, "content": {"parts": [{"text": text}]}, **size} for text in texts]
    return {"requests": requests}


def _read_batch(body: bytes) -> Sequence[Embedding]:
    return BatchEmbedContentsResponse.model_validate_json(body).embeddings


def _instances(texts: Sequence[str], dimensions: int | None) -> JsonObject:
    asked: JsonObject = {"instances": [{"content": text} for text in texts]}
    return {**asked, "parameters": {"outputDimensionality": dimensions}} if dimensions else asked


def _read_predictions(body: bytes) -> Sequence[Embedding]:
    return [prediction.embeddings for prediction in PredictResponse.model_validate_json(body).predictions]


def _plain(values: Sequence[float]) -> list[float]:
    return [*values]


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
