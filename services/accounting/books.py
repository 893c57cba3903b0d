"""What the books say was spent, by counter: every call that is in ClickHouse and stands in the log up to a given record."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast

from infra import budgets, hierarchy
from infra.clickhouse.client import ClickHouse
from infra.kafka.table import ControlTable
from infra.redis.ledger import Spent
from schemas.budget import Period, nano, span_of
from schemas.job import Caller
from schemas.topics import COMPLETIONS

Cut = Mapping[int, int]
"""Of each partition of the completions the last record that counts; -1: none does."""

PARTITIONS: Final = range(COMPLETIONS.partitions)

# Money is the sum of calls. Of jobs from before migration 0020 only the job knows whose they are, and they are in every cut.
_SUMS: Final = """
SELECT organization, team, project, environment, key_id, user,
       sumIf(cost_usd, counted >= fromUnixTimestamp64Milli({day:Int64})) AS day_usd,
       sumIf(cost_usd, counted >= fromUnixTimestamp64Milli({week:Int64})) AS week_usd,
       sumIf(cost_usd, counted >= fromUnixTimestamp64Milli({month:Int64})) AS month_usd,
       sum(cost_usd) AS total_usd,
       sumIf(tokens, counted >= fromUnixTimestamp64Milli({day:Int64})) AS day_tokens,
       sumIf(tokens, counted >= fromUnixTimestamp64Milli({week:Int64})) AS week_tokens,
       sumIf(tokens, counted >= fromUnixTimestamp64Milli({month:Int64})) AS month_tokens,
       sum(tokens) AS total_tokens
FROM
(
    SELECT organization, team, project, environment, key_id, user, counted, cost_usd, prompt_tokens + completion_tokens AS tokens
    FROM sluice.attempts_log FINAL
    WHERE has({organizations:Array(String)}, organization) = {among:UInt8} AND partition >= 0
      AND toUInt64(9223372036854775808) - version <= {cut:Array(Int64)}[partition + 1]
    UNION ALL
    SELECT organization, team, project, environment, key_id, user,
           if(lane = 'batch' AND has(steps.stage, 'router'), arrayLast(step -> step.1 = 'router', steps).2, accepted) AS counted,
           cost_usd, prompt_tokens + completion_tokens AS tokens
    FROM sluice.usage_log FINAL
    WHERE has({organizations:Array(String)}, organization) = {among:UInt8} AND partition = -1
)
GROUP BY organization, team, project, environment, key_id, user
"""


async def booked(clickhouse: ClickHouse, table: ControlTable, now_ms: int, cut: Cut) -> dict[str, Spent]:
    """By counter, of the periods that run now. Raises what ClickHouse raises."""
    spent = dict[str, Spent]()
    known = [([one.name], 1, one.time_zone) for one in table.organizations.values()]
    # Whoever is not written down any more has spent it all the same.
    for names, among, time_zone in [*known, ([*table.organizations], 0, "UTC")]:
        starts = {p.value: span_of(p, now_ms, time_zone).starts_ms for p in Period}
        asked = {"organizations": names, "among": among, "cut": [cut.get(n, -1) for n in PARTITIONS], **starts}
        for row in await clickhouse.query(_SUMS, asked):
            _add(spent, cast("Mapping[str, Any]", row), table, now_ms, time_zone)
    return spent


def _add(spent: dict[str, Spent], row: Mapping[str, Any], table: ControlTable, now_ms: int, time_zone: str) -> None:
    caller = Caller.model_validate({name: row[name] for name in Caller.model_fields if name in row})
    ids = {span_of(period, now_ms, time_zone).id: period.value for period in Period}
    for key, forgotten_ms in budgets.counters(hierarchy.levels(table, caller), now_ms, time_zone):
        period = ids[key.rpartition(":")[2]]
        one = spent.setdefault(key, Spent(forgotten_ms))
        one.usd_nano += nano(Decimal(row[f"{period}_usd"]))
        one.tokens += int(row[f"{period}_tokens"])


def days_of(counter: str) -> float:
    """How long the period of a counter is, at most."""
    period = counter.rpartition(":")[2]
    if period == "total":
        return math.inf
    return 7 if "W" in period else 31 if len(period) == len("2026-11") else 1
