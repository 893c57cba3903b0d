"""`sluice report`: what was used, what it cost, who pays, and what the month will have cost."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

from services.cli.client import Api, DataDir, Json, System, find
from services.cli.output import Failed, note
from services.cli.report.invoices import invoices_written
from services.cli.report.sheet import Format, Sheet, Value, as_csv, exact_json, for_people, heading, html_table, page, written
from services.cli.resources import PREFIX, given
from services.portal.reports.asked import KNOWN, Shown
from services.portal.reports.focus import Charge, Focus
from services.portal.reports.forecast import Forecasts
from services.portal.reports.invoice import Invoices
from services.portal.reports.savings import Savings
from services.portal.reports.sums import Chargeback

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Reports: chargeback, invoices, FOCUS, forecast, savings.")

Month = Annotated[str | None, typer.Option(metavar="YYYY-MM", help="the month  [default: this one]")]
First = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="the first day, instead of a month")]
Last = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="the last day, which is in it")]
Zone = Annotated[str | None, typer.Option("--time-zone", help="where days begin, such as Europe/Berlin  [default: UTC]")]
By = Annotated[str, typer.Option(help=f"one or more of {KNOWN}, with commas")]
OfTeam = Annotated[list[str] | None, typer.Option("--team", help="only of this team (again for more)")]
As = Annotated[Format, typer.Option("--format", help="how it is written")]
Out = Annotated[Path | None, typer.Option(help="into this file, not to stdout")]

_SUMS = ("jobs", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "saved_usd")
_COLUMNS_OF_FOCUS = tuple(Charge.model_fields)
B = TypeVar("B", bound=BaseModel)


@app.command()
def chargeback(
    month: Month = None,
    first: First = None,
    last: Last = None,
    time_zone: Zone = None,
    by: By = "team,project,environment,model",
    team: OfTeam = None,
    form: As = Format.TABLE,
    as_json: Json = False,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """What was used in a period and what it cost, the dearest first. Money is in USD, to the nano-dollar in CSV and JSON."""
    asked = _asked(month, first, last, time_zone, team) | {"by": by}
    found = _report(find(data_dir), "chargeback", asked, Chargeback)
    rows: list[list[Value]] = [[*_place(line.place, found.by), *_members(line, _SUMS)] for line in found.lines]
    total: list[Value] = ["total", *("" for _ in found.by[1:]), *_members(found.total, _SUMS)]
    _say_period(found.period)
    _write(Sheet(f"Chargeback {_period(found.period)}", [*found.by, *_SUMS], rows, total), _form(form, as_json), out)


@app.command()
def invoice(
    month: Month = None,
    first: First = None,
    last: Last = None,
    time_zone: Zone = None,
    team: OfTeam = None,
    margin: Annotated[str, typer.Option(metavar="PERCENT", help="added to what it cost; a discount if less than 0")] = "0",
    form: As = Format.TABLE,
    as_json: Json = False,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """The bill of each team for a period. `--format html` gives a page that prints, `--json` everything."""
    asked = _asked(month, first, last, time_zone, team) | {"margin_percent": margin}
    found = _report(find(data_dir), "invoices", asked, Invoices).data
    if not found:
        note("Nobody has used anything then.")
    _put([invoices_written(found, _form(form, as_json))], out)


@app.command()
def focus(
    month: Month = None,
    first: First = None,
    last: Last = None,
    team: OfTeam = None,
    form: As = Format.CSV,
    as_json: Json = False,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Charges in the columns of FOCUS 1.2, the FinOps cost and usage specification: for other FinOps tools. Days are UTC."""
    chosen = _form(form, as_json)
    if chosen not in (Format.CSV, Format.JSON):
        raise Failed("FOCUS is for programs: --format csv or json.", status=2)
    system = find(data_dir)
    # Which days are meant, the server says: its clock may be on another day than this one.
    period = _report(system, "chargeback", _asked(month, first, last, None, team) | {"by": "month"}, Chargeback).period
    _say_period(period)
    days = (_report(system, "focus", _teams(team) | {"day": f"{day}"}, Focus) for day in _days(period))
    _put(_csv_of_focus(days) if chosen is Format.CSV else _json_of_focus(days), out)


@app.command()
def forecast(
    by: Annotated[str, typer.Option(help="one or more of the things of `chargeback`, but for day and month")] = "team",
    team: OfTeam = None,
    form: As = Format.TABLE,
    as_json: Json = False,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """What this month will have cost when it is over: expected, and from low to high in four of five months; with budgets."""
    found = _report(find(data_dir), "forecast", {"by": by, **_teams(team)}, Forecasts)
    columns = ("spent_usd", "expected_usd", "low_usd", "high_usd", "budget_usd", "reached_on")
    rows: list[list[Value]] = [[*_place(line.place, found.by), *_members(line, columns)] for line in found.lines]
    note(f"{found.month} up to {found.last}, as it looks at {found.at:%Y-%m-%d %H:%M} ({found.time_zone})")
    for line in found.lines:
        if line.budget_usd is not None and line.reached_on is not None:
            where = ", ".join(line.place.values())
            note(f"{where}: the budget of {for_people(line.budget_usd)} USD is expected to be used up on {line.reached_on}.")
    _write(Sheet(f"Forecast {found.month}", [*found.by, *columns], rows), _form(form, as_json), out)


@app.command()
def savings(
    month: Month = None,
    first: First = None,
    last: Last = None,
    time_zone: Zone = None,
    by: By = "team,model",
    team: OfTeam = None,
    form: As = Format.TABLE,
    as_json: Json = False,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """What was saved: by answers from the cache, and by flex and batch calls against the standard price."""
    asked = _asked(month, first, last, time_zone, team) | {"by": by}
    found = _report(find(data_dir), "savings", asked, Savings)
    columns = ("lookups", "exact_hits", "semantic_hits", "cache_saved_usd", "tiered_calls", "tier_saved_usd", "cost_usd")
    rows: list[list[Value]] = [[*_place(line.place, found.by), *_members(line, columns)] for line in found.lines]
    total: list[Value] = ["total", *("" for _ in found.by[1:]), *_members(found.total, columns)]
    _say_period(found.period)
    _write(Sheet(f"Savings {_period(found.period)}", [*found.by, *columns], rows, total), _form(form, as_json), out)


def _asked(month: str | None, first: str | None, last: str | None, zone: str | None, team: list[str] | None) -> dict[str, str]:
    return {**given(month=month, to=last, time_zone=zone), **({"from": first} if first else {}), **_teams(team)}


def _teams(team: list[str] | None) -> dict[str, str]:
    return {"team": ",".join(team)} if team else {}


def _report(system: System, name: str, asked: dict[str, str], model: type[B]) -> B:
    return model.model_validate(Api.admin(system).get(f"{PREFIX}/reports/{name}", **asked))


def _form(form: Format, as_json: bool) -> Format:
    return Format.JSON if as_json else form


def _place(place: dict[str, str], by: Sequence[str]) -> list[str]:
    return [place[name] for name in by]


def _members(of: BaseModel, names: Sequence[str]) -> list[Value]:
    return [getattr(of, name) for name in names]


def _period(period: Shown) -> str:
    return f"{period.first} to {period.last} ({period.time_zone})"


def _say_period(period: Shown) -> None:
    note(_period(period))


def _days(period: Shown) -> Iterator[date]:
    return (period.first + timedelta(days=n) for n in range((period.last - period.first).days + 1))


def _csv_of_focus(days: Iterable[Focus]) -> Iterator[str]:
    yield from as_csv(_COLUMNS_OF_FOCUS, [])
    for day in days:
        yield from as_csv(_COLUMNS_OF_FOCUS, [_members(charge, _COLUMNS_OF_FOCUS) for charge in day.charges], header=False)


def _json_of_focus(days: Iterable[Focus]) -> Iterator[str]:
    before = "["
    for day in days:
        for charge in day.charges:
            yield f"{before}\n  {exact_json(charge.model_dump(), '  ')}"
            before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _write(sheet: Sheet, form: Format, out: Path | None) -> None:
    if form is Format.HTML:
        _put([page(sheet.title, [heading(sheet.title), html_table(sheet)])], out)
    else:
        _put([written(sheet, form)], out)


def _put(parts: Iterable[str], out: Path | None) -> None:
    """To stdout, or into a file. Raises Failed."""
    if out is None:
        for part in parts:
            sys.stdout.write(part)
        sys.stdout.flush()
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            file.writelines(parts)
    except OSError as error:
        raise Failed(f"{out} can't be written: {error.strerror}.") from None
    note(f"Written to {out}.")
