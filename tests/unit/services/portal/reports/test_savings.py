"""What cheaper service tiers save, worked out by hand."""

from decimal import Decimal

import pytest

from infra.prices import PriceBook
from schemas.control import Price
from services.portal.reports.savings import Tiered, tier_saved

OWN = Price(input_usd=Decimal("0.000002"), output_usd=Decimal("0.000010"))


def tiered(cost: str, calls: int = 4, provider: str = "nobody") -> Tiered:
    """Calls of 1,000 tokens in and 100 out: 0.003 USD each at the standard price."""
    return Tiered(
        provider=provider,
        deployment="d",
        provider_model="m",
        service_tier="flex",
        at_ms=1_793_664_000_000,
        calls=calls,
        prompt_tokens=1000 * calls,
        cached_tokens=0,
        cache_write_tokens=0,
        completion_tokens=100 * calls,
        reasoning_tokens=0,
        cost_usd=Decimal(cost),
    )


@pytest.mark.parametrize(("cost", "saved"), [("0.006", "0.006"), ("0.012", "0"), ("0.5", "0")])
def test_half_the_price_saves_half_and_a_dearer_call_nothing(cost: str, saved: str) -> None:
    assert tier_saved(PriceBook(), tiered(cost), OWN) == Decimal(saved)


def test_of_what_has_no_price_nothing_is_known() -> None:
    assert tier_saved(PriceBook(), tiered("0.006"), None) == 0
