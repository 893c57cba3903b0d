"""Embeddings made in this process by all-MiniLM-L6-v2: no provider, no bill, nothing leaves the house."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from pydantic_core import to_json

from infra.embeddings.lazy import Embeds
from schemas.errors import InvalidRequest
from schemas.job import Api
from services.router.providers.base import ProviderFailure, ProviderRequest
from services.router.providers.failures import unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSIONS = 384


class Local:
    """Embeds texts, with the embedder of this process, which others use too: closing it is theirs who made it."""

    def __init__(self, embedder: Embeds) -> None:
        self._embedder = embedder

    async def call(self, request: ProviderRequest) -> str:
        """Vectors of length 1; a text is read up to its first 256 tokens."""
        texts = _texts(request)
        try:
            rows = await self._embedder.embed(texts)
        except Exception as error:
            # From None: onnxruntime's errors may repeat the text.
            raise unavailable(request.deployment.id, f"can't embed ({type(error).__name__})", http_status=500) from None
        in_base64 = request.body.get("encoding_format") == "base64"
        return await asyncio.to_thread(_body, request.deployment.model, texts, rows, self._embedder, in_base64)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Refuses: vectors don't stream."""
        raise _invalid("The local provider only makes embeddings.", "model")
        yield ()


def _texts(request: ProviderRequest) -> list[str]:
    if request.api is not Api.EMBEDDINGS:
        raise _invalid("The local provider only makes embeddings.", "model")
    dimensions = request.body.get("dimensions")
    if dimensions is not None and dimensions != DIMENSIONS:
        raise _invalid(f"This model gives {DIMENSIONS} dimensions and can't give {dimensions}.", "dimensions")
    given = request.body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise _invalid("`input` must be a text or a list of texts.", "input")
    checked = [text for text in texts if isinstance(text, str)]
    if len(checked) != len(texts):
        raise _invalid("This model has a tokenizer of its own: send `input` as text, not as token numbers.", "input")
    return checked


def _body(model: str, texts: Sequence[str], rows: "NDArray[np.float32]", embedder: Embeds, in_base64: bool) -> str:
    used = sum(map(embedder.count_tokens, texts))
    vectors = [_base64(row) if in_base64 else _floats(row) for row in rows]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return to_json({"object": "list", "data": data, "model": model, "usage": usage}).decode()


def _base64(row: "NDArray[np.float32]") -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _floats(row: "NDArray[np.float32]") -> list[float]:
    # A float32 has no more than nine digits that mean something.
    return [float(f"{value:.9g}") for value in row.tolist()]


def _invalid(message: str, param: str) -> ProviderFailure:
    return ProviderFailure("final", InvalidRequest(message, param=param).fault(), http_status=400)
