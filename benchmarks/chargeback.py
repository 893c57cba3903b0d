"""How long a month's chargeback takes over many jobs, by HTTP from the embedded ClickHouse.

    python -m benchmarks.chargeback [--rows 50000000] [--data-dir DIR] [--runs 10]

Jobs of a whole month are generated inside ClickHouse, as rows of `usage_log` with all their columns (40 teams, 2,000 users, 12
models), one in a thousand delivered twice; the sums are made as accounting makes them, and compared with those of the rows.
Then the query is timed when all of the month is sealed, and when two hours of its last day are open, as they are in the middle
of a month. Needs about 130 bytes of disk a row, and 15 minutes for 50 million on two cores.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from benchmarks.processes import cpu_seconds, memory
from infra.clickhouse.client import ClickHouse, open_clickhouse
from infra.clickhouse.migrate import migrate
from infra.clock import now_ms
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports
from services.accounting.rollups import Rollups

BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
SECONDS = 31 * 86_400
CHUNK = 500_000

ROWS = """
INSERT INTO sluice.usage_log (job_id, ts, organization, team, project, environment, key_id, user, feature, segment, metadata,
    lane, api, model, deployment, provider, status, error_type, cache, prompt_tokens, cached_tokens, completion_tokens,
    usage_source, price_version, policy_version, service_tier, cost_usd, saved_usd, ttft_ms, latency_ms, queue_ms,
    guard_verdict, trace_id, version, accepted, ended, ended_by, steps, route)
WITH
    {begin} * 1000 + intDiv(number * {seconds} * 1000, {rows}) AS ms,
    cityHash64(number) AS h, h % 2000 AS who, intDiv(h, 2000) % 100 AS chance, intDiv(h, 200000) % 4 AS kind,
    (who + kind) % 12 AS m
SELECT
    concat('job_', lower(leftPad(hex(toUInt64(ms)), 12, '0')), '7', lower(leftPad(hex(h), 16, '0')), '000'),
    fromUnixTimestamp64Milli(toInt64(ms), 'UTC'), 'acme', concat('team-', toString(who % 40)), concat('p', toString(who % 3)),
    ['dev', 'staging', 'prod'][who % 3 + 1], concat('key_', toString(who % 200)), concat('user-', toString(who)),
    concat('feature-', toString(kind % 2)), ['', 'gold'][who % 2 + 1], map('template', concat('v', toString(kind))),
    if(chance < 80, 'interactive', 'batch'), 'chat', concat('model-', toString(m)), concat('model-', toString(m), '-eu'),
    concat('provider-', toString(m % 5)), if(chance = 7, 'failed', 'completed'), if(chance = 7, 'upstream', ''),
    if(chance < 20, 'hit', 'miss'), 200 + h % 3000, h % 200, 50 + h % 700, 'provider', 'genai-prices 0.0.30', 'v12', 'default',
    toDecimal64(h % 20000000, 9) / 1000000000, 0, 300 + chance, 900 + h % 5000, 2, 'allow', lower(hex(h)),
    toUInt64(9223372036854775808 - intDiv(number, 8)), fromUnixTimestamp64Milli(toInt64(ms), 'UTC'),
    fromUnixTimestamp64Milli(toInt64(ms + 1200), 'UTC'), 'router',
    [('guard', fromUnixTimestamp64Milli(toInt64(ms + 2), 'UTC')), ('router', fromUnixTimestamp64Milli(toInt64(ms + 5), 'UTC'))],
    [concat('model-', toString(m), ': cheapest')]
FROM numbers({first}, {count})
"""
MONTH = "SELECT * FROM sluice.chargeback_monthly WHERE month = '2026-10-01' ORDER BY cost_usd DESC"
DAYS = "SELECT * FROM sluice.chargeback_daily WHERE day BETWEEN '2026-10-01' AND '2026-10-31'"
TEAM = "SELECT user, sum(cost_usd) FROM sluice.usage_by_month WHERE month = '2026-10-01' AND team = 'team-7' GROUP BY user"
OPEN = (
    "INSERT INTO sluice.usage_touches SELECT toDateTime('2026-10-31 22:00:00', 'UTC') + 3600 * number, 1, now() FROM numbers(2)"
)
BY_ROWS = "SELECT count() AS jobs, sum(cost_usd) AS usd, sum(prompt_tokens) AS input FROM sluice.usage"
BY_SUMS = "SELECT sum(jobs) AS jobs, sum(cost_usd) AS usd, sum(prompt_tokens) AS input FROM sluice.chargeback_monthly"


async def fill(clickhouse: ClickHouse, rows: int) -> None:
    """The month, and one job in a thousand once more."""

    async def insert(first: int, count: int) -> None:
        words = {"begin": int(BEGIN.timestamp()), "seconds": SECONDS, "rows": rows, "first": first, "count": count}
        await clickhouse.command(ROWS.format(**words))

    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        await insert(first, count)
        await insert(first, count // 1000)


async def timed(clickhouse: ClickHouse, what: str, sql: str, runs: int) -> None:
    took: list[float] = []
    found: list[dict[str, object]] = []
    for _ in range(runs):
        began = time.perf_counter()
        found = await clickhouse.query(sql)
        took.append((time.perf_counter() - began) * 1000)
    line = f"{min(took):.0f} / {statistics.median(took):.0f} / {max(took):.0f} ms"
    print(f"{what}: {line} (least / median / greatest of {runs} runs), {len(found)} rows", flush=True)


async def queries(clickhouse: ClickHouse, state: str, runs: int) -> None:
    for what, sql in (("month", MONTH), ("month by day", DAYS), ("a team's users", TEAM)):
        await timed(clickhouse, f"{state}, {what}", sql, runs)


async def measure(folder: Path, rows: int, runs: int) -> None:
    port = choose_ports(folder, ["clickhouse"])["clickhouse"]
    server = await start_clickhouse(folder, port)
    clickhouse = await open_clickhouse(f"http://127.0.0.1:{port}")
    try:
        await migrate(clickhouse)
        began = time.perf_counter()
        if not (await clickhouse.query("SELECT count() AS n FROM sluice.usage_log"))[0]["n"]:
            await fill(clickhouse, rows)
            print(f"generated {rows:,} rows in {time.perf_counter() - began:.0f} s", flush=True)
        began, cpu = time.perf_counter(), cpu_seconds(server.pid)
        rollups = Rollups(clickhouse, lambda: True, now_ms, quiet_s=0)
        buckets = 0
        while sealed := await rollups.seal():
            buckets += sealed
        took = time.perf_counter() - began
        print(f"sealed {buckets} hours and days in {took:.0f} s, {cpu_seconds(server.pid) - cpu:.0f} s of CPU", flush=True)
        await queries(clickhouse, "all sealed", runs)
        await clickhouse.command(OPEN)
        await queries(clickhouse, "two hours open", runs)
        by_rows, by_sums = (await clickhouse.query(BY_ROWS))[0], (await clickhouse.query(BY_SUMS))[0]
        print(f"by rows {by_rows}\nby sums {by_sums}: {'equal' if by_rows == by_sums else 'DIFFERENT'}", flush=True)
        print(f"ClickHouse {memory(server.pid).rss_mb:.0f} MB resident", flush=True)
        for part in await clickhouse.query(SIZES):
            print(f"{part['table']}: {part['rows']:,} rows, {cast(int, part['bytes']) / 2**20:.0f} MiB", flush=True)
    finally:
        await clickhouse.close()
        await server.stop()


SIZES = """SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts
WHERE active AND database = 'sluice' GROUP BY table HAVING rows > 100 ORDER BY bytes DESC"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--data-dir", type=Path, help="kept, and used as it is when it has rows; none: a temporary folder")
    words = parser.parse_args()
    folder = cast("Path | None", words.data_dir) or Path(tempfile.mkdtemp(prefix="sluice-chargeback-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(measure(folder, cast(int, words.rows), cast(int, words.runs)))
    finally:
        if words.data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
