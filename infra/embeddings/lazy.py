"""The embedder of a process, for whoever in it embeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embeds(Protocol):
    """What is needed of an embedder (minilm.py)."""

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]": ...
    def count_tokens(self, text: str) -> int: ...
    async def close(self) -> None: ...


class LazyEmbedder:
    """Costs nothing until a text is embedded: its import is slow, and most processes never embed."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._made: Embeds | None = None

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        return await self._embedder().embed(texts)

    def count_tokens(self, text: str) -> int:
        return self._embedder().count_tokens(text)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    def _embedder(self) -> Embeds:
        if self._made is None:
            from infra.embeddings.minilm import Embedder

            self._made = Embedder(self._cache_dir)
        return self._made
