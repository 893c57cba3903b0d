"""Provider calls as a provider counts them: for the comparison with its own books (`sluice reconcile`)."""

from decimal import Decimal
from typing import Final

from pydantic import BaseModel, Field

from schemas.errors import InvalidRequest
from services.portal.reports.asked import TeamsAsked, names_in
from services.portal.reports.sums import Money

COLUMNS: Final = {
    "model": "u.provider_model",
    "day": "toString(toDate(u.ts, 'UTC'))",
    "team": "u.team",
    "deployment": "u.deployment",
    "provider": "u.provider",
}
"""What calls can be added up by. A model is called as its provider calls it; days are UTC, as a provider's are."""

SUMS: Final = """countIf(u.prompt_tokens + u.completion_tokens > 0 OR u.cost_usd > 0) AS calls,
    sum(u.prompt_tokens) AS input_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.completion_tokens) AS output_tokens,
    sum(u.cost_usd - u.margin_usd) AS cost_usd,
    countIf(u.usage_source = 'estimated' OR u.status = 'unknown') AS unsure_calls,
    sumIf(u.prompt_tokens + u.completion_tokens, u.usage_source = 'estimated' OR u.status = 'unknown') AS unsure_tokens,
    sumIf(u.cost_usd - u.margin_usd, u.usage_source = 'estimated' OR u.status = 'unknown') AS unsure_usd"""


class CallsAsked(TeamsAsked):
    """GET /admin/v1/reports/calls."""

    by: str = Field(default="model", description="one or more of " + ", ".join(COLUMNS))
    provider: str = Field(default="", description="only of this provider")
    deployment: str = Field(default="", description="only of this deployment")


class Called(BaseModel):
    """Calls that something was billed for, at what the provider charges. `unsure_*`: the part whose tokens no provider has told,
    or whose end nobody saw."""

    place: dict[str, str]
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Money
    unsure_calls: int
    unsure_tokens: int
    unsure_usd: Money = Decimal(0)


class Calls(BaseModel):
    """GET /admin/v1/reports/calls."""

    by: list[str]
    lines: list[Called]


def columns(by: str) -> dict[str, str]:
    """SQL by name. Raises InvalidRequest."""
    names = names_in(by)
    for name in names:
        if name not in COLUMNS:
            raise InvalidRequest(f"Calls can't be added up by {name[:64]!r}. By: {', '.join(COLUMNS)}.", param="by")
    if not names:
        raise InvalidRequest(f"Say by what: {', '.join(COLUMNS)}.", param="by")
    return {name: COLUMNS[name] for name in names}
