"""A table of data in the form that somebody wants: for a terminal, CSV for a spreadsheet, JSON for a program, HTML for people."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from html import escape
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.budget import nano, shown
from services.cli.output import cell

Value = str | int | Decimal | date | None
"""What stands in a cell."""


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows under columns; `total`, if there is one, is a row that people see: a program adds up by itself."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    total: Sequence[Value] | None = None

    def shown_rows(self) -> Iterator[Sequence[Value]]:
        yield from self.rows
        if self.total is not None:
            yield self.total

    def numbers(self) -> frozenset[int]:
        """The columns that hold numbers."""
        return frozenset(n for row in self.shown_rows() for n, value in enumerate(row) if isinstance(value, int | Decimal))


def written(sheet: Sheet, form: Format) -> str:
    """The sheet as text, with a line end."""
    match form:
        case Format.TABLE:
            return as_table(sheet)
        case Format.CSV:
            return "".join(as_csv(sheet.columns, sheet.rows))
        case Format.JSON:
            return exact_json([dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]) + "\n"
        case Format.HTML:
            return page(sheet.title, [html_table(sheet)])


def as_table(sheet: Sheet) -> str:
    """For a person; as wide as it has to be."""
    numbers = sheet.numbers()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, column in enumerate(sheet.columns):
        table.add_column(Text(column), no_wrap=True, justify="right" if n in numbers else "left")
    for row in sheet.shown_rows():
        table.add_row(*(Text(cell(for_people(value))) for value in row))
    out = io.StringIO()
    Console(file=out, width=100_000).print(table)
    return out.getvalue()


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Value]], *, header: bool = True) -> Iterator[str]:
    """RFC 4180 with plain line ends; exact numbers. No text begins so that a spreadsheet takes it for a formula."""
    for row in [*([columns] if header else []), *rows]:
        line = io.StringIO()
        # By this line end it quotes a lone \r too.
        csv.writer(line, lineterminator="\r\n").writerow([_harmless(value) for value in row])
        yield line.getvalue().removesuffix("\r\n") + "\n"


def exact_json(value: object, indent: str = "") -> str:
    """JSON in which a Decimal is a number with all its digits, as `sluice sql --json` gives it."""
    deeper = indent + "  "
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):
        return json.dumps(value.isoformat())
    if isinstance(value, Mapping) and value:
        known = cast("Mapping[str, object]", value)
        members = (f"{deeper}{json.dumps(name, ensure_ascii=False)}: {exact_json(one, deeper)}" for name, one in known.items())
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        items = cast("list[object]", value)
        return "[\n" + ",\n".join(deeper + exact_json(one, deeper) for one in items) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def html_table(sheet: Sheet) -> str:
    """A table of HTML; what callers wrote is escaped."""
    numbers = sheet.numbers()

    def row(values: Sequence[Value], tag: str) -> str:
        cells = (
            f"<{tag}{' class=number' if n in numbers else ''}>{escape(for_people(value))}</{tag}>"
            for n, value in enumerate(values)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(row(values, "td") for values in sheet.rows)
    foot = f"<tfoot>{row(sheet.total, 'td')}</tfoot>" if sheet.total is not None else ""
    return f"<table><thead>{row(sheet.columns, 'th')}</thead>\n<tbody>\n{body}\n</tbody>{foot}</table>"


def page(title: str, parts: Sequence[str]) -> str:
    """A page of HTML that needs nothing else, and prints. `parts` are HTML already."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def heading(text: str, *below: str) -> str:
    """A heading, and lines below it."""
    return f"<h1>{escape(text)}</h1>" + "".join(f"<p>{escape(words)}</p>" for words in below)


def for_people(value: Value) -> str:
    """A value as people read it: USD to the cent, or to the micro-dollar where that says more."""
    match value:
        case None:
            return ""
        case Decimal():
            return f"-{shown(nano(-value))}" if value < 0 else shown(nano(value))
        case date():
            return value.isoformat()
        case _:
            return str(value)


def _harmless(value: Value) -> str:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value
    return format(value, "f") if isinstance(value, Decimal) else for_people(value)


_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;color:#222;max-width:75em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.3em .6em;text-align:left;border-bottom:1px solid #ddd}"
    ".number{text-align:right;font-variant-numeric:tabular-nums}tfoot td{font-weight:600;border-top:2px solid #222}"
    "section{break-after:page;margin-bottom:4em}@media print{body{margin:0;max-width:none}}"
)
