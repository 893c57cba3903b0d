"""The files of migrations: numbered without a gap, and harmless when run twice."""

import re

import pytest

from infra.clickhouse.migrate import LEDGER, Migration, migrations

FILES = migrations()
REPEATABLE = re.compile(
    r"CREATE (DATABASE|TABLE|VIEW) IF NOT EXISTS |CREATE OR REPLACE VIEW |DROP (TABLE|VIEW) IF EXISTS "
    r"|CREATE MATERIALIZED VIEW IF NOT EXISTS |INSERT INTO sluice.usage_touches\s"
    r"|ALTER TABLE \S+\s+(ADD (COLUMN|INDEX) IF NOT EXISTS|DROP (COLUMN|INDEX) IF EXISTS|MODIFY|MATERIALIZE INDEX) "
)
STATEMENTS = [(migration.name, statement) for migration in FILES for statement in migration.statements]


def test_they_are_numbered_from_the_ledger_on_without_a_gap() -> None:
    assert [migration.number for migration in FILES] == list(range(LEDGER, len(FILES)))


@pytest.mark.parametrize(("name", "statement"), STATEMENTS)
def test_each_statement_may_run_twice(name: str, statement: str) -> None:
    assert REPEATABLE.match(statement), name


def test_each_table_that_is_written_by_blocks_remembers_tokens() -> None:
    tables = [statement for _, statement in STATEMENTS if re.match(r"CREATE TABLE .*_log\s", statement)]
    assert len(tables) >= 5
    assert all("non_replicated_deduplication_window = 10000" in statement for statement in tables)


def test_comments_are_no_part_of_a_migration() -> None:
    plain = Migration(1, "a", "CREATE TABLE a;\n\nCREATE TABLE b;\n")
    commented = Migration(1, "a", "-- why; and how;\nCREATE TABLE a;\n  -- more\nCREATE TABLE b;")
    assert plain.statements == commented.statements == ("CREATE TABLE a", "CREATE TABLE b")
    assert plain.sha256 == commented.sha256
