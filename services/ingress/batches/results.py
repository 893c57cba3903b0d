"""The ends of a batch's lines, as `sluice.batch_results` tells them: first those of earlier lives, then what comes."""

from collections.abc import AsyncGenerator
from typing import Protocol, Self

from infra.files import FileStore
from infra.kafka.broker import Kafka, Reader
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming, Partition
from schemas.batch import BatchOrder, BatchResult
from schemas.topics import BATCH_RESULTS
from services.ingress.batches.policy import results_partition

_SKEW_MS = 60_000
"""The clocks of those who write may differ by so much."""
_POLL_S = 1.0


class Told(Protocol):
    """Tells how lines ended. A line may be told more than once."""

    def past(self) -> AsyncGenerator[list[BatchResult]]:
        """What is known already; ends."""
        ...

    async def more(self) -> list[BatchResult]:
        """What came since; empty if nothing did for about a second."""
        ...


class LineResults(Told):
    """Reads the partition of one batch."""

    def __init__(self, reader: Reader, files: FileStore, batch_id: str) -> None:
        self._reader = reader
        self._files = files
        self._key = batch_id.encode()

    @classmethod
    async def open(cls, kafka: Kafka, files: FileStore, order: BatchOrder) -> Self:
        """Begins where the batch did. Raises what the connection raises."""
        reader = await kafka.reader([Partition(BATCH_RESULTS.name, results_partition(order.id))])
        await reader.seek_to_time(order.created_ms - _SKEW_MS)
        return cls(reader, files, order.id)

    async def past(self) -> AsyncGenerator[list[BatchResult]]:
        async for records in self._reader.rest(_POLL_S):
            yield await self._ours(records)

    async def more(self) -> list[BatchResult]:
        return await self._ours(await self._reader.poll(_POLL_S))

    async def close(self) -> None:
        await self._reader.stop()

    async def _ours(self, records: list[Incoming]) -> list[BatchResult]:
        read = [await self._read(record) for record in records if record.key == self._key]
        return [result for result in read if result is not None]

    async def _read(self, record: Incoming) -> BatchResult | None:
        resolved = await fetched(record, self._files)
        result = resolved if isinstance(resolved, Poison) else decode(resolved, BatchResult)
        return None if isinstance(result, Poison) else result
