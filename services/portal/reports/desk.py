"""Who asks for a report gets it, of the teams that he sees. The sums are ClickHouse's."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from infra.budgets import lines as budget_lines
from infra.clock import Clock
from infra.hierarchy import Level
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from infra.prices.versions import entries_of, times_list
from schemas.budget import Period, usd
from schemas.control import Price
from schemas.errors import InvalidRequest
from schemas.prices import PriceEntry
from services.portal.access import Actor, Right, check
from services.portal.books import Books
from services.portal.reports import calls, focus, invoice, savings
from services.portal.reports.asked import (
    Breakdown,
    ChargebackAsked,
    ForecastAsked,
    OfTeams,
    PeriodAsked,
    Window,
    breakdown,
    by_columns,
    month_of,
    window,
)
from services.portal.reports.forecast import HISTORY_DAYS, Forecasted, Forecasts, forecast, reached_on
from services.portal.reports.sums import SUMS, TOTALS, USAGE, Chargeback, Line, lines, place, select, total

MOST_LINES: Final = 20_000
_ANSWER_S: Final = 60.0
_DAY: Final = timedelta(days=1)
_ATTEMPTS: Final = "sluice.attempts AS u"
_ENTRIES: Final = """
SELECT after FROM sluice.events
WHERE resource IN {resources:Array(String)} AND after != '' AND ts < fromUnixTimestamp64Milli({to_ms:Int64})
ORDER BY ts, event_id
"""


class Reports:
    """Makes reports. Everything raises Unavailable while ClickHouse is away, InvalidRequest and NotFound."""

    def __init__(self, books: Books, table: ControlTable, clock: Clock) -> None:
        self._books, self._table, self._clock, self._prices = books, table, clock, PriceBook(table)

    async def chargeback(self, asked: ChargebackAsked, actor: Actor) -> Chargeback:
        """What was used in a period, by what is asked."""
        period, by = window(asked, self._clock()), breakdown(asked.by)
        found = await self._lines(by, period, self._teams(asked, actor))
        found.sort(key=lambda line: line.cost_usd, reverse=True)
        return Chargeback(period=period.shown(), by=list(by.names), lines=found, total=total(found))

    async def invoices(self, asked: invoice.InvoicesAsked, actor: Actor) -> invoice.Invoices:
        """A bill for each team that has used something."""
        period = window(asked, self._clock())
        found = await self._lines(by_columns(invoice.BY), period, self._teams(asked, actor))
        made = invoice.invoices(found, period, self._organization(), asked.margin_percent, self._clock())
        return invoice.Invoices(data=made)

    async def focus(self, asked: focus.FocusAsked, actor: Actor) -> focus.Focus:
        """The charges of one day (UTC); an invoice has them once the month is over."""
        day = PeriodAsked.model_validate({"from": asked.day, "to": asked.day})
        period = window(day, self._clock())
        month = month_of(period.first, "UTC")
        found = await self._lines(by_columns(focus.BY), period, self._teams(asked, actor))
        is_issued, account = month.is_over(self._clock()), self._organization()
        numbers = {line.place["team"]: invoice.number(line.place["team"], month) if is_issued else None for line in found}
        entries = await self._price_entries({line.place["price_version"] for line in found}, period)
        charges = [
            focus.charge(
                line, period.first, account, numbers[line.place["team"]], times_list(line.place["price_version"], entries)
            )
            for line in found
        ]
        return focus.Focus(day=period.first, charges=charges)

    async def forecast(self, asked: ForecastAsked, actor: Actor) -> Forecasts:
        """What this month will cost, beside the budgets of teams and of the organization."""
        zone = next((one.time_zone for one in self._table.organizations.values()), "UTC")
        now = datetime.fromtimestamp(self._clock() / 1000, ZoneInfo(zone))
        by = breakdown(asked.by)
        if {"day", "month"} & set(by.names):
            raise InvalidRequest("A forecast is of the whole month: leave out day and month.", param="by")
        month, teams = month_of(now.date(), zone), self._teams(asked, actor)
        history = Window(min(month.first, now.date() - HISTORY_DAYS * _DAY), month.last, zone)
        # The last thing is the day.
        daily = await self._lines(by_columns((*by.names, "day")), history, teams)
        places: dict[tuple[str, ...], dict[date, Decimal]] = {}
        for line in daily:
            *where, day = line.place.values()
            places.setdefault(tuple(where), {})[date.fromisoformat(day)] = line.cost_usd
        shown = [
            self._forecast(dict(zip(by.names, where, strict=True)), days, now, month.last, of_all=teams is None)
            for where, days in places.items()
        ]
        shown.sort(key=lambda one: one.expected_usd, reverse=True)
        at = now.replace(microsecond=0)
        return Forecasts(month=f"{now:%Y-%m}", last=month.last, at=at, time_zone=zone, by=list(by.names), lines=shown)

    async def savings(self, asked: ChargebackAsked, actor: Actor) -> savings.Savings:
        """What the cache and cheaper service tiers have saved."""
        period, by, teams = window(asked, self._clock()), breakdown(asked.by), self._teams(asked, actor)
        found = {
            tuple(where.values()): savings.Saving.model_validate({**row, "place": where, "cache_saved_usd": row["saved_usd"]})
            for row in await self._ask(by, savings.CACHE, period, teams)
            for where in (place(by.names, row),)
        }
        for row in await self._tiered(by, period, teams):
            where = place(by.names, row)
            # A job may have ended since the cache was asked for.
            one = found.setdefault(tuple(where.values()), savings.Saving(place=where))
            tiered = savings.Tiered.model_validate(row)
            one.tiered_calls += tiered.calls
            # The price list is read when it is first needed, which takes a while.
            own = self._own_price(tiered.deployment)
            one.tier_saved_usd += await asyncio.to_thread(savings.tier_saved, self._prices, tiered, own)
        shown = sorted(found.values(), key=lambda one: one.cache_saved_usd + one.tier_saved_usd, reverse=True)
        return savings.Savings(period=period.shown(), by=list(by.names), lines=shown, total=savings.all_of(shown))

    async def calls(self, asked: calls.CallsAsked, actor: Actor) -> calls.Calls:
        """Provider calls that were billed, as their provider counts them."""
        columns = calls.columns(asked.by)
        by = Breakdown(tuple(columns), tuple(columns.values()), {})
        also = {name: getattr(asked, name) for name in ("provider", "deployment") if getattr(asked, name)}
        where = " AND ".join(f"u.{name} = {{{name}:String}}" for name in also)
        rows = await self._ask(by, calls.SUMS, window(asked, self._clock()), self._teams(asked, actor), _ATTEMPTS, where, also)
        found = [calls.Called.model_validate({**row, "place": place(by.names, row)}) for row in rows]
        return calls.Calls(by=list(by.names), lines=found)

    def _teams(self, asked: OfTeams, actor: Actor) -> list[str] | None:
        """Of which teams it may be; None: of all. Raises NotFound for another's, NotAllowed for who sees nothing."""
        named = list(asked.teams())
        for team in named:
            check(actor, Right.READ, team)
        if named or actor.sees_all():
            return named or None
        if not actor.teams():
            check(actor, Right.READ, what="Looking at reports")
        return sorted(actor.teams())

    async def _lines(self, by: Breakdown, period: Window, teams: Sequence[str] | None) -> list[Line]:
        return lines(by, await self._ask(by, SUMS, period, teams))

    async def _tiered(self, by: Breakdown, period: Window, teams: Sequence[str] | None) -> list[dict[str, object]]:
        grouped = ", ".join(savings.TIERED_BY)
        return await self._ask(by, savings.TIERED, period, teams, savings.TIERED_OF, savings.TIERED_WHERE, grouped=grouped)

    async def _ask(
        self,
        by: Breakdown,
        sums: str,
        period: Window,
        teams: Sequence[str] | None,
        source: str = "",
        also: str = "",
        parameters: Mapping[str, str] | None = None,
        grouped: str = "",
    ) -> list[dict[str, object]]:
        sql = select(by, sums, source or _source(by, period), of_teams=teams is not None, also=also, grouped=grouped)
        bound: dict[str, object] = {**period.parameters(), **by.parameters, **(parameters or {}), "most": MOST_LINES + 1}
        if teams is not None:
            bound["teams"] = list(teams)
        rows = await self._books.ask(sql, bound, _ANSWER_S)
        if len(rows) > MOST_LINES:
            raise InvalidRequest(
                f"That is more than {MOST_LINES} lines: break it down by fewer things, or ask for fewer days or teams.",
                param="by",
            )
        return rows

    async def _price_entries(self, versions: Iterable[str], period: Window) -> dict[str, PriceEntry]:
        """The entries that these price versions name, as they stood then, by `name@version`."""
        names = {name for version in versions for name in entries_of(version)}
        resources = sorted({f"price/{name.rpartition('@')[0]}" for name in names})
        rows = await self._books.ask(_ENTRIES, {**period.parameters(), "resources": resources}) if names else []
        told = (PriceEntry.model_validate_json(str(row["after"])) for row in rows)
        # What is deleted and made anew begins at version 1 again: the last one that was written before the end of the day counts.
        return {f"{entry.name}@{entry.version}": entry for entry in told}

    def _forecast(
        self, where: dict[str, str], days: Mapping[date, Decimal], now: datetime, last: date, *, of_all: bool
    ) -> Forecasted:
        over = Decimal(now.hour * 3600 + now.minute * 60 + now.second) / 86_400
        found = forecast(days, now.date(), over, last)
        budget = self._budget(where, now, of_all=of_all)
        return Forecasted(
            place=where,
            spent_usd=found.spent,
            expected_usd=found.expected,
            low_usd=found.low,
            high_usd=found.high,
            budget_usd=budget,
            reached_on=None if budget is None else reached_on(days, now.date(), over, last, budget),
        )

    def _budget(self, where: Mapping[str, str], now: datetime, *, of_all: bool) -> Decimal | None:
        """The tightest budget in USD that a team, or the organization, has for the month. None: there is none, or it isn't only
        for what is shown (`of_all`: all teams are)."""
        match where:
            case {"team": team} if len(where) == 1:
                resource = self._table.teams.get(team)
            case {"organization": organization} if len(where) == 1 and of_all:
                resource = self._table.organizations.get(organization)
            case _:
                return None
        if resource is None:
            return None
        level = Level(f"{resource.kind}/{resource.name}", resource.version, resource.policy)
        found = budget_lines([level], self._clock(), str(now.tzinfo))
        amounts = (line.allowance.usd_nano for line in found if line.budget.period is Period.MONTH)
        return min((usd(amount) for amount in amounts if amount is not None), default=None)

    def _own_price(self, deployment: str) -> Price | None:
        """The price that somebody wrote beside a deployment."""
        models = self._table.models.values()
        return next((one.price for model in models for one in model.deployments if one.id == deployment), None)

    def _organization(self) -> str:
        return next(iter(self._table.organizations), "")


def _source(by: Breakdown, period: Window) -> str:
    """Where the jobs are read that are added up: where most of that is done already, if it can tell what is asked."""
    return USAGE if by.parameters or period.time_zone != "UTC" else TOTALS
