"""The broadcast that says: nobody waits for this job any more. Every instance hears it."""

from collections.abc import Callable

from infra.kafka.broker import Kafka
from infra.kafka.envelope import Poison, decode
from infra.kafka.follower import Follower
from infra.kafka.log import Incoming, Partition
from schemas.cancel import Cancel
from schemas.topics import CANCELS


class Cancels:
    """Calls `heard` with the id of each job that is cancelled from now on."""

    def __init__(self, kafka: Kafka, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._follower = Follower(kafka, Partition(CANCELS.name, 0), self._take)

    async def start(self) -> None:
        await self._follower.start()

    async def stop(self) -> None:
        await self._follower.stop()

    async def _take(self, record: Incoming) -> None:
        cancel = decode(record, Cancel)
        if not isinstance(cancel, Poison):
            self._heard(cancel.job_id)
