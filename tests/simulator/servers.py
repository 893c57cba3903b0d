"""What outlives every process of a world: the log, Redis, the file store."""

from collections import Counter
from functools import cached_property
from typing import TypeVar

from infra.kafka.envelope import H_ID, decode, header
from schemas.base import Message
from schemas.completion import Completion
from schemas.job import Job
from schemas.reply import Reply
from schemas.topics import COMPLETIONS, REPLIES, Delay, delay_topic, results_topic
from tests.fakes.log import MemoryLog, Record
from tests.fakes.redis import LuaRedis
from tests.simulator.chaos import Chaos
from tests.simulator.wires import MemoryFiles

M = TypeVar("M", bound=Message)


class Servers:
    """The servers, and what stands on them."""

    def __init__(self, chaos: Chaos) -> None:
        self.log = MemoryLog(partitions=8, clock=chaos.now_ms)
        self.redis = LuaRedis(chaos.now_ms)
        self.files = MemoryFiles()

    def results(self, team: str) -> list[str]:
        """The ids of a team's results, each as often as it stands in the topic."""
        return [header(record.headers, H_ID) for record in self.log.records(results_topic(team))]

    @cached_property
    def completions(self) -> dict[str, list[Completion]]:
        """By job, the first in the log first. To be asked for when all is over."""
        found: dict[str, list[Completion]] = {}
        for record in self.log.records(COMPLETIONS.name):
            completion = _decoded(record, Completion)
            found.setdefault(completion.job_id, []).append(completion)
        return found

    @cached_property
    def replies(self) -> dict[str, list[Reply]]:
        """By job, in order. To be asked for when all is over."""
        found: dict[str, list[Reply]] = {}
        for record in self.log.records(REPLIES.name):
            reply = _decoded(record, Reply)
            found.setdefault(reply.job_id, []).append(reply)
        return found

    @cached_property
    def told(self) -> Counter[str]:
        """How often each result stands in its team's topic. To be asked for when all is over."""
        return Counter(result for team in ("fraud", "claims") for result in self.results(team))

    @cached_property
    def put_off(self) -> Counter[str]:
        """How often a router has put each job off. To be asked for when all is over."""
        waiting = [record for delay in Delay for record in self.log.records(delay_topic(delay))]
        jobs = [_decoded(record, Job) for record in waiting]
        return Counter(job_id for job_id, _ in {(job.id, job.not_before_ms) for job in jobs})


def _decoded(record: Record, model: type[M]) -> M:
    decoded = decode(record, model)
    assert isinstance(decoded, model), decoded
    return decoded
