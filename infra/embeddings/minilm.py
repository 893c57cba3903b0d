"""Text to vectors: all-MiniLM-L6-v2 in int8, on threads of this process.

Measured with one thread on a shared core: 1.3 ms for 8 tokens, 4.9 ms for 40, 20 ms for 160; 0.9 s to load, 100 MB.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from infra.embeddings import build
from infra.embeddings.errors import EmbeddingsUnavailable

if TYPE_CHECKING:
    from fastembed import TextEmbedding

MODEL = "sluice/all-minilm-l6-v2-int8"
# Texts a thread does in one go; then others who wait have their turn, and a cancelled caller's rest is not done.
TURN = 8
# Of a longer text only this much goes to the tokenizer, which reads all it is given before it truncates.
MAX_CHARACTERS = 32_768

# fastembed keeps custom models in a table of the class, and one process should not build the model twice at once.
_loading = threading.Lock()

T = TypeVar("T")


class Embedder:
    """Embeds texts on a small pool of threads. The model is loaded at first use, and built before that if
    `cache_dir` has none yet (some seconds, once a machine).

    Callers wait for a thread in the order they came; how many may wait is the caller's business. After `close`
    every call raises EmbeddingsUnavailable.
    """

    dimensions = 384
    max_tokens = build.MAX_TOKENS

    def __init__(self, cache_dir: Path, threads: int = 1) -> None:
        self._cache_dir = cache_dir
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._model: TextEmbedding | None = None
        self._tokenizer: Tokenizer | None = None

    async def load(self) -> None:
        """Loads the model now, so that the first text doesn't wait. Raises EmbeddingsUnavailable."""
        await self._run(self._loaded)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text: float32 of shape (len(texts), 384), each of length 1, so that a dot product is a cosine.

        A text is read up to its first 256 tokens, [CLS] and [SEP] among them (and its first 32,768 characters); the
        rest has no influence. A text's vector depends on that text alone, never on its neighbours in `texts`.
        Raises EmbeddingsUnavailable.
        """
        rows = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), TURN):
            turn = texts[start : start + TURN]
            rows[start : start + TURN] = await self._run(lambda turn=turn: self._embed(turn))
        return rows

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text, [CLS] and [SEP] among them; what exceeds `max_tokens` embed() does not read.

        Needs no model, only the tokenizer (20 ms at first use). Blocks for 1 ms per 1,800 characters: count a text of
        hundreds of kilobytes on a thread.
        """
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer()
        return len(self._tokenizer.encode(_encodable(text)).ids)

    async def close(self) -> None:
        """Ends the threads, after the turns they are at. May be called twice, and without any use before."""
        await asyncio.to_thread(self._pool.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError as error:
            raise EmbeddingsUnavailable("The embedder is closed") from error
        return await running

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        readable = [_encodable(text[:MAX_CHARACTERS]) for text in texts]
        # One at a time: a batch is padded to its longest text and quantised with one scale for all its texts.
        return np.array(list(self._loaded().embed(readable, batch_size=1)), np.float32)

    def _loaded(self) -> "TextEmbedding":
        if self._model is None:
            with _loading:
                self._model = self._model or _load_model(build.model_folder(self._cache_dir))
        return self._model


def _load_model(folder: Path) -> "TextEmbedding":
    # Here, because the import takes half a second and only who embeds needs it.
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    if all(known["model"] != MODEL for known in TextEmbedding.list_supported_models()):
        TextEmbedding.add_custom_model(
            MODEL,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(url="local"),  # one is demanded; the path below is taken instead
            dim=Embedder.dimensions,
            model_file=build.MODEL_FILE,
        )
    try:
        return TextEmbedding(
            MODEL,
            cache_dir=str(folder.parent),
            threads=1,
            providers=["CPUExecutionProvider"],
            specific_model_path=str(folder),
        )
    except Exception as error:
        # onnxruntime's errors have no base of their own.
        raise EmbeddingsUnavailable(f"The embedding model does not load; delete {folder}: {error}") from error


def _load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(build.package_files() / build.TOKENIZER_FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encodable(text: str) -> str:
    """JSON may carry half a surrogate pair, which is no Unicode text and which the tokenizer refuses."""
    return text.encode(errors="replace").decode()
