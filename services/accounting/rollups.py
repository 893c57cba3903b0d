"""Sums of the books by hour and day, made anew when their rows have changed (decision 0024; infra/clickhouse/migrations/0011).

An hour is sealed when nothing has touched it for a while, from its deduplicated rows; a day from its hours, when all of them are
sealed. What is not sealed is read from its rows: so nothing here can make a sum wrong, only slow. Two at once do no harm either.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast

from infra.clickhouse.client import ClickHouse
from infra.clock import Clock

Grain = Literal["hour", "day"]

DIMENSIONS: Final = (
    "organization, team, project, environment, key_id, user, feature, segment, lane, api, model, deployment, provider, status,"
    " cache, usage_source, price_version, service_tier"
)
MEASURES: Final = (
    "jobs", "failed_jobs", "prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens",
    "cost_usd", "saved_usd", "latency_ms", "ttft_ms", "ttft_jobs",
)  # fmt: skip

QUIET_S: Final = 30
"""An hour that was touched later than that is left alone. Longer than an insert takes from its rows to its touch."""
AT_ONCE: Final = 24
_EVERY_S: Final = 30.0
_RANDOM_BITS: Final = 20
_FORGET_MS: Final = 3_600_000
"""Sums that were never sealed, or no longer count, are dropped after that: nobody adds up, or reads, for so long."""

log = logging.getLogger(__name__)

# Touched more often than when it was sealed, and quiet now. A day waits until it is over and no hour of it is open.
_STALE: Final = """
SELECT bucket, touched FROM
(
    SELECT {start}(hour) AS bucket, sum(touches) AS touched, max(last) AS latest FROM sluice.usage_touches GROUP BY bucket
)
WHERE latest <= now('UTC') - {quiet_s:d} AND bucket NOT IN (SELECT bucket FROM sluice.usage_sealed WHERE grain = '{grain}') {also}
ORDER BY bucket LIMIT {limit:d}
"""
_WHOLE: Final = """AND bucket < toStartOfDay(now('UTC')) AND bucket NOT IN
(
    SELECT toStartOfDay(hour) FROM sluice.usage_touches
    WHERE hour NOT IN (SELECT bucket FROM sluice.usage_sealed WHERE grain = 'hour')
)"""
_ADD_UP: Final = """
INSERT INTO sluice.usage_{grain}s (bucket, {dimensions}, {measures}, generation)
SELECT toDateTime({begin:d}, 'UTC'), {dimensions}, {sums}, {generation:d} FROM ({rows}) AS s GROUP BY {dimensions}
"""
_ROWS: Final = {
    "hour": """SELECT * FROM sluice.usage_measures
        WHERE ts >= toDateTime64({begin:d}, 3, 'UTC') AND ts < toDateTime64({begin:d} + 3600, 3, 'UTC')""",
    "day": """SELECT * FROM sluice.usage_hours WHERE toStartOfDay(bucket) = toDateTime({begin:d}, 'UTC')
        AND (bucket, generation) IN (SELECT bucket, generation FROM sluice.usage_sealed WHERE grain = 'hour')""",
}
_LEFT_OVER: Final = """
SELECT DISTINCT bucket, generation FROM sluice.usage_{grain}s
WHERE generation < {{before:UInt64}}
    AND (bucket, generation) NOT IN (SELECT bucket, generation FROM sluice.usage_seals FINAL WHERE grain = '{grain}')
LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class _Stale:
    begin_s: int
    touches: int


class Rollups:
    """Keeps the sums. `mine` says whether this process should: one is enough."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        mine: Callable[[], bool],
        clock: Clock,
        *,
        quiet_s: int = QUIET_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clickhouse, self._mine, self._clock, self._quiet_s, self._sleep = clickhouse, mine, clock, quiet_s, sleep

    async def run(self) -> None:
        """Until it is cancelled. What fails is tried again: nobody waits for it."""
        while True:
            await self._sleep(_EVERY_S)
            try:
                while self._mine() and await self.seal():
                    pass
            except Exception as error:
                log.warning("rollups: trying again: %s", error)

    async def seal(self) -> int:
        """Seals some of what is stale and quiet, hours before days; gives how many. 0: there was nothing to do."""
        sealed = 0
        for grain in ("hour", "day"):
            stale = await self._stale(grain)
            for one in stale:
                await self._seal(grain, one)
            if stale:
                await self._forget(grain)
            sealed += len(stale)
        return sealed

    async def _stale(self, grain: Grain) -> list[_Stale]:
        start, also = ("toStartOfHour", "") if grain == "hour" else ("toStartOfDay", _WHOLE)
        rows = await self._clickhouse.query(
            _STALE.format(start=start, grain=grain, also=also, quiet_s=self._quiet_s, limit=AT_ONCE)
        )
        return [_Stale(int(cast(datetime, row["bucket"]).timestamp()), cast(int, row["touched"])) for row in rows]

    async def _seal(self, grain: Grain, stale: _Stale) -> None:
        """The touches were counted before the rows are read: what comes meanwhile touches again, and the seal won't hold."""
        generation = self._generation(self._clock())
        sums = ", ".join(f"sum(s.{measure})" for measure in MEASURES)
        await self._clickhouse.command(
            _ADD_UP.format(
                grain=grain,
                dimensions=DIMENSIONS,
                measures=", ".join(MEASURES),
                sums=sums,
                begin=stale.begin_s,
                generation=generation,
                rows=_ROWS[grain].format(begin=stale.begin_s),
            )
        )
        seal = {"grain": grain, "bucket": stale.begin_s, "touches": stale.touches, "generation": generation}
        await self._clickhouse.insert("sluice.usage_seals", {name: [value] for name, value in seal.items()}, f"seal:{generation}")

    async def _forget(self, grain: Grain) -> None:
        """Drops sums that don't count: of seals that were replaced, and of a process that died before it could seal them."""
        before = max(0, self._clock() - _FORGET_MS) << _RANDOM_BITS
        found = await self._clickhouse.query(_LEFT_OVER.format(grain=grain), {"before": before})
        if found:
            places = ", ".join(f"({int(cast(datetime, row['bucket']).timestamp())}, {row['generation']})" for row in found)
            await self._clickhouse.command(
                f"DELETE FROM sluice.usage_{grain}s WHERE (toUnixTimestamp(bucket), generation) IN ({places})"
            )

    @staticmethod
    def _generation(now_ms: int) -> int:
        """Grows with time; no two are equal, whoever makes them."""
        return now_ms << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
