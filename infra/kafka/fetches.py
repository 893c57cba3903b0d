"""How records are taken from aiokafka's consumer: its fetches wait longer at the broker while none come."""

from collections.abc import Sequence
from typing import Any, Final

from infra.kafka.log import Incoming

FETCH_MS: Final = 500
_BULK_BYTES: Final = 256 * 1024
_QUIET_FETCH_MS: Final = 2_000
_LOOK_S: Final = 0.2
"""So often aiokafka looks by default for what it was told of anyway."""


class Fetches:
    """Those of one consumer.

    A fetch that brings nothing costs as much as any other, and thirty consumers make them all the time; one that waits for
    the first record, however long, brings it at once. But aiokafka has one on its way at a time: a partition whose records have
    just been taken is asked for again only when that is back, and it waits for the others. So while records come it is short.
    """

    def __init__(self, consumer: Any, may_wait_ms: int = 0) -> None:
        """`may_wait_ms`: while records come they may wait so long for others, to be fetched many at once."""
        self._consumer = consumer
        self._least_bytes, self._wait_ms = (_BULK_BYTES, may_wait_ms) if may_wait_ms else (1, FETCH_MS)

    async def take(self, partitions: Sequence[object], limit: int | None, timeout_s: float) -> list[Incoming]:
        """The next records of these partitions, or of all; empty after `timeout_s`."""
        timeout_ms, soon_ms = int(timeout_s * 1000), 2 * self._wait_ms
        records = await self._getmany(partitions, limit, min(timeout_ms, soon_ms))
        if not records and timeout_ms >= soon_ms:
            self._ask_for(1, _QUIET_FETCH_MS)
            if timeout_ms > soon_ms:
                records = await self._getmany(partitions, limit, timeout_ms - soon_ms)
        if records:
            self._ask_for(self._least_bytes, self._wait_ms)
        return records

    async def _getmany(self, partitions: Sequence[object], limit: int | None, timeout_ms: int) -> list[Incoming]:
        batches = await self._consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=limit)
        return [record for batch in batches.values() for record in batch]

    def _ask_for(self, least_bytes: int, wait_ms: int) -> None:
        """From the next fetch on. aiokafka has no setters."""
        fetcher = self._consumer._fetcher
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = least_bytes, wait_ms
        fetcher._fetcher_timeout = max(_LOOK_S, wait_ms / 1000)
