"""The one way to ClickHouse: its HTTP interface, by clickhouse-connect.

The calls block, so each runs in a thread; cancelling a call does not stop what ClickHouse has begun. Whether a real
server answers or the embedded one makes no difference here.

    ClickHouseError
    ├── ClickHouseUnavailable    not there, too slow, or too busy now: the same call may succeed later
    └── ClickHouseRejected       wrong rows or SQL: the same call fails again
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import exceptions as driver_errors
from clickhouse_connect.driver import options

Columns = Mapping[str, Sequence[object]]
"""Name of a column to its values; all of one length."""

CALLS_AT_ONCE: Final = 8
CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 60

TRANSIENT_CODES: Final = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        198,  # DNS_ERROR
        201,  # QUOTA_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        203,  # NO_FREE_CONNECTION
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        225,  # NO_ZOOKEEPER
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        285,  # TOO_FEW_LIVE_REPLICAS
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        999,  # KEEPER_EXCEPTION
    }
)

_T = TypeVar("_T")

# As if it were not installed: the first insert would import it, for 75 MB and a second, and we never pass a frame.
options.__dict__["pd"] = None
# What it warns of we raise.
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)


class ClickHouseError(Exception):
    """ClickHouse did not do what was asked."""


class ClickHouseUnavailable(ClickHouseError):
    """Not reached, too slow or too busy; whether the call had an effect is unknown. Worth trying again."""


class ClickHouseRejected(ClickHouseError):
    """ClickHouse refused rows or SQL, or the rows don't fit the table. Trying again does not help."""


class _Result(Protocol):
    column_names: Sequence[str]
    result_rows: Sequence[Sequence[object]]


class _Context(Protocol):
    column_types: Sequence[object]


class _Driver(Protocol):
    """What we use of clickhouse-connect's client."""

    def create_insert_context(self, table: str, column_names: Sequence[str]) -> _Context: ...

    def insert(
        self,
        table: str,
        data: Sequence[Sequence[object]],
        column_names: Sequence[str],
        *,
        column_types: Sequence[object],
        column_oriented: bool,
        settings: Mapping[str, str],
    ) -> object: ...

    def query(self, query: str, parameters: Mapping[str, object] | None) -> _Result: ...

    def command(self, cmd: str) -> object: ...

    def ping(self) -> bool: ...

    def close(self) -> None: ...


class ClickHouse:
    """An opened client. Calls may run at once, at most CALLS_AT_ONCE. After `close` no call is allowed."""

    def __init__(self, driver: _Driver, threads: ThreadPoolExecutor) -> None:
        self._driver = driver
        self._threads = threads
        self._types: dict[tuple[str, ...], Sequence[object]] = {}

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert one block; returns when it is stored. ClickHouse drops a block whose `token` the table has seen.

        Waits for the answer; raises ClickHouseUnavailable (stored or not: unknown) or ClickHouseRejected.
        """
        settings = {
            "insert_deduplication_token": token,
            "async_insert": "0",
            # Its default of 100 would refuse a block of rows from many months, and a planned block has to go in.
            "max_partitions_per_insert_block": "0",
            # A block is small: a pipeline of more threads only costs.
            "max_threads": "1",
        }
        await self._call(lambda: self._insert(table, columns, settings))

    async def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        """Rows of a SELECT; `{name:Type}` in it takes its value from `parameters`. All rows are held in memory."""
        result = await self._call(lambda: self._driver.query(sql, parameters))
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    async def command(self, sql: str) -> None:
        """A statement without rows."""
        await self._call(lambda: self._driver.command(sql))

    async def ping(self) -> bool:
        """Whether it answers; never raises."""
        try:
            return await self._call(self._driver.ping)
        except ClickHouseError:
            return False

    async def close(self) -> None:
        """Close the connections; calls that run are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._driver.close()

    def _insert(self, table: str, columns: Columns, settings: Mapping[str, str]) -> None:
        """The driver would ask for the columns' types before each insert, which costs a quarter of it; we remember them.

        A table may change under us, so after any failure they are asked for again.
        """
        names, data = list(columns), list(columns.values())
        key = (table, *names)
        types = self._types.get(key) or self._driver.create_insert_context(table, names).column_types
        try:
            self._driver.insert(table, data, names, column_types=types, column_oriented=True, settings=settings)
        except BaseException:
            self._types.pop(key, None)
            raise
        self._types[key] = types

    async def _call(self, call: Callable[[], _T]) -> _T:
        return await _in_thread(self._threads, call)


async def open_clickhouse(url: str, settings: Mapping[str, str] | None = None) -> ClickHouse:
    """Connect to `http[s]://[user:password@]host:port`; `settings` go with each statement.

    Raises ClickHouseUnavailable or ClickHouseRejected.
    """
    threads = ThreadPoolExecutor(CALLS_AT_ONCE, "clickhouse")
    try:
        return ClickHouse(await _in_thread(threads, lambda: _connect(url, settings or {})), threads)
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        raise


def _connect(url: str, settings: Mapping[str, str]) -> _Driver:
    parts = urlsplit(url)
    driver = clickhouse_connect.get_client(  # pyright: ignore[reportUnknownMemberType]
        interface=parts.scheme,
        host=parts.hostname or "127.0.0.1",
        port=parts.port or (8443 if parts.scheme == "https" else 8123),
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        connect_timeout=CONNECT_TIMEOUT_S,
        send_receive_timeout=ANSWER_TIMEOUT_S,
        # A session would forbid two calls at once.
        autogenerate_session_id=False,
        # It is near; compressing costs more than it saves.
        compress=False,
        tz_mode="aware",
        dedicated_pool=True,
        settings=dict(settings),
    )
    return cast(_Driver, driver)


async def _in_thread(threads: ThreadPoolExecutor, call: Callable[[], _T]) -> _T:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, call)
    except driver_errors.ClickHouseError as error:
        raise _ours(error) from error
    except OSError as error:
        raise ClickHouseUnavailable(str(error)) from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, struct.error) as error:
        # clickhouse-connect met a value that its column can't hold.
        raise ClickHouseRejected(f"{type(error).__name__}: {error}") from error


def _ours(error: driver_errors.ClickHouseError) -> ClickHouseError:
    """With a code ClickHouse has spoken; without one the connection failed, or the driver found our data wrong."""
    code = error.code if isinstance(error, driver_errors.Error) else None
    if code is None:
        refused = isinstance(error, driver_errors.DataError | driver_errors.ProgrammingError)
    else:
        refused = code not in TRANSIENT_CODES
    return ClickHouseRejected(str(error)) if refused else ClickHouseUnavailable(str(error))
