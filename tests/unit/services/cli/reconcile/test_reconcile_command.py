"""`sluice reconcile`: exit status, words and data."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
CALLS = "/admin/v1/reports/calls"


def ours(**changed: object) -> dict[str, object]:
    sums = {"calls": 2, "input_tokens": 20, "cached_tokens": 4, "output_tokens": 6, "cost_usd": "0.30"}
    line = {"place": {"model": "small"}, **sums, "unsure_calls": 0, "unsure_tokens": 0, "unsure_usd": "0", **changed}
    return {"by": ["model"], "lines": [line]}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    call = {"model": "small", "input_tokens": 10, "cached_tokens": 2, "output_tokens": 3, "cost_usd": 0.15}
    times = ("2026-11-03T01:00:00Z", "2026-11-04T23:59:59Z")
    file = tmp_path / "ledger.jsonl"
    file.write_text("".join(json.dumps({**call, "at": at}) + "\n" for at in times))
    return file


def test_books_that_agree(invoke: Invoke, stub: Any, ledger: Path) -> None:
    stub.on("GET", CALLS, 200, ours())
    result = invoke("reconcile", str(ledger), "--provider", "openai")
    assert (result.exit_code, result.stderr) == (0, "The books agree.\n")
    assert result.stdout.splitlines()[1].split()[-4:] == ["0.30", "0.30", "0.00", "equal"]
    assert parse_qs(stub.seen[0].query) == {"from": ["2026-11-03"], "to": ["2026-11-04"], "by": ["model"], "provider": ["openai"]}


def test_books_that_differ_and_why_they_may(invoke: Invoke, stub: Any, ledger: Path) -> None:
    stub.on("GET", CALLS, 200, ours(output_tokens=5, cost_usd="0.25", unsure_calls=1, unsure_usd="0.1"))
    result = invoke("reconcile", str(ledger), "--json")
    assert result.exit_code == 1
    assert "1 of our calls have an estimate" in result.stderr
    assert result.stderr.endswith("The books differ by -0.05 USD.\n")
    told = json.loads(result.stdout, parse_float=Decimal)
    assert (told["equal"], told["lines"][0]["model"], told["lines"][0]["known"]) == (False, "small", "both")
    assert told["total"]["difference"] == {
        "calls": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": -1, "cost_usd": Decimal("-0.05")
    }  # fmt: skip


def test_as_much_as_is_allowed(invoke: Invoke, stub: Any, ledger: Path) -> None:
    stub.on("GET", CALLS, 200, ours(output_tokens=5, cost_usd="0.25"))
    assert invoke("reconcile", str(ledger), "--tolerance", "0.05", "--token-tolerance", "1").exit_code == 0
    assert invoke("reconcile", str(ledger), "--tolerance", "0.04", "--token-tolerance", "1").exit_code == 1


def test_a_model_that_we_do_not_know_is_named(invoke: Invoke, stub: Any, ledger: Path) -> None:
    stub.on("GET", CALLS, 200, {"by": ["model"], "lines": []})
    result = invoke("reconcile", str(ledger), "--format", "csv")
    assert result.exit_code == 1
    assert result.stderr.startswith("Not in our books: small.\n")
    assert result.stdout.splitlines()[1].endswith("differs (only theirs)")


WRONG = [
    (["--by", "colour"], "write one or more of model"),
    (["--by", "team"], "says no team"),
    (["--tolerance", "-1"], "write an amount"),
    (["--from", "soon"], "write a day"),
    (["--from", "2027-01-01"], "has no entry of these days"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_what_is_used_wrongly_is_said(invoke: Invoke, ledger: Path, words: list[str], said: str) -> None:
    result = invoke("reconcile", str(ledger), *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_that_is_none(invoke: Invoke, tmp_path: Path) -> None:
    missing = invoke("reconcile", str(tmp_path / "none"))
    (tmp_path / "x").write_text("hello\n")
    strange = invoke("reconcile", str(tmp_path / "x"))
    assert (missing.exit_code, strange.exit_code) == (2, 2)
    assert "can't be read" in missing.stderr
    assert "No column of calls" in strange.stderr
