"""FOCUS 1.2: columns, nulls and values as the specification wants them."""

import json
import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.portal.reports.focus import BY, Charge, charge
from services.portal.reports.sums import Line


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MANDATORY = names(
    "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory "
    "ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName "
    "ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"
)
WANTED = names(
    "ChargeFrequency ConsumedQuantity ConsumedUnit ContractedUnitPrice InvoiceId ListUnitPrice PricingCategory RegionId "
    "RegionName ResourceId ResourceName ResourceType ServiceSubcategory SkuId SkuMeter SkuPriceId SubAccountId "
    "SubAccountName SubAccountType Tags"
)
NULLABLE = names(
    "ChargeClass InvoiceId RegionId RegionName ResourceId ResourceName ResourceType SubAccountId SubAccountName SubAccountType"
)
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing"},
    "BillingCurrency": {"USD"},
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def problems(row: Charge) -> list[str]:
    """What the specification would find wrong with a row."""
    found: list[str] = []
    told: dict[str, object] = row.model_dump()
    found += [f"{name} is missing" for name in (MANDATORY | WANTED) - told.keys()]
    found += [f"{name} is null" for name in told.keys() - NULLABLE if told[name] in (None, "")]
    found += [f"{name} is empty and not null" for name in NULLABLE if told[name] == ""]
    found += [f"{name}: {told[name]}" for name, values in ALLOWED.items() if told[name] not in values]
    found += [
        f"{name} is no UTC time"
        for name in told
        if re.search("Period(Start|End)$", name) and not MOMENT.fullmatch(str(told[name]))
    ]
    found += [
        f"{name} is no name of a column" for name in told if not re.fullmatch("(x_)?[A-Z][A-Za-z]*", name) or len(name) > 50
    ]
    if not isinstance(json.loads(row.Tags), dict):
        found.append("Tags is no object")
    if row.SubAccountName and not row.SubAccountId:
        found.append("a sub-account with a name and no id")
    if row.PricingQuantity and abs(row.ListUnitPrice * row.PricingQuantity - row.ListCost) > Decimal("1e-6"):
        found.append("unit price times quantity is not the cost")
    return found


def line(cost: Decimal = Decimal("1.5"), tokens: int = 1000, **place: str) -> Line:
    full = {"organization": "acme", "team": "fraud", "model": "small", "provider": "openai", "deployment": "small@1"}
    tokens_in = {"prompt_tokens": tokens, "cached_tokens": tokens // 2, "completion_tokens": tokens // 10}
    return Line.model_validate({"place": dict.fromkeys(BY, "") | full | place, "jobs": 2, "cost_usd": cost, **tokens_in})


def test_a_charge_in_full() -> None:
    row = charge(line(project="checkout", price_version="list:1"), date(2026, 12, 31), "default", "2026-12-fraud")
    assert problems(row) == []
    assert (row.BilledCost, row.EffectiveCost, row.ListCost, row.ContractedCost) == (Decimal("1.5"),) * 4
    assert (row.BillingPeriodStart, row.BillingPeriodEnd) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (row.ChargePeriodStart, row.ChargePeriodEnd) == ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (row.ConsumedQuantity, row.ConsumedUnit, row.SkuId, row.SkuPriceId) == (
        1100,
        "Tokens",
        "openai/small",
        "openai/small@list:1",
    )
    assert json.loads(row.Tags) == {"project": "checkout", "model": "small"}
    assert (row.BillingAccountId, row.SubAccountId, row.InvoiceId) == ("acme", "fraud", "2026-12-fraud")


def test_what_was_negotiated_and_the_margin_are_not_on_the_list() -> None:
    row = charge(line(Decimal("0.8925")), date(2026, 11, 3), "default", None, Decimal("0.85") * Decimal("1.05"))
    assert problems(row) == []
    assert (row.BilledCost, row.ContractedCost, row.ListCost) == (Decimal("0.8925"), Decimal("0.8925"), Decimal(1))
    assert (row.ListUnitPrice, row.ContractedUnitPrice) == (Decimal("0.000909090909091"), Decimal("0.000811363636364"))


@pytest.mark.parametrize("place", [dict.fromkeys(BY, ""), {"team": ""}, {"deployment": "", "provider": ""}, {"project": 'a"b\n'}])
def test_what_is_not_known_is_null(place: dict[str, str]) -> None:
    assert problems(charge(line(Decimal(1), 1000, **place), date(2026, 11, 3), "default", None)) == []


def test_what_is_paid_by_the_call_is_counted_in_requests() -> None:
    row = charge(line(tokens=0), date(2026, 11, 3), "default", None)
    assert (row.PricingQuantity, row.PricingUnit, row.ListUnitPrice) == (2, "Requests", Decimal("0.75"))


@given(st.decimals(0, 10**6, places=9), st.integers(0, 10**9), st.text(max_size=20), st.text(max_size=20))
def test_every_row_is_as_the_specification_wants_it(cost: Decimal, tokens: int, project: str, user: str) -> None:
    row = charge(line(cost, tokens, project=project, user=user), date(2026, 11, 3), "default", None)
    assert problems(row) == []
    assert row.BilledCost == cost
