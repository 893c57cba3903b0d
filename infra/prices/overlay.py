"""Which of the house's price entries hold for a call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from infra.prices.listed import LISTED_AS
from schemas.prices import CallPrices, Capacity, Hours, PriceEntry, TokenPrices

_MOST_KNOWN = 4096
_DAY_MS = 86_400_000

T = TypeVar("T")


class Entries(Protocol):
    """Where the entries stand: the control table. `version` changes with whatever is changed there."""

    version: int
    prices: dict[str, PriceEntry]


@dataclass(frozen=True, eq=False, slots=True)
class Terms:
    """What entries say of a call. `names`: of those that say something, with their versions."""

    per_million: TokenPrices | None = None
    per_call: CallPrices | None = None
    capacity: Capacity | None = None
    tiers: Mapping[str, Decimal] | None = None
    multiplier: Decimal = Decimal(1)
    hours: Sequence[Hours] = ()
    margin: Decimal = Decimal(1)
    names: tuple[str, ...] = ()

    def at(self, at_ms: int) -> Decimal:
        """What all costs so many times as much at this time of the day."""
        if not self.hours:
            return self.multiplier
        clock = datetime.fromtimestamp(at_ms / 1000, UTC).time()
        return self.multiplier * next((hours.multiplier for hours in self.hours if hours.holds_at(clock)), Decimal(1))


NOTHING = Terms()


class Overlay:
    """Finds terms in about a microsecond: they are worked out once for each deployment and day."""

    def __init__(self, entries: Entries | None) -> None:
        self._entries = entries
        self._version = -1
        self._known: dict[tuple[object, ...], Terms] = {}

    def terms(self, provider: str, model: str, deployment: str, region: str, at_ms: int, *, own: bool) -> Terms:
        """`own`: a price stands beside the deployment. Of what doesn't name the deployment only tiers and margin hold then."""
        if self._entries is None or not self._entries.prices:
            return NOTHING
        if self._version != self._entries.version or len(self._known) > _MOST_KNOWN:
            self._version = self._entries.version
            self._known.clear()
        asked = (provider, model, deployment, region, at_ms // _DAY_MS, own)
        found = self._known.get(asked)
        if found is None:
            day = datetime.fromtimestamp(at_ms / 1000, UTC).date()
            fitting = [e for e in self._entries.prices.values() if _holds(e, day) and _fits(e, provider, model, deployment)]
            found = self._known[asked] = _terms(sorted(fitting, key=_nearness, reverse=True), region, own=own)
        return found


def _holds(entry: PriceEntry, day: date) -> bool:
    return entry.since <= day and (entry.until is None or day < entry.until)


def _fits(entry: PriceEntry, provider: str, model: str, deployment: str) -> bool:
    return (
        entry.deployment in ("", deployment)
        and (not entry.provider or LISTED_AS.get(entry.provider, entry.provider) == provider)
        and (not entry.model or fnmatchcase(model, entry.model))
    )


def _nearness(entry: PriceEntry) -> tuple[object, ...]:
    """The more an entry names, the higher. The name decides between two that are alike: always the same one."""
    exact = bool(entry.model) and "*" not in entry.model
    return bool(entry.deployment), exact, len(entry.model), bool(entry.provider), entry.since, entry.name


def _terms(nearest: Sequence[PriceEntry], region: str, *, own: bool) -> Terms:
    told = [e for e in nearest if e.deployment or not own]
    used: dict[str, PriceEntry] = {}

    def first(entries: Sequence[PriceEntry], member: str, among: str = "") -> PriceEntry | None:
        for entry in entries:
            said = getattr(entry, member)
            if said is not None and (not among or among in said):
                used[entry.name] = entry
                return entry
        return None

    capacity = None if own else first(told, "capacity")
    priced = None if own or capacity else first(told, "per_million")
    calls = None if own or capacity else first(told, "per_call")
    tiers = None if capacity else first(nearest, "tiers")
    discount = None if capacity else first(told, "multiplier")
    surcharge = None if capacity else first(told, "regions", region)
    hours = None if capacity else first(told, "hours")
    margin = first(nearest, "margin")
    multiplier = discount.multiplier if discount and discount.multiplier is not None else Decimal(1)
    if surcharge and surcharge.regions:
        multiplier *= surcharge.regions[region]
    return Terms(
        per_million=priced.per_million if priced else None,
        per_call=calls.per_call if calls else None,
        capacity=capacity.capacity if capacity else None,
        tiers=tiers.tiers if tiers else None,
        multiplier=multiplier,
        hours=(hours.hours if hours else None) or (),
        margin=(margin.margin if margin else None) or Decimal(1),
        names=tuple(f"{entry.name}@{entry.version}" for entry in nearest if entry.name in used),
    )
