"""ClickHouse's engine (chDB) at a folder, made to behave like a server's for one statement at a time. Blocks; no HTTP here."""

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, cast

import chdb

from infra.clickhouse.access import Grant
from infra.embedded.clickhouse_access import CARRIER, carried, check, settings_of, write_config
from infra.embedded.clickhouse_errors import EngineError, refusal

MAX_RESULT_BYTES: Final = 256 * 2**20

DEFAULTS: Final = {
    "session_timezone": "UTC",
    "implicit_select": "0",
    "allow_introspection_functions": "0",
    "max_execution_time": "300",
    "max_result_bytes": str(MAX_RESULT_BYTES),
    "max_memory_usage": "2000000000",
    "max_memory_usage_for_user": "3000000000",
    "log_queries": "0",
    "log_profile_events": "0",
    "log_processors_profiles": "0",
    "query_profiler_real_time_period_ns": "0",
    "query_profiler_cpu_time_period_ns": "0",
    "memory_profiler_step": "0",
}
"""What a server's profile would say: chDB takes over the looser habits of clickhouse-local. A request may override them.

Logs and profilers are off: nobody here reads what they find.
"""

READS: Final = frozenset({"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK"})
_FIRST_WORD = re.compile(rb"(?:\s|\(|--[^\n]*(?:\n|$)|#[! ][^\n]*(?:\n|$)|/\*.*?\*/)*([A-Za-z]*)", re.DOTALL)
_LAST_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)[\s;]*$", re.IGNORECASE)
_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(SETTINGS\b.*)?[\s;]*$", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(rb"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ASIDE = re.compile(rb"--[^\n]*|#[! ][^\n]*|/\*.*?\*/|" + _QUOTED.pattern, re.DOTALL)
_INSERT_HEAD = re.compile(
    rb"((?:(?!\b(?:SELECT|WITH|VALUES)\b)(?>--[^\n]*\n|/\*.*?\*/|" + _QUOTED.pattern + rb"|[^'`\"]))*?)"
    rb"\bFORMAT\s+(\w+)[ \t\f]*\r?\n?",
    re.DOTALL | re.IGNORECASE,
)
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_CODE = re.compile(r"Code: (\d+)\.")


class _Result(Protocol):
    def bytes(self) -> bytes: ...
    def elapsed(self) -> float: ...
    def rows_read(self) -> int: ...
    def rows_written(self) -> int: ...
    def bytes_written(self) -> int: ...
    def storage_rows_read(self) -> int: ...
    def storage_bytes_read(self) -> int: ...


class _Written(Protocol):
    rows_written: int
    bytes_written: int
    elapsed: float


class _Inserter(Protocol):
    def append(self, data: bytes) -> None: ...
    def finish(self) -> _Written: ...
    def __enter__(self) -> "_Inserter": ...
    def __exit__(self, *_: object) -> bool | None: ...


class _Handle(Protocol):
    def query(self, query: str | bytes, format: str = ..., params: Mapping[str, str] | None = ...) -> _Result: ...
    def send_insert(self, query: str, format: str) -> _Inserter: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Statement:
    """One request: SQL (with the rows of an INSERT behind it, in whatever format it names) and all that goes with it.

    `readonly` has ClickHouse's meaning: 0 all, 1 only reading, 2 reading and settings. `grant`: the analyst who asks; None: a
    user with all rights.
    """

    sql: bytes
    database: str
    default_format: str
    settings: Mapping[str, str]
    params: Mapping[str, str]
    readonly: int = 0
    grant: Grant | None = None

    @property
    def verb(self) -> str:
        """The first word, in capitals; comments and brackets before it don't count."""
        found = _FIRST_WORD.match(self.sql)
        return found[1].decode().upper() if found else ""

    @property
    def format(self) -> str | None:
        """The format of the answer; None for a statement that has none."""
        if self.verb not in READS:
            return None
        named = _FORMAT.search(_ASIDE.sub(b" ", self.sql))
        return named[1].decode() if named else self.default_format


@dataclass(frozen=True, slots=True)
class Answer:
    """Body of an answer and its figures, as the header X-ClickHouse-Summary has them."""

    body: bytes
    summary: Mapping[str, str]


class Engine:
    """The engine at a folder, one a process. Methods block; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process has the folder open: two engines would destroy it."""
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / "sluice.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = str(path.resolve())
        self._anchor = self._open(f"?config-file={write_config(path.resolve())}")
        listed = self._anchor.query("SELECT lower(name) FROM system.table_functions", "TabSeparatedRaw").bytes()
        self._table_functions = frozenset(listed.decode().split())

    def run(self, statement: Statement) -> Answer:
        """Raises EngineError."""
        if not statement.sql.strip():
            raise refusal(62, "Syntax error: Empty query", "SYNTAX_ERROR")
        handle = self._open()
        try:
            if statement.grant is not None:
                statement = self._restricted(handle, statement, statement.grant)
            else:
                if statement.readonly:
                    _insist_on_reading(handle, statement)
                _prepare(handle, statement, statement.settings)
            return _insert(handle, statement) or _query(handle, statement)
        except RuntimeError as error:
            raise _engine_error(error) from error
        finally:
            handle.close()

    def close(self) -> None:
        """Nothing may run any more."""
        self._anchor.close()
        os.close(self._lock)

    def _open(self, options: str = "") -> _Handle:
        return cast(_Handle, cast("Any", chdb).connect(self._path + options))

    def _restricted(self, handle: _Handle, statement: Statement, grant: Grant) -> Statement:
        """The statement as the engine writes it, which is what was looked at; the handle is the analyst's from here on."""
        settings = settings_of(statement.settings)
        if statement.database not in ("", "default", "sluice"):
            raise refusal(497, "Not enough privileges: analysts ask the database sluice", "ACCESS_DENIED")
        canonical = _canonical(handle, statement)
        _prepare(handle, replace(statement, readonly=0), {**settings, CARRIER: carried(grant)})
        handle.query("SET ROLE analyst")
        handle.query("SET readonly = 1")
        bare = _LAST_FORMAT.sub(b"", canonical.encode()).decode()
        tree = handle.query(f"EXPLAIN AST {bare}", "TabSeparatedRaw", statement.params).bytes().decode()
        check(canonical, tree, self._table_functions)
        return replace(statement, sql=canonical.encode())


def _prepare(handle: _Handle, statement: Statement, settings: Mapping[str, str]) -> None:
    if statement.database:
        handle.query(f"USE {_identifier(statement.database)}")
    words = [f"{_checked(name)} = {_literal(value)}" for name, value in {**DEFAULTS, **settings}.items()]
    handle.query("SET " + ", ".join(words))
    if statement.readonly:
        handle.query(f"SET readonly = {statement.readonly}")


def _insist_on_reading(handle: _Handle, statement: Statement) -> None:
    """chDB's readonly lets INTO OUTFILE and KILL through: clickhouse-local has reasons for that, a server none."""
    # What is no SQL at all is told so, not that it may not write; of an INSERT the rows aren't worth reading for that.
    canonical = b"" if statement.verb == "INSERT" else _canonical(handle, statement).encode()
    if statement.verb not in READS:
        raise refusal(164, "Cannot execute query in readonly mode", "READONLY")
    if b"OUTFILE" in _QUOTED.sub(b"''", canonical).upper().split():
        raise refusal(358, "INTO OUTFILE is not allowed", "INTO_OUTFILE_NOT_ALLOWED")


def _canonical(handle: _Handle, statement: Statement) -> str:
    """The one statement that it is, without comments. Raises RuntimeError for several."""
    text = statement.sql.decode(errors="replace")
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\0", "\\0")
    asked = "SELECT formatQuerySingleLine({sql:String}) SETTINGS implicit_select = 0"
    plain = handle.query(asked, "TabSeparatedRaw", {"sql": escaped}).bytes()
    return plain.decode().removesuffix("\n")


def _query(handle: _Handle, statement: Statement) -> Answer:
    result = handle.query(statement.sql, statement.default_format, statement.params)
    body = result.bytes()
    if not body and statement.format == "Native":
        body = _native_header(handle, statement)
    figures = {
        "read_rows": result.storage_rows_read(),
        "read_bytes": result.storage_bytes_read(),
        "written_rows": result.rows_written(),
        "written_bytes": result.bytes_written(),
        "result_rows": result.rows_read(),
        "elapsed_ns": int(result.elapsed() * 1e9),
    }
    return Answer(body, {name: str(number) for name, number in figures.items()})


def _insert(handle: _Handle, statement: Statement) -> Answer | None:
    """INSERT … FORMAT x with rows behind it; None for any other statement.

    Inside a query chDB takes an empty line for the end of the rows, and what follows for SQL. So the rows go apart.
    """
    head = _INSERT_HEAD.match(statement.sql) if statement.verb == "INSERT" else None
    if head is None or head.end() == len(statement.sql):
        return None
    with handle.send_insert(head[1].decode(), head[2].decode()) as inserter:
        inserter.append(statement.sql[head.end() :])
        written = inserter.finish()
    figures = {
        "written_rows": written.rows_written,
        "written_bytes": written.bytes_written,
        "elapsed_ns": int(written.elapsed * 1e9),
    }
    return Answer(b"", {name: str(number) for name, number in figures.items()})


def _native_header(handle: _Handle, statement: Statement) -> bytes:
    """A block without rows, which a server sends for an empty result and chDB doesn't: clients learn the columns by it."""
    if statement.verb not in ("SELECT", "WITH"):
        return b""
    inner = _FORMAT.sub(rb"\2", _canonical(handle, statement).encode())
    described = handle.query(b"DESCRIBE TABLE (" + inner + b"\n)", "JSONEachRow", statement.params).bytes()
    columns = [cast(dict[str, str], json.loads(line)) for line in described.splitlines()]
    words = [_varint(len(columns)), _varint(0)]
    for column in columns:
        words += [_string(column["name"]), _string(column["type"])]
    return b"".join(words)


def _string(text: str) -> bytes:
    return _varint(len(text.encode())) + text.encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _engine_error(error: RuntimeError) -> EngineError:
    text = str(error)
    found = _CODE.search(text)
    return EngineError(int(found[1]) if found else 1002, text[found.start() :] if found else text)


def _checked(setting: str) -> str:
    if not _SETTING.fullmatch(setting):
        raise refusal(115, f"Unknown setting {setting!r}", "UNKNOWN_SETTING")
    return setting


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
