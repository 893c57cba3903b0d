"""What was held for a job becomes spent when it ends: completions are settled in Redis, in their order, each once.

Redis itself knows up to which record of each partition it is settled, in the same step in which it counts: what is delivered
again is skipped, whatever Kafka knows. It doesn't wait for ClickHouse: budgets are exact also while the books are behind.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal

from infra.alerts import Alerts
from infra.files import FileStore
from infra.kafka.log import CommitRefused, Incoming, Mark, Partition, Source
from infra.redis import ledger
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.ledger import LedgerClosed, OutOfOrder, Settlement
from infra.redis.once import Once
from infra.telemetry import metrics
from services.accounting.budget_alerts import BudgetAlerts
from services.accounting.ended import read_ended
from services.accounting.runaway import Watch
from services.accounting.shutdowns import Shutdowns
from services.accounting.signals import Signals
from services.accounting.sums import Ended, Sums

log = logging.getLogger(__name__)

AT_ONCE = 1000
_IDLE_POLL_S = 1.0
_RETRY_S = 0.25
_SWEEP_S = 1.0
_COMMIT_S = 1.0
_UNKNOWN = -2
_SKEW_MS = 3_000
"""A completion that bears an earlier time than one before it is no older than this."""


class SettlementStage:
    """Reads completions as a member of a group, and settles them."""

    def __init__(
        self,
        source: Source,
        redis: Redis,
        files: FileStore,
        sums: Sums,
        watch: Watch,
        shutdowns: Shutdowns,
        signals: Signals,
        alerts: Alerts,
        rebuild: Callable[[], Awaitable[None]],
    ) -> None:
        """`rebuild` counts everything anew and opens the ledger; it returns when somebody has, and raises if it can't be done."""
        self._source, self._redis, self._files = source, redis, files
        self._sums, self._watch, self._shutdowns, self._alerts, self._rebuild = sums, watch, shutdowns, alerts, rebuild
        self._signals = signals
        self._budgets = BudgetAlerts(alerts, Once(redis), sums.alert_rules)
        self._last: dict[Partition, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        self._committed_s = 0.0
        self._settled_ms: dict[int, int] = {}

    async def start(self) -> None:
        """Joins the group."""
        await self._source.start(self)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._keep())]

    def not_ready(self) -> str | None:
        if not self._open:
            return "settlement: the budgets are being counted anew"
        if not self._tasks or any(task.done() for task in self._tasks):
            return "settlement: its loop has ended"
        return None

    @property
    def leads(self) -> bool:
        """True in one process at a time: the one that has the first partition."""
        return any(partition.partition == 0 for partition in self._last)

    async def drain(self) -> None:
        """What is settled is settled: there is nothing to wait for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commit(0)

    async def stop(self) -> None:
        await self._source.stop()

    async def revoked(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._last.pop(partition, None)

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self._last |= dict.fromkeys(partitions, _UNKNOWN)

    async def _run(self) -> None:
        records: Sequence[Incoming] = ()
        while True:
            try:
                if not self._last:
                    await asyncio.sleep(_RETRY_S)
                    continue
                # What was polled is not polled again: it is settled before anything else is, whatever goes wrong meanwhile.
                records = records or await self._source.poll(list(self._last), AT_ONCE, _IDLE_POLL_S)
                if records:
                    await self._settle([(record, await read_ended(record, self._files)) for record in records])
                for record in records:
                    self._settled_ms[record.partition] = record.timestamp - _SKEW_MS
                records = ()
                await self._commit(_COMMIT_S)
            except RedisUnavailable as error:
                log.warning("settlement: %s, trying again", error)
                await asyncio.sleep(_RETRY_S)
            except Exception:
                log.exception("settlement: trying again")
                await asyncio.sleep(_RETRY_S)

    async def _settle(self, records: Sequence[tuple[Incoming, Ended | None]]) -> None:
        """Until they are known to be settled, by us or by somebody else."""
        while True:
            last = dict(self._last)
            settlement, before, seen = Settlement(), dict[str, frozenset[str]](), list[Ended]()
            for record, ended in records:
                partition = Partition(record.topic, record.partition)
                if record.offset <= last.get(partition, record.offset):
                    continue
                first, _ = settlement.settled.get(record.partition, (last[partition], 0))
                settlement.settled[record.partition] = (first, record.offset)
                if ended is not None:
                    self._sums.add(settlement, ended, before)
                    seen.append(ended)
            if not settlement.settled:
                return
            try:
                done = await ledger.settle(self._redis, settlement)
            except RedisUnavailable as error:
                log.warning("settlement: %s, trying again", error)
                await asyncio.sleep(_RETRY_S)
                continue
            match done:
                case LedgerClosed():
                    self._closed()
                    await asyncio.sleep(_RETRY_S)
                case OutOfOrder(last=known):
                    topic = records[0][0].topic
                    self._last |= {p: known[p.partition] for p in self._last if p.topic == topic and p.partition in known}
                    await self._check_it_is_this_log()
                case _:
                    self._sums.done(before)
                    for number, (_, until) in settlement.settled.items():
                        if (partition := Partition(records[0][0].topic, number)) in self._last:
                            self._last[partition] = until
                    await self._tell(seen, done.totals or await self._totals(settlement))
                    return

    async def _note_progress(self) -> None:
        """Up to when every completion is settled: what the brokers had a moment ago is, and they have just said so."""
        began_ms, last = self._alerts.clock(), dict(self._last)
        unknown = [partition for partition, offset in last.items() if offset == _UNKNOWN]
        if unknown:
            # Not noted: a settlement that is under way has to find out for itself whether it is done.
            known = await ledger.settled(self._redis, [partition.partition for partition in unknown])
            last |= {partition: known[partition.partition] for partition in unknown}
        for partition, end in (await self._source.end(list(last)) if last else {}).items():
            if max(last[partition], self._last.get(partition, _UNKNOWN)) + 1 >= end:
                self._settled_ms[partition.partition] = began_ms - _SKEW_MS

    async def _check_it_is_this_log(self) -> None:
        """Redis may know of more records than there are: those of another log, which was there before."""
        ends = await self._source.end(list(self._last))
        if any(last >= ends[partition] for partition, last in self._last.items() if partition in ends):
            log.error("settlement: Redis has settled more than there is; this is another log")
            await ledger.close_ledger(self._redis)
            self._last = dict.fromkeys(self._last, _UNKNOWN)

    async def _totals(self, settlement: Settlement) -> Mapping[str, tuple[int, int]]:
        """Of a settlement that was done before, and whose answer was lost."""
        try:
            counted = await ledger.counted(self._redis, list(settlement.spent))
        except RedisUnavailable as error:
            log.warning("settlement: it is not known what was spent in all: %s", error)
            return {}
        return {key: (one.usd_nano, one.tokens) for key, one in counted.items()}

    async def _tell(self, seen: Sequence[Ended], totals: Mapping[str, tuple[int, int]]) -> None:
        """Who looks at what was spent never holds up what is settled."""
        try:
            self._signals.saw(seen)
            for ended in seen:
                await self._watch.saw(ended.caller, ended.lane, ended.ended_ms, ended.usd_nano, ended.fingerprint)
            await self._budgets.look(self._sums.lines(seen, self._alerts.clock()), totals)
            await self._shutdowns.look(seen)
        except Exception as error:
            log.warning("settlement: an alert could not be raised (%s)", error)

    async def _keep(self) -> None:
        """Gives back what is held for dead jobs, and opens the ledger when it is closed."""
        while True:
            await self._look()
            try:
                await self._note_progress()
                own = {p.partition for p in self._last}
                swept, is_open = await ledger.sweep(self._redis, {n: ms for n, ms in self._settled_ms.items() if n in own})
                metrics.HOLDS_SWEPT.inc(swept)
                metrics.LEDGER_OPEN.set(int(is_open))
                if not is_open:
                    self._closed()
                    await self._tell_of_ledger("ledger_closed", "The counters of budgets are not there: they are counted anew")
                    await self._rebuild()
                    await self._tell_of_ledger("ledger_rebuilt", "The counters of budgets were counted anew: the ledger is open")
                    continue
                self._open = True
            except RedisUnavailable as error:
                log.warning("settlement: %s, trying again", error)
            except Exception:
                log.exception("settlement: the ledger stays closed, trying again")
            await asyncio.sleep(_SWEEP_S if self._open else _RETRY_S)

    async def _look(self) -> None:
        try:
            await self._signals.look()
        except Exception as error:
            log.warning("settlement: rates could not be looked at, or told of (%s)", type(error).__name__)

    def _closed(self) -> None:
        if self._open:
            log.error("settlement: Redis has lost the counters; budgets are closed until they are counted anew")
        self._open = False

    async def _tell_of_ledger(self, what: Literal["ledger_closed", "ledger_rebuilt"], message: str) -> None:
        try:
            await self._alerts.raise_(what, "ledger", "", message, "critical" if what == "ledger_closed" else "info")
        except Exception as error:
            log.warning("settlement: an alert could not be raised (%s)", error)

    async def _commit(self, every_s: float) -> None:
        """For whoever looks at the lag; Redis knows better."""
        now = asyncio.get_running_loop().time()
        marks = {partition: Mark(last + 1) for partition, last in self._last.items() if last >= 0}
        if not marks or now - self._committed_s < every_s:
            return
        self._committed_s = now
        try:
            await self._source.commit(marks)
        except CommitRefused:
            log.info("settlement: a commit was refused, the group is rebalancing")
        except Exception as error:
            log.warning("settlement: can't commit (%s)", type(error).__name__)
