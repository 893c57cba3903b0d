"""How long fetches wait at the broker, told to a consumer that gives what a test says."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from infra.kafka.fetches import Fetches
from infra.kafka.log import Incoming
from tests.fakes.log import Record

SOME: Sequence[Record] = (Record("things", 0, 0),)
NONE: Sequence[Record] = ()
Asked = tuple[int, int]


class Consumer:
    """Gives what is scripted, then nothing. The names below `_fetcher` are aiokafka's."""

    def __init__(self, *script: Sequence[Record]) -> None:
        self._script = list(script)
        self._fetcher = SimpleNamespace(_fetch_min_bytes=1, _fetch_max_wait_ms=500, _fetcher_timeout=0.2)
        self.timeouts_ms: list[int] = []

    async def getmany(self, *_: object, timeout_ms: int, max_records: int | None) -> dict[str, list[Incoming]]:
        self.timeouts_ms.append(timeout_ms)
        records = self._script.pop(0) if self._script else ()
        return {"things": cast("list[Incoming]", list(records)[:max_records])}

    @property
    def asked(self) -> Asked:
        """Bytes and milliseconds that the next fetch waits for."""
        return self._fetcher._fetch_min_bytes, self._fetcher._fetch_max_wait_ms


@pytest.mark.parametrize(
    ("may_wait_ms", "timeout_s", "script", "asked", "timeouts_ms"),
    [
        (0, 1.0, (SOME,), (1, 500), [1000]),
        (0, 1.0, (NONE,), (1, 2_000), [1000]),
        (0, 0.01, (NONE,), (1, 500), [10]),
        (0, 5.0, (NONE, SOME), (1, 500), [1000, 4000]),
        (15, 1.0, (SOME,), (256 * 1024, 15), [30]),
        (15, 1.0, (NONE, SOME), (256 * 1024, 15), [30, 970]),
        (15, 1.0, (NONE, NONE), (1, 2_000), [30, 970]),
        (15, 0.01, (NONE,), (1, 500), [10]),
    ],
    ids=["records", "none", "none, asked in a hurry", "late", "bulk", "bulk, late", "bulk, none", "bulk, none, in a hurry"],
)
async def test_a_fetch_waits_long_only_after_a_while_in_which_nothing_came(
    may_wait_ms: int, timeout_s: float, script: Sequence[Sequence[Record]], asked: Asked, timeouts_ms: list[int]
) -> None:
    consumer = Consumer(*script)
    records = await Fetches(consumer, may_wait_ms).take((), 10, timeout_s)
    assert (len(records), consumer.asked, consumer.timeouts_ms) == (sum(map(len, script)), asked, timeouts_ms)


async def test_the_first_record_after_quiet_makes_fetches_short_again() -> None:
    consumer = Consumer(NONE, SOME)
    fetches = Fetches(consumer)
    seen = list[Asked]()
    for _ in range(2):
        await fetches.take((), None, 1.0)
        seen.append(consumer.asked)
    assert seen == [(1, 2_000), (1, 500)]
