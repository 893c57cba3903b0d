"""Analysts in the embedded ClickHouse: what they see, and what they try."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

import clickhouse_connect
import httpx
import pytest
import pytest_asyncio

from infra.clickhouse.access import OWNED, READABLE, WITHHELD, Grant, grant_statements, revoke_statements, setup_statements
from infra.clickhouse.client import open_clickhouse
from infra.clickhouse.migrate import migrate
from infra.clock import now_ms
from infra.embedded.clickhouse_users import FRESH_S
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports
from infra.kafka.table import ControlTable
from infra.secret_files import clickhouse_password
from schemas.control import Analyst, Team
from services.accounting.analysts import AnalystsKept
from services.cli.sql import ask
from tests.integration.test_clickhouse_http import CLIENTS

SECRET = "pw-of-other"
REFUSED = {36, 43, 46, 47, 60, 62, 115, 139, 158, 159, 160, 164, 241, 307, 344, 358, 396, 452, 456, 495, 497, 701}


@dataclass(frozen=True)
class Running:
    url: str
    port: int
    password: str


@pytest_asyncio.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    data_dir = tmp_path_factory.mktemp("analysts")
    port = choose_ports(data_dir, ["clickhouse"])["clickhouse"]
    child = await start_clickhouse(data_dir, port)
    password = clickhouse_password(data_dir)
    clickhouse = await open_clickhouse(f"http://sluice:{password}@127.0.0.1:{port}")
    await migrate(clickhouse)
    for statement in ROWS:
        await clickhouse.command(statement)
    for name, only, teams in (("ann", [], ["alpha", "beta"]), ("tom", ["beta"], ["beta"]), ("eve", [], [])):
        row = {
            "name": [name],
            "sha256": [hashlib.sha256(f"pw-{name}".encode()).hexdigest()],
            "organization": ["other" if name == "eve" else "house"],
            "only": [only],
            "teams": [teams],
            "version": [1],
        }
        await clickhouse.insert("sluice.analysts", row, f"analyst:{name}")
    yield Running(f"http://127.0.0.1:{port}", port, password)
    await clickhouse.close()
    await child.stop()


ROWS = [
    """INSERT INTO sluice.usage_log (job_id, ts, organization, team, model, status, user, prompt_tokens, cost_usd, version) VALUES
    ('j1', now(), 'house', 'alpha', 'm', 'completed', 'ada', 10, 0.100000001, 1),
    ('j2', now(), 'house', 'beta', 'm', 'completed', 'bob', 20, 0.200000002, 1),
    ('j3', now(), 'other', 'gamma', 'm', 'completed', 'SECRETUSER', 40, 0.400000004, 1),
    ('j4', now(), 'other', 'alpha', 'm', 'completed', 'SECRETUSER', 80, 0.800000008, 1)""",
    """INSERT INTO sluice.attempts_log (attempt_id, job_id, ts, job_ts, team, organization, provider, status, raw_usage, version)
    VALUES ('a1', 'j1', now(), now(), 'alpha', 'house', 'p', 'completed', 'x', 1),
    ('a0', 'j1', now(), now(), 'beta', '', 'p', 'completed', 'old', 1),
    ('a3', 'j3', now(), now(), 'gamma', 'other', 'p', 'completed', 'SECRETUSAGE', 1),
    ('a4', 'j4', now(), now(), 'alpha', 'other', 'p', 'completed', 'SECRETUSAGE', 1)""",
    """INSERT INTO sluice.audit_log (job_id, ts, team, organization, prompt, version)
    VALUES ('j1', now(), 'alpha', 'house', 'hello', 1), ('j3', now(), 'gamma', 'other', 'SECRETPROMPT', 1)""",
    """INSERT INTO sluice.changes_log (ts, event_id, actor, action, resource, kind, team, version, before, after, reason)
    VALUES (now(), 'e1', 'admin', 'x', 'key/1', 'key', 'alpha', 1, '', '', ''),
    (now(), 'e2', 'admin', 'x', 'key/2', 'key', 'gamma', 1, '', 'SECRETKEY', ''),
    (now(), 'e3', 'admin', 'x', 'operator/1', 'operator', '', 1, '', 'SECRETOPERATOR', '')""",
    """INSERT INTO sluice.repriced_log (pricing, attempt_id, job_id, ts, organization, team, cost_usd) VALUES
    ('p', 'a1', 'j1', now(), 'house', 'alpha', 1), ('p', 'a3', 'j3', now(), 'other', 'gamma', 2)""",
    "INSERT INTO sluice.pricings_log (pricing, new_usd) VALUES ('p', 3)",
    "CREATE TABLE sluice.later (organization String, secret String) ENGINE = MergeTree ORDER BY organization",
    "INSERT INTO sluice.later VALUES ('house', 'SECRETLATER')",
    "CREATE VIEW default.through AS SELECT * FROM sluice.usage_log",
]


@pytest.fixture(scope="module")
def http(running: Running) -> Generator[httpx.Client]:
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        yield client


def asked(http: httpx.Client, sql: str, name: str = "ann", **params: str) -> httpx.Response:
    return http.post("/", params=params, content=sql, auth=(name, f"pw-{name}"))


def number(http: httpx.Client, sql: str, name: str = "ann") -> Decimal:
    answer = asked(http, sql, name)
    assert answer.status_code == 200, answer.text
    return Decimal(answer.text)


@pytest.mark.parametrize(
    "table", ["usage", "usage_log", "usage_log FINAL", "chargeback_daily", "chargeback_monthly", "usage_by_day"]
)
@pytest.mark.parametrize(
    ("name", "cost"), [("ann", "0.300000003"), ("tom", "0.200000002"), ("eve", "1.200000012")], ids=["ann", "tom", "eve"]
)
def test_an_analyst_sees_the_rows_of_its_organization_and_teams(http: httpx.Client, table: str, name: str, cost: str) -> None:
    assert number(http, f"SELECT sum(cost_usd) FROM sluice.{table}", name) == Decimal(cost)


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("attempts", [2, 1, 0]),
        ("attempts_log", [2, 1, 0]),
        ("events", [1, 0, 0]),
        ("cache_savings", [2, 1, 2]),
        ("repriced", [1, 0, 1]),
        ("attempts_repriced", [2, 1, 0]),
    ],
)
def test_tables_of_teams_show_the_rows_of_its_teams(http: httpx.Client, table: str, rows: list[int]) -> None:
    assert [number(http, f"SELECT count() FROM sluice.{table}", name) for name in ("ann", "tom", "eve")] == rows


def test_whoever_has_all_rights_sees_all(http: httpx.Client, running: Running) -> None:
    for auth in (("sluice", running.password), ("default", "")):
        assert http.post("/", content="SELECT count() FROM sluice.usage", auth=auth).text == "4\n"


HOUSE = "SELECT sum(cost_usd) FROM sluice.usage"

ATTACKS = [
    "INSERT INTO sluice.usage_log (job_id) VALUES ('x')",
    "INSERT INTO sluice.usage_log SELECT * FROM sluice.usage_log",
    "INSERT INTO FUNCTION file('/tmp/sluice-x') SELECT 1",
    "INSERT INTO sluice.analysts SELECT * FROM sluice.analysts",
    "SELECT * FROM sluice.audit",
    "SELECT prompt FROM sluice.audit_log",
    "DROP TABLE sluice.usage_log",
    "/* SELECT */ DROP TABLE sluice.usage_log",
    "-- SELECT\nDROP VIEW sluice.usage",
    "ALTER TABLE sluice.usage_log DELETE WHERE 1",
    "DELETE FROM sluice.usage_log WHERE 1",
    "UPDATE sluice.usage_log SET team = 'alpha' WHERE 1",
    "TRUNCATE TABLE sluice.usage_log",
    "OPTIMIZE TABLE sluice.usage_log FINAL",
    "RENAME TABLE sluice.usage_log TO sluice.x",
    "EXCHANGE TABLES sluice.usage_log AND sluice.later",
    "DETACH TABLE sluice.usage_log",
    "CREATE TABLE default.x (n UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (n UInt8)",
    "CREATE VIEW default.x AS SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "CREATE FUNCTION f AS x -> file(x)",
    "CREATE USER x",
    "GRANT ALL ON *.* TO default",
    "DROP ROW POLICY x ON sluice.usage_log",
    "SYSTEM FLUSH LOGS",
    "SYSTEM RELOAD CONFIG",
    "KILL QUERY WHERE 1",
    "BACKUP TABLE sluice.usage_log TO File('/tmp/sluice-x')",
    "SET ROLE service",
    "SET ROLE ALL",
    "SET ROLE DEFAULT",
    "SET readonly = 0",
    "SET metrics_perf_events_list = ''",
    "USE system",
    "EXECUTE AS default SELECT 1",
    "SELECT 1; DROP TABLE sluice.usage_log",
    "SELECT 1; SET ROLE service; SELECT * FROM sluice.later",
    "SELECT 1 PARALLEL WITH DROP TABLE sluice.usage_log",
    "SELECT * FROM sluice.usage_log SETTINGS metrics_perf_events_list = ''",
    "SELECT * FROM (SELECT * FROM sluice.usage_log SETTINGS metrics_perf_events_list = '')",
    "SELECT * FROM sluice.usage_log WHERE job_id IN (SELECT job_id FROM sluice.usage SETTINGS readonly = 0)",
    "SELECT * FROM sluice.usage SETTINGS additional_table_filters = {}",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 INTO OUTFILE '/tmp/sluice-x'",
    "SELECT 1 into/**/outfile '/tmp/sluice-x' FORMAT CSV",
    "(SELECT 1) INTO OUTFILE '/tmp/sluice-x' TRUNCATE",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `file`('/etc/passwd', 'LineAsString')",
    "SELECT * FROM FiLe('/etc/passwd', 'LineAsString')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM `/etc/passwd`",
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"fi\\x6ce\"('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "WITH file AS f SELECT f('/etc/passwd')",
    "SELECT (SELECT file('/etc/passwd'))",
    "DESCRIBE file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:{port}/?query=SELECT+*+FROM+sluice.later', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'sluice', 'later')",
    "SELECT * FROM remoteSecure('127.0.0.1', sluice.later)",
    "SELECT * FROM cluster('default', sluice.later)",
    "SELECT * FROM clusterAllReplicas('default', sluice.later)",
    "SELECT * FROM s3('http://127.0.0.1:{port}/b/k', 'LineAsString')",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM sqlite('/tmp/x', 't')",
    "SELECT * FROM executable('cat', 'CSV', 'a String')",
    "SELECT * FROM merge('sluice', '.*')",
    "SELECT * FROM merge(REGEXP('.*'), 'later')",
    "SELECT * FROM Python(Engine)",
    "SELECT * FROM python('engine')",
    "SELECT * FROM engine",
    "SELECT * FROM eval('SELECT * FROM sluice.later')",
    "SELECT * FROM loop(sluice.usage_log) LIMIT 9",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM input('a String')",
    "SELECT * FROM mergeTreeIndex('sluice', 'usage_log')",
    "SELECT dictGet('sluice.x', 'a', 1)",
    "SELECT joinGet('sluice.later', 'secret', 'house')",
    "SELECT * FROM sluice.later",
    "SELECT * FROM sluice.analysts",
    "SELECT new_usd FROM sluice.pricings_log",
    "SELECT * FROM sluice.`later`",
    "SELECT * FROM default.through",
    "WITH x AS (SELECT * FROM sluice.later) SELECT * FROM x",
    "SELECT 1 UNION ALL SELECT length(secret) FROM sluice.later",
    "SELECT 'house' IN (SELECT secret FROM sluice.later)",
    "SELECT 'house' IN sluice.later",
    "SELECT (SELECT secret FROM sluice.later)",
    "SELECT * FROM sluice.usage AS u JOIN sluice.later AS l ON l.organization = u.organization",
    "SELECT exists(SELECT 1 FROM sluice.later)",
    "SELECT hasColumnInTable('sluice', 'later', 'secret')",
    "DESCRIBE TABLE sluice.later",
    "SHOW CREATE TABLE sluice.analysts",
    "EXISTS TABLE sluice.later",
    "SELECT query FROM system.processes",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.parts",
    "SELECT * FROM system.users",
    "SELECT * FROM system.row_policies",
    "SELECT * FROM view(SELECT * FROM system.processes)",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW ACCESS",
    "EXPLAIN ESTIMATE SELECT * FROM sluice.usage_log",
    "EXPLAIN indexes = 1 SELECT * FROM sluice.usage_log",
    "EXPLAIN SYNTAX SELECT * FROM sluice.usage_log SETTINGS readonly = 0",
    "EXPLAIN QUERY TREE SELECT (SELECT secret FROM sluice.later)",
    "CHECK TABLE sluice.usage_log",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(100)",
    "SELECT getServerSetting('max_connections')",
    "SELECT showCertificate()",
    "SELECT getClientHTTPHeader('Authorization')",
    "SELECT addressToSymbol(1)",
    "SELECT catboostEvaluate('/etc/passwd', 1)",
    "SELECT aiGenerate('x', 'y')",
    "SELECT number FROM numbers(10000000000) ORDER BY cityHash64(number)",
    "SELECT groupArray(repeat('x', 1000000)) FROM numbers(100000)",
    "SELECT number FROM numbers(2000000)",
    "SELECT * FROM {t:Identifier}",
    "SELECT 1 FORMAT Null SETTINGS readonly = 0",
    "SELECT `a\nSet` FROM sluice.later",
    "BEGIN TRANSACTION",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_an_attack_is_refused(http: httpx.Client, running: Running, sql: str) -> None:
    answer = asked(http, sql.replace("{port}", str(running.port)), param_t="sluice.later")
    assert answer.status_code != 200, answer.text
    assert int(answer.headers["X-ClickHouse-Exception-Code"]) in REFUSED, answer.text
    assert "SECRET" not in answer.text
    assert "root:" not in answer.text


FILTERED = [
    "SELECT * FROM sluice.usage_log",
    "SELECT * FROM sluice.usage_log FINAL PREWHERE organization != 'house'",
    "SELECT *, _part, _partition_id FROM sluice.attempts_log",
    "WITH 1 AS x SELECT * FROM sluice.attempts UNION ALL SELECT * FROM sluice.attempts",
    "SELECT * FROM sluice.events",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM sluice.attempts))",
    "SELECT * FROM sluice.usage WHERE throwIf(organization != 'house') = 0",
    "SELECT arrayMap(x -> (SELECT groupArray(user) FROM sluice.usage_log), [1])",
    "SELECT groupUniqArray(user) FROM sluice.usage_log GROUP BY ALL",
    "SELECT max(user), min(user), any(user), topK(9)(user) FROM sluice.usage_log",
    "SELECT user FROM sluice.usage_log ORDER BY organization = 'other' DESC LIMIT 9",
    "SELECT * FROM view(SELECT * FROM sluice.usage_log)",
    "SELECT a.user FROM sluice.usage_log AS a FULL JOIN sluice.usage_log AS b ON 1 = 1",
    "SELECT * FROM sluice.usage_log AS `o'; --`",
    "SELECT name, total_rows, data_paths FROM system.tables WHERE database = 'sluice'",
    "SHOW TABLES FROM sluice",
    "EXPLAIN QUERY TREE SELECT (SELECT max(user) FROM sluice.usage_log)",
    "SELECT getSetting('metrics_perf_events_list')",
]


@pytest.mark.parametrize("sql", FILTERED)
def test_a_trick_shows_nothing_of_others(http: httpx.Client, sql: str) -> None:
    answer = asked(http, sql, default_format="JSON")
    assert answer.status_code == 200, answer.text
    assert not [word for word in ("SECRET", "other", "gamma") if word in answer.text]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"readonly": "0"}, 164),
        ({"metrics_perf_events_list": ""}, 164),
        ({"additional_table_filters": "{}"}, 164),
        ({"max_execution_time": "3600"}, 452),
        ({"max_execution_time": "0"}, 452),
        ({"max_memory_usage": "x"}, 72),
        ({"log_queries": "1"}, 164),
        ({"output_format_schema": "/tmp/sluice-x"}, 164),
        ({"database": "system"}, 497),
        ({"role": "service"}, 512),
        ({"user": "default"}, 516),
    ],
)
def test_what_a_url_may_not_say(http: httpx.Client, params: dict[str, str], code: int) -> None:
    answer = asked(http, HOUSE, **params)
    assert (answer.status_code >= 400, int(answer.headers["X-ClickHouse-Exception-Code"])) == (True, code)


@pytest.mark.parametrize(
    "ways",
    [
        {"auth": ("ann", "pw-tom")},
        {"auth": ("nobody", "")},
        {"auth": ("sluice", "")},
        {"auth": ("default", "x")},
        {"params": {"user": "ann"}},
        {"headers": {"X-ClickHouse-User": "ann", "X-ClickHouse-Key": ""}},
        {"headers": {"Authorization": "Bearer x"}},
    ],
)
def test_who_does_not_know_the_password_is_not_let_in(http: httpx.Client, ways: dict[str, object]) -> None:
    answer = http.request("POST", "/", content="SELECT 1", **ways)  # pyright: ignore[reportArgumentType]
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")


def test_a_password_comes_by_any_of_clickhouses_ways(http: httpx.Client) -> None:
    basic = "Basic " + base64.b64encode(b"ann:pw-ann").decode()
    for headers, params in (
        ({"Authorization": basic}, {}),
        ({"X-ClickHouse-User": "ann", "X-ClickHouse-Key": "pw-ann"}, {}),
        ({}, {"user": "ann", "password": "pw-ann"}),
    ):
        answer = http.post("/", params=params, headers=headers, content="SELECT sum(prompt_tokens) FROM sluice.usage")
        assert answer.text == "30\n"


def test_sluice_sql_and_clickhouse_connect_give_the_same_numbers(running: Running) -> None:
    sql = "SELECT team, sum(cost_usd) AS usd, count() AS jobs FROM usage GROUP BY team ORDER BY team"
    for user, password in (("ann", "pw-ann"), ("sluice", running.password)):
        client = clickhouse_connect.get_client(  # pyright: ignore[reportUnknownMemberType]
            host="127.0.0.1", port=running.port, username=user, password=password, database="sluice"
        )
        found = cast("list[tuple[str, Decimal, int]]", client.query(sql).result_rows)  # pyright: ignore[reportUnknownMemberType]
        client.close()
        shown = ask(running.url.replace("://", f"://{user}:{password}@"), sql, "TabSeparated").text
        assert [line.split("\t") for line in shown.splitlines()] == [
            [team, f"{usd.normalize():f}", str(n)] for team, usd, n in found
        ]


async def test_every_table_is_readable_or_withheld(running: Running) -> None:
    """Whoever adds a table says in infra/clickhouse/access.py whose its rows are."""
    clickhouse = await open_clickhouse(running.url)
    rows = await clickhouse.query("SELECT name FROM system.tables WHERE database = 'sluice' AND name != 'later'")
    await clickhouse.close()
    assert {cast(str, row["name"]) for row in rows} == READABLE.keys() | WITHHELD
    assert OWNED.keys() <= READABLE.keys()


def test_the_statements_for_a_server_are_clickhouses(http: httpx.Client) -> None:
    """The embedded one can't run them; its parser is a server's."""
    grant = Grant("o-ne", "a" * 64, "ho'use\\", ("be'ta",), ("be'ta",))
    tables = list(READABLE)
    for sql in [*setup_statements(tables), *grant_statements(grant, tables), *revoke_statements("o-ne", tables)]:
        answer = http.post(
            "/", params={"param_sql": sql.replace("\\", "\\\\")}, content="SELECT formatQuerySingleLine({sql:String})"
        )
        assert answer.status_code == 200, answer.text


async def test_accounting_tells_the_embedded_clickhouse_once(http: httpx.Client, running: Running) -> None:
    clickhouse, table = await open_clickhouse(running.url), ControlTable()
    table.put(Team(id="team_1", name="alpha", organization="house"))
    for name in ("ann", "tom", "eve", "new"):
        digest = hashlib.sha256(f"pw-{name}".encode()).hexdigest()
        teams, organization = ("beta",) if name == "tom" else (), "other" if name == "eve" else "house"
        table.put(Analyst(name=name, organization=organization, teams=teams, sha256=digest, last4="0000"))
    for _ in range(2):
        await AnalystsKept(clickhouse, table, now_ms).tell()
    rows = await clickhouse.query("SELECT count() AS n FROM sluice.analysts WHERE name = 'new'")
    await clickhouse.close()
    await asyncio.sleep(FRESH_S)
    assert rows == [{"n": 1}]
    assert number(http, "SELECT count() FROM sluice.attempts", "new") == 1


async def test_a_revoked_analyst_is_refused_at_once_and_a_new_password_taken(http: httpx.Client, running: Running) -> None:
    clickhouse = await open_clickhouse(running.url)

    async def told(password: str, version: int) -> None:
        digest = hashlib.sha256(password.encode()).hexdigest() if password else ""
        row: dict[str, list[object]] = {
            "name": ["max"],
            "sha256": [digest],
            "organization": ["house"],
            "only": [[]],
            "teams": [[]],
            "version": [version],
        }
        await clickhouse.insert("sluice.analysts", row, f"max:{version}")
        await asyncio.sleep(FRESH_S)

    for version, kept, expected in ((1, "pw-max", 200), (2, "another", 403), (3, "pw-max", 200), (4, "", 403)):
        await told(kept, version)
        assert asked(http, "SELECT 1", "max").status_code == expected
    await clickhouse.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_an_analysts_tools_connect(http: httpx.Client, client: str) -> None:
    sql, params = CLIENTS[client]
    assert asked(http, sql, **params).status_code == 200, asked(http, sql, **params).text
