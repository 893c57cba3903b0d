"""`sluice doctor --books`: what must hold between log, ClickHouse and Redis (RELIABILITY.md 5.12)."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

from infra.clickhouse.client import ClickHouse, ClickHouseError, open_clickhouse
from infra.clock import now_ms
from infra.kafka.broker import Kafka
from infra.kafka.log import Partition
from infra.kafka.table import Control, ControlTable
from infra.redis.adjustments import Standing, standing
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.ledger import Counted, OpenHold, Spent, counted, open_holds
from schemas.budget import shown
from schemas.topics import COMPLETIONS
from services.accounting.books import PARTITIONS, booked
from services.cli.checks import TIMEOUT_S, Check
from services.cli.client import System, describe

_TRIES: Final = 10
_PAUSE_S: Final = 0.5
_GRACE_MS: Final = 60_000
_AT_ONCE: Final = 1_000
_MOST_HOLDS: Final = 100_000
_SHOWN: Final = 5
_WAIT = "Wait a few seconds and look again; if it stays, see the log of accounting."
_HEAL = "The reconciliation corrects it within a minute (SLUICE_RECONCILE_S); if it stays, see the log of accounting."

# All of the last day: what is older was looked at before, and doesn't change.
_ROWS: Final = """
SELECT count() AS rows, uniqExact(job_id) AS jobs FROM sluice.usage_log FINAL WHERE ts >= now() - INTERVAL 1 DAY
"""
_ORPHANS: Final = """
SELECT count() AS calls FROM sluice.attempts_log AS a FINAL
WHERE a.job_ts >= now() - INTERVAL 1 DAY
  AND a.job_id NOT IN (SELECT job_id FROM sluice.usage_log WHERE ts >= now() - INTERVAL 2 DAY)
"""
_UNEQUAL: Final = """
SELECT count() AS jobs FROM
(
    SELECT u.job_id AS job_id
    FROM (SELECT job_id, version, cost_usd FROM sluice.usage_log FINAL WHERE ts >= now() - INTERVAL 1 DAY AND partition >= 0) AS u
    LEFT JOIN (SELECT job_id, version, cost_usd FROM sluice.attempts_log FINAL WHERE job_ts >= now() - INTERVAL 1 DAY) AS a
      ON a.job_id = u.job_id AND a.version = u.version
    GROUP BY u.job_id
    HAVING sum(a.cost_usd) != any(u.cost_usd)
)
"""
_ADJUSTED: Final = """
SELECT count() AS counters, toString(sum(abs(usd))) AS usd FROM sluice.adjustments WHERE ts >= now() - INTERVAL 1 DAY
"""


async def books(system: System) -> list[Check]:
    """Everything that must hold. One check says so if it can't be looked at."""
    kafka, redis = Kafka(system.kafka), Redis(_url(system.redis, "redis"), TIMEOUT_S)
    control = Control(kafka)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await kafka.start()
        await control.start()
        clickhouse = await open_clickhouse(_url(system.clickhouse, "http"))
        try:
            return await _checks(kafka, redis, clickhouse, control.table)
        finally:
            await clickhouse.close()
    except (ConnectionError, TimeoutError, RedisUnavailable, ClickHouseError) as error:
        return [Check("books", "failed", f"they can't be looked at ({describe(error)})", "See the checks above.")]
    finally:
        await control.stop()
        await kafka.stop()
        await redis.close()


def _url(address: str, scheme: str) -> str:
    return address if "://" in address else f"{scheme}://{address}"


async def _checks(kafka: Kafka, redis: Redis, clickhouse: ClickHouse, table: ControlTable) -> list[Check]:
    lag = await _lag(kafka, redis)
    spent = await _spent(kafka, redis, clickhouse, table)
    return [lag, *await _rows(clickhouse), spent, await _holds(redis), await _adjusted(clickhouse)]


async def _behind(kafka: Kafka, redis: Redis) -> tuple[Standing, int, int]:
    """The ledger, and how many completions Redis and ClickHouse have still to take."""
    partitions = [Partition(COMPLETIONS.name, n) for n in PARTITIONS]
    marks = await kafka.committed("sluice-accounting", partitions)
    now, ends = await standing(redis, PARTITIONS), await kafka.ends(partitions)
    unsettled = sum(max(0, ends[p] - 1 - now.settled[p.partition]) for p in partitions)
    return now, unsettled, sum(ends[p] - (marks[p].offset if p in marks else 0) for p in partitions)


async def _lag(kafka: Kafka, redis: Redis) -> Check:
    now, unsettled, unbooked = await _behind(kafka, redis)
    for _ in range(_TRIES):
        if not (unsettled or unbooked) and now.state:
            return Check("lag", "ok", "Redis and ClickHouse have every completion")
        await asyncio.sleep(_PAUSE_S)
        now, unsettled, unbooked = await _behind(kafka, redis)
    if not now.state:
        return Check("lag", "failed", "the ledger is closed: its counters are being counted anew", _WAIT)
    return Check("lag", "warning", f"Redis is {unsettled} completions behind, ClickHouse {unbooked}", _WAIT)


async def _rows(clickhouse: ClickHouse) -> list[Check]:
    (rows,), (orphans,), (unequal,) = [await clickhouse.query(sql) for sql in (_ROWS, _ORPHANS, _UNEQUAL)]
    advice = "Keep the tables as they are, and report it: nothing in Sluice does this."
    jobs = f"{rows['jobs']} jobs of the last day"
    return [
        _verdict("status", rows["rows"] == rows["jobs"], f"{jobs} have a status each", f"{rows['rows']} rows of {jobs}", advice),
        _verdict("calls", not orphans["calls"], "every call has a job", f"{orphans['calls']} calls have no job", _HEAL),
        _verdict(
            "cost",
            not unequal["jobs"],
            "jobs cost what their calls cost",
            f"{unequal['jobs']} jobs cost something else than their calls",
            _HEAL,
        ),
    ]


def _verdict(name: str, holds: bool, good: str, bad: str, advice: str) -> Check:
    return Check(name, "ok", good) if holds else Check(name, "failed", bad, advice)


async def _spent(kafka: Kafka, redis: Redis, clickhouse: ClickHouse, table: ControlTable) -> Check:
    """Redis against ClickHouse, both of the same records: again if some came while one was looked at."""
    for _ in range(_TRIES):
        before, _, unbooked = await _behind(kafka, redis)
        if not unbooked:
            expected = await booked(clickhouse, table, now_ms(), before.settled)
            now = await standing(redis, PARTITIONS, list(expected))
            if now.settled == before.settled:
                return _compared(expected, now)
        await asyncio.sleep(_PAUSE_S)
    detail = "jobs end all the time, so that both can't be looked at in one moment"
    return Check("counters", "warning", detail, "The reconciliation compares them every minute: see sluice_books_difference_usd.")


def _compared(expected: Mapping[str, Spent], now: Standing) -> Check:
    wrong = {
        key: now.spent[key][0] - one.usd_nano for key, one in expected.items() if now.spent[key] != (one.usd_nano, one.tokens)
    }
    if not wrong:
        return Check("counters", "ok", f"{len(expected)} counters in Redis say what ClickHouse says")
    worst = sorted(wrong, key=lambda key: -abs(wrong[key]))[:_SHOWN]
    told = ", ".join(f"{key.removeprefix('spend:')} by {shown(wrong[key])} USD" for key in worst)
    return Check("counters", "failed", f"{len(wrong)} of {len(expected)} counters in Redis differ: {told}", _HEAL)


async def _holds(redis: Redis) -> Check:
    """What is held belongs to jobs that live."""
    found: list[OpenHold] = []
    while len(page := await open_holds(redis, len(found), _AT_ONCE)) == _AT_ONCE and len(found) < _MOST_HOLDS:
        found += page
    found += page
    held = Counter[str]()
    for hold in found:
        held.update(dict.fromkeys(hold.counters, hold.usd_nano))
    dead = sum(hold.ends_ms < now_ms() - _GRACE_MS for hold in found)
    at: Mapping[str, Counted] = await counted(redis, list(held)) if held else {}
    negative = [key for key, one in at.items() if one.held_usd_nano < 0 or one.held_tokens < 0]
    if dead or negative:
        detail = f"{dead} of {len(found)} holds are of dead jobs; {len(negative)} counters hold less than nothing"
        return Check("held", "failed", detail, _WAIT)
    total = shown(sum(hold.usd_nano for hold in found))
    return Check("held", "ok", f"{total} USD for {len(found)} jobs that run" if found else "nothing is held: no job runs")


async def _adjusted(clickhouse: ClickHouse) -> Check:
    (found,) = await clickhouse.query(_ADJUSTED)
    if not found["counters"]:
        return Check("corrections", "ok", "none within a day")
    detail = f"{found['counters']} counters within a day, {found['usd']} USD in all"
    return Check("corrections", "warning", detail, "See why: `sluice sql 'SELECT * FROM adjustments ORDER BY ts DESC'`.")
