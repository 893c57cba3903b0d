"""`sluice sql`: a question to ClickHouse, reading only."""

from typing import Annotated, TypedDict, cast
from urllib.parse import urlsplit

import httpx
import typer

from services.cli.client import DataDir, Json, describe, find, open_http
from services.cli.output import Failed, line, table

TIMEOUT_S = 310.0
"""More than the server itself gives a query."""

EXACT = {
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_decimals": "0",
    "output_format_json_array_of_rows": "1",
}
_NUMBERS = ("Int", "UInt", "Float", "Decimal", "Nullable(Int", "Nullable(UInt", "Nullable(Float", "Nullable(Decimal")

_NULL = "ᴺᵁᴸᴸ"
"""As ClickHouse writes it where all is text."""

_READONLY = "164"
_ADVICE = {
    "516": "\nCheck user and password in SLUICE_CLICKHOUSE (http://user:password@host:port).",
    "497": "\nAn analyst reads the tables of docs/analysts.md, and only its organization's rows.",
    "60": '\n`sluice sql "SHOW TABLES"` lists what there is.',
}
"""What to do, by ClickHouse's code."""


class _Column(TypedDict):
    name: str
    type: str


class _Compact(TypedDict):
    meta: list[_Column]
    data: list[list[str]]


def sql(
    query: Annotated[str, typer.Argument(help="SELECT …; database sluice: usage, attempts, chargeback_daily …")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Ask ClickHouse, reading only. Rows come as a table, with --json as a list of objects with exact numbers."""
    url = find(data_dir).address("clickhouse")
    wanted = "JSONEachRow" if as_json else "JSONCompactStrings"
    response = ask(url if "://" in url else f"http://{url}", query, wanted)
    # A query may name a format of its own, and then gets it.
    if as_json or response.headers.get("x-clickhouse-format", wanted) != wanted:
        line(response.text.rstrip("\n"))
        return
    if response.text.strip():
        _show(cast("_Compact", response.json()))


def ask(url: str, query: str, default_format: str) -> httpx.Response:
    """Raises Failed with ClickHouse's own words."""
    params = {"database": "sluice", "default_format": default_format, "readonly": "2", "wait_end_of_query": "1", **EXACT}
    try:
        with open_http(url, {}) as http:
            response = http.post("/", params=params, content=query.encode(), timeout=TIMEOUT_S)
            if _reads_only_already(response):
                del params["readonly"]
                response = http.post("/", params=params, content=query.encode(), timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        where = urlsplit(url).netloc.rpartition("@")[2]
        raise Failed(f"ClickHouse at {where} doesn't answer ({describe(error)}). `sluice doctor` says more.") from error
    if response.is_error:
        raise Failed((response.text.strip() or f"ClickHouse answered with status {response.status_code}") + _advice(response))
    return response


def _advice(response: httpx.Response) -> str:
    return _ADVICE.get(response.headers.get("x-clickhouse-exception-code", ""), "")


def _reads_only_already(response: httpx.Response) -> bool:
    """A server takes it ill when a user that may only read asks to be allowed no more than that."""
    return response.headers.get("x-clickhouse-exception-code") == _READONLY and "'readonly'" in response.text


def _show(answer: _Compact) -> None:
    columns = answer["meta"]
    numbers = [place for place, column in enumerate(columns) if column["type"].startswith(_NUMBERS)]
    rows = [["" if value == _NULL else value for value in row] for row in answer["data"]]
    table([column["name"] for column in columns], rows, right=numbers)
