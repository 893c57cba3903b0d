"""Job stages that live in one process: a job goes from one to the next in memory, and not over Kafka.

The record it came in is finished when the last of them is done with it, so that a death repeats the way from there; repeated
work is recognised as ever, by the job's record in Redis. Decision 0009 has the measurements.
"""

from infra.kafka.carriage import Carriage, Delivery
from infra.kafka.log import Incoming
from infra.kafka.stage import Stage
from schemas.job import Job
from schemas.slip import Stage as StageName


class Neighbours:
    """The job stages of this process, by name."""

    def __init__(self) -> None:
        self._stages: dict[StageName, tuple[Stage, Carriage]] = {}

    def add(self, stage: Stage, carriage: Carriage) -> None:
        self._stages[carriage.stage] = stage, carriage

    async def hand_over(self, job: Job, record: Incoming, delivery: Delivery) -> bool:
        """Has the next stage on the job's slip work on it to its end. False if that isn't here, or has no place to spare."""
        found = self._stages.get(job.slip[0]) if job.slip else None
        if found is None:
            return False
        stage, carriage = found
        if not stage.lend(job.lane):
            return False
        try:
            await carriage.take_over(job, record, delivery)
        finally:
            stage.take_back(job.lane)
        return True
