"""`sluice top`: what goes on now, like top(1)."""

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, cell, emit, members, text
from services.cli.resources import PREFIX, given

_GOOD = frozenset({"closed"})


def top(
    team: Annotated[str | None, typer.Option(help="only this team")] = None,
    interval: Annotated[float, typer.Option(min=0.5, max=3600, help="seconds between two looks")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="look once; so it is in a pipe, too")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show live traffic, spend, lanes and deployments, until Ctrl-C."""
    api = Api.admin(find(data_dir))
    if as_json:
        emit(_look(api, team))
        return
    console = Console()
    if once or not sys.stdout.isatty():
        console.print(screen(_look(api, team)))
        return
    try:
        with Live(screen(_look(api, team)), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_again(api, team), refresh=True)
    except KeyboardInterrupt:
        return


def _again(api: Api, team: str | None) -> Group:
    """A gateway that is away for a moment doesn't end the watching."""
    try:
        return screen(_look(api, team))
    except Failed as error:
        return Group(Text(cell(str(error)), style="red"))


def _look(api: Api, team: str | None) -> JsonObject:
    deployments = api.all(f"{PREFIX}/deployments")
    return {**api.get(f"{PREFIX}/live", **given(team=team)), "deployments": [*deployments]}


def screen(seen: JsonObject) -> Group:
    """What was seen, drawn."""
    return Group(
        _head(seen),
        _table(
            "traffic",
            ("team", "model", "jobs/s", "failed", "cached", "tokens/s", "p50", "p95", "first token", "USD/h"),
            _traffic(seen),
        ),
        _table("spent today (UTC)", ("team", "jobs", "USD", "saved"), _spent(seen)),
        _table("lanes", ("lane", "waiting", "longest"), _lanes(seen)),
        _table("deployments", ("model", "deployment", "state", "calls", "errors", "p50", "p95", "in flight"), _deployments(seen)),
    )


def _head(seen: JsonObject) -> Text:
    at_ms, window_s = seen.get("at_ms"), seen.get("window_s")
    at = datetime.fromtimestamp(at_ms / 1000, UTC) if isinstance(at_ms, int) else datetime.now(UTC)
    jobs = sum(_number(line.get("jobs")) for line in members(seen, "traffic"))
    words = f"{at:%Y-%m-%d %H:%M:%S} UTC   {jobs / max(1, _number(window_s)):.1f} jobs/s over the last {window_s} s"
    return Text(words, style="bold")


def _traffic(seen: JsonObject) -> Iterable[Sequence[str]]:
    window_s = max(1, _number(seen.get("window_s")))
    for line in members(seen, "traffic"):
        yield (
            text(line, "team"),
            text(line, "model"),
            f"{_number(line.get('jobs')) / window_s:.1f}",
            text(line, "failed"),
            text(line, "cached"),
            f"{_number(line.get('tokens')) / window_s:.0f}",
            *(_took(line.get(name)) for name in ("p50_ms", "p95_ms", "ttft_p50_ms")),
            f"{Decimal(text(line, 'cost_usd') or 0) * 3600 / window_s:.4f}",
        )


def _spent(seen: JsonObject) -> Iterable[Sequence[str]]:
    for line in members(seen, "today"):
        usd = (f"{Decimal(text(line, name) or 0):.4f}" for name in ("cost_usd", "saved_usd"))
        yield text(line, "team"), text(line, "jobs"), *usd


def _lanes(seen: JsonObject) -> Iterable[Sequence[str]]:
    for line in members(seen, "lanes"):
        yield text(line, "lane"), text(line, "depth"), _took(line.get("wait_ms"))


def _deployments(seen: JsonObject) -> Iterable[Sequence[str]]:
    for one in members(seen, "deployments"):
        named = (text(one, name) for name in ("model", "id", "state", "calls", "errors"))
        yield *named, _took(one.get("p50_ms")), _took(one.get("p95_ms")), text(one, "in_flight")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Panel:
    shown = Table(box=None, expand=True, pad_edge=False, header_style="bold")
    words = [[Text(cell(value), style=_style(columns[n], value)) for n, value in enumerate(row)] for row in rows]
    for column in columns:
        shown.add_column(column, justify="left" if column in _WORDS else "right", overflow="ellipsis", no_wrap=True)
    for row in words:
        shown.add_row(*row)
    return Panel(shown if words else Text("nothing", style="dim"), title=title, title_align="left", border_style="dim")


_WORDS = frozenset({"team", "model", "lane", "deployment", "state"})


def _style(column: str, value: str) -> str:
    if column == "state":
        return "green" if value in _GOOD else "red"
    return "red" if column in ("failed", "errors") and value not in ("", "0") else ""


def _took(ms: JsonValue) -> str:
    if not isinstance(ms, int | float):
        return ""
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _number(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
