"""The migrations as a cluster takes them."""

import re
from collections.abc import Sequence

import pytest

from infra.clickhouse.cluster import Cluster
from infra.clickhouse.migrate import migrations, rewritten

OF_JOBS = """CREATE TABLE IF NOT EXISTS sluice.a_log
(
    job_id  String,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY job_id
SETTINGS non_replicated_deduplication_window = 10000"""
OF_ALL = "CREATE TABLE IF NOT EXISTS sluice.b (hour DateTime)\nENGINE = AggregatingMergeTree\nORDER BY hour"


def everything() -> Sequence[str]:
    cluster = Cluster("prod")
    return [statement for migration in migrations() for statement in rewritten(migration, cluster)]


def test_a_table_of_jobs_is_spread_over_the_shards_and_replicated_within_them() -> None:
    local, over = Cluster("prod").statements(OF_JOBS)
    assert "sluice.a_log_local ON CLUSTER 'prod'" in local
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/sluice.a_log', '{replica}', version)" in local
    assert "SETTINGS replicated_deduplication_window = 10000" in local
    assert over.startswith("CREATE TABLE IF NOT EXISTS sluice.a_log ON CLUSTER 'prod' AS sluice.a_log_local")
    assert over.endswith("Distributed('prod', sluice, a_log_local, cityHash64(job_id))")


def test_every_server_has_all_of_any_other_table() -> None:
    (table,) = Cluster("prod").statements(OF_ALL)
    assert "ReplicatedAggregatingMergeTree('/clickhouse/tables/all/sluice.b', '{shard}-{replica}')" in table


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("ALTER TABLE sluice.a_log ADD COLUMN IF NOT EXISTS x String", ["sluice.a_log_local", "sluice.a_log"]),
        ("ALTER TABLE sluice.a_log MODIFY COLUMN x CODEC(ZSTD(1))", ["sluice.a_log_local"]),
        ("ALTER TABLE sluice.a_log MODIFY SETTING x = 1", ["sluice.a_log_local"]),
        ("ALTER TABLE sluice.a_log MODIFY TTL toDateTime(ts) + toIntervalDay(90)", ["sluice.a_log_local"]),
        ("ALTER TABLE sluice.a_log ADD INDEX IF NOT EXISTS i ts TYPE minmax", ["sluice.a_log_local"]),
        ("ALTER TABLE sluice.b ADD COLUMN IF NOT EXISTS x String", ["sluice.b"]),
        ("DROP TABLE IF EXISTS sluice.a_log", ["sluice.a_log_local", "sluice.a_log"]),
        ("CREATE OR REPLACE VIEW sluice.a AS SELECT * FROM sluice.a_log FINAL", ["sluice.a"]),
        ("CREATE DATABASE IF NOT EXISTS sluice", ["sluice"]),
    ],
)
def test_a_change_goes_where_it_can_be_made(statement: str, tables: Sequence[str]) -> None:
    cluster = Cluster("prod")
    cluster.statements(OF_JOBS)
    found = cluster.statements(statement)
    assert [re.findall(r"(\S+) ON CLUSTER 'prod'", one) for one in found] == [[table] for table in tables]


def test_a_trigger_stands_at_the_parts_and_a_view_reads_all_shards() -> None:
    cluster = Cluster("prod")
    cluster.statements(OF_JOBS)
    trigger = "CREATE MATERIALIZED VIEW IF NOT EXISTS sluice.feed TO sluice.b AS SELECT ts FROM sluice.a_log GROUP BY ts"
    assert cluster.statements(trigger) == [
        "CREATE MATERIALIZED VIEW IF NOT EXISTS sluice.feed ON CLUSTER 'prod' TO sluice.b AS"
        " SELECT ts FROM sluice.a_log_local GROUP BY ts"
    ]
    (view,) = cluster.statements("CREATE VIEW IF NOT EXISTS sluice.a AS SELECT * FROM sluice.a_log FINAL")
    assert view.endswith("FROM sluice.a_log FINAL")


def test_no_statement_of_a_migration_is_left_as_it_was() -> None:
    """But what puts rows into tables; and no table is left that is not replicated."""
    statements = everything()
    assert all(" ON CLUSTER 'prod'" in one for one in statements if not one.startswith("INSERT INTO"))
    engines = {engine for one in statements for engine in re.findall(r"ENGINE = (\w+)", one)}
    assert engines <= {"Distributed", "ReplicatedReplacingMergeTree", "ReplicatedMergeTree", "ReplicatedAggregatingMergeTree"}
    assert not any("non_replicated" in one for one in statements)


def test_what_is_recorded_of_a_migration_is_its_file() -> None:
    before = [migration.sha256 for migration in migrations()]
    everything()
    assert [migration.sha256 for migration in migrations()] == before
