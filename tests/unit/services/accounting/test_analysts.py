"""ClickHouse is told of its analysts: the embedded one by a table, a server by users of its own."""

from collections.abc import Mapping

import pytest

from infra.clickhouse.client import Columns
from infra.kafka.table import ControlTable
from schemas.control import Analyst, Team
from services.accounting.analysts import AnalystsKept, grants


class Books:
    """Notes what it is told."""

    def __init__(self, *, server: bool, users: tuple[str, ...] = ()) -> None:
        self.server = server
        self.users = users
        self.rows: list[tuple[object, ...]] = []
        self.commands: list[str] = []

    async def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        if "user_directories" in sql:
            return [{"n": int(self.server)}]
        if "role_grants" in sql:
            return [{"name": name} for name in self.users]
        return [{"name": "usage_log"}, {"name": "usage"}, {"name": "attempts_log"}] if "system.tables" in sql else []

    async def command(self, sql: str) -> None:
        self.commands.append(sql)

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        self.rows += zip(*(columns[name] for name in ("name", "sha256", "only", "teams")), strict=True)


def analyst(name: str = "ann", **words: object) -> Analyst:
    return Analyst.model_validate({"name": name, "organization": "house", "sha256": "a" * 64, "last4": "aaaa"} | words)


@pytest.fixture
def table() -> ControlTable:
    made = ControlTable()
    for name, organization in (("beta", "house"), ("alpha", "house"), ("gamma", "other")):
        made.put(Team(id=f"team_{name}", name=name, organization=organization))
    made.put(analyst())
    return made


def test_an_analyst_sees_the_teams_of_its_organization_never_those_of_others(table: ControlTable) -> None:
    wanted = [analyst(), analyst("tom", teams=("beta", "gamma")), analyst("old", revoked=True)]
    found = grants(wanted, table.teams.values())
    assert {name: (one.only, one.teams) for name, one in found.items()} == {
        "ann": ((), ("alpha", "beta")),
        "tom": (("beta", "gamma"), ("beta",)),
    }


async def test_the_embedded_one_gets_a_row_for_each_change_and_only_then(table: ControlTable) -> None:
    books = Books(server=False)
    kept = AnalystsKept(books, table, lambda: 7)
    await kept.tell()
    await kept.tell()
    table.put(Team(id="team_delta", name="delta", organization="house"))
    await kept.tell()
    table.put(analyst(revoked=True))
    await kept.tell()
    assert books.rows == [
        ("ann", "a" * 64, [], ["alpha", "beta"]),
        ("ann", "a" * 64, [], ["alpha", "beta", "delta"]),
        ("ann", "", [], []),
    ]
    assert books.commands == []


async def test_a_server_gets_users_and_loses_those_that_nobody_knows(table: ControlTable) -> None:
    books = Books(server=True, users=("ann", "gone"))
    await AnalystsKept(books, table, lambda: 7).tell()
    text = "\n".join(books.commands)
    assert text.startswith("CREATE SETTINGS PROFILE OR REPLACE sluice_analyst SETTINGS readonly = 1, allow_ddl = 0")
    assert "CREATE USER IF NOT EXISTS `ann`" in text
    assert "USING organization = 'house' TO `ann`" in text
    assert "USING organization IN ('house', '') AND team IN ('alpha', 'beta') TO `ann`" in text
    assert "DROP USER IF EXISTS `gone`" in text
    assert "audit_log" not in text
    assert books.rows == []
