"""What a command says: data on stdout, everything else on stderr. NO_COLOR is respected, by Rich."""

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.base import JsonObject

_ANY_WIDTH = 100_000


class Failed(Exception):
    """A command can't do what it was asked. The text says why and what to do; the exit status is `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def note(words: str) -> None:
    """A line for the person at the terminal."""
    print(words, file=sys.stderr, flush=True)


def line(words: str) -> None:
    """A line of data."""
    print(words, flush=True)


def emit(value: JsonValue) -> None:
    """Data for a program."""
    line(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Data for a person; `right` are the columns of numbers. In a pipe nothing is cut off or folded."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(Text(column), overflow="fold", justify="right" if number in right else "left")
    for row in rows:
        shown.add_row(*(Text(cell(value)) for value in row))
    out = Console() if sys.stdout.isatty() else Console(width=_ANY_WIDTH)
    out.print(shown)


def cell(value: object) -> str:
    """A value as text that can't move the cursor or set colours: what doesn't print shows as `\\x1b` does."""
    shown = "" if value is None else str(value)
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown)


def listed(answer: JsonObject) -> list[JsonObject]:
    """The objects of a list as the API gives it."""
    return members(answer, "data")


def members(answer: JsonObject, name: str) -> list[JsonObject]:
    """The objects in a list of an answer."""
    data = answer.get(name)
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []


def text(item: JsonObject, member: str) -> str:
    """A member as text; empty if it is missing or null."""
    value = item.get(member)
    return "" if value is None else str(value)


def moment(unix_ms: JsonValue) -> str:
    """A time for a person, in UTC."""
    if not isinstance(unix_ms, int | float) or not unix_ms:
        return ""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def quiet() -> None:
    """What Kafka's client says of each lost connection is not for a person at a terminal: the command says it once."""
    for name in ("aiokafka", "asyncio", "faststream"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def progress_console() -> Console:
    """Where progress is shown."""
    return Console(stderr=True)
