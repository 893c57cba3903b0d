"""What deployments cost by a set of prices: which have none, and which differ from LiteLLM's public price map. Pure."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from infra.prices import PriceBook
from schemas.base import JsonObject
from schemas.control import Deployment, Model
from schemas.prices import PriceEntry

_MILLION: Final = 1_000_000
_NEAR: Final = Decimal("1e-9")


class Map(BaseModel):
    """An entry of LiteLLM's price map, as far as it is compared: USD per token."""

    model_config = ConfigDict(extra="ignore")

    litellm_provider: str = ""
    fresh: Decimal | None = Field(default=None, alias="input_cost_per_token")
    spoken: Decimal | None = Field(default=None, alias="output_cost_per_token")
    cache_read: Decimal | None = Field(default=None, alias="cache_read_input_token_cost")
    cache_write: Decimal | None = Field(default=None, alias="cache_creation_input_token_cost")
    cache_write_1h: Decimal | None = Field(default=None, alias="cache_creation_input_token_cost_above_1hr")


@dataclass
class Entries:
    """Prices that nobody changes."""

    version: int
    prices: dict[str, PriceEntry]


@dataclass(frozen=True, slots=True)
class Other:
    """A price that the map has otherwise, in USD for a million tokens."""

    alias: str
    deployment: str
    kind: str
    ours: Decimal
    theirs: Decimal

    def to_json(self) -> JsonObject:
        told: JsonObject = {"model": self.alias, "deployment": self.deployment, "kind": self.kind}
        return {**told, "ours_usd": f"{self.ours:f}", "theirs_usd": f"{self.theirs:f}"}


def book(entries: Iterable[PriceEntry]) -> PriceBook:
    return PriceBook(Entries(0, {entry.name: entry for entry in entries}))


def now_ms() -> int:
    return round(time.time() * 1000)


def unpriced(models: Iterable[Model], entries: Iterable[PriceEntry] = ()) -> Iterator[tuple[str, str]]:
    """Alias and deployment id of each deployment without a price of its own, in the entries, or in the price data."""
    prices, at_ms = book(entries), now_ms()
    for model in models:
        for d in model.deployments:
            if prices.most_micro(d.provider, d.model, 1, 1, at_ms, d.price, deployment=d.id, region=d.region) is None:
                yield model.name, d.id


def others(models: Iterable[Model], entries: Iterable[PriceEntry], public: Mapping[str, JsonObject]) -> Iterator[Other]:
    """Where the map has another price for tokens than we have, at little input."""
    prices, at_ms = book(entries), now_ms()
    for model in models:
        for d in model.deployments:
            theirs = _of(d, public)
            found = prices.prices(d.provider, d.model, 1, at_ms, d.price, deployment=d.id, region=d.region)
            if theirs is None or found is None:
                continue
            for kind in ("fresh", "spoken", "cache_read", "cache_write", "cache_write_1h"):
                told: Decimal | None = getattr(theirs, kind)
                if told is not None and abs(told * _MILLION - found[0][kind]) > _NEAR:
                    yield Other(model.name, d.id, kind, found[0][kind], told * _MILLION)


def _of(deployment: Deployment, public: Mapping[str, JsonObject]) -> Map | None:
    """The map's entry: by provider and model, or by the model alone where it is that provider's."""
    names: Sequence[str] = (f"{deployment.provider}/{deployment.model}", deployment.model)
    for name in names:
        if (told := public.get(name)) is not None:
            entry = Map.model_validate(told)
            if name != deployment.model or entry.litellm_provider == deployment.provider:
                return entry
    return None
