"""What a price version tells afterwards: which of the house's entries made the price, and how far it is from the list."""

from collections.abc import Mapping
from decimal import Decimal

from schemas.prices import PriceEntry


def entries_of(version: str) -> tuple[str, ...]:
    """The entries that made the price, as `name@version`, the nearest first."""
    return tuple(part for part in version.split("+")[1:] if "@" in part)


def times_list(version: str, entries: Mapping[str, PriceEntry]) -> Decimal | None:
    """So many times the list price was charged: what was negotiated, times the margin. `entries`: by `name@version`.

    Tiers, regions and hours are on the list too. None if it can't be told: an entry isn't known any more, or all was free.
    """
    nearest = [entries[name] for name in entries_of(version) if name in entries]
    if len(nearest) < len(entries_of(version)):
        return None
    base = version.partition("+")[0]
    # As the overlay has it: a price beside a deployment is what is paid, and capacity is paid by the hour.
    discounts = [] if base == "capacity" else [e for e in nearest if e.deployment or not base.startswith("config:")]
    discount = next((e.multiplier for e in discounts if e.multiplier is not None), Decimal(1))
    margin = next((e.margin for e in nearest if e.margin is not None), Decimal(1))
    return discount * margin or None
