"""The embedded ClickHouse as its clients see it, and what Sluice keeps in it. A real engine, killed and started again."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from infra.clickhouse.blocks import Plan, version
from infra.clickhouse.client import (
    ClickHouse,
    ClickHouseRejected,
    ClickHouseUnavailable,
    Columns,
    open_clickhouse,
)
from infra.clickhouse.cluster import Cluster
from infra.clickhouse.migrate import migrate, migrations, rewritten
from infra.clickhouse.retention import retain
from infra.clickhouse.writer import BlockWriter
from infra.clock import now_ms
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports
from infra.embedded.process import Child, PartFailed
from services.accounting.rollups import Rollups

TOPIC = "sluice.completions"
NOON = datetime(2026, 10, 31, 12, tzinfo=UTC)
LAST_INSTANT = datetime(2026, 10, 31, 23, 59, 59, 999_000, tzinfo=UTC)

TOKENS: Sequence[str] = (
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "completion_tokens",
    "reasoning_tokens",
)
# fmt: off
USAGE_TEXTS: Sequence[str] = (
    "organization", "project", "environment", "key_id", "user", "feature", "segment", "lane", "api",
    "model", "deployment", "provider", "error_type", "cache", "usage_source", "price_version",
    "policy_version", "service_tier", "guard_verdict", "guard_version", "trace_id", "custom_id", "identity", "shadow_of",
)
ATTEMPT_TEXTS: Sequence[str] = (
    "lane", "model", "deployment", "provider", "provider_model", "error_type", "usage_source", "raw_usage",
    "trace_id", "alias",
)
# fmt: on


class Server:
    """A data folder and the server on it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = choose_ports(data_dir, ["clickhouse"])["clickhouse"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.child: Child | None = None

    async def start(self) -> None:
        self.child = await start_clickhouse(self.data_dir, self.port)

    async def kill(self) -> None:
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGKILL)
        await self.child.exited()

    async def stop(self) -> int | None:
        assert self.child is not None
        await self.child.stop()
        return self.child.returncode


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncGenerator[Server]:
    server = Server(data_dir)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[ClickHouse]:
    clickhouse = await open_clickhouse(server.url)
    try:
        yield clickhouse
    finally:
        await clickhouse.close()


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Server]:
    async with serving(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def clickhouse(server: Server) -> AsyncGenerator[ClickHouse]:
    async with connected(server) as opened:
        await migrate(opened)
        yield opened


def blank(texts: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {}
    row.update(dict.fromkeys(texts, ""))
    row.update(dict.fromkeys(TOKENS, 0))
    return row


def usage(
    offset: int, job_id: str, *, team: str, cost: str = "0.000000001", ts: datetime = NOON, **changed: object
) -> dict[str, object]:
    """A row of `usage_log`."""
    row = blank(USAGE_TEXTS)
    row |= {
        "job_id": job_id,
        "ts": ts,
        "team": team,
        "metadata": {},
        "guard_findings": [],
        "status": "completed",
        "route": [],
    }
    row |= {
        "cost_usd": Decimal(cost),
        "saved_usd": Decimal(0),
        "ttft_ms": None,
        "latency_ms": 1.5,
        "queue_ms": 0.0,
    }
    return row | {"version": version(offset)} | changed


def attempt(offset: int, attempt_id: str, *, team: str, **changed: object) -> dict[str, object]:
    """A row of `attempts_log`."""
    row = blank(ATTEMPT_TEXTS)
    row |= {"attempt_id": attempt_id, "job_id": attempt_id, "n": 1, "team": team, "ts": NOON, "job_ts": NOON}
    row |= {
        "status": "completed",
        "http_status": 200,
        "cost_usd": Decimal(1),
        "latency_ms": 10.0,
        "ttft_ms": None,
        "hedge": False,
    }
    return row | {"version": version(offset)} | changed


def columns(*rows: dict[str, object]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


async def one(clickhouse: ClickHouse, sql: str, **parameters: object) -> object:
    (row,) = await clickhouse.query(sql, parameters)
    (value,) = row.values()
    return value


# What Sluice keeps


async def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as one_process, connected(server) as other:
        applied = await asyncio.gather(migrate(one_process), migrate(other))
        names = [migration.name for migration in migrations()][1:]
        assert set(applied[0]) | set(applied[1]) == set(names)
        assert await migrate(one_process) == ()
        assert await one(other, "SELECT count() FROM sluice.migrations FINAL") == len(names)


async def test_a_block_counts_once_however_often_it_is_sent(clickhouse: ClickHouse) -> None:
    writer = BlockWriter(clickhouse)
    plan = Plan(TOPIC, 1, 0, 1)
    rows = columns(usage(0, "job_a", team="retry"), usage(1, "job_b", team="retry"))
    calls = columns(attempt(0, "job_a:1", team="retry"))
    for _ in range(3):
        await writer.write(plan, {"sluice.usage_log": rows, "sluice.attempts_log": calls})
    logs = "SELECT count() FROM sluice.{} WHERE team = 'retry'"
    assert await one(clickhouse, logs.format("usage_log")) == 2
    assert await one(clickhouse, logs.format("attempts_log")) == 1


async def test_of_two_completions_of_a_job_the_first_in_the_log_counts(clickhouse: ClickHouse) -> None:
    """In whatever order they are written, in one block or two, and on the last instant of a month."""
    first = {"team": "twice", "ts": LAST_INSTANT, "cost": "1.5"}
    late = {"team": "twice", "ts": LAST_INSTANT, "cost": "7", "status": "failed"}
    await clickhouse.insert("sluice.usage_log", columns(usage(9, "job_2", **late)), "twice:late")  # pyright: ignore[reportArgumentType]
    await clickhouse.insert("sluice.usage_log", columns(usage(3, "job_2", **first)), "twice:first")  # pyright: ignore[reportArgumentType]
    both = columns(usage(4, "job_3", **first), usage(5, "job_3", **late))  # pyright: ignore[reportArgumentType]
    await clickhouse.insert("sluice.usage_log", both, "twice:both")
    (row,) = await clickhouse.query(
        "SELECT count() AS jobs, sum(cost_usd) AS cost, groupUniqArray(status) AS statuses FROM sluice.usage WHERE team = 'twice'"
    )
    assert row == {"jobs": 2, "cost": Decimal("3.000000000"), "statuses": ["completed"]}


async def test_all_that_goes_into_a_row_comes_out_again(clickhouse: ClickHouse) -> None:
    told = {
        "ts": LAST_INSTANT,
        "user": "a'b\\c",
        "input_audio_tokens": 5,
        "output_audio_tokens": 2,
        "feature": "line\n\none; DROP TABLE x;\n\n",
        "metadata": {"prompt": "v2", "": ""},
        "guard_findings": ["email", "card"],
        "cost_usd": Decimal("123456789.123456789"),
        "prompt_tokens": 2**64 - 1,
        "ttft_ms": 0.25,
        "accepted": LAST_INSTANT,
        "ended": LAST_INSTANT + timedelta(milliseconds=7),
        "ended_by": "router",
        "steps": [{"stage": "guard", "at": LAST_INSTANT}, {"stage": "router", "at": LAST_INSTANT + timedelta(milliseconds=1)}],
    }
    row = usage(0, "job_whole", team="whole") | told
    await clickhouse.insert("sluice.usage_log", columns(row), "whole")
    (found,) = await clickhouse.query("SELECT * FROM sluice.usage WHERE job_id = {id:String}", {"id": "job_whole"})
    assert "version" not in found
    assert found["audio_tokens"] == 7
    assert {name: found[name] for name in row if name != "version"} == {name: row[name] for name in row if name != "version"}


async def test_a_row_of_before_there_were_steps_still_tells_when_its_job_ended(clickhouse: ClickHouse) -> None:
    row = usage(0, "job_before", team="before", ts=LAST_INSTANT, latency_ms=1500.0)
    await clickhouse.insert("sluice.usage_log", columns(row), "before")
    (found,) = await clickhouse.query("SELECT accepted, ended, ended_by, steps FROM sluice.usage WHERE team = 'before'")
    ended = LAST_INSTANT + timedelta(milliseconds=1500)
    assert found == {"accepted": LAST_INSTANT, "ended": ended, "ended_by": "", "steps": []}


async def test_the_reports_add_up(clickhouse: ClickHouse) -> None:
    def job(number: int, **told: object) -> dict[str, object]:
        return usage(number, f"job_r{number}", team="reports", **({"model": "fast", "ts": NOON} | told))  # pyright: ignore[reportArgumentType]

    rows = [
        job(0, cost="0.1", prompt_tokens=100, completion_tokens=10, cache="miss"),
        job(1, cost="0.2", prompt_tokens=200, status="failed", cache="miss"),
        job(2, cost="0", cache="hit", saved_usd=Decimal("0.1")),
        job(3, cost="0", cache="semantic", saved_usd=Decimal("0.05"), ts=NOON - timedelta(days=1)),
        job(4, cost="4", model="big", cache="bypass", ts=NOON + timedelta(days=1)),
    ]
    for token in ("reports", "reports again"):
        await clickhouse.insert("sluice.usage_log", columns(*rows), token)
    daily = await clickhouse.query(
        "SELECT day, model, jobs, failed_jobs, prompt_tokens, cost_usd, saved_usd FROM sluice.chargeback_daily"
        " WHERE team = 'reports' ORDER BY day"
    )
    assert [tuple(row.values()) for row in daily] == [
        (NOON.date() - timedelta(days=1), "fast", 1, 0, 0, Decimal(0), Decimal("0.05")),
        (NOON.date(), "fast", 3, 1, 300, Decimal("0.3"), Decimal("0.1")),
        (NOON.date() + timedelta(days=1), "big", 1, 0, 0, Decimal(4), Decimal(0)),
    ]
    monthly = await clickhouse.query(
        "SELECT toString(month) AS month, jobs, cost_usd FROM sluice.chargeback_monthly WHERE team = 'reports' ORDER BY month"
    )
    assert [tuple(row.values()) for row in monthly] == [
        ("2026-10-01", 4, Decimal("0.3")),
        ("2026-11-01", 1, Decimal(4)),
    ]
    (savings,) = await clickhouse.query(
        "SELECT lookups, exact_hits, semantic_hits, hit_rate, saved_usd FROM sluice.cache_savings"
        " WHERE team = 'reports' AND day = {day:Date}",
        {"day": NOON.date()},
    )
    assert savings == {
        "lookups": 3,
        "exact_hits": 1,
        "semantic_hits": 0,
        "hit_rate": pytest.approx(1 / 3),
        "saved_usd": Decimal("0.1"),
    }


SUMS = (
    "SELECT toString(day) AS day, jobs, failed_jobs, prompt_tokens, cost_usd FROM sluice.chargeback_daily"
    " WHERE team = {team:String} ORDER BY day"
)
ROWS = (
    "SELECT toString(toDate(ts)) AS day, count() AS jobs, countIf(status = 'failed') AS failed_jobs,"
    " sum(u.prompt_tokens) AS prompt_tokens, sum(u.cost_usd) AS cost_usd"
    " FROM sluice.usage AS u WHERE team = {team:String} GROUP BY day ORDER BY day"
)


async def test_sums_are_those_of_the_rows_before_and_after_they_are_sealed_and_when_a_row_comes_late(
    clickhouse: ClickHouse,
) -> None:
    """Redelivered, completed twice, or written by somebody else: each job counts once, at once."""
    rollups = Rollups(clickhouse, lambda: True, now_ms, quiet_s=-1)

    async def the_same() -> bool:
        asked = {"team": "sums"}
        return await clickhouse.query(SUMS, asked) == await clickhouse.query(ROWS, asked)

    async def sealed() -> object:
        return await one(clickhouse, "SELECT count() FROM sluice.usage_sealed WHERE toDate(bucket) = {day:Date}", day=NOON.date())

    jobs = [
        usage(100 + n, f"job_s{n}", team="sums", cost="0.1", prompt_tokens=n, ts=NOON + timedelta(minutes=25 * n))
        for n in range(40)
    ]
    await clickhouse.insert("sluice.usage_log", columns(*jobs), "sums")
    assert await the_same()
    while await rollups.seal():
        pass
    assert await sealed() == 13  # twelve hours from noon on, and the day
    assert await the_same()

    # Delivered again in another block; and a second completion, which is the earlier one in the log.
    await clickhouse.insert("sluice.usage_log", columns(*jobs[:5]), "sums again")
    earlier = usage(7, "job_s3", team="sums", cost="5", status="failed", ts=jobs[3]["ts"])  # pyright: ignore[reportArgumentType]
    await clickhouse.insert("sluice.usage_log", columns(earlier), "sums earlier")
    assert await sealed() == 10  # the two hours of these jobs are open, and their day
    assert await the_same()
    while await rollups.seal():
        pass
    assert await sealed() == 13
    assert await the_same()
    hours = "SELECT sum(jobs) FROM sluice.usage_by_{} WHERE team = 'sums'"
    assert [await one(clickhouse, hours.format(grain)) for grain in ("minute", "hour", "day", "month")] == [40] * 4


async def test_sums_that_were_replaced_are_dropped_and_those_that_count_stay(clickhouse: ClickHouse) -> None:
    row = usage(300, "job_dropped", team="dropped", ts=NOON - timedelta(days=400))
    now = [now_ms()]
    rollups = Rollups(clickhouse, lambda: True, lambda: now[0], quiet_s=-1)
    rows = "SELECT count() FROM sluice.usage_hours WHERE team = 'dropped'"
    for n in range(3):
        await clickhouse.insert("sluice.usage_log", columns(row), f"dropped {n}")
        await rollups.seal()
        now[0] += 3_700_000
    assert await one(clickhouse, rows) == 1
    assert await one(clickhouse, "SELECT sum(jobs) FROM sluice.usage_by_hour WHERE team = 'dropped'") == 1


async def test_a_key_goes_by_its_latest_name(clickhouse: ClickHouse) -> None:
    def change(n: int, before: str, after: str) -> dict[str, object]:
        row: dict[str, object] = {
            "ts": NOON + timedelta(seconds=n),
            "event_id": f"evt_k{n}",
            "resource": "key/key_n",
            "version": n,
        }
        return row | {"actor": "", "action": "", "kind": "key", "team": "t", "before": before, "after": after, "reason": ""}

    first, second = '{"id":"key_n","name":"old","team":"t"}', '{"id":"key_n","name":"new","team":"t"}'
    await clickhouse.insert("sluice.changes_log", columns(change(1, "", first), change(2, first, second)), "names")
    name = "SELECT (name, deleted) FROM sluice.keys WHERE key_id = 'key_n'"
    assert await one(clickhouse, name) == ("new", 0)
    await clickhouse.insert("sluice.changes_log", columns(change(3, second, "")), "names later")
    assert await one(clickhouse, name) == ("new", 1)


async def test_a_clusters_statements_are_understood_by_the_engine(clickhouse: ClickHouse) -> None:
    cluster = Cluster("prod")
    statements = [one for migration in migrations() for one in rewritten(migration, cluster)]
    parsed = await clickhouse.query("SELECT formatQuerySingleLine(arrayJoin({all:Array(String)})) AS text", {"all": statements})
    assert len(parsed) == len(statements)


async def test_rows_are_kept_as_long_as_is_set(clickhouse: ClickHouse) -> None:
    ttl = "'%TTL toDateTime(job_ts) + toIntervalDay(90)%'"
    stands = f"SELECT create_table_query LIKE {ttl} FROM system.tables WHERE name = 'attempts_log'"
    for days, kept in ((90, 1), (90, 1), (0, 0)):
        await retain(clickhouse, {"attempts_log": days})
        assert await one(clickhouse, stands) == kept


async def test_provider_health_is_of_the_last_hour(clickhouse: ClickHouse) -> None:
    now = datetime.now(UTC)

    def call(number: int, **told: object) -> dict[str, object]:
        return attempt(number, f"att_{number}", team="health", **({"provider": "hal", "ts": now, "job_ts": now} | told))

    rows = [
        *(call(number, latency_ms=float(number)) for number in range(1, 4)),
        call(4, status="failed", http_status=429),
        call(5, status="cancelled", http_status=None),
        call(6, status="failed", ts=now - timedelta(hours=2)),
    ]
    await clickhouse.insert("sluice.attempts_log", columns(*rows), "health")
    (row,) = await clickhouse.query(
        "SELECT calls, failed_calls, throttled_calls, success_rate, latency_p50_ms, ttft_p50_ms"
        " FROM sluice.provider_health WHERE provider = 'hal'"
    )
    assert tuple(row.values()) == (5, 1, 1, 0.75, 2.0, None)


async def test_audit_hides_what_has_expired_and_forgets_what_is_erased(clickhouse: ClickHouse) -> None:
    def audited(job_id: str, expires_at: datetime) -> dict[str, object]:
        row: dict[str, object] = {
            "job_id": job_id,
            "ts": NOON,
            "team": "audited",
            "prompt": "p\n\nq",
            "completion": "c",
            "policy": "1",
        }
        return row | {"expires_at": expires_at, "version": version(0)}

    kept = datetime(2099, 1, 1, tzinfo=UTC)
    gone = datetime(2026, 1, 1, tzinfo=UTC)
    rows = columns(audited("job_kept", kept), audited("job_gone", gone), audited("job_erased", kept))
    await clickhouse.insert("sluice.audit_log", rows, "audit")
    await clickhouse.command("DELETE FROM sluice.audit_log WHERE job_id = 'job_erased'")
    found = await clickhouse.query("SELECT job_id, prompt FROM sluice.audit WHERE team = 'audited'")
    assert found == [{"job_id": "job_kept", "prompt": "p\n\nq"}]


async def test_an_event_that_is_delivered_twice_is_there_once(clickhouse: ClickHouse) -> None:
    """And one of the same version is another: what is deleted and made anew begins at version 1 again."""

    def event(event_id: str) -> Columns:
        texts = ("actor", "action", "kind", "team", "before", "after", "reason")
        row: dict[str, object] = {"ts": NOON, "event_id": event_id, "resource": "team/events", "version": 7}
        return columns(row | dict.fromkeys(texts, "{}"))

    await clickhouse.insert("sluice.changes_log", event("evt_1"), "one")
    await clickhouse.insert("sluice.changes_log", event("evt_1"), "two")
    await clickhouse.insert("sluice.changes_log", event("evt_2"), "three")
    assert await one(clickhouse, "SELECT count() FROM sluice.events WHERE resource = 'team/events'") == 2
    assert await one(clickhouse, "SELECT count() FROM system.tables WHERE database = 'sluice' AND name = 'events_log'") == 0


# Faults


async def test_a_kill_loses_nothing_that_was_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    """The block that is sent again is written again: rows replace themselves."""
    async with serving(tmp_path) as server, connected(server) as clickhouse:
        await migrate(clickhouse)
        waits = asyncio.Event()

        async def nap(wait_s: float) -> None:
            waits.set()
            await asyncio.sleep(wait_s)

        writer = BlockWriter(clickhouse, sleep=nap)
        for number in range(10):
            rows = columns(usage(number, f"job_{number}", team="killed"))
            await writer.write(Plan(TOPIC, 0, number, number), {"sluice.usage_log": rows})
        await server.kill()
        rows = columns(usage(9, "job_9", team="killed"))
        again = asyncio.create_task(writer.write(Plan(TOPIC, 0, 9, 9), {"sluice.usage_log": rows}))
        await waits.wait()
        await server.start()
        await again
        assert writer.failing is None
        assert await one(clickhouse, "SELECT count() FROM sluice.usage") == 10
        assert await one(clickhouse, "SELECT sum(cost_usd) FROM sluice.usage") == Decimal("0.000000010")


async def test_term_ends_it_cleanly(tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.start()
    async with connected(server) as clickhouse:
        await migrate(clickhouse)
    assert server.child is not None
    assert await server.stop() == 0
    await server.start()
    async with connected(server) as clickhouse:
        assert await migrate(clickhouse) == ()
    assert await server.stop() == 0


async def test_two_engines_never_share_a_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "clickhouse").symlink_to(server.data_dir / "clickhouse")
    with pytest.raises(PartFailed, match="open in another process"):
        await start_clickhouse(tmp_path, choose_ports(tmp_path, ["clickhouse"])["clickhouse"])


async def test_what_can_be_tried_again_is_told_from_what_cannot(tmp_path: Path, clickhouse: ClickHouse) -> None:
    port = choose_ports(tmp_path, ["nobody"])["nobody"]
    with pytest.raises(ClickHouseUnavailable):
        await open_clickhouse(f"http://127.0.0.1:{port}")
    with pytest.raises(ClickHouseRejected):
        await clickhouse.query("SELECT nothing")
    with pytest.raises(ClickHouseRejected):
        await clickhouse.insert("sluice.usage_log", {"job_id": ["a"], "no_such_column": [1]}, "t")
    with pytest.raises(ClickHouseRejected):
        await clickhouse.insert("sluice.usage_log", {"job_id": ["a"], "prompt_tokens": ["many"]}, "t")
    with pytest.raises(ClickHouseRejected):
        await clickhouse.insert("sluice.usage_log", {"job_id": ["a"], "prompt_tokens": [-1]}, "t")
    assert await clickhouse.ping()


async def test_a_table_may_change_under_us(clickhouse: ClickHouse) -> None:
    await clickhouse.command("CREATE TABLE sluice.changing (a UInt8) ENGINE = MergeTree ORDER BY tuple()")
    await clickhouse.insert("sluice.changing", {"a": [1]}, "1")
    await clickhouse.command("ALTER TABLE sluice.changing MODIFY COLUMN a String")
    with pytest.raises(ClickHouseRejected):
        await clickhouse.insert("sluice.changing", {"a": ["two"]}, "2")
    await clickhouse.insert("sluice.changing", {"a": ["two"]}, "2")
    assert await one(clickhouse, "SELECT groupArray(a) FROM (SELECT a FROM sluice.changing ORDER BY a)") == ["1", "two"]
