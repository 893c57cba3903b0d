"""What a report is asked for: a period, whose, and by what. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from schemas.budget import is_time_zone
from schemas.errors import InvalidRequest

COLUMNS: Final[Mapping[str, str]] = {
    "organization": "u.organization",
    "team": "u.team",
    "project": "u.project",
    "environment": "u.environment",
    "feature": "u.feature",
    "segment": "u.segment",
    "user": "u.user",
    "key": "u.key_id",
    "model": "u.model",
    "provider": "u.provider",
    "deployment": "u.deployment",
    "service_tier": "u.service_tier",
    "lane": "u.lane",
    "api": "u.api",
    "status": "u.status",
    "price_version": "u.price_version",
    "day": "toString(toDate(u.ts, {zone:String}))",
    "month": "formatDateTime(u.ts, '%Y-%m', {zone:String})",
}
"""What a report may be broken down by, and how ClickHouse is asked for it. Of `metadata.NAME` the name is a parameter."""

KNOWN: Final = ", ".join((*COLUMNS, "metadata.NAME"))

_METADATA: Final = "metadata."
_MOST_COLUMNS: Final = 16
_DAY: Final = timedelta(days=1)
_YEARS: Final = range(1971, 2299)
"""Of which ClickHouse knows every moment by any clock."""


class PeriodAsked(BaseModel):
    """A month, or days from the first to the last, both included; this month if nothing is said."""

    month: str = Field(default="", description="such as 2026-11")
    first: str = Field(default="", alias="from", description="the first day, such as 2026-11-01")
    last: str = Field(default="", alias="to", description="the last day, which is in it")
    time_zone: str = Field(default="UTC", description="where days begin: a name of the IANA database")


class OfTeams(BaseModel):
    """Of which teams; of all that one sees if nothing is said."""

    team: str = Field(default="", description="only of this team; several with a comma between them")

    def teams(self) -> tuple[str, ...]:
        return names_in(self.team)


class TeamsAsked(PeriodAsked, OfTeams):
    """A period, and of which teams."""


class ChargebackAsked(TeamsAsked):
    """GET /admin/v1/reports/chargeback and /savings."""

    by: str = Field(
        default="team,project,environment,model", description="one or more of " + ", ".join((*COLUMNS, "metadata.NAME"))
    )


class ForecastAsked(OfTeams):
    """GET /admin/v1/reports/forecast: always of the month that runs, by the clock of the organization."""

    by: str = Field(default="team", description=f"one or more of {KNOWN}, but for day and month")


class Shown(BaseModel):
    """The period of a report: both days are in it."""

    first: date
    last: date
    time_zone: str


@dataclass(frozen=True, slots=True)
class Window:
    """Days, both in it, by a clock."""

    first: date
    last: date
    time_zone: str

    def parameters(self) -> dict[str, object]:
        """The moments for ClickHouse: `from_ms` is in it, `to_ms` no more."""
        zone = ZoneInfo(self.time_zone)
        return {
            "from_ms": _ms(_midnight(self.first, zone)),
            "to_ms": _ms(_midnight(self.last + _DAY, zone)),
            "zone": self.time_zone,
        }

    def is_over(self, now_ms: int) -> bool:
        """True if nothing more can happen in it."""
        return now_ms >= _ms(_midnight(self.last + _DAY, ZoneInfo(self.time_zone)))

    def shown(self) -> Shown:
        return Shown(first=self.first, last=self.last, time_zone=self.time_zone)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """By what: the names, their SQL (made of constants alone), and its parameters."""

    names: tuple[str, ...]
    sql: tuple[str, ...]
    parameters: Mapping[str, str]


def window(asked: PeriodAsked, now_ms: int) -> Window:
    """The period. Raises InvalidRequest that names what can't be read."""
    zone = _zone(asked.time_zone)
    if asked.month and (asked.first or asked.last):
        raise InvalidRequest("Say a month, or from when to when; not both.", param="month")
    if asked.first or asked.last:
        if not (asked.first and asked.last):
            raise InvalidRequest(
                "A period has a first and a last day: give `from` and `to`.", param="to" if asked.first else "from"
            )
        first, last = _day(asked.first, "from"), _day(asked.last, "to")
        if last < first:
            raise InvalidRequest(f"The last day, {last}, is before the first, {first}.", param="to")
        return Window(first, last, zone)
    month = _day(f"{asked.month}-01", "month") if asked.month else datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone)).date()
    return month_of(month, zone)


def month_of(day: date, zone: str) -> Window:
    """The whole month that a day lies in."""
    first = day.replace(day=1)
    return Window(first, (first + timedelta(days=31)).replace(day=1) - _DAY, zone)


def breakdown(by: str) -> Breakdown:
    """What `by` says: names with a comma between them. Raises InvalidRequest for a name that nothing has."""
    names = tuple(dict.fromkeys(names_in(by)))
    if not 1 <= len(names) <= _MOST_COLUMNS:
        raise InvalidRequest(f"A report is broken down by 1 to {_MOST_COLUMNS} things.", param="by")
    parameters = {f"metadata_{n}": name.removeprefix(_METADATA) for n, name in enumerate(names) if name.startswith(_METADATA)}
    return Breakdown(names, tuple(_sql(n, name) for n, name in enumerate(names)), parameters)


def names_in(text: str) -> tuple[str, ...]:
    """Names with a comma between them."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def by_columns(names: Sequence[str]) -> Breakdown:
    """Of names that are known to be right."""
    return breakdown(",".join(names))


def _sql(place: int, name: str) -> str:
    if name.startswith(_METADATA) and len(name) > len(_METADATA):
        return f"u.metadata[{{metadata_{place}:String}}]"
    if name not in COLUMNS:
        raise InvalidRequest(f"Nothing can be reported by {name[:64]!r}. By: {KNOWN}.", param="by")
    return COLUMNS[name]


def _day(text: str, param: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        example = "2026-11" if param == "month" else "2026-11-01"
        raise InvalidRequest(f"{text[:32]!r} is no date; write `{param}` such as {example}.", param=param) from None
    if found.year not in _YEARS:
        raise InvalidRequest(f"{found} is outside of the years {_YEARS[0]} to {_YEARS[-1]}.", param=param)
    return found


def _zone(name: str) -> str:
    if not is_time_zone(name):
        raise InvalidRequest(f"No time zone is called {name[:64]!r}; write one such as Europe/Berlin.", param="time_zone")
    return name


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)
