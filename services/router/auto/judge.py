"""Judges requests: the embedding on its thread, then the classifier. Whatever fails, something is said."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from infra.embeddings.lazy import Embeds
from services.router.auto.base import Judged
from services.router.auto.measures import measure

if TYPE_CHECKING:
    from services.router.auto.classifier import Classifier, Floats

log = logging.getLogger(__name__)


class Judge:
    """Costs nothing until somebody is judged: only then weights and model are read. `weights` None: ours.

    An embedding takes 20 ms, loading the model a second, and building it, on a new machine, some more. Who isn't done within
    `patience_s` is left alone for `leave_alone_s`, as is who fails; meanwhile measures alone decide.
    """

    def __init__(
        self, embedder: Embeds, weights: Path | None = None, *, patience_s: float = 1, leave_alone_s: float = 10
    ) -> None:
        self._embedder = embedder
        self._weights = weights
        self._patience_s, self._leave_alone_s = patience_s, leave_alone_s
        self._classifier: asyncio.Task[Classifier] | None = None
        self._not_before = 0.0

    async def judge(self, text: str) -> Judged:
        """Never raises for what the embedder does."""
        if self._classifier is None:
            self._classifier = asyncio.create_task(asyncio.to_thread(self._load))
        # Shielded: others wait for it too.
        classifier = await asyncio.shield(self._classifier)
        embedding = await self._embedding(text)
        # On a thread: a page takes some milliseconds.
        return await asyncio.to_thread(lambda: classifier.judge(measure(text), embedding))

    async def _embedding(self, text: str) -> "Floats | None":
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return None
        try:
            async with asyncio.timeout(self._patience_s):
                return (await self._embedder.embed([text]))[0]
        except Exception as error:
            # Never the error's words: onnxruntime's may repeat the text.
            log.warning("requests are judged without an embedding for %.0f s: %s", self._leave_alone_s, type(error).__name__)
            self._not_before = asyncio.get_running_loop().time() + self._leave_alone_s
            return None

    def _load(self) -> "Classifier":
        # Here, because numpy is slow to import and most routers judge nothing.
        from services.router.auto.classifier import load

        if self._weights is not None:
            try:
                return load(self._weights)
            except (OSError, ValueError) as error:
                log.error("the weights of SLUICE_AUTO_WEIGHTS are not taken, ours are: %s", error)
        return load()
