"""Tells ClickHouse who its analysts are, as the control topic has them: within a second of each change."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, cast

from infra.clickhouse.access import ANALYSTS, ROLE, Grant, grant_statements, is_name, revoke_statements, setup_statements
from infra.clickhouse.client import ClickHouseError, Columns
from infra.clock import Clock
from infra.kafka.table import ControlTable
from schemas.control import Analyst, Team

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.5
FAILED_S: Final = 5.0


class Books(Protocol):
    """What is needed of ClickHouse."""

    async def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        """As `infra.clickhouse.client.ClickHouse`, like the others."""
        ...

    async def command(self, sql: str) -> None: ...
    async def insert(self, table: str, columns: Columns, token: str) -> None: ...


class AnalystsKept:
    """A loop. A server gets users of its own; the embedded one, which can keep none, a table that it reads."""

    def __init__(self, clickhouse: Books, table: ControlTable, clock: Clock) -> None:
        self._clickhouse = clickhouse
        self._table = table
        self._clock = clock
        self._told: dict[str, Grant] | None = None
        self._is_server = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.tell()
                await asyncio.sleep(AGAIN_S)
            except ClickHouseError as error:
                log.warning("accounting: analysts can't be told to ClickHouse, trying again: %s", error)
                self._told = None
                await asyncio.sleep(FAILED_S)

    async def tell(self) -> None:
        """What ClickHouse doesn't know yet. Raises ClickHouseError."""
        wanted = grants(self._table.analysts.values(), self._table.teams.values())
        if wanted == self._told:
            return
        if self._told is None:
            self._told = await self._known()
        tables = await self._tables() if self._is_server else ()
        if self._is_server and wanted:
            await self._do(setup_statements(tables))
        for name in self._told.keys() - wanted.keys():
            await self._drop(self._told[name], tables)
        for name, grant in wanted.items():
            if self._told.get(name) != grant:
                await self._keep(grant, tables)
        self._told = wanted

    async def _known(self) -> dict[str, Grant]:
        kept = await self._clickhouse.query("SELECT count() AS n FROM system.user_directories WHERE type != 'users_xml'")
        self._is_server = bool(kept[0]["n"])
        if self._is_server:
            rows = await self._clickhouse.query(
                f"SELECT user_name AS name FROM system.role_grants WHERE granted_role_name = '{ROLE}' AND user_name IS NOT NULL"
            )
            # What they were granted isn't known: it is said anew.
            return {name: Grant(name, "", "") for name in (cast(str, row["name"]) for row in rows)}
        rows = await self._clickhouse.query(
            f"SELECT name, sha256, organization, only, teams FROM {ANALYSTS} FINAL WHERE sha256 != ''"
        )
        return {cast(str, row["name"]): _read(row) for row in rows}

    async def _tables(self) -> Sequence[str]:
        rows = await self._clickhouse.query("SELECT name FROM system.tables WHERE database = 'sluice'")
        return [cast(str, row["name"]) for row in rows]

    async def _keep(self, grant: Grant, tables: Sequence[str]) -> None:
        if self._is_server:
            await self._do(grant_statements(grant, tables))
        else:
            await self._write(grant)

    async def _drop(self, grant: Grant, tables: Sequence[str]) -> None:
        if self._is_server:
            await self._do(revoke_statements(grant.name, tables))
        else:
            await self._write(Grant(grant.name, "", grant.organization))

    async def _do(self, statements: Iterable[str]) -> None:
        for statement in statements:
            await self._clickhouse.command(statement)

    async def _write(self, grant: Grant) -> None:
        version = self._clock()
        columns = {
            "name": [grant.name],
            "sha256": [grant.sha256],
            "organization": [grant.organization],
            "only": [list(grant.only)],
            "teams": [list(grant.teams)],
            "version": [version],
        }
        await self._clickhouse.insert(ANALYSTS, columns, f"analyst:{grant.name}:{version}")


def grants(analysts: Iterable[Analyst], teams: Iterable[Team]) -> dict[str, Grant]:
    """Who may ask, by name, with the teams that each sees."""
    of: dict[str, set[str]] = {}
    for team in teams:
        of.setdefault(team.organization, set()).add(team.name)
    return {one.name: _grant(one, of.get(one.organization, set())) for one in analysts if not one.revoked and is_name(one.name)}


def _grant(analyst: Analyst, teams: set[str]) -> Grant:
    """Teams are told in order, so that the same ones are the same."""
    seen = teams & set(analyst.teams) if analyst.teams else teams
    return Grant(analyst.name, analyst.sha256, analyst.organization, tuple(sorted(analyst.teams)), tuple(sorted(seen)))


def _read(row: Mapping[str, object]) -> Grant:
    only, teams = (tuple(cast("Sequence[str]", row[name])) for name in ("only", "teams"))
    return Grant(cast(str, row["name"]), cast(str, row["sha256"]), cast(str, row["organization"]), only, teams)
