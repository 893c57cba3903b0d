"""Prices as policy in code: what a price list doesn't know, by the day from which it holds."""

from datetime import date, time
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Message, Part

Usd = Annotated[Decimal, Field(ge=0, le=1_000_000_000, allow_inf_nan=False)]
Multiplier = Annotated[Decimal, Field(ge=0, le=1_000, allow_inf_nan=False)]


class TokenPrices(Part):
    """USD for a million tokens of each kind. What isn't given costs what the whole costs that it is a part of: a token that is
    read from a cache, or is audio, what input does; reasoning what output does; a write for an hour what any write does."""

    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None
    reasoning: Usd | None = None
    input_audio: Usd | None = None
    input_image: Usd | None = None
    cache_read_audio: Usd | None = None
    output_audio: Usd | None = None
    output_image: Usd | None = None


class CallPrices(Part):
    """USD for one of each; None: as the list has it."""

    request: Usd | None = None
    web_search: Usd | None = None
    storage_search: Usd | None = None
    code_execution: Usd | None = None
    audio_second: Usd | None = None


class Hours(Part):
    """A time of the day, UTC, at which all costs `multiplier` times as much. It may go over midnight."""

    begin: time
    end: time
    multiplier: Multiplier

    def holds_at(self, at: time) -> bool:
        if self.begin <= self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


class Capacity(Part):
    """Capacity that is paid by the hour, used or not (PTU, provisioned throughput). A call is booked by its share of what the
    capacity could do; `sluice prices reprice` spreads the hour's whole price over the tokens that it did."""

    hourly_usd: Usd
    tokens_per_hour: int = Field(ge=1, le=10**15)


class PriceEntry(Message):
    """What holds for the calls that it names, from a day on. It names a deployment, or a provider, models (`*` stands for any
    text), both, or all.

    Of the entries that fit, each member is taken from the one that names most; of two alike, from the later one.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["price"] = "price"
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    provider: str = ""
    model: str = Field(default="", description="as the provider names it; may hold *")
    deployment: str = Field(default="", description="its id")
    since: date = Field(description="the first day, UTC")
    until: date | None = Field(default=None, description="the first day on which it no longer holds")
    per_million: TokenPrices | None = Field(default=None, description="instead of the list")
    per_call: CallPrices | None = Field(default=None, description="instead of the list")
    tiers: dict[str, Multiplier] | None = Field(default=None, description="of tokens, by the service tier in the answer")
    multiplier: Multiplier | None = Field(default=None, description="what was negotiated: 0.85 is 15 % off")
    regions: dict[str, Multiplier] | None = Field(default=None, description="surcharge by the deployment's region")
    hours: tuple[Hours, ...] | None = None
    capacity: Capacity | None = None
    margin: Multiplier | None = Field(default=None, description="what teams are charged more: 1.1 is 10 %")
    version: int = 1
    created_ms: int = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.until is not None and self.until <= self.since:
            raise ValueError("until: must be later than since")
        if self.capacity is not None and not self.deployment:
            raise ValueError("capacity: is that of a deployment, so name one")
        if self.capacity is not None and self.per_million is not None:
            raise ValueError("capacity: is paid by the hour, so leave per_million out")
        if self.margin is not None and self.margin < 1:
            raise ValueError("margin: what is charged more is at least 1; a discount is a multiplier")
        return self
