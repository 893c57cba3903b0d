"""Charges in the columns of FOCUS 1.2, the FinOps cost and usage specification (focus.finops.org). Pure.

A row is what one place (team, project, environment, feature, user) used of one deployment in a day. The organization is the
billing account, a team is a sub-account. BilledCost, EffectiveCost and ContractedCost are `cost_usd`; ListCost is that without
what was negotiated and without the house's margin, as the price version tells them. Unit prices are averages of a row. Months and
days are UTC, as FOCUS wants them.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, Field

from services.portal.reports.asked import OfTeams, month_of
from services.portal.reports.sums import Line, Money

BY: Final = (
    *("organization", "team", "project", "environment", "feature", "segment", "user"),
    *("model", "provider", "deployment", "service_tier", "lane", "price_version"),
)
"""What a row is of, besides its day."""

ISSUER: Final = "Sluice"
_UNIT_PRICE: Final = Decimal("1e-15")
_NANO: Final = Decimal("1e-9")
_TAGS: Final = ("project", "environment", "feature", "segment", "user", "model", "lane", "service_tier")


class FocusAsked(OfTeams):
    """GET /admin/v1/reports/focus."""

    day: str = Field(description="such as 2026-11-01, in UTC")


class Charge(BaseModel):
    """A row. Names and order of the members are the specification's; empty is null."""

    BilledCost: Money
    BillingAccountId: str
    BillingAccountName: str
    BillingCurrency: str = "USD"
    BillingPeriodEnd: str
    BillingPeriodStart: str
    ChargeCategory: str = "Usage"
    ChargeClass: str | None = None
    ChargeDescription: str
    ChargeFrequency: str = "Usage-Based"
    ChargePeriodEnd: str
    ChargePeriodStart: str
    ConsumedQuantity: int
    ConsumedUnit: str
    ContractedCost: Money
    ContractedUnitPrice: Money
    EffectiveCost: Money
    InvoiceId: str | None
    InvoiceIssuerName: str = ISSUER
    ListCost: Money
    ListUnitPrice: Money
    PricingCategory: str = "Standard"
    PricingQuantity: int
    PricingUnit: str
    ProviderName: str
    PublisherName: str
    RegionId: str | None = None
    RegionName: str | None = None
    ResourceId: str | None
    ResourceName: str | None
    ResourceType: str | None
    ServiceCategory: str = "AI and Machine Learning"
    ServiceName: str
    ServiceSubcategory: str = "Generative AI"
    SkuId: str
    SkuMeter: str
    SkuPriceId: str
    SubAccountId: str | None
    SubAccountName: str | None
    SubAccountType: str | None
    Tags: str = Field(description="a JSON object")
    x_CachedTokens: int
    x_InputTokens: int
    x_Jobs: int
    x_OutputTokens: int


class Focus(BaseModel):
    """GET /admin/v1/reports/focus: the charges of one day."""

    day: date
    charges: list[Charge]


def charge(line: Line, day: date, organization: str, invoice: str | None, times_list: Decimal | None = None) -> Charge:
    """The charge of a line. `organization`: the name of the account; `invoice`: on which it stands, once that is issued;
    `times_list`: so many times the list price it cost, as far as that is known."""
    of, cost = line.place, line.cost_usd
    tokens = line.prompt_tokens + line.completion_tokens
    # What is paid by the call, and what cost nothing, has no tokens.
    quantity, unit = (tokens, "Tokens") if tokens else (line.jobs, "Requests")
    list_cost = cost if times_list is None else (cost / times_list).quantize(_NANO)
    month = month_of(day, "UTC")
    provider = of["provider"] or ISSUER
    sku = f"{provider}/{of['model'] or 'unknown'}"
    is_called, has_team = bool(of["deployment"]), bool(of["team"])
    return Charge(
        BilledCost=cost,
        BillingAccountId=of["organization"] or organization,
        BillingAccountName=of["organization"] or organization,
        BillingPeriodStart=_midnight(month.first),
        BillingPeriodEnd=_midnight(month.last + timedelta(days=1)),
        ChargeDescription=_words(line),
        ChargePeriodStart=_midnight(day),
        ChargePeriodEnd=_midnight(day + timedelta(days=1)),
        ConsumedQuantity=quantity,
        ConsumedUnit=unit,
        ContractedCost=cost,
        ContractedUnitPrice=(cost / quantity).quantize(_UNIT_PRICE),
        EffectiveCost=cost,
        InvoiceId=invoice,
        ListCost=list_cost,
        ListUnitPrice=(list_cost / quantity).quantize(_UNIT_PRICE),
        PricingQuantity=quantity,
        PricingUnit=unit,
        ProviderName=provider,
        PublisherName=provider,
        ResourceId=of["deployment"] or None,
        ResourceName=of["deployment"] or None,
        ResourceType="Deployment" if is_called else None,
        ServiceName=of["model"] or "unknown",
        SkuId=sku,
        SkuMeter=unit,
        SkuPriceId=f"{sku}@{of['price_version'] or 'none'}",
        SubAccountId=of["team"] or None,
        SubAccountName=of["team"] or None,
        SubAccountType="Team" if has_team else None,
        Tags=_tags(of),
        x_CachedTokens=line.cached_tokens,
        x_InputTokens=line.prompt_tokens,
        x_Jobs=line.jobs,
        x_OutputTokens=line.completion_tokens,
    )


def _words(line: Line) -> str:
    of = line.place
    asked = f"{line.prompt_tokens} tokens in ({line.cached_tokens} cached), {line.completion_tokens} out"
    return f"{of['model'] or 'unknown'}: {line.jobs} jobs, {asked}"


def _tags(of: Mapping[str, str]) -> str:
    return json.dumps({name: of[name] for name in _TAGS if of[name]}, ensure_ascii=False)


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
