"""`sluice sql`: exact numbers, reading only, ClickHouse's own words."""

from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from services.cli import app
from tests.unit.services.cli.conftest import Invoke, Stub

COMPACT = (
    '{"meta": [{"name": "team", "type": "String"}, {"name": "cost", "type": "Decimal(18, 9)"},'
    ' {"name": "n", "type": "Array(UInt8)"}],'
    ' "data": [["fraud\\u001b[31m", "12345678901234567.000000001", "[1,2]"], ["ᴺᵁᴸᴸ", "1", "[]"]], "rows": 2}'
)


def test_json_is_passed_on_to_the_last_digit(invoke: Invoke, stub: Stub) -> None:
    rows = '[\n{"n":18446744073709551615,"cost":0.000000001}\n]'
    stub.on("POST", "/", 200, rows + "\n", x_clickhouse_format="JSONEachRow")
    result = invoke("sql", "SELECT 1", "--json")
    assert (result.exit_code, result.stdout) == (0, rows + "\n")


def test_it_reads_only_and_from_our_database(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, "[\n\n]\n", x_clickhouse_format="JSONEachRow")
    invoke("sql", "SELECT 1", "--json")
    params = parse_qs(stub.seen[0].query)
    assert (params["readonly"], params["database"], stub.seen[0].body) == (["2"], ["sluice"], "SELECT 1")


def test_table_shows_every_digit_and_no_escape_sequence(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, COMPACT, x_clickhouse_format="JSONCompactStrings")
    lines = invoke("sql", "SELECT 1").stdout.splitlines()
    assert lines[0].split() == ["team", "cost", "n"]
    assert lines[1].split() == ["fraud\\x1b[31m", "12345678901234567.000000001", "[1,2]"]
    assert lines[2].split() == ["1", "[]"]


def test_a_format_of_its_own_is_passed_on(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, "1,2\n", x_clickhouse_format="CSV")
    assert invoke("sql", "SELECT 1, 2 FORMAT CSV").stdout == "1,2\n"


def test_errors_are_clickhouses(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 404, "Code: 60. DB::Exception: Unknown table\n")
    result = invoke("sql", "SELECT 1 FROM x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: Code: 60. DB::Exception: Unknown table\n"


@pytest.mark.parametrize("url", ["http://finance:secret@[::1", "http://finance:secret@host:port"])
def test_what_is_no_url_is_said_without_its_password(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SLUICE_CLICKHOUSE", url)
    result = CliRunner().invoke(app, ["sql", "SELECT 1"])
    assert (result.exit_code, "That is no URL" in result.stderr, "secret" in result.stderr) == (1, True, False)
