"""ClickHouse's engine (chDB) in a process of its own, behind ClickHouse's HTTP interface on 127.0.0.1.

    python -m infra.embedded.clickhouse --path DIR --port N

Services and an analyst's tools speak plain ClickHouse HTTP to it and cannot tell it from a server. Each request gets a
fresh handle of the one engine, so its settings end with it, as HTTP has it. What differs from a server: sessions are
accepted and forgotten (no temporary tables across requests); users are `default` and `sluice`, with all rights, and the
analysts whom accounting writes into a table; answers are built in memory (at most MAX_RESULT_BYTES), and files with external
data are refused.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, cast

from aiohttp import web

from infra.clickhouse.access import Grant
from infra.embedded.clickhouse_answers import COMPRESSORS, WORTH_BYTES, encoding
from infra.embedded.clickhouse_bodies import Bodies
from infra.embedded.clickhouse_engine import Answer, Engine, Statement
from infra.embedded.clickhouse_errors import EngineError, refusal
from infra.embedded.clickhouse_users import Users
from infra.settings import Settings

MAX_FORM_BYTES: Final = 8 * 2**20
READERS: Final = 6
ANALYSTS: Final = 4
WRITERS: Final = 4
MAX_REQUESTS: Final = 256
DRAIN_S: Final = 8
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

TRANSPORT: Final = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "password",
        "query",
        "query_id",
        "quota_key",
        "readonly",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
"""URL parameters that are not settings of the engine, or are handled apart."""

CONTENT_TYPES: Final = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONCompactStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "CSVWithNames": "text/csv; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNames": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Avro": "application/octet-stream",
    "ORC": "application/octet-stream",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Runs(Protocol):
    """What the server needs of the engine."""

    def run(self, statement: Statement) -> Answer:
        """As `Engine.run`; called from several threads at once."""
        ...


class Server:
    """HTTP in front of the engine. Bounded in requests, in bytes of bodies and in queries at once.

    Services that read, analysts and writers have a queue each, so that slow queries of analysts keep nobody else waiting.
    """

    def __init__(self, engine: Runs, password: str = "", *, default: bool = True) -> None:
        """`password` and `default`: as Users has them."""
        self._engine = engine
        self._users = Users(self._ask, password, default=default)
        self._pool = ThreadPoolExecutor(READERS + ANALYSTS + WRITERS, "engine")
        self._readers = asyncio.Semaphore(READERS)
        self._analysts = asyncio.Semaphore(ANALYSTS)
        self._writers = asyncio.Semaphore(WRITERS)
        self._bodies = Bodies()
        self._requests = 0
        self._running: set[Future[Answer]] = set()

    @property
    def busy(self) -> bool:
        """A query runs in the engine, perhaps without anybody who waits for it."""
        return bool(self._running)

    def app(self) -> web.Application:
        """The routes: `/ping`, and `/` for everything else."""
        app = web.Application(middlewares=[_refuse_browsers], client_max_size=MAX_FORM_BYTES)
        app.router.add_get("/ping", _ok)
        app.router.add_get("/", self.answer)
        app.router.add_post("/", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.Response:
        """One query."""
        if request.method in ("GET", "HEAD") and "query" not in request.query:
            return await _ok(request)
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        try:
            async with self._admitted():
                grant = await self._users.login(request.query, request.headers)
                async with self._users.within_limits(grant), self._bodies.read(request) as body:
                    statement = await _statement(request, body, grant)
                    answer = await self._run(statement)
                    coding = encoding(
                        request.query.get("enable_http_compression", ""), request.headers.get("Accept-Encoding", "")
                    )
                    if coding and len(answer.body) >= WORTH_BYTES:
                        squeezed = await asyncio.to_thread(COMPRESSORS[coding], answer.body)
                        return _success(statement, Answer(squeezed, answer.summary), query_id, coding)
                    return _success(statement, answer, query_id)
        except EngineError as error:
            return _failure(error, query_id)

    @asynccontextmanager
    async def _admitted(self) -> AsyncGenerator[None]:
        if self._requests >= MAX_REQUESTS:
            raise refusal(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def _ask(self, sql: str) -> bytes:
        return (await self._run(Statement(sql.encode(), "", "TabSeparated", {}, {}))).body

    async def _run(self, statement: Statement) -> Answer:
        async with self._queue(statement):
            running = self._pool.submit(self._engine.run, statement)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            return await asyncio.wrap_future(running)

    def _queue(self, statement: Statement) -> asyncio.Semaphore:
        if statement.grant is not None:
            return self._analysts
        return self._writers if statement.verb == "INSERT" else self._readers


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


@web.middleware
async def _refuse_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A web page must not reach us: not by a form (Origin), not under a name that it made point here (Host)."""
    if "Origin" in request.headers or request.url.host not in LOOPBACK:
        return web.Response(status=403, text="Not for web pages: this port is for programs on this machine.\n")
    return await handler(request)


async def _statement(request: web.Request, body: bytes, grant: Grant | None) -> Statement:
    words = dict(request.query) | await _form(request)
    if "1" in (words.get("compress"), words.get("decompress")):
        why = "ClickHouse's own compression is not supported here: switch it off in the client (JDBC: compress=false)"
        raise refusal(48, why, "NOT_IMPLEMENTED")
    headers = request.headers
    kept = TRANSPORT if grant is None else TRANSPORT - {"readonly"}
    return Statement(
        sql=b"\n".join(part for part in (words.get("query", "").encode(), body) if part),
        database=words.get("database") or headers.get("X-ClickHouse-Database", ""),
        default_format=words.get("default_format") or headers.get("X-ClickHouse-Format", "TabSeparated"),
        settings={name: word for name, word in words.items() if name not in kept and not _is_param(name)},
        params={name.removeprefix("param_"): word for name, word in words.items() if _is_param(name)},
        readonly=_readonly(words.get("readonly", "0"), request.method),
        grant=grant,
    )


def _is_param(name: str) -> bool:
    return name.startswith("param_")


def _readonly(asked: str, method: str) -> int:
    """As ClickHouse has it: GET never writes."""
    if asked not in ("0", "1", "2"):
        raise refusal(72, f"Cannot parse readonly={asked}", "CANNOT_PARSE_NUMBER")
    return int(asked) or (0 if method == "POST" else 2)


async def _form(request: web.Request) -> dict[str, str]:
    """Fields of a multipart body, which stand for parameters; a client sends them so when they are long."""
    if request.content_type != "multipart/form-data":
        return {}
    try:
        fields = await request.post()
    except web.HTTPRequestEntityTooLarge as error:
        raise refusal(307, f"The form is larger than {MAX_FORM_BYTES} bytes", "TOO_MANY_BYTES") from error
    plain = {name: word for name, word in fields.items() if isinstance(word, str)}
    if len(plain) < len(fields):
        raise refusal(48, "External data is not supported", "NOT_IMPLEMENTED")
    return plain


def _success(statement: Statement, answer: Answer, query_id: str, coding: str = "") -> web.Response:
    headers = _headers(query_id) | {"X-ClickHouse-Summary": json.dumps(answer.summary)}
    if coding:
        headers["Content-Encoding"] = coding
    content_type = "text/plain; charset=UTF-8"
    if statement.format is not None:
        headers["X-ClickHouse-Format"] = statement.format
        content_type = CONTENT_TYPES.get(statement.format, content_type)
    return web.Response(body=answer.body, headers=headers | {"Content-Type": content_type})


def _failure(error: EngineError, query_id: str) -> web.Response:
    headers = _headers(query_id) | {"X-ClickHouse-Exception-Code": str(error.code)}
    return web.Response(status=error.http_status, text=f"{error}\n", headers=headers)


def _headers(query_id: str) -> dict[str, str]:
    return {
        "X-ClickHouse-Server-Display-Name": "sluice",
        "X-ClickHouse-Timezone": "UTC",
        "X-ClickHouse-Query-Id": re.sub(r"[^\x20-\x7e]", "?", query_id),
    }


def main() -> None:
    """Serve until SIGTERM or SIGINT; running queries get DRAIN_S to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="folder of the data")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--password-file", type=Path, help="with the password of the user sluice")
    words = parser.parse_args()
    path, port, file = cast(Path, words.path), cast(int, words.port), cast("Path | None", words.password_file)
    try:
        engine = Engine(path)
    except BlockingIOError:
        parser.exit(1, f"{path} is open in another process. Stop that first.\n")
    server = Server(engine, file.read_text().strip() if file else "", default=Settings().clickhouse_default_user)
    if asyncio.run(_serve(server, port)):
        engine.close()
    else:
        # A query can't be stopped, and would keep us alive; the engine takes it like a kill -9, which it survives.
        os._exit(0)


async def _serve(server: Server, port: int) -> bool:
    """Until a signal; then whether nothing runs any more."""
    runner = web.AppRunner(server.app(), access_log=None, auto_decompress=False, shutdown_timeout=DRAIN_S)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await stop.wait()
    with suppress(TimeoutError):
        # aiohttp takes its timeout twice, once before it cancels a handler and once after.
        async with asyncio.timeout(DRAIN_S):
            await runner.cleanup()
    return not server.busy


if __name__ == "__main__":
    main()
