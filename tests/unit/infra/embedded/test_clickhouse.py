"""The HTTP side of the embedded ClickHouse over an engine that only notes what it is asked: bounds, and what a request says."""

import asyncio
import threading
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientResponse, FormData, web
from aiohttp.test_utils import TestClient, TestServer

from infra.clickhouse.access import Grant
from infra.embedded import clickhouse, clickhouse_bodies
from infra.embedded.clickhouse import ANALYSTS, READERS, Server
from infra.embedded.clickhouse_engine import Answer, Statement
from infra.embedded.clickhouse_errors import EngineError, refusal
from infra.embedded.clickhouse_users import Users


class Engine:
    """Answers at once, or only when `gate` is open for statements that begin with SELECT."""

    def __init__(self) -> None:
        self.asked: list[Statement] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: EngineError | None = None

    def run(self, statement: Statement) -> Answer:
        self.asked.append(statement)
        if statement.verb == "SELECT":
            assert self.gate.wait(timeout=30)
        if self.error is not None:
            raise self.error
        return Answer(b"1\n", {"read_rows": "1"})


@asynccontextmanager
async def serving(engine: Engine) -> AsyncGenerator[TestClient[web.Request, web.Application]]:
    # aiohttp's test server undoes compression by itself unless told not to, as `_serve` tells it.
    server = TestServer(Server(engine).app())
    await server.start_server(auto_decompress=False)
    async with TestClient(server) as client:
        yield client


def code(answer: ClientResponse) -> int:
    return int(answer.headers["X-ClickHouse-Exception-Code"])


async def test_what_a_request_says_reaches_the_engine() -> None:
    engine = Engine()
    async with serving(engine) as client:
        words = {
            "query": "SELECT",
            "database": "d",
            "max_threads": "2",
            "param_x": "1",
            "wait_end_of_query": "1",
        }
        headers = {"X-ClickHouse-Format": "CSV", "Authorization": "Basic ZGVmYXVsdDo="}
        answer = await client.post("/", params=words | {"query_id": "a\nb"}, data=b"{x:UInt8}", headers=headers)
    assert engine.asked == [Statement(b"SELECT\n{x:UInt8}", "d", "CSV", {"max_threads": "2"}, {"x": "1"})]
    assert (answer.status, answer.headers["X-ClickHouse-Format"]) == (200, "CSV")
    assert answer.headers["X-ClickHouse-Query-Id"] == "a?b"
    assert answer.headers["X-ClickHouse-Summary"] == '{"read_rows": "1"}'


async def test_a_form_holds_query_and_parameters() -> None:
    engine = Engine()
    async with serving(engine) as client:
        form = FormData({"query": "SELECT {x:String}", "param_x": "long"}, default_to_multipart=True)
        await client.post("/", data=form)
        with_file = FormData({"query": "SELECT 1"})
        with_file.add_field("data", b"1,2", filename="data")
        assert code(await client.post("/", data=with_file)) == 48
    assert engine.asked == [Statement(b"SELECT {x:String}", "", "TabSeparated", {}, {"x": "long"})]


async def test_clickhouses_own_compression_is_refused() -> None:
    async with serving(Engine()) as client:
        for word in ("compress", "decompress"):
            assert code(await client.post("/", params={word: "1"}, data=b"SELECT 1")) == 48


async def test_a_body_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse_bodies, "MAX_BODY_BYTES", 1_000)
    engine = Engine()
    async with serving(engine) as client:
        answer = await client.post("/", data=b"SELECT 1" + b" " * 1_000)
        assert (answer.status, code(answer)) == (413, 307)
        bomb = zlib.compress(b"SELECT 1" + b" " * 1_000_000)
        answer = await client.post("/", data=bomb[:900], headers={"Content-Encoding": "deflate"})
        assert code(answer) == 307
        assert (await client.post("/", data=b"SELECT 1")).status == 200
    assert len(engine.asked) == 1


async def test_bodies_are_bounded_together_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse_bodies, "MAX_BODIES_BYTES", 1_500)
    engine = Engine()
    engine.gate.clear()
    large = b"SELECT 1" + b" " * 1_000
    async with serving(engine) as client:
        first = asyncio.create_task(client.post("/", data=large))
        await until(lambda: len(engine.asked) == 1)
        answer = await client.post("/", data=large)
        assert (answer.status, code(answer)) == (503, 202)
        engine.gate.set()
        assert (await first).status == 200
        assert (await client.post("/", data=large)).status == 200


async def test_slow_readers_do_not_keep_a_writer_waiting() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as client:
        readers = [asyncio.create_task(client.post("/", data=b"SELECT 1")) for _ in range(READERS + 3)]
        await until(lambda: len(engine.asked) == READERS)
        assert (await client.post("/", data=b"INSERT INTO t VALUES (1)")).status == 200
        assert len(engine.asked) == READERS + 1
        engine.gate.set()
        assert {answer.status for answer in await asyncio.gather(*readers)} == {200}


async def test_slow_queries_of_analysts_do_not_keep_a_service_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def login(_: Users, query: Mapping[str, str], __: Mapping[str, str]) -> Grant | None:
        return Grant(query["user"], "", "acme") if "user" in query else None

    monkeypatch.setattr(Users, "login", login)
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as client:
        analysts = [asyncio.create_task(client.post("/", params={"user": f"a{n}"}, data=b"SELECT 1")) for n in range(READERS + 3)]
        await until(lambda: len(engine.asked) == ANALYSTS)
        assert (await client.post("/", data=b"SHOW TABLES")).status == 200
        engine.gate.set()
        assert {answer.status for answer in await asyncio.gather(*analysts)} == {200}


async def test_too_many_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse, "MAX_REQUESTS", 1)
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as client:
        first = asyncio.create_task(client.post("/", data=b"SELECT 1"))
        await until(lambda: len(engine.asked) == 1)
        answer = await client.post("/", data=b"SELECT 1")
        assert (answer.status, code(answer)) == (503, 202)
        assert (await client.get("/ping")).status == 200
        engine.gate.set()
        assert (await first).status == 200


@pytest.mark.parametrize(("number", "status"), [(62, 400), (60, 404), (164, 403), (202, 503), (241, 500), (1002, 500)])
async def test_an_error_of_the_engine_has_its_code_and_a_fitting_status(number: int, status: int) -> None:
    engine = Engine()
    engine.error = refusal(number, "no", "NO")
    async with serving(engine) as client:
        answer = await client.post("/", data=b"SELECT 1")
        assert (answer.status, code(answer)) == (status, number)
        assert await answer.text() == f"Code: {number}. DB::Exception: no. (NO)\n"


@pytest.mark.parametrize(
    ("sql", "verb", "form"),
    [
        ("select 1", "SELECT", "TSV"),
        (" -- INSERT\n# x\n/* DROP\n*/ ((SELECT 1) ) format JSON ;\n", "SELECT", "JSON"),
        ("WITH 1 AS x SELECT x FORMAT Native", "WITH", "Native"),
        ("SELECT 1 /* x */ FORMAT CSV -- y", "SELECT", "CSV"),
        ("SELECT 1 -- FORMAT CSV", "SELECT", "TSV"),
        ("SELECT 1 FORMAT CSV SETTINGS format_csv_delimiter = ';'", "SELECT", "CSV"),
        ("SELECT 'FORMAT CSV SETTINGS', `FORMAT CSV`", "SELECT", "TSV"),
        ("INSERT INTO t FORMAT CSV\n1", "INSERT", None),
        ("CREATE TABLE t (n UInt8)", "CREATE", None),
        ("", "", None),
    ],
)
def test_what_a_statement_is(sql: str, verb: str, form: str | None) -> None:
    statement = Statement(sql.encode(), "", "TSV", {}, {})
    assert (statement.verb, statement.format) == (verb, form)


async def until(condition: Callable[[], bool]) -> None:
    """Let the others go on until it holds; the test's own timeout ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - the engine is in a thread and tells nobody
        await asyncio.sleep(0.001)
