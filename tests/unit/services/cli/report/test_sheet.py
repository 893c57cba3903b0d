"""Data as tables, CSV, JSON and HTML: exact, and harmless whatever callers wrote."""

import csv
import io
import json
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.report.sheet import Format, Sheet, Value, as_csv, exact_json, html_table, page, written

EVIL = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    'a,b"c\nd',
]
SHEET = Sheet(
    "t",
    ["team", "jobs", "cost_usd"],
    [["fraud", 3, Decimal("0.000000001")], ["a", 10, Decimal("12.5")]],
    ["total", 13, Decimal(13)],
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


@pytest.mark.parametrize("text", EVIL)
def test_no_cell_of_a_spreadsheet_is_a_formula(text: str) -> None:
    written_ = "".join(as_csv(["user", "cost_usd"], [[text, Decimal("-1.50")]]))
    (_, row) = csv.reader(io.StringIO(written_, newline=""))
    assert row[0].lstrip("'").endswith(text)
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert row[1] == "-1.50"


@given(st.text(max_size=60).filter(lambda text: "\x00" not in text))
def test_text_comes_back_from_csv_as_it_was_but_for_the_mark_before_formulas(text: str) -> None:
    (row,) = csv.reader(io.StringIO("".join(as_csv([], [[text, 1]], header=False)), newline=""))
    assert row[0] in (text, f"'{text}")


@given(st.text(max_size=80))
def test_no_text_becomes_html(text: str) -> None:
    parser = Tags()
    parser.feed(html_table(Sheet(text, [text], [[text]], [text])))
    parser.close()
    assert parser.tags <= {"table", "thead", "tbody", "tfoot", "tr", "td", "th"}
    assert parser.attributes <= {"class"}


def test_a_page_needs_nothing_from_elsewhere() -> None:
    shown = page("a & <b>", [html_table(SHEET)])
    assert "<title>a &amp; &lt;b&gt;</title>" in shown
    assert not any(word in shown for word in ("http:", "https:", "src=", "<script", "@import"))


@given(st.decimals(-(10**12), 10**12, places=9))
def test_json_has_every_digit(amount: Decimal) -> None:
    told: list[dict[str, object]] = [{"a": amount, "b": {"c": [amount]}, "d": [], "e": {}, "f": None, "g": 'ä"', "h": 3}]
    read = json.loads(exact_json(told), parse_float=Decimal)
    assert Decimal(read[0]["a"]) == amount == Decimal(read[0]["b"]["c"][0])
    assert read[0] | {"a": 0, "b": 0} == {"a": 0, "b": 0, "d": [], "e": {}, "f": None, "g": 'ä"', "h": 3}


def test_json_is_a_list_of_objects_without_a_total() -> None:
    assert json.loads(written(SHEET, Format.JSON), parse_float=Decimal) == [
        {"team": "fraud", "jobs": 3, "cost_usd": Decimal("0.000000001")},
        {"team": "a", "jobs": 10, "cost_usd": Decimal("12.5")},
    ]
    assert written(Sheet("t", ["a"], []), Format.JSON) == "[]\n"


def test_csv_is_exact_and_without_a_total() -> None:
    assert written(SHEET, Format.CSV) == "team,jobs,cost_usd\nfraud,3,0.000000001\na,10,12.5\n"


def test_people_see_cents_where_they_say_all_and_a_total() -> None:
    assert [line.split() for line in written(SHEET, Format.TABLE).splitlines()] == [
        ["team", "jobs", "cost_usd"],
        ["fraud", "3", "0.00"],
        ["a", "10", "12.50"],
        ["total", "13", "13.00"],
    ]


def test_nothing_moves_the_cursor_of_a_terminal() -> None:
    rows: list[list[Value]] = [["\x1b[31mred", None, date(2026, 11, 1)]]
    shown = written(Sheet("t", ["a", "b", "c"], rows), Format.TABLE)
    assert "\x1b" not in shown
    assert "2026-11-01" in shown
