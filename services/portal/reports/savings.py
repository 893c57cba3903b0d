"""What was saved: by answers from the cache, and by calls in a cheaper service tier. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from pydantic import BaseModel

from infra.prices import PriceBook
from schemas.control import Price
from schemas.usage import Usage
from services.portal.reports.asked import Shown
from services.portal.reports.sums import Money

CACHE: Final = """sumIf(u.jobs, u.cache = 'hit') AS exact_hits,
    sumIf(u.jobs, u.cache = 'semantic') AS semantic_hits,
    sumIf(u.jobs, u.cache IN ('hit', 'semantic', 'miss')) AS lookups,
    sum(u.saved_usd) AS saved_usd,
    sum(u.cost_usd) AS cost_usd"""

TIERED: Final = """a.provider AS provider,
    a.deployment AS deployment,
    a.provider_model AS provider_model,
    a.service_tier AS service_tier,
    toUnixTimestamp64Milli(min(a.ts)) AS at_ms,
    count() AS calls,
    sum(a.prompt_tokens) AS prompt_tokens,
    sum(a.cached_tokens) AS cached_tokens,
    sum(a.cache_write_tokens) AS cache_write_tokens,
    sum(a.completion_tokens) AS completion_tokens,
    sum(a.reasoning_tokens) AS reasoning_tokens,
    sum(a.cost_usd) AS cost_usd"""
TIERED_OF: Final = "sluice.attempts AS a INNER JOIN sluice.usage AS u ON a.job_id = u.job_id"
TIERED_WHERE: Final = "a.service_tier IN ('flex', 'batch') AND a.status = 'completed'"
TIERED_BY: Final = ("provider", "deployment", "provider_model", "service_tier")


class Saving(BaseModel):
    """What one place has saved. `tier_saved_usd`: what flex and batch calls would have cost more at the standard price."""

    place: dict[str, str]
    lookups: int = 0
    exact_hits: int = 0
    semantic_hits: int = 0
    cost_usd: Money = Decimal(0)
    cache_saved_usd: Money = Decimal(0)
    tiered_calls: int = 0
    tier_saved_usd: Money = Decimal(0)


class Savings(BaseModel):
    """GET /admin/v1/reports/savings."""

    period: Shown
    by: list[str]
    lines: list[Saving]
    total: Saving


class Tiered(BaseModel):
    """Calls of one deployment, model and service tier, added up."""

    provider: str
    deployment: str
    provider_model: str
    service_tier: str
    at_ms: int
    calls: int
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal


def tier_saved(prices: PriceBook, of: Tiered, own: Price | None) -> Decimal:
    """How much more these calls would have cost at the standard price of their first day; 0 if none is known.

    By the average call: which of a model's prices applies may depend on how much goes in.
    """
    calls = max(1, of.calls)
    average = Usage(
        input_tokens=of.prompt_tokens // calls,
        cache_read_tokens=of.cached_tokens // calls,
        cache_write_tokens=of.cache_write_tokens // calls,
        output_tokens=of.completion_tokens // calls,
        reasoning_tokens=of.reasoning_tokens // calls,
    )
    standard = prices.price(of.provider, of.provider_model, average, of.at_ms, own, deployment=of.deployment)
    return max(Decimal(0), standard.cost_usd * calls - of.cost_usd) if standard.version else Decimal(0)


def all_of(savings: Sequence[Saving]) -> Saving:
    """The sum of all places."""
    added: Mapping[str, object] = {
        name: sum(getattr(one, name) for one in savings) for name in Saving.model_fields if name != "place"
    }
    return Saving.model_validate({**added, "place": {}})
