"""A provider call, whatever became of it."""

from decimal import Decimal
from typing import Literal

from pydantic import Field

from schemas.base import Part
from schemas.usage import Usage


class Attempt(Part):
    """One call of a deployment, whatever became of it. `cost_usd` by the price of that moment (`price_version`)."""

    id: str
    n: int
    deployment: str
    provider: str
    provider_model: str
    started_ms: int
    latency_ms: float
    ttft_ms: float | None = None
    status: Literal["completed", "failed", "cancelled", "unknown"]
    http_status: int | None = None
    error: str | None = None
    usage: Usage = Usage()
    cost_usd: Decimal = Decimal(0)
    price_version: str = ""
    service_tier: str = ""
    hedge: bool = Field(default=False, description="a second call beside a slow one; the loser is `cancelled`")
    model: str = Field(default="", description="the alias whose deployment was asked: a fallback's is another than the job's")
    margin_usd: Decimal = Field(default=Decimal(0), description="the part of cost_usd that is the house's and not the provider's")
    raw_usage: str = Field(default="", description="the provider's own usage object, as JSON text")
