"""What a price version tells afterwards: held against prices themselves, with what was negotiated and without."""

from collections.abc import Sequence
from decimal import Decimal

import pytest

from infra.prices.versions import times_list
from schemas.control import Price
from schemas.prices import Capacity, PriceEntry
from tests.unit.infra.prices.test_overlay import FLAT, MILLION, OWN, book, entry, price

DISCOUNT = entry("contract", provider="openai", multiplier="0.85", tiers={"flex": "0.4"})
MARGIN = entry("house", margin="1.05")
NEARER = entry("gpt", model="gpt-5", multiplier="0.7")
PUBLIC = entry("regions", regions={"eu": "1.1"})
MIXED = entry("both", provider="openai", multiplier="0.5", margin="1.2")
HERE = entry("here", deployment="d", multiplier="0.9")
FREE = entry("free", provider="openai", multiplier="0")
PTU = entry("ptu", deployment="d", multiplier="0.5", capacity=Capacity(hourly_usd=Decimal(100), tokens_per_hour=10**6))

WORLDS: Sequence[tuple[Sequence[PriceEntry], Sequence[PriceEntry], Price | None]] = [
    ([], [], None),
    ([DISCOUNT], [entry("contract", provider="openai", tiers={"flex": "0.4"})], None),
    ([DISCOUNT, MARGIN], [entry("contract", provider="openai", tiers={"flex": "0.4"})], None),
    ([DISCOUNT, NEARER, MARGIN], [entry("contract", provider="openai", tiers={"flex": "0.4"})], None),
    ([PUBLIC, DISCOUNT], [PUBLIC, entry("contract", provider="openai", tiers={"flex": "0.4"})], None),
    ([MIXED], [], None),
    ([MIXED], [], OWN),
    ([MIXED, HERE], [], OWN),
    (
        [entry("own", provider="openai", per_million=FLAT, multiplier="0.5")],
        [entry("own", provider="openai", per_million=FLAT)],
        None,
    ),
    ([PTU, MARGIN], [PTU], None),
]
"""Entries; those of a world without anything negotiated; the price beside the deployment."""


@pytest.mark.parametrize("tier", ["", "flex"])
@pytest.mark.parametrize(("entries", "listed", "own"), WORLDS)
def test_a_cost_less_what_was_negotiated_is_the_cost_by_the_list(
    entries: Sequence[PriceEntry], listed: Sequence[PriceEntry], own: Price | None, tier: str
) -> None:
    paid = price(book(*entries), MILLION, own, tier, region="eu")
    by_list = price(book(*listed), MILLION, own, tier, region="eu")
    times = times_list(paid.version, {f"{one.name}@{one.version}": one for one in entries})
    assert times is not None
    assert abs(paid.cost_usd / times - by_list.cost_usd) <= Decimal("1e-8")


@pytest.mark.parametrize(
    ("version", "times"), [("", 1), ("list:1+flex*0.5+turbo?", 1), ("list:1+contract@2", None), ("list:1+free@1", None)]
)
def test_what_cannot_be_told_is_not_guessed(version: str, times: int | None) -> None:
    assert times_list(version, {"contract@1": DISCOUNT, "free@1": FREE}) == times
