"""`sluice audit verify` and `export`: what ClickHouse, an export and a disk may say."""

import json
from pathlib import Path

import pytest

from tests.unit.services.cli.conftest import Invoke, Stub


@pytest.fixture
def export(invoke: Invoke, stub: Stub, tmp_path: Path) -> Path:
    """An export of nothing, whole."""
    stub.on("GET", "/admin/v1/audit", 200, {"data": [], "has_more": False})
    stub.on("GET", "/admin/v1/audit/heads", 200, {"data": []})
    assert invoke("audit", "export", "--month", "2026-11", "--out", str(tmp_path / "export")).exit_code == 0
    return tmp_path / "export"


def test_the_log_is_checked_by_what_clickhouse_really_answers(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, "[\n\n]\n", x_clickhouse_format="JSONEachRow")
    assert json.loads(invoke("audit", "verify", "--json").stdout) == {"found": None, "links": 0, "gone": 0, "heads": []}


def test_an_anchor_that_nobody_could_have_written_is_no_crash(invoke: Invoke, stub: Stub) -> None:
    stub.on("POST", "/", 200, '[\n{"partition":0,"after":"{}"}\n]\n', x_clickhouse_format="JSONEachRow")
    refused = invoke("audit", "verify")
    assert (refused.exit_code, "it was altered" in refused.stderr) == (1, True)


def test_an_export_to_which_something_was_added_is_found(invoke: Invoke, export: Path) -> None:
    assert invoke("audit", "verify", str(export)).exit_code == 0
    export.write_text(export.read_text() + '{"row": {}, "link": null}\n')
    refused = invoke("audit", "verify", str(export))
    assert (refused.exit_code, "behind the manifest" in refused.stderr) == (1, True)


def test_a_file_that_cannot_be_read_or_written_is_said(invoke: Invoke, tmp_path: Path, export: Path) -> None:
    export.write_text("{}\n")
    nowhere = str(tmp_path / "no" / "where")
    for words, said in (
        (("verify", nowhere), "can't be read: No such file"),
        (("verify", str(export)), "is no export of `sluice audit export`."),
        (("export", "--month", "2026-11", "--out", nowhere), "can't be written: No such file"),
    ):
        result = invoke("audit", *words)
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
