"""Sums of usage, as ClickHouse gives them: exact, to the nano-dollar."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, PlainSerializer

from services.portal.reports.asked import Breakdown, Shown

Money = Annotated[Decimal, PlainSerializer(lambda usd: format(usd, "f"), return_type=str, when_used="json")]
"""USD, exact; in JSON a string, that no reader makes a binary fraction of it."""


class Sums(BaseModel):
    """What was used and what it cost. Tokens and money over all provider calls of the jobs.

    `prompt_tokens` has the cached ones in it. `estimated_usd`: the part of `cost_usd` that no provider has told the tokens of.
    """

    jobs: int = 0
    failed_jobs: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Money = Decimal(0)
    saved_usd: Money = Decimal(0)
    estimated_usd: Money = Decimal(0)


class Line(Sums):
    """Sums of one place: `place` has a value for each thing it is broken down by."""

    place: dict[str, str]


class Chargeback(BaseModel):
    """GET /admin/v1/reports/chargeback: the dearest first."""

    period: Shown
    by: list[str]
    lines: list[Line]
    total: Sums


USAGE = "(SELECT *, toUInt64(1) AS jobs, toUInt64(status = 'failed') AS failed_jobs FROM sluice.usage) AS u"
"""A row a job, with everything that is known of it."""

TOTALS = "(SELECT *, bucket AS ts FROM sluice.usage_totals) AS u"
"""The same jobs, most of them added up by day or hour (infra/clickhouse/migrations/0012): without metadata, and in UTC."""

SUMS = """sum(u.jobs) AS jobs,
    sum(u.failed_jobs) AS failed_jobs,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    sum(u.cost_usd) AS cost_usd,
    sum(u.saved_usd) AS saved_usd,
    sumIf(u.cost_usd, u.usage_source = 'estimated') AS estimated_usd"""


WHEN = """u.ts >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC')
    AND u.ts < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')"""
TEAMS = "\n    AND u.team IN {teams:Array(String)}"


def select(by: Breakdown, sums: str, source: str, *, of_teams: bool, also: str = "", grouped: str = "") -> str:
    """The query of a report. Everything is a constant of this package, but for the parameters that ClickHouse binds.

    Each thing that it is broken down by comes as `p0`, `p1` and so on.
    """
    columns = "".join(f"{sql} AS p{n},\n    " for n, sql in enumerate(by.sql))
    places = ", ".join([*(f"p{n}" for n in range(len(by.sql))), *filter(None, [grouped])])
    where = WHEN + (TEAMS if of_teams else "") + (f"\n    AND {also}" if also else "")
    return f"SELECT {columns}{sums}\nFROM {source}\nWHERE {where}\nGROUP BY {places}\nLIMIT {{most:UInt32}}"


def place(by: Sequence[str], row: dict[str, object]) -> dict[str, str]:
    """The place of a row."""
    return {name: str(row[f"p{n}"]) for n, name in enumerate(by)}


def lines(by: Breakdown, rows: Iterable[dict[str, object]]) -> list[Line]:
    """Rows as they come from ClickHouse."""
    return [Line.model_validate({**row, "place": place(by.names, row)}) for row in rows]


def total(of: Sequence[Sums]) -> Sums:
    """All together."""
    return Sums.model_validate({name: sum(getattr(one, name) for one in of) for name in Sums.model_fields})
