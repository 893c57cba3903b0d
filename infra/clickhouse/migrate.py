"""Numbered SQL files, applied once and in order, recorded in `sluice.migrations`.

ClickHouse has no transactions over DDL and no locks. So each statement is written such that doing it twice is
doing it once (`IF NOT EXISTS`, `OR REPLACE`; a test insists), and a file is recorded after its last statement: two
processes may migrate at once, and one that dies half way is simply repeated.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, cast

from infra.clickhouse.client import ClickHouse
from infra.clickhouse.cluster import Cluster

LEDGER: Final = 0
"""Number of the file that makes the record itself; run each time."""

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)


class MigrationError(Exception):
    """A file that has been applied here differs from ours: history was edited. Add a new file instead."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the statements; comments and layout may be improved later."""
        return hashlib.sha256(" ".join(" ".join(self.statements).split()).encode()).hexdigest()

    @property
    def statements(self) -> tuple[str, ...]:
        """Each ends with a semicolon at the end of a line; comments stand on lines of their own."""
        parts = re.split(r";\s*(?:\n|$)", _COMMENT.sub("", self.text))
        return tuple(part.strip() for part in parts if part.strip())


def migrations() -> tuple[Migration, ...]:
    """All files, in order."""
    found: list[Migration] = []
    for file in resources.files("infra.clickhouse").joinpath("migrations").iterdir():
        if name := _FILE.fullmatch(file.name):
            found.append(Migration(int(name[1]), name[2], file.read_text()))
    return tuple(sorted(found, key=lambda migration: migration.number))


async def migrate(clickhouse: ClickHouse, cluster: Cluster | None = None) -> tuple[str, ...]:
    """Bring the database `sluice` up to date; gives the names of what was applied now, none when nothing was to do.

    With a `cluster` the statements are rewritten for it; what is recorded, and compared, is the files.
    Raises MigrationError, ClickHouseUnavailable or ClickHouseRejected; it may be called again after each.
    """
    ledger, *rest = migrations()
    await _run(clickhouse, rewritten(ledger, cluster))
    known = await _known(clickhouse)
    applied: list[str] = []
    for migration in rest:
        recorded = known.get(migration.number)
        statements = rewritten(migration, cluster)
        if recorded is None:
            await _run(clickhouse, statements)
            await _record(clickhouse, migration)
            applied.append(migration.name)
        elif recorded != migration.sha256:
            raise MigrationError(
                f"migration {migration.number:04} {migration.name} was applied in another form; add a new file instead"
            )
    return tuple(applied)


async def _known(clickhouse: ClickHouse) -> dict[int, str]:
    rows = await clickhouse.query("SELECT number, sha256 FROM sluice.migrations FINAL")
    return {cast(int, row["number"]): cast(str, row["sha256"]) for row in rows}


def rewritten(migration: Migration, cluster: Cluster | None) -> Sequence[str]:
    """The statements as they are run. A cluster has to see them all, in order: it learns from them what is spread."""
    if cluster is None:
        return migration.statements
    return [one for statement in migration.statements for one in cluster.statements(statement)]


async def _run(clickhouse: ClickHouse, statements: Sequence[str]) -> None:
    for statement in statements:
        await clickhouse.command(statement)


async def _record(clickhouse: ClickHouse, migration: Migration) -> None:
    row = {"number": [migration.number], "name": [migration.name], "sha256": [migration.sha256]}
    await clickhouse.insert("sluice.migrations", row, f"migration:{migration.number}")
