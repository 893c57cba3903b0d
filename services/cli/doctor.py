"""`sluice doctor`: looks at everything, and says what to do."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from services.cli import books_check, checks
from services.cli.checks import Check
from services.cli.client import DataDir, Json, System, find
from services.cli.output import cell, emit, quiet

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


Books = Annotated[bool, typer.Option("--books", help="Also compare Redis, log and ClickHouse: do the books add up?")]


def doctor(books: Books = False, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Check everything, and say what to do. Exit status 1 if something is wrong."""
    quiet()
    system = find(data_dir)
    found = list(_all(system))
    if books and not _wrong(found):
        found += asyncio.run(books_check.books(system))
    if as_json:
        emit({"ok": not _wrong(found), "checks": [_as_json(check) for check in found]})
    else:
        _show(found)
    if _wrong(found):
        raise typer.Exit(1)


def _all(system: System) -> Iterator[Check]:
    yield from checks.folder(system)
    yield from checks.processes(system)
    door = list(checks.gateway(system))
    yield from door
    yield from asyncio.run(checks.kafka(system))
    yield from asyncio.run(checks.redis(system))
    yield from checks.clickhouse(system)
    if not _wrong(door):
        yield from checks.configuration(system)


def _wrong(found: list[Check]) -> bool:
    return any(check.state == "failed" for check in found)


def _as_json(check: Check) -> dict[str, JsonValue]:
    return {"name": check.name, "state": check.state, "detail": check.detail, "advice": check.advice}


def _show(found: list[Check]) -> None:
    console = Console()
    for check in found:
        mark, colour = MARKS[check.state]
        console.print(Text(f"{mark} ", colour), Text(f"{check.name}: {cell(check.detail)}"), sep="", soft_wrap=True)
        if check.advice:
            console.print(Text(f"    {cell(check.advice)}"), soft_wrap=True)
