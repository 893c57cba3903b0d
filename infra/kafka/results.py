"""What a team's results topic holds already: asked before a result is published that a dead process may have published.

Kafka's acknowledgement and the note in Redis that a job is done can't be one step. A death between them leaves the question open,
and only the log itself knows the answer.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from infra.kafka.broker import Kafka
from infra.kafka.envelope import H_ID, header
from infra.kafka.log import Partition
from schemas.topics import RESULTS, results_topic

_SKEW_MS = 60_000
_POLL_S = 1.0


@dataclass(slots=True)
class _Question:
    result_id: str
    since_ms: int
    answer: "asyncio.Future[bool]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Results:
    """Answers all who ask meanwhile by one reading of the topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._asked: dict[str, list[_Question]] = defaultdict(list)
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def told(self, team: str, result_id: str, since_ms: int) -> bool:
        """True if the team was told this result; it can't have been before `since_ms` (unix milliseconds)."""
        question = _Question(result_id, since_ms)
        self._asked[team].append(question)
        if team not in self._reading:
            self._reading[team] = asyncio.create_task(self._read(team))
        return await question.answer

    async def _read(self, team: str) -> None:
        try:
            while questions := self._asked.pop(team, []):
                await self._settle(team, questions)
        finally:
            del self._reading[team]

    async def _settle(self, team: str, questions: list[_Question]) -> None:
        wanted = {question.result_id for question in questions}
        try:
            found = await self._found(team, wanted, min(question.since_ms for question in questions) - _SKEW_MS)
        except Exception as error:
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(question.result_id in found)

    async def _found(self, team: str, wanted: set[str], since_ms: int) -> set[str]:
        reader = await self._kafka.reader([Partition(results_topic(team), n) for n in range(RESULTS.partitions)])
        try:
            await reader.seek_to_time(since_ms)
            found = set[str]()
            async for records in reader.rest(_POLL_S):
                found.update(header(record.headers, H_ID) for record in records)
                found &= wanted
            return found
        finally:
            await reader.stop()
