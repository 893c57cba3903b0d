"""Completions, ClickHouse and Redis compared, every minute, for what came since (RELIABILITY.md 5.12, G11).

Both stores say up to which record of the log they have come, so what is compared is always the same set of records: a difference
is a fault, never a delay. What is to be at a counter is added up from ClickHouse when this process begins, and then carried on by
the records of the log, each of which is looked up in ClickHouse on the way: what is missing there is written again from the log.
What differs in Redis is corrected by the difference, which is written down before; nothing is ever overwritten.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from infra.alerts import Alerts
from infra.budgets import KEPT_MS
from infra.clickhouse.blocks import version
from infra.clickhouse.client import ClickHouse, ClickHouseUnavailable
from infra.kafka.broker import Reader
from infra.kafka.log import Incoming, Partition
from infra.platform import Platform
from infra.redis.adjustments import Standing, adjust, standing
from infra.redis.client import RedisUnavailable
from infra.redis.ledger import Spent
from infra.telemetry import metrics
from schemas.base import JsonObject
from schemas.budget import nano, shown, usd
from schemas.topics import COMPLETIONS
from services.accounting.books import PARTITIONS, booked, days_of
from services.accounting.ended import read_ended
from services.accounting.sums import Ended, Sums

log = logging.getLogger(__name__)

LAG_S: Final = 30.0
"""The books are waited for so long; what is behind then is compared the next time."""

_ANEW_MS: Final = 86_400_000
"""After so long everything is added up once more; periods that are over are forgotten with it."""
_SLICE: Final = 1_000
_LOOKBACK: Final = 1_000
_COUNTERS: Final = 2_000
_MOST_UNTESTED: Final = 200_000
_POLL_S: Final = 0.2
_TOLD: Final = 20

Mend = Callable[[Sequence[Incoming]], Awaitable[int]]
"""Writes completions into ClickHouse again, which is harmless for those that are there; gives how many can be written at all."""


class Lagging(Exception):
    """A store has not come far enough yet."""


@dataclass(frozen=True, slots=True)
class _Seen:
    record: Incoming
    ended: Ended


class Reconciliation:
    """Runs in the process that `leads`. `mend`: what it may do to ClickHouse."""

    def __init__(self, platform: Platform, clickhouse: ClickHouse, leads: Callable[[], bool], mend: Mend, alerts: Alerts) -> None:
        self._platform, self._clickhouse, self._leads, self._mend, self._alerts = platform, clickhouse, leads, mend, alerts
        self._sums = Sums(platform.control.table)
        settings = platform.settings
        self._kept_days = min(settings.keep_usage_days or math.inf, settings.keep_attempts_days or math.inf)
        self._forget()

    def _forget(self) -> None:
        self._cut: dict[int, int] = {}
        self._expected: dict[str, Spent] = {}
        self._untested: dict[str, None] = {}
        self._began_ms = 0

    async def run(self, every_s: float) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            if not self._leads():
                self._forget()
                continue
            try:
                await self.round()
            except Lagging as error:
                log.info("reconciliation: %s", error)
            except (RedisUnavailable, ClickHouseUnavailable) as error:
                log.warning("reconciliation: not now (%s)", error)
            except Exception:
                log.exception("reconciliation: begins anew")
                self._forget()

    async def round(self) -> dict[str, Spent]:
        """Compares what came since the last time; gives what differed in Redis, by counter, and has corrected it.

        Raises Lagging, and what Kafka, ClickHouse and Redis raise.
        """
        now = await standing(self._platform.redis, PARTITIONS)
        if not now.state:
            self._forget()
            raise Lagging("the ledger is closed")
        is_old = self._platform.clock() - self._began_ms > _ANEW_MS
        if is_old or any(now.settled[n] < last for n, last in self._cut.items()):
            self._forget()
        await self._caught_up(now.settled)
        if not self._began_ms:
            await self._begin(now)
        await self._advance(now.settled)
        differed = dict[str, Spent]()
        for counters in _batched(list(self._untested)):
            differed |= await self._compare(counters)
        self._tell_metrics(differed)
        return differed

    async def _begin(self, now: Standing) -> None:
        """Everything that the books say up to now. The last records are looked up once more: who died may have left a hole."""
        began_ms = self._platform.clock()
        self._cut = {n: max(-1, last - _LOOKBACK) for n, last in now.settled.items()}
        await self._advance(now.settled)
        self._expected = await booked(self._clickhouse, self._platform.control.table, began_ms, now.settled)
        # Of a period that is longer than rows are kept nobody knows all of it any more: Redis alone does.
        self._expected = {key: one for key, one in self._expected.items() if self._is_kept(key)}
        self._untested = dict.fromkeys(self._expected)
        self._began_ms = began_ms

    async def _caught_up(self, settled: Mapping[int, int]) -> None:
        """Returns when ClickHouse has what Redis has. Raises Lagging."""
        partitions = [Partition(COMPLETIONS.name, n) for n in PARTITIONS]
        ends = asyncio.get_running_loop().time() + LAG_S
        while True:
            marks = await self._platform.kafka.committed("sluice-accounting", partitions)
            behind = sum(max(0, settled[p.partition] + 1 - (marks[p].offset if p in marks else 0)) for p in partitions)
            metrics.BOOKS_LAG.set(behind)
            if not behind:
                return
            if asyncio.get_running_loop().time() > ends:
                raise Lagging(f"ClickHouse is {behind} completions behind Redis")
            await asyncio.sleep(_POLL_S)

    async def _advance(self, until: Mapping[int, int]) -> None:
        """Carries on what is expected to these records, which are in both stores."""
        ahead = {Partition(COMPLETIONS.name, n): last for n, last in until.items() if last > self._cut[n]}
        if not ahead:
            return
        reader = await self._platform.kafka.reader(list(ahead))
        try:
            await self._seek(reader, ahead)
            async for records in reader.up_to({partition: last + 1 for partition, last in ahead.items()}, _POLL_S):
                fresh = [record for record in records if self._is_next(record, until)]
                for i in range(0, len(fresh), _SLICE):
                    await self._take(fresh[i : i + _SLICE])
        finally:
            await reader.stop()
        self._cut |= {partition.partition: last for partition, last in ahead.items()}

    async def _seek(self, reader: Reader, ahead: Mapping[Partition, int]) -> None:
        starts = await reader.starts()
        for partition in ahead:
            first = self._cut[partition.partition] + 1
            if self._began_ms and starts[partition] > first:
                raise RuntimeError("the log keeps less than came since the last look")
            reader.seek(partition, max(starts[partition], first))

    def _is_next(self, record: Incoming, until: Mapping[int, int]) -> bool:
        return self._cut[record.partition] < record.offset <= until[record.partition]

    async def _take(self, records: Sequence[Incoming]) -> None:
        """Looks some records up in ClickHouse, mends what is missing, and adds what counts."""
        seen = [_Seen(record, ended) for record in records if (ended := await read_ended(record, self._platform.files))]
        found = await self._look_up(seen)
        if missing := [one.record for one in seen if not _is_there(one, found)]:
            written = await self._mend(missing)
            found = await self._look_up(seen)
            if written:
                await self._tell_of_rows(written, sum(not _is_there(one, found) for one in seen) - len(missing) + written)
        for one in seen:
            self._add(one, found)
        for record in records:
            self._cut[record.partition] = record.offset

    async def _look_up(self, seen: Sequence[_Seen]) -> dict[str, tuple[int, int, int, int]]:
        """By call, and by job: partition and version of the row that counts, nano-dollars, tokens."""
        calls = [attempt.id for one in seen for attempt in one.ended.attempts]
        jobs = [one.ended.job_id for one in seen]
        found = dict[str, tuple[int, int, int, int]]()
        for i in range(0, max(len(calls), len(jobs)), _SLICE):
            rows = await self._clickhouse.query(_LOOK_UP.format(_quoted(calls[i : i + _SLICE]), _quoted(jobs[i : i + _SLICE])))
            for row in rows:
                cost = nano(Decimal(str(row["cost_usd"])))
                found[str(row["id"])] = (_int(row["partition"]), _int(row["version"]), cost, _int(row["tokens"]))
        return found

    def _add(self, one: _Seen, found: Mapping[str, tuple[int, int, int, int]]) -> None:
        """A call counts where its row comes from: in a completion that comes again it counts no more."""
        place = (one.record.partition, version(one.record.offset))
        fresh = [found[a.id] for a in one.ended.attempts if a.id in found and found[a.id][:2] == place]
        for key, forgotten_ms in self._sums.counters(one.ended):
            if not self._is_kept(key):
                continue
            if key not in self._expected and 0 < forgotten_ms - KEPT_MS <= self._began_ms:
                # Its period was over when we began: what came before in it is not known.
                continue
            self._untested[key] = None
            expected = self._expected.setdefault(key, Spent(forgotten_ms))
            expected.usd_nano += sum(nanos for _, _, nanos, _ in fresh)
            expected.tokens += sum(tokens for _, _, _, tokens in fresh)
        if len(self._untested) > _MOST_UNTESTED:
            raise RuntimeError("more counters than can be compared at once")

    def _is_kept(self, counter: str) -> bool:
        return math.isinf(self._kept_days) or days_of(counter) < self._kept_days

    async def _compare(self, counters: Sequence[str]) -> dict[str, Spent]:
        platform = self._platform
        now = await standing(platform.redis, PARTITIONS, counters)
        if not now.state or any(now.settled[n] < last for n, last in self._cut.items()):
            self._forget()
            raise Lagging("the ledger was closed meanwhile")
        await self._caught_up(now.settled)
        await self._advance(now.settled)
        differing = {key: one for key in counters if (one := self._difference(key, now))}
        if differing:
            await self._correct(differing, now)
        # What touched them on the way has been compared with them.
        for key in counters:
            self._untested.pop(key, None)
        return differing

    def _difference(self, key: str, now: Standing) -> Spent | None:
        """What has to be added to a counter."""
        expected, (nanos, tokens) = self._expected[key], now.spent[key]
        if (expected.usd_nano, expected.tokens) == (nanos, tokens):
            return None
        return Spent(expected.forgotten_ms, expected.usd_nano - nanos, expected.tokens - tokens)

    async def _correct(self, differing: Mapping[str, Spent], now: Standing) -> None:
        await self._note(differing, now, made=False)
        if not await adjust(self._platform.redis, now.state, differing):
            raise Lagging("somebody else has adjusted the ledger meanwhile")
        await self._note(differing, now, made=True)
        await self._tell_of_counters(differing)

    async def _note(self, differing: Mapping[str, Spent], now: Standing, *, made: bool) -> None:
        columns = {
            "id": [f"{now.state}:{key}" for key in differing],
            "ts": [self._platform.clock()] * len(differing),
            "counter": list(differing),
            "was_usd": [usd(now.spent[key][0]) for key in differing],
            "usd": [usd(one.usd_nano) for one in differing.values()],
            "was_tokens": [now.spent[key][1] for key in differing],
            "tokens": [one.tokens for one in differing.values()],
            "made": [made] * len(differing),
            "version": [int(made)] * len(differing),
        }
        first = next(iter(differing))
        await self._clickhouse.insert("sluice.adjustments_log", columns, f"adjustment:{now.state}:{first}:{made}")

    async def _tell_of_counters(self, differing: Mapping[str, Spent]) -> None:
        """The totals come with each: one of them a scope is enough to know."""
        worst = sorted(differing.items(), key=lambda item: -abs(item[1].usd_nano))
        for key, one in worst[:_TOLD]:
            scope, _, period = key.removeprefix("spend:").rpartition(":")
            message = f"{scope} in {period}: Redis differed from the books by {shown(-one.usd_nano)} USD, and was corrected"
            amount: JsonObject = {"usd": str(usd(-one.usd_nano)), "tokens": -one.tokens}
            facts: JsonObject = {"period": period, "counters": len(differing), **amount}
            await self._raise(scope, message, facts, period)

    async def _tell_of_rows(self, missing: int, still: int) -> None:
        metrics.BOOKS_MENDED.inc(missing - still)
        what = f"{missing} completions of the log were not in ClickHouse; {missing - still} were written again"
        await self._raise("clickhouse", what, {"missing": missing, "still_missing": still}, str(still))

    async def _raise(self, scope: str, message: str, facts: JsonObject, about: str) -> None:
        log.error("reconciliation: %s", message)
        try:
            await self._alerts.raise_("books_differ", scope, "", message, "critical", facts, about=about)
        except Exception as error:
            log.warning("reconciliation: an alert could not be raised (%s)", error)

    def _tell_metrics(self, differed: Mapping[str, Spent]) -> None:
        by_level = dict.fromkeys(_LEVELS, 0)
        for key, one in differed.items():
            by_level[key.removeprefix("spend:").partition("/")[0]] += abs(one.usd_nano)
        for level, nanos in by_level.items():
            metrics.BOOKS_DIFFERENCE.labels(level).set(float(usd(nanos)))


_LEVELS: Final[Sequence[str]] = ("organization", "team", "project", "environment", "key", "user")

_LOOK_UP: Final = """
SELECT attempt_id AS id, partition, version, cost_usd, prompt_tokens + completion_tokens AS tokens
FROM sluice.attempts_log FINAL WHERE attempt_id IN ({})
UNION ALL
SELECT job_id AS id, partition, version, cost_usd, prompt_tokens + completion_tokens AS tokens
FROM sluice.usage_log FINAL WHERE job_id IN ({})
"""


def _is_there(one: _Seen, found: Mapping[str, object]) -> bool:
    return one.ended.job_id in found and all(attempt.id in found for attempt in one.ended.attempts)


def _quoted(ids: Sequence[str]) -> str:
    """As ClickHouse's literals: too many for a URL, where parameters go."""
    return ",".join("'" + one.replace("\\", "\\\\").replace("'", "\\'") + "'" for one in ids) or "''"


def _batched(counters: Sequence[str]) -> list[Sequence[str]]:
    return [counters[i : i + _COUNTERS] for i in range(0, len(counters), _COUNTERS)]


def _int(value: object) -> int:
    return int(str(value))
