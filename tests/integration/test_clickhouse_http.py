"""The embedded ClickHouse as curl and an analyst's tools see it: ClickHouse's HTTP interface."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Protocol, cast

import clickhouse_connect
import httpx
import pytest
import pytest_asyncio
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.embedded.clickhouse_bodies import DECOMPRESSORS
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports


@pytest_asyncio.fixture(scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[int]:
    data_dir = tmp_path_factory.mktemp("clickhouse")
    chosen = choose_ports(data_dir, ["clickhouse"])["clickhouse"]
    child = await start_clickhouse(data_dir, chosen)
    yield chosen
    await child.stop()


@pytest.fixture(scope="module")
def http(port: int) -> Generator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        client.post(
            "/", content="CREATE TABLE IF NOT EXISTS default.texts (n UInt8, t String) ENGINE = Memory"
        ).raise_for_status()
        yield client


def code(answer: httpx.Response) -> int:
    return int(answer.headers["X-ClickHouse-Exception-Code"])


def test_a_query_by_url_and_by_body(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert http.post("/", content="SELECT 1 AS x FORMAT JSONEachRow").text == '{"x":1}\n'
    assert http.post("/", params={"query": "SELECT"}, content="2").text == "2\n"
    assert http.post("/", params={"default_format": "CSV"}, content="SELECT 'a'").text == '"a"\n'
    assert http.post("/", params={"param_x": "it's"}, content="SELECT {x:String}").text == "it\\'s\n"
    assert http.post("/", params={"max_threads": "1"}, content="SELECT getSetting('max_threads')").text == "1\n"
    assert http.post("/", params={"database": "system"}, content="SELECT * FROM one").text == "0\n"
    assert http.post("/", params={"session_id": "s", "user": "default"}, content="SELECT 1").text == "1\n"
    assert http.get("/ping").text == http.get("/").text == "Ok.\n"


@pytest.mark.parametrize(
    ("sql", "status", "number"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT nothing", 404, 47),
        ("SELECT * FROM nowhere", 404, 60),
        ("SELECT throwIf(1)", 500, 395),
        ("", 400, 62),
    ],
)
def test_errors_look_like_clickhouse(http: httpx.Client, sql: str, status: int, number: int) -> None:
    answer = http.post("/", content=sql)
    assert (answer.status_code, code(answer)) == (status, number)
    assert answer.text.startswith(f"Code: {number}. DB::Exception: ")


def test_a_typo_is_told_as_such_also_to_whoever_may_only_read(http: httpx.Client) -> None:
    for readonly in ("1", "2"):
        assert code(http.post("/", params={"readonly": readonly}, content="SELEC 1")) == 62


@pytest.mark.parametrize(
    "end", ["FORMAT Native SETTINGS max_threads = 1", "SETTINGS max_threads = 1 FORMAT Native;", "FORMAT Native -- x"]
)
def test_an_empty_answer_has_its_columns_however_the_statement_ends(http: httpx.Client, end: str) -> None:
    assert http.post("/", content=f"SELECT 1 AS n WHERE 0 {end}").content == b"\x01\x00\x01n\x05UInt8"


def test_an_unknown_setting_is_an_error(http: httpx.Client) -> None:
    assert code(http.get("/", params={"query": "SELECT 1", "no_such_setting": "1"})) == 115
    assert code(http.get("/", params={"query": "SELECT 1", "a = 1, b": "1"})) == 115


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "two\n\nlines",
        "'; DROP TABLE default.texts; --",
        "\n\nDROP TABLE default.texts;\n\n",
        "\0\x01\x7f",
    ],
)
@pytest.mark.parametrize("form", ["JSONEachRow", "VALUES", "CSV", "RowBinary"])
def test_rows_are_data_whatever_they_look_like(http: httpx.Client, form: str, text: str) -> None:
    http.post("/", content="TRUNCATE TABLE default.texts")
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    rows = {
        "JSONEachRow": httpx.Request("POST", "http://x", json={"n": 1, "t": text}).content,
        "VALUES": f"(1, '{quoted}')".encode(),
        "CSV": b'1,"' + text.replace('"', '""').encode() + b'"\n',
        "RowBinary": bytes([1, len(text)]) + text.encode(),
    }[form]
    words = form if form == "VALUES" else f"FORMAT {form}"
    sql = f"INSERT INTO default.texts /* it's FORMAT x */ (n, `t`) {words}\n".encode()
    answer = http.post("/", content=sql + rows)
    assert answer.status_code == 200, answer.text
    assert http.post("/", content="SELECT n, hex(t) FROM default.texts").text == f"1\t{text.encode().hex().upper()}\n"


def test_insert_from_select_and_by_url_with_a_compressed_body(http: httpx.Client) -> None:
    http.post("/", content="TRUNCATE TABLE default.texts")
    http.post("/", content="INSERT INTO default.texts SELECT 1 AS n, 'a' AS format").raise_for_status()
    body = gzip.compress(b'{"n":2,"t":"b"}\n') + gzip.compress(b'{"n":3,"t":"c"}\n')
    url = {"query": "INSERT INTO default.texts FORMAT JSONEachRow"}
    http.post("/", params=url, content=body, headers={"Content-Encoding": "gzip"}).raise_for_status()
    assert code(http.post("/", params=url, content=body[:-4], headers={"Content-Encoding": "gzip"})) == 271
    assert code(http.post("/", params=url, content=body, headers={"Content-Encoding": "br"})) == 89
    assert http.post("/", content="SELECT n FROM default.texts ORDER BY n").text == "1\n2\n3\n"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE default.x (n UInt8) ENGINE = Memory",
        "INSERT INTO default.texts VALUES (1, 'a')",
        "INSERT INTO default.texts FORMAT CSV\n1,a\n",
        "/* SELECT */ KILL QUERY WHERE 1",
        "SYSTEM FLUSH LOGS",
        "SELECT 1; DROP TABLE default.texts",
        "SELECT 1 INTO/**/OUTFILE '/nonexistent/x'",
        "SELECT 1 into\noutfile '/nonexistent/x' FORMAT CSV",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM file('x', 'CSV')",
        "SET max_threads = 1",
    ],
)
def test_readonly_reads_only(http: httpx.Client, sql: str) -> None:
    before = http.post("/", content="SELECT count() FROM default.texts").text
    answer = http.post("/", params={"readonly": "1"}, content=sql)
    assert code(answer) in (62, 164, 358), answer.text
    assert http.post("/", content="SELECT count() FROM default.texts").text == before


def test_get_never_writes(http: httpx.Client) -> None:
    for readonly in ("0", "1", "2"):
        answer = http.get("/", params={"query": "TRUNCATE TABLE default.texts", "readonly": readonly})
        assert code(answer) == 164
    sql = "WITH 'INTO OUTFILE; x' AS s SELECT s -- INTO OUTFILE"
    assert http.get("/", params={"query": sql}).text == "INTO OUTFILE; x\n"


def test_web_pages_are_refused(http: httpx.Client) -> None:
    assert http.post("/", content="SELECT 1", headers={"Origin": "https://example.org"}).status_code == 403
    assert http.get("/", params={"query": "SELECT 1"}, headers={"Host": "rebound.example.org"}).status_code == 403


# An analyst's tools: the client as anybody would make it


class Result(Protocol):
    column_names: Sequence[str]
    result_rows: Sequence[Sequence[object]]


class Tool(Protocol):
    """clickhouse-connect's client, as far as it is tried here."""

    server_version: str

    def command(self, cmd: str, *, settings: dict[str, object] | None = None) -> object: ...
    def query(self, query: str, parameters: dict[str, object] | None = None) -> Result: ...
    def raw_query(self, query: str, *, fmt: str) -> bytes: ...
    def raw_insert(self, table: str, column_names: list[str], insert_block: bytes, *, fmt: str) -> object: ...
    def insert(
        self,
        table: str,
        data: list[list[object]],
        column_names: list[str],
        *,
        settings: dict[str, object] | None = None,
    ) -> object: ...
    def close(self) -> None: ...


@pytest.fixture(scope="module", params=[True, False, "lz4", "zstd", "gzip"], ids=str)
def tool(port: int, request: pytest.FixtureRequest) -> Generator[Tool]:
    made = clickhouse_connect.get_client(  # pyright: ignore[reportUnknownMemberType]
        host="127.0.0.1", port=port, compress=request.param
    )
    yield cast(Tool, made)
    made.close()


def test_the_default_client_works(tool: Tool) -> None:
    assert tool.command("SELECT 1") == 1
    tool.command(
        "CREATE OR REPLACE TABLE default.t (n UInt64, s LowCardinality(Nullable(String)), m Map(String, String)) "
        "ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10"
    )
    rows: list[list[object]] = [[number, f"s{number % 7}" * 50 if number % 5 else None, {"a": "\n\n"}] for number in range(5_000)]
    for _ in range(2):
        tool.insert("default.t", rows, ["n", "s", "m"], settings={"insert_deduplication_token": "once"})
    assert tool.command("SELECT count() FROM default.t") == 5_000
    found = tool.query("SELECT * FROM default.t WHERE n < {n:UInt64} ORDER BY n", {"n": 2_000})
    assert [list(row) for row in found.result_rows] == rows[:2_000]
    empty = tool.query("SELECT n, s, count() AS c FROM default.t WHERE n > 10000 GROUP BY ALL")
    assert (empty.result_rows, empty.column_names) == ([], ("n", "s", "c"))
    assert tool.query("SELECT * FROM default.t LIMIT 0").column_names == ("n", "s", "m")
    long = "a'\n\\\tb" * 4_000
    assert tool.query("SELECT {x:String} AS x", {"x": long}).result_rows == [(long,)]
    assert tool.raw_query("SELECT n FROM default.t ORDER BY n LIMIT 2", fmt="CSV") == b"0\n1\n"
    tool.raw_insert("default.t", ["n"], b"9000\n\n9001\n", fmt="TSV")
    assert tool.command("SELECT count() FROM default.t") == 5_003


def test_the_default_client_sees_errors(tool: Tool) -> None:
    with pytest.raises(DatabaseError) as refused:
        tool.command("SELECT nothing")
    assert refused.value.code == 47
    with pytest.raises(DatabaseError) as refused:
        tool.command("DROP TABLE IF EXISTS default.texts", settings={"readonly": "1"})
    assert refused.value.code == 164


async def test_many_queries_at_once(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        answers = await asyncio.gather(
            *(client.post("/", content=f"SELECT sum(number) + {n} FROM numbers(100000)") for n in range(60))
        )
    assert [int(answer.text) for answer in answers] == [4_999_950_000 + n for n in range(60)]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "lz4", "br, gzip;q=0.5", "identity", "gzip;q=0", ""])
def test_an_answer_is_compressed_as_the_client_asks(http: httpx.Client, coding: str) -> None:
    params = {"enable_http_compression": "1"}
    with http.stream(
        "POST", "/", params=params, content="SELECT * FROM numbers(9999)", headers={"Accept-Encoding": coding}
    ) as got:
        raw = b"".join(got.iter_raw())
    found = got.headers.get("Content-Encoding", "")
    assert found == {"br, gzip;q=0.5": "gzip", "identity": "", "gzip;q=0": ""}.get(coding, coding)
    plain = DECOMPRESSORS[found]().decompress(raw, 2**20) if found else raw
    assert plain == b"".join(b"%d\n" % number for number in range(9999))


CLIENTS: dict[str, tuple[str, dict[str, str]]] = {
    "clickhouse-connect": ("SELECT version(), timezone()", {"client_protocol_version": "54405", "wait_end_of_query": "1"}),
    "settings": ("SELECT name, value, readonly as readonly FROM system.settings LIMIT 10000", {"default_format": "JSONCompact"}),
    "clickhouse-go": ("SELECT displayName(), version(), revision(), timezone()", {"default_format": "Native", "session_id": "s"}),
    "jdbc v2": (
        "SELECT currentUser() AS user, timezone() AS timezone, version() AS version LIMIT 1",
        {"default_format": "RowBinaryWithNamesAndTypes", "session_timezone": "UTC", "query_id": "x"},
    ),
    "jdbc, databases": ("SELECT name AS TABLE_SCHEM, '' AS TABLE_CATALOG FROM system.databases ORDER BY name", {}),
    "jdbc, tables": ("SELECT t.database, t.name, t.engine, t.comment FROM system.tables t WHERE t.name LIKE '%'", {}),
    "jdbc, columns": ("SELECT database, table, name, type, position FROM system.columns WHERE table = 'one'", {}),
    "dbeaver": ("SELECT name, engine FROM system.databases", {"max_result_rows": "200", "result_overflow_mode": "break"}),
    "dbeaver, engines": ("SELECT name FROM system.table_engines", {}),
    "grafana, databases": ("SHOW DATABASES", {"default_format": "JSON"}),
    "grafana, tables": ("SHOW TABLES FROM system", {"max_execution_time": "60"}),
    "grafana, columns": ("DESC TABLE system.one", {"default_format": "JSONCompact"}),
    "grafana, health": ("SELECT 1", {"default_format": "Native"}),
    "grafana, functions": ("SELECT name FROM system.functions", {}),
    "types": ("SELECT name FROM system.data_type_families", {}),
}
"""What clients ask when they connect, as we know them: no Grafana, DBeaver or JDBC driver ran against it."""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_clients_ask_on_connecting_is_answered(http: httpx.Client, client: str, method: str) -> None:
    sql, params = CLIENTS[client]
    answer = http.request(method, "/", params=params | {"query": sql})
    assert answer.status_code == 200, answer.text
    assert answer.content
