"""Looks for records that were written before, by a mark that each carries: a job's id, a result's id.

A topic is read once for all who ask meanwhile, from the earliest time that any of them names to its end as it is now.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.kafka.broker import Kafka
from infra.kafka.log import Incoming, Partition

_SKEW_MS = 60_000
_POLL_S = 1.0


@dataclass(slots=True)
class _Question:
    mark: str
    since_ms: int
    answer: "asyncio.Future[list[Incoming]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lookback:
    """Finds records by `mark_of` them."""

    def __init__(self, kafka: Kafka, mark_of: Callable[[Incoming], str]) -> None:
        self._kafka = kafka
        self._mark_of = mark_of
        self._asked: dict[Partition, list[_Question]] = defaultdict(list)
        self._reading: dict[Partition, asyncio.Task[None]] = {}

    async def find(self, partition: Partition, mark: str, since_ms: int) -> list[Incoming]:
        """The records with this mark, in order; they can't have been written before `since_ms` (unix milliseconds).

        Raises what the connection raises.
        """
        question = _Question(mark, since_ms)
        self._asked[partition].append(question)
        if partition not in self._reading:
            self._reading[partition] = asyncio.create_task(self._read(partition))
        return await question.answer

    async def _read(self, partition: Partition) -> None:
        try:
            while questions := self._asked.pop(partition, []):
                await self._settle(partition, questions)
        finally:
            del self._reading[partition]

    async def _settle(self, partition: Partition, questions: list[_Question]) -> None:
        found: dict[str, list[Incoming]] = {question.mark: [] for question in questions}
        try:
            await self._collect(partition, found, min(question.since_ms for question in questions) - _SKEW_MS)
        except Exception as error:
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(found[question.mark])

    async def _collect(self, partition: Partition, found: dict[str, list[Incoming]], since_ms: int) -> None:
        reader = await self._kafka.reader([partition])
        try:
            await reader.seek_to_time(since_ms)
            async for records in reader.rest(_POLL_S):
                for record in records:
                    if (known := found.get(self._mark_of(record))) is not None:
                        known.append(record)
        finally:
            await reader.stop()
