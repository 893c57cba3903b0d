"""What a team's results topic holds already: asked before a result is published that a dead process may have published.

Kafka's acknowledgement and the note in Redis that a job is done can't be one step. A death between them leaves the question open,
and only the log itself knows the answer.
"""

from infra.kafka.broker import Kafka
from infra.kafka.envelope import H_ID, header
from infra.kafka.log import Incoming, Partition
from infra.kafka.lookback import Lookback
from schemas.topics import RESULTS, results_topic


class Results:
    """Answers all who ask meanwhile by one reading of the topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._lookback = Lookback(kafka, _result_id)

    async def told(self, team: str, result_id: str, since_ms: int) -> bool:
        """True if the team was told this result; it can't have been before `since_ms` (unix milliseconds)."""
        partitions = [Partition(results_topic(team), n) for n in range(RESULTS.partitions)]
        return any([await self._lookback.find(partition, result_id, since_ms) for partition in partitions])


def _result_id(record: Incoming) -> str:
    return header(record.headers, H_ID)
