"""Chooses the model of a job: choice.py, with the classifier asked where a choice depends on it."""

import asyncio
from collections.abc import Awaitable, Callable

from infra import tokens
from infra.kafka.table import ControlTable
from schemas.control import Model
from schemas.job import Job
from services.router.auto.base import Judged
from services.router.choice import Chosen, Unjudged, choose, chooses
from services.router.features import Prompt

_THREAD_FROM = 5_000
"""Characters. Looking for code in a page takes a millisecond, counting the tokens of a megabyte a dozen."""


class Chooser:
    """`judge` says of a text how hard it is and what it wants (auto/judge.py).

    A job goes the same way each time it is delivered, as long as models and weights are the same and the embedder is there.
    """

    def __init__(self, table: ControlTable, judge: Callable[[str], Awaitable[Judged]]) -> None:
        self._table = table
        self._judge = judge

    async def choose(self, job: Job, asked: Model) -> Chosen:
        """Costs nothing for a model that doesn't choose."""
        if not chooses(asked):
            return asked, ()
        prompt = Prompt(job.api, job.body)
        try:
            return await self._chosen(job, asked, prompt)
        except Unjudged:
            return await self._chosen(job, asked, prompt, await self._judge(prompt.gist))

    async def _chosen(self, job: Job, asked: Model, prompt: Prompt, judged: Judged | None = None) -> Chosen:
        if tokens.length(job.body) < _THREAD_FROM:
            return choose(self._table.models, asked, job, prompt, judged)
        return await asyncio.to_thread(choose, self._table.models, asked, job, prompt, judged)
