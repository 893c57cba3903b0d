"""`sluice reconcile`: a provider's own invoice or usage export against our books."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from services.cli.client import Api, DataDir, Json, System, find
from services.cli.output import Failed, line, note
from services.cli.reconcile.compare import MEASURES, By, Compared, Theirs, Tolerance, add_up, agrees, compare, totals
from services.cli.reconcile.ledger import Unreadable, entries
from services.cli.report.sheet import Format, Sheet, Value, exact_json, for_people, written
from services.cli.resources import PREFIX, given
from services.portal.reports.calls import Calls

_EARLIEST, _LATEST = date(2000, 1, 1), date(2199, 12, 31)


def reconcile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what the provider says: JSON, JSONL or CSV")],
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="the first day (UTC)")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="the last day, which is in it")] = None,
    by: Annotated[str, typer.Option(help="one or more of model, day, team, deployment, with commas")] = "model",
    provider: Annotated[str | None, typer.Option(help="only our calls of this provider")] = None,
    deployment: Annotated[str | None, typer.Option(help="only our calls of this deployment")] = None,
    team: Annotated[list[str] | None, typer.Option(help="only our calls for this team (again for more)")] = None,
    tolerance: Annotated[str, typer.Option(metavar="USD", help="how far costs may be apart, in a line and in all")] = "0.01",
    token_tolerance: Annotated[int, typer.Option(min=0, help="how many tokens of a kind may be apart")] = 0,
    form: Annotated[Format, typer.Option("--format", help="how it is written")] = Format.TABLE,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Compare a provider's own invoice or usage export with our books: calls, tokens, cost.

    Exit status 0: they agree; 1: they don't; 2: the file can't be read. Without --from and --to the days of the file count, or
    all of our calls if it says no times.
    """
    chosen = _by(by)
    allowed = Tolerance(_usd(tolerance), token_tolerance)
    theirs = _read(file, chosen, _date(first, "--from"), _date(last, "--to"))
    since = _date(first, "--from") or theirs.first or _EARLIEST
    until = _date(last, "--to") or theirs.last or _LATEST
    narrowed = given(provider=provider, deployment=deployment, team=",".join(team or ()))
    ours = _ours(find(data_dir), {"from": f"{since}", "to": f"{until}", "by": ",".join(chosen), **narrowed})
    compared = compare(theirs.places, ours.lines, chosen)
    total = totals(compared, chosen)
    is_same = all(agrees(one, allowed) for one in (*compared, total))
    _show(compared, total, chosen, allowed, Format.JSON if as_json else form, is_same=is_same)
    _explain(total, compared, is_same=is_same)
    if not is_same:
        raise typer.Exit(1)


def _read(file: Path, by: Sequence[By], first: date | None, last: date | None) -> Theirs:
    try:
        theirs = add_up(entries(file), by, first, last)
    except OSError as error:
        raise Failed(f"{file} can't be read: {error.strerror}.", status=2) from None
    except Unreadable as error:
        raise Failed(f"{file}: {error}", status=2) from None
    if not theirs.places:
        raise Failed(f"{file} has no entry{' of these days' if first or last else ''}.", status=2)
    return theirs


def _ours(system: System, asked: dict[str, str]) -> Calls:
    return Calls.model_validate(Api.admin(system).get(f"{PREFIX}/reports/calls", **asked))


def _show(
    compared: Sequence[Compared], total: Compared, by: Sequence[By], allowed: Tolerance, form: Format, *, is_same: bool
) -> None:
    if form is Format.JSON:
        shown = [_object(one, by, agrees(one, allowed)) for one in compared]
        line(exact_json({"equal": is_same, "lines": shown, "total": _object(total, (), agrees(total, allowed))}))
        return
    told = [name for name in MEASURES if total.theirs[name] is not None or any(one.theirs[name] is not None for one in compared)]
    columns = [*by, *(f"{side} {name}" for name in told for side in ("our", "their", "off")), "verdict"]
    rows = [_row(one, told, allowed) for one in compared]
    line(written(Sheet("Reconciliation", columns, rows, _row(total, told, allowed)), form).rstrip("\n"))


def _row(one: Compared, told: Sequence[str], allowed: Tolerance) -> list[Value]:
    cells: list[Value] = []
    for name in told:
        amounts = (one.ours[name], one.theirs[name], one.difference(name))
        cells += amounts if name == "cost_usd" else [None if amount is None else int(amount) for amount in amounts]
    only = {"both": "", "ours": " (only ours)", "theirs": " (only theirs)"}[one.known]
    return [*one.place, *cells, ("equal" if agrees(one, allowed) else "differs") + only]


def _object(one: Compared, by: Sequence[By], equal: bool) -> dict[str, object]:
    where = dict(zip(by, one.place, strict=True)) if by else {}
    difference = {name: one.difference(name) for name in MEASURES}
    sides = {"ours": one.ours, "theirs": one.theirs, "difference": difference, "unsure": one.unsure}
    return {**where, **sides, "known": one.known, "equal": equal}


def _explain(total: Compared, compared: Sequence[Compared], *, is_same: bool) -> None:
    unknown = [", ".join(one.place) for one in compared if one.known == "theirs"]
    if unknown:
        note(f"Not in our books: {'; '.join(unknown[:20])}{' …' if len(unknown) > 20 else ''}.")
    if unsure := total.unsure["calls"]:
        note(
            f"{unsure} of our calls have an estimate instead of the provider's own count, or an end that nobody saw: "
            f"{for_people(total.unsure['cost_usd'])} USD. These may differ."
        )
    off = total.difference("cost_usd")
    note(
        ("The books agree." if is_same else "The books differ")
        + ("" if is_same or not off else f" by {for_people(off)} USD")
        + ("" if is_same else ".")
    )


def _by(text: str) -> list[By]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - set(get_args(By)):
        raise Failed(f"--by {text}: write one or more of {', '.join(get_args(By))}.", status=2)
    return cast("list[By]", names)


def _usd(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or found < 0:
        raise Failed(f"--tolerance {text}: write an amount in USD, such as 0.01.", status=2)
    return found


def _date(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise Failed(f"{option} {text}: write a day such as 2026-11-01.", status=2) from None
