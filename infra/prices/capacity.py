"""Capacity that is paid by the hour, used or not: what an hour cost, spread over what was done in it. Pure."""

from collections.abc import Sequence
from decimal import Decimal

HOUR_MS = 3_600_000
_NANO = 9


def spread(hourly_usd: Decimal, tokens: Sequence[int]) -> list[Decimal]:
    """The share of each call, by its tokens, to the nano-dollar: together exactly the hour's price. All 0 if nothing was used:
    then the hour is nobody's, and stays the platform's cost."""
    whole, used = int(hourly_usd.scaleb(_NANO)), sum(tokens)
    if used == 0:
        return [Decimal(0)] * len(tokens)
    shares: list[Decimal] = []
    before = counted = 0
    for count in tokens:
        counted += count
        until = whole * counted // used
        shares.append(Decimal(until - before).scaleb(-_NANO))
        before = until
    return shares
