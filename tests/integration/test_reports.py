"""Reports over rows in a real ClickHouse: nothing is lost between a row and a bill. And the provider's books against ours."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from infra.clickhouse.client import ClickHouse, Columns, open_clickhouse
from infra.clickhouse.migrate import migrate
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports
from schemas.budget import Budget
from schemas.control import Organization, Team
from schemas.errors import InvalidRequest, NotAllowed, NotFound
from schemas.policy import Policy
from schemas.prices import PriceEntry
from schemas.roles import Role
from services.portal.access import ADMIN, Actor
from services.portal.books import Books
from services.portal.reports.asked import ChargebackAsked, ForecastAsked
from services.portal.reports.calls import CallsAsked
from services.portal.reports.desk import Reports
from services.portal.reports.focus import FocusAsked
from services.portal.reports.invoice import InvoicesAsked
from tests.fakes.control import FakeControl
from tests.system import Provider, System, chat

Row = dict[str, object]
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW_MS = round(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
TEAMS = {"fraud": "default", "search": "default", "lab": "other"}
MODELS = ("small", "large")
FINANCE = Actor("operator/finance", ((Role.FINANCE, ""),))
MEMBER = Actor("user/eve", ((Role.MEMBER, "fraud"),))
NOBODY = Actor("user/nobody", ())


def usage_rows() -> list[Row]:
    """Some hundred jobs from mid October to mid December, of costs that no binary fraction holds."""
    chance = random.Random(7)
    rows: list[Row] = []
    for n in range(600):
        team = chance.choice(list(TEAMS))
        rows.append(
            {
                "job_id": f"job_{n:04}",
                "ts": NOVEMBER + timedelta(days=-15, minutes=chance.randrange(60 * 24 * 60)),
                "organization": TEAMS[team],
                "team": team,
                "project": chance.choice(("", "checkout")),
                "environment": chance.choice(("dev", "prod")),
                "user": chance.choice(("eve", "=cmd|' /C calc'!A0")),
                "feature": chance.choice(("", "chat")),
                "metadata": {"customer": chance.choice(("acme", "umbrella"))},
                "lane": "interactive",
                "model": chance.choice(MODELS),
                "provider": "openai",
                "deployment": "small@1",
                "status": chance.choice(("completed", "failed")),
                "cache": chance.choice(("miss", "hit")),
                "service_tier": chance.choice(("", "flex")),
                "price_version": chance.choice(("list:1", "list:1+contract@1")),
                "usage_source": chance.choice(("provider", "estimated")),
                "prompt_tokens": chance.randrange(5000),
                "cached_tokens": chance.randrange(100),
                "completion_tokens": chance.randrange(500),
                "cost_usd": Decimal(chance.randrange(10**9)).scaleb(-9),
                "saved_usd": Decimal(chance.randrange(10**7)).scaleb(-9),
                "version": 1,
            }
        )
    return rows


def attempt_rows(jobs: Iterable[Row]) -> list[Row]:
    """A call a job."""
    copied = ("job_id", "ts", "team", "model", "provider", "deployment", "status", "version")
    copied += ("service_tier", "usage_source", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")
    return [
        {name: job[name] for name in copied} | {"attempt_id": job["job_id"], "job_ts": job["ts"], "provider_model": "gpt-4o"}
        for job in jobs
    ]


def price_rows() -> list[Row]:
    """The contract of October, and one of the same name that was made anew when all was over."""
    moments = {"0.5": NOVEMBER - timedelta(days=30), "0.9": NOVEMBER + timedelta(days=90)}
    return [
        {
            "ts": ts,
            "event_id": f"evt_{multiplier}",
            "resource": "price/contract",
            "kind": "price",
            "version": 1,
            "after": PriceEntry(name="contract", since=ts.date(), multiplier=Decimal(multiplier)).model_dump_json(),
        }
        for multiplier, ts in moments.items()
    ]


def columns(rows: Sequence[Row]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


def within(rows: Iterable[Row], first: datetime, end: datetime) -> list[Row]:
    return [row for row in rows if first <= row["ts"] < end]  # pyright: ignore[reportOperatorIssue]


def money(rows: Iterable[Row], column: str = "cost_usd") -> Decimal:
    return sum((Decimal(str(row[column])) for row in rows), Decimal(0))


JOBS = usage_rows()
IN_NOVEMBER = within(JOBS, NOVEMBER, datetime(2026, 12, 1, tzinfo=UTC))


@pytest_asyncio.fixture(scope="module")
async def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[str, ClickHouse]]:
    folder = tmp_path_factory.mktemp("reports")
    port = choose_ports(folder, ["clickhouse"])["clickhouse"]
    child, url = await start_clickhouse(folder, port), f"http://127.0.0.1:{port}"
    opened = await open_clickhouse(url)
    await migrate(opened)
    await opened.insert("sluice.usage_log", columns(JOBS), "jobs")
    # What is delivered twice counts once.
    await opened.insert("sluice.usage_log", columns(JOBS[:50]), "again")
    await opened.insert("sluice.attempts_log", columns(attempt_rows(JOBS)), "calls")
    await opened.insert("sluice.changes_log", columns(price_rows()), "prices")
    yield url, opened
    await opened.close()
    await child.stop()


@pytest_asyncio.fixture
async def reports(clickhouse: tuple[str, ClickHouse]) -> AsyncGenerator[Reports]:
    control = FakeControl()
    budget = Policy(budgets=(Budget(usd=Decimal("50")),))
    control.put(
        Organization(id="org_1", name="default", time_zone="UTC", policy=Policy(budgets=(Budget(usd=Decimal("500")),))),
        *(Team(id=f"team_{name}", name=name, organization="default", policy=budget) for name in TEAMS),
    )
    books = Books(clickhouse[0])
    yield Reports(books, control.table, lambda: NOW_MS)
    await books.close()


def asked(**how: str) -> ChargebackAsked:
    return ChargebackAsked.model_validate({"month": "2026-11", **how})


@pytest.mark.parametrize(
    "by",
    [
        *("organization", "team", "project", "environment", "feature", "segment", "user", "key", "model", "provider"),
        *("deployment", "service_tier", "lane", "api", "status", "price_version", "day", "month", "metadata.customer"),
        "team,project,environment,model",
        "metadata.customer,metadata.none,day",
    ],
)
async def test_whatever_it_is_broken_down_by_the_sum_is_the_same(reports: Reports, by: str) -> None:
    found = await reports.chargeback(asked(by=by), FINANCE)
    assert sum((line.cost_usd for line in found.lines), Decimal(0)) == money(IN_NOVEMBER) == found.total.cost_usd
    assert sum((line.saved_usd for line in found.lines), Decimal(0)) == money(IN_NOVEMBER, "saved_usd")
    assert found.total.jobs == len(IN_NOVEMBER)
    assert found.total.prompt_tokens == money(IN_NOVEMBER, "prompt_tokens")
    assert found.total.failed_jobs == sum(row["status"] == "failed" for row in IN_NOVEMBER)
    assert found.total.estimated_usd == money(row for row in IN_NOVEMBER if row["usage_source"] == "estimated")
    assert found.lines == sorted(found.lines, key=lambda line: line.cost_usd, reverse=True)


async def test_each_line_is_the_sum_of_its_jobs(reports: Reports) -> None:
    found = await reports.chargeback(asked(by="team,model"), FINANCE)
    expected = {
        (team, model): money(row for row in IN_NOVEMBER if (row["team"], row["model"]) == (team, model))
        for team in TEAMS
        for model in MODELS
    }
    assert {(line.place["team"], line.place["model"]): line.cost_usd for line in found.lines} == expected


async def test_a_month_begins_where_the_clock_says(reports: Reports) -> None:
    found = await reports.chargeback(asked(time_zone="Asia/Tokyo"), FINANCE)
    nine = timedelta(hours=9)
    assert found.total.cost_usd == money(within(JOBS, NOVEMBER - nine, datetime(2026, 12, 1, tzinfo=UTC) - nine))


async def test_both_days_of_a_period_are_in_it(reports: Reports) -> None:
    period = ChargebackAsked.model_validate({"from": "2026-11-03", "to": "2026-11-04", "by": "day"})
    found = await reports.chargeback(period, FINANCE)
    assert {line.place["day"] for line in found.lines} == {"2026-11-03", "2026-11-04"}
    assert found.total.cost_usd == money(within(JOBS, datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC)))


async def test_a_team_sees_its_own_and_nothing_else(reports: Reports) -> None:
    own = money(row for row in IN_NOVEMBER if row["team"] == "fraud")
    assert (await reports.chargeback(asked(), MEMBER)).total.cost_usd == own
    assert (await reports.chargeback(asked(team="fraud"), FINANCE)).total.cost_usd == own
    assert [one.team for one in (await reports.invoices(InvoicesAsked(month="2026-11"), MEMBER)).data] == ["fraud"]
    assert {c.SubAccountId for c in (await reports.focus(FocusAsked(day="2026-11-03"), MEMBER)).charges} == {"fraud"}
    with pytest.raises(NotFound):
        await reports.chargeback(asked(team="fraud,search"), MEMBER)
    with pytest.raises(NotAllowed):
        await reports.chargeback(asked(), NOBODY)


async def test_the_bills_of_all_teams_are_what_was_used(reports: Reports) -> None:
    made = (await reports.invoices(InvoicesAsked(month="2026-11", margin_percent=Decimal(5)), FINANCE)).data
    assert [one.team for one in made] == sorted(TEAMS)
    assert sum((one.subtotal.cost_usd for one in made), Decimal(0)) == money(IN_NOVEMBER)
    assert {(one.status, one.number) for one in made} == {("preliminary", f"2026-11-{team}") for team in TEAMS}
    for one in made:
        assert one.total_usd == one.subtotal.cost_usd + one.margin_usd
        assert abs(one.due_usd - one.subtotal.cost_usd * Decimal("1.05")) <= Decimal("0.005")


async def test_the_charges_of_focus_are_what_was_used(reports: Reports) -> None:
    days = ("2026-11-01", "2026-11-17", "2026-11-30")
    moments = [datetime.fromisoformat(f"{day}T00:00Z") for day in days]
    jobs = [row for moment in moments for row in within(JOBS, moment, moment + timedelta(days=1))]
    charges = [charge for day in days for charge in (await reports.focus(FocusAsked(day=day), FINANCE)).charges]
    for column in ("BilledCost", "EffectiveCost", "ContractedCost"):
        assert sum((getattr(charge, column) for charge in charges), Decimal(0)) == money(jobs) > 0
    at_half_price = [row for row in jobs if row["price_version"] == "list:1+contract@1"]
    assert sum((charge.ListCost for charge in charges), Decimal(0)) == money(jobs) + money(at_half_price) > money(jobs)
    assert sum(charge.x_Jobs for charge in charges) == len(jobs)


async def test_a_forecast_begins_with_what_is_spent_and_knows_the_budget(reports: Reports) -> None:
    found = await reports.forecast(ForecastAsked(), FINANCE)
    so_far = within(JOBS, NOVEMBER, datetime(2026, 11, 22, tzinfo=UTC))
    assert sum((line.spent_usd for line in found.lines), Decimal(0)) == money(so_far)
    for line in found.lines:
        assert line.spent_usd <= line.low_usd <= line.expected_usd <= line.high_usd
        assert line.budget_usd == 50
        assert (line.reached_on is not None) == (line.expected_usd >= 50)


async def test_the_budget_of_all_is_not_held_against_what_some_have_spent(reports: Reports) -> None:
    everybody = ForecastAsked(by="organization")
    assert {line.budget_usd for line in (await reports.forecast(everybody, FINANCE)).lines} == {Decimal(500), None}
    for asked_for, actor in ((ForecastAsked(by="organization", team="fraud"), FINANCE), (everybody, MEMBER)):
        assert [line.budget_usd for line in (await reports.forecast(asked_for, actor)).lines] == [None]


async def test_what_was_saved_is_told_by_place(reports: Reports) -> None:
    found = await reports.savings(asked(by="team"), FINANCE)
    assert found.total.cache_saved_usd == money(IN_NOVEMBER, "saved_usd")
    assert found.total.exact_hits == sum(row["cache"] == "hit" for row in IN_NOVEMBER)
    flex = [row for row in IN_NOVEMBER if row["service_tier"] == "flex" and row["status"] == "completed"]
    assert found.total.tiered_calls == len(flex)
    # These cost more than any list price.
    assert found.total.tier_saved_usd == 0


async def test_calls_are_added_up_as_a_provider_does(reports: Reports) -> None:
    found = await reports.calls(CallsAsked(month="2026-11", by="model,team", provider="openai"), FINANCE)
    assert sum((line.cost_usd for line in found.lines), Decimal(0)) == money(IN_NOVEMBER)
    assert {line.place["model"] for line in found.lines} == {"gpt-4o"}
    assert sum(line.unsure_calls for line in found.lines) == sum(row["usage_source"] == "estimated" for row in IN_NOVEMBER)


@pytest.mark.parametrize(
    "how",
    [
        {"by": "team; DROP TABLE x"},
        {"by": "u.team"},
        {"by": ""},
        {"by": "metadata."},
        {"month": "2026-13"},
        {"time_zone": "Nowhere"},
    ],
)
async def test_what_cannot_be_reported_is_said(reports: Reports, how: Mapping[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        await reports.chargeback(asked(**how), ADMIN)


async def test_names_are_values_and_never_sql(reports: Reports) -> None:
    found = await reports.chargeback(asked(by="metadata.x'] OR 1=1 --", team="fraud') OR 1=1 --"), ADMIN)
    assert found.lines == []


async def test_the_providers_own_ledger_and_ours_agree(system: System, provider: Provider, tmp_path: Path) -> None:
    """Through the command line, by model and team; and they differ as soon as a call is missing."""
    team, before = await system.create_team("ledger"), await provider.last()
    async with team.http() as client:
        asked = [client.post("/v1/chat/completions", json=chat(model)) for model in ("mock", "mock", "mock-latency-50")]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    jobs = await system.usage(team.name, 3)
    lines = [json.dumps({**asdict(entry), "team": team.name}) + "\n" for entry in await provider.entries(after=before)]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    await asyncio.to_thread(whole.write_text, "".join(lines))
    await asyncio.to_thread(cut.write_text, "".join(lines[1:]))
    words = ("--team", team.name, "--by", "model,team", "--json")
    same, other = await asyncio.gather(system.run("reconcile", whole, *words), system.run("reconcile", cut, *words))
    assert (same.status, other.status) == (0, 1), same.err + other.err
    told = json.loads(same.out)
    assert (told["equal"], told["total"]["ours"]["calls"], told["total"]["theirs"]["calls"]) == (True, 3, 3)
    (shown,) = await system.json("report", "chargeback", "--team", team.name, "--by", "team")
    assert (shown["jobs"], shown["cost_usd"]) == (3, money(jobs))
