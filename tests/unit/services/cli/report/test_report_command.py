"""`sluice report`: what is asked of the server, and what is made of its answers."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import Result

from services.portal.reports.asked import month_of
from services.portal.reports.focus import BY as OF_FOCUS
from services.portal.reports.focus import Charge, Focus, charge
from services.portal.reports.forecast import Forecasted, Forecasts
from services.portal.reports.invoice import BY, Invoices, invoices
from services.portal.reports.savings import Saving, Savings, all_of
from services.portal.reports.sums import Chargeback, Line, total

Invoke = Callable[..., Result]
NOVEMBER = month_of(date(2026, 11, 1), "UTC")
EVIL = "=HYPERLINK(1)"


def line(team: str, cost: str, by: tuple[str, ...] = ("team", "model"), **more: str) -> Line:
    place = dict.fromkeys(by, "") | {"team": team, "model": "small"} | more
    return Line(place=place, jobs=2, prompt_tokens=10, completion_tokens=5, cost_usd=Decimal(cost), saved_usd=Decimal("0.5"))


LINES = [line("fraud", "1.000000001"), line(EVIL, "0.5")]
CHARGEBACK = Chargeback(period=NOVEMBER.shown(), by=["team", "model"], lines=LINES, total=total(LINES))
BILLS = invoices(
    [line(one, "10.00000001", BY, price_version="list:1") for one in ("fraud", EVIL)], NOVEMBER, "acme", Decimal(5), 2 * 10**12
)


@pytest.fixture
def answers(stub: Any) -> Any:
    def on(name: str, model: Any) -> None:
        stub.on("GET", f"/admin/v1/reports/{name}", 200, model.model_dump(mode="json"))

    on("chargeback", CHARGEBACK)
    on("invoices", Invoices(data=BILLS))
    one = Saving(place={"team": "fraud"}, lookups=4, exact_hits=2, cache_saved_usd=Decimal("0.25"))
    on("savings", Savings(period=NOVEMBER.shown(), by=["team"], lines=[one], total=all_of([one, one])))
    far = Forecasted(
        place={"team": "fraud"}, spent_usd=Decimal(1), expected_usd=Decimal(3), low_usd=Decimal(2), high_usd=Decimal(4),
        budget_usd=Decimal(2), reached_on=date(2026, 11, 25),
    )  # fmt: skip
    on(
        "forecast",
        Forecasts(
            month="2026-11",
            last=NOVEMBER.last,
            at=datetime(2026, 11, 21, 12, tzinfo=UTC),
            time_zone="UTC",
            by=["team"],
            lines=[far],
        ),
    )
    return stub


def test_what_is_asked(invoke: Invoke, answers: Any) -> None:
    words = "report chargeback --month 2026-11 --by team,model --team fraud --team search --time-zone Europe/Berlin"
    assert invoke(*words.split()).exit_code == 0
    assert invoke(*["report", "chargeback", "--from", "2026-11-01", "--to", "2026-11-07"]).exit_code == 0
    first, second = (parse_qs(seen.query) for seen in answers.seen)
    assert first == {"month": ["2026-11"], "by": ["team,model"], "team": ["fraud,search"], "time_zone": ["Europe/Berlin"]}
    assert second == {"from": ["2026-11-01"], "to": ["2026-11-07"], "by": ["team,project,environment,model"]}


def test_data_is_alone_on_stdout_and_exact(invoke: Invoke, answers: Any) -> None:
    result = invoke("report", "chargeback", "--json")
    read = json.loads(result.stdout, parse_float=Decimal)
    assert [one["cost_usd"] for one in read] == [Decimal("1.000000001"), Decimal("0.5")]
    assert read[0]["team"] == "fraud"
    assert result.stderr == "2026-11-01 to 2026-11-30 (UTC)\n"
    assert invoke("report", "chargeback", "--format", "json").stdout == result.stdout


def test_csv_has_no_formula(invoke: Invoke, answers: Any) -> None:
    read = list(csv.DictReader(io.StringIO(invoke("report", "chargeback", "--format", "csv").stdout)))
    assert [(one["team"], one["cost_usd"]) for one in read] == [("fraud", "1.000000001"), (f"'{EVIL}", "0.5")]


def test_a_table_ends_with_the_total(invoke: Invoke, answers: Any) -> None:
    assert invoke("report", "chargeback").stdout.splitlines()[-1].split() == ["total", "4", "20", "0", "10", "1.50", "1.00"]


def test_a_report_goes_into_a_file(invoke: Invoke, answers: Any, tmp_path: Path) -> None:
    file = tmp_path / "bill.html"
    result = invoke("report", "invoice", "--format", "html", "--out", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    shown = file.read_text()
    assert "Invoice 2026-11-fraud" in shown
    assert "Due: 10.50 USD" in shown
    missing = invoke("report", "chargeback", "--out", str(tmp_path / "none" / "x"))
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "can't be written" in missing.stderr


def test_a_bill_adds_up_in_a_spreadsheet(invoke: Invoke, answers: Any) -> None:
    result = invoke("report", "invoice", "--margin", "5", "--format", "csv")
    read = [one for one in csv.DictReader(io.StringIO(result.stdout)) if one["invoice"] == "2026-11-fraud"]
    assert sum(Decimal(one["cost_usd"]) for one in read) == next(bill.total_usd for bill in BILLS if bill.team == "fraud")
    assert parse_qs(answers.seen[-1].query)["margin_percent"] == ["5"]


def test_a_bill_for_people_and_for_programs(invoke: Invoke, answers: Any) -> None:
    shown = invoke("report", "invoice").stdout
    assert "Total: 10.500000011 USD\nDue: 10.50 USD" in shown
    assert "Margin 5 %: 0.50 USD" in shown
    (first, *_) = json.loads(invoke("report", "invoice", "--json").stdout, parse_float=Decimal)
    assert (first["number"], first["due_usd"], first["issued"]) == (f"2026-11-{EVIL}", Decimal("10.50"), "2033-05-18")


def test_focus_is_asked_for_day_by_day(invoke: Invoke, answers: Any) -> None:
    row = charge(line("fraud", "0.1", OF_FOCUS, provider="openai"), date(2026, 11, 1), "acme", None)
    answers.on("GET", "/admin/v1/reports/focus", 200, Focus(day=date(2026, 11, 1), charges=[row]).model_dump(mode="json"))
    read = list(csv.DictReader(io.StringIO(invoke("report", "focus", "--month", "2026-11", "--team", "fraud").stdout)))
    assert list(read[0]) == list(Charge.model_fields)
    assert (len(read), read[0]["BilledCost"], read[0]["ChargeClass"]) == (30, "0.1", "")
    days = [parse_qs(seen.query) for seen in answers.seen if seen.path.endswith("/focus")]
    assert days == [{"team": ["fraud"], "day": [f"2026-11-{day:02}"]} for day in range(1, 31)]
    told = json.loads(invoke("report", "focus", "--json").stdout, parse_float=Decimal)
    assert (len(told), told[0]["BilledCost"], told[0]["ChargeClass"]) == (30, Decimal("0.1"), None)
    assert invoke("report", "focus", "--format", "html").exit_code == 2


def test_no_charge_is_an_empty_list(invoke: Invoke, answers: Any) -> None:
    answers.on("GET", "/admin/v1/reports/focus", 200, {"day": "2026-11-01", "charges": []})
    assert json.loads(invoke("report", "focus", "--json").stdout) == []


def test_a_forecast_says_when_a_budget_ends(invoke: Invoke, answers: Any) -> None:
    result = invoke("report", "forecast")
    assert "fraud: the budget of 2.00 USD is expected to be used up on 2026-11-25." in result.stderr
    (told,) = json.loads(invoke("report", "forecast", "--json").stdout)
    assert (told["expected_usd"], told["reached_on"]) == (3, "2026-11-25")


def test_savings_have_a_total(invoke: Invoke, answers: Any) -> None:
    assert invoke("report", "savings").stdout.splitlines()[-1].split() == ["total", "8", "4", "0", "0.50", "0", "0.00", "0.00"]


def test_the_servers_refusal_is_told(invoke: Invoke, stub: Any) -> None:
    stub.on("GET", "/admin/v1/reports/chargeback", 404, {"error": {"message": "There is no team 'x'."}})
    result = invoke("report", "chargeback", "--team", "x")
    assert (result.exit_code, result.stderr) == (1, "Error: There is no team 'x'.\n")
