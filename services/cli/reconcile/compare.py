"""Our books against a provider's. Pure: entries are added up, then set side by side."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final, Literal

from services.cli.reconcile.ledger import Entry, Unreadable
from services.portal.reports.calls import Called

By = Literal["model", "day", "team", "deployment"]
Place = tuple[str, ...]
MEASURES: Final = ("calls", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")
MOST_PLACES: Final = 100_000

_DATED: Final = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(slots=True)
class Counted:
    """Sums by measure. One that isn't there wasn't told by all entries: it can't be compared."""

    sums: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    untold: set[str] = field(default_factory=set[str])

    def add(self, told: Mapping[str, int | Decimal | None]) -> None:
        for name, amount in told.items():
            if amount is None:
                self.untold.add(name)
            else:
                self.sums[name] = self.sums.get(name, Decimal(0)) + amount

    def told(self, name: str) -> Decimal | None:
        return None if name in self.untold else self.sums.get(name)


@dataclass(slots=True)
class Theirs:
    """What a file says, by place, and from which day to which."""

    places: dict[Place, Counted]
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One place. `theirs` and `differences` (ours less theirs): None where the file doesn't say.

    `known`: on which side it is at all.
    """

    place: Place
    known: Literal["both", "ours", "theirs"]
    ours: Mapping[str, Decimal]
    theirs: Mapping[str, Decimal | None]
    unsure: Mapping[str, Decimal]

    def difference(self, name: str) -> Decimal | None:
        theirs = self.theirs[name]
        return None if theirs is None else self.ours[name] - theirs


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the two may be apart, in each line and in all: USD, and tokens of a kind. Calls must be the same."""

    usd: Decimal
    tokens: int

    def of(self, name: str) -> Decimal:
        return self.usd if name == "cost_usd" else Decimal(0 if name == "calls" else self.tokens)


def add_up(entries: Iterable[Entry], by: Sequence[By], first: date | None, last: date | None) -> Theirs:
    """The sums of a file, of these days only, if any are named. Raises Unreadable where it lacks what is asked by."""
    found = Theirs({})
    for number, entry in enumerate(entries, 1):
        if entry.day is None and (first or last):
            raise Unreadable(f"Entry {number} says no time: --from and --to can't choose. Leave them out.")
        if entry.day is not None:
            if (first and entry.day < first) or (last and entry.day > last):
                continue
            found.first = min(found.first or entry.day, entry.day)
            found.last = max(found.last or entry.day, entry.day)
        place = tuple(_value(entry, name, number) for name in by)
        if place not in found.places and len(found.places) >= MOST_PLACES:
            raise Unreadable(f"More than {MOST_PLACES:,} lines would be compared: use fewer of --by.")
        found.places.setdefault(place, Counted()).add({name: getattr(entry, name) for name in MEASURES})
    return found


def _value(entry: Entry, name: By, number: int) -> str:
    value: object = getattr(entry, name)
    if value is None:
        raise Unreadable(f"Entry {number} says no {name}: compare by something else (--by).")
    return str(value)


def compare(theirs: Mapping[Place, Counted], ours: Iterable[Called], by: Sequence[By]) -> list[Compared]:
    """Each place that either side knows, by name. What the file tells nowhere isn't compared."""
    told = {name for counted in theirs.values() for name in MEASURES if counted.told(name) is not None}
    own = {tuple(called.place[name] for name in by): called for called in ours}
    # What nothing was billed for, no provider has in its books.
    own = {place: called for place, called in own.items() if called.calls or called.unsure_calls}
    named = _by_our_names(theirs, own, by)
    return [_compared(place, own.get(place), named.get(place), told) for place in sorted(own.keys() | named.keys())]


def _by_our_names(theirs: Mapping[Place, Counted], own: Mapping[Place, Called], by: Sequence[By]) -> dict[Place, Counted]:
    """A provider bills `gpt-4o-2024-08-06` for what was asked as `gpt-4o`: where only the undated name is ours, it is meant."""
    if "model" not in by:
        return dict(theirs)
    at = by.index("model")
    models = {place[at] for place in own}
    found: dict[Place, Counted] = {}
    for place, counted in theirs.items():
        undated = _DATED.sub("", place[at])
        model = undated if place[at] not in models and undated in models else place[at]
        together = found.setdefault((*place[:at], model, *place[at + 1 :]), Counted())
        together.add({name: counted.told(name) for name in MEASURES})
    return found


def _compared(place: Place, ours: Called | None, theirs: Counted | None, told: Iterable[str]) -> Compared:
    nothing = Decimal(0)
    their: dict[str, Decimal | None] = dict.fromkeys(MEASURES)
    for name in told:
        their[name] = nothing if theirs is None else theirs.told(name)
    return Compared(
        place=place,
        known="both" if ours and theirs else "ours" if ours else "theirs",
        ours={name: Decimal(getattr(ours, name)) if ours else nothing for name in MEASURES},
        theirs=their,
        unsure={
            "calls": Decimal(ours.unsure_calls) if ours else nothing,
            "tokens": Decimal(ours.unsure_tokens) if ours else nothing,
            "cost_usd": ours.unsure_usd if ours else nothing,
        },
    )


def totals(compared: Sequence[Compared], by: Sequence[By]) -> Compared:
    """All together."""

    def added(of: Iterable[Mapping[str, Decimal]], names: Iterable[str]) -> dict[str, Decimal]:
        sums = list(of)
        return {name: sum((one[name] for one in sums), Decimal(0)) for name in names}

    their: dict[str, Decimal | None] = dict.fromkeys(MEASURES)
    for name in MEASURES:
        amounts = [amount for one in compared if (amount := one.theirs[name]) is not None]
        their[name] = sum(amounts, Decimal(0)) if len(amounts) == len(compared) and compared else None
    return Compared(
        place=("total", *("" for _ in by[1:])),
        known="both",
        ours=added((one.ours for one in compared), MEASURES),
        theirs=their,
        unsure=added((one.unsure for one in compared), ("calls", "tokens", "cost_usd")),
    )


def agrees(one: Compared, tolerance: Tolerance) -> bool:
    """True if nothing that both sides say differs by more than is allowed."""
    differences = ((name, one.difference(name)) for name in MEASURES)
    return all(off is None or abs(off) <= tolerance.of(name) for name, off in differences)
