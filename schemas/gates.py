"""Dispatch gates: rules that hold the batch lane of a model back. Each says one thing; a job goes when all of them are open."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from schemas.base import Part

Hours = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]
"""From when to when, `22:00-06:00`; over midnight if the end comes before the beginning."""


class WindowGate(Part):
    """Open at these hours of the day, by the clock on the wall in `tz` (a name of the IANA time zone database)."""

    window: Hours
    tz: str = "UTC"

    @field_validator("window")
    @classmethod
    def _is_open_at_times(cls, window: str) -> str:
        begins, _, ends = window.partition("-")
        if begins == ends:
            raise ValueError("a window that ends when it begins is never open")
        return window


class PrometheusRule(Part):
    """Open while the highest value that `query` gives is below `below`; `on_error`: what it is while nobody knows."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    query: str = Field(min_length=1, max_length=4096)
    below: float = Field(allow_inf_nan=False)
    on_error: Literal["closed", "open"] = "closed"


class PrometheusGate(Part):
    """Open by a metric."""

    prometheus: PrometheusRule


class QuotaGate(Part):
    """Open while less than this share of the providers' quota is in use, at the least used deployment."""

    quota_share: float = Field(gt=0, le=1)


class PriceGate(Part):
    """Open while a million input tokens cost less than this, at the cheapest deployment."""

    price_below_usd_per_mtok: Decimal = Field(gt=0)


_NAMES = {"window": WindowGate, "prometheus": PrometheusGate, "quota_share": QuotaGate, "price_below_usd_per_mtok": PriceGate}


def _name(gate: object) -> str | None:
    """The member by which a gate is known."""
    return next(
        (name for name, kind in _NAMES.items() if isinstance(gate, kind) or (isinstance(gate, dict) and name in gate)), None
    )


Gate = Annotated[
    Annotated[WindowGate, Tag("window")]
    | Annotated[PrometheusGate, Tag("prometheus")]
    | Annotated[QuotaGate, Tag("quota_share")]
    | Annotated[PriceGate, Tag("price_below_usd_per_mtok")],
    Discriminator(
        _name,
        custom_error_type="gate",
        custom_error_message="a gate is one of window, prometheus, quota_share, price_below_usd_per_mtok",
    ),
]
