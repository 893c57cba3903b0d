"""Prices as they are written: in LiteLLM's words beside a deployment, in ours under `prices:`. Pure."""

from decimal import Decimal

from pydantic import ValidationError

from schemas.base import JsonObject
from schemas.control import Cliff, Price, SomePrices
from schemas.prices import PriceEntry
from services.portal.config.findings import Findings
from services.portal.config.shape import SPELLING, Prices, explain, unknown

_TIERS = {"batch": "batches", "flex": "flex", "priority": "priority"}
"""A service tier, and what LiteLLM's names for its prices end in."""

_CLIFFS = (128, 200, 272)
_OF_OURS = {"kind", "version", "created_ms", "name"}


def written_price(prices: Prices, input_usd: Decimal, output_usd: Decimal) -> Price:
    """The price that stands beside a deployment, of whose two totals one may have been worked out."""
    tiers = {tier: some for tier, end in _TIERS.items() if (some := _some(prices, f"_{end}")) != SomePrices()}
    above = ((thousands * 1000, _some(prices, f"_above_{thousands}k_tokens")) for thousands in _CLIFFS)
    return Price(
        input_usd=input_usd,
        output_usd=output_usd,
        cache_read_usd=prices.cache_read_input_token_cost,
        cache_write_usd=prices.cache_creation_input_token_cost,
        cache_write_1h_usd=prices.cache_creation_input_token_cost_above_1hr,
        reasoning_usd=prices.output_cost_per_reasoning_token,
        input_audio_usd=prices.input_cost_per_audio_token,
        input_image_usd=prices.input_cost_per_image_token,
        output_audio_usd=prices.output_cost_per_audio_token,
        output_image_usd=prices.output_cost_per_image_token,
        request_usd=prices.input_cost_per_request or Decimal(0),
        audio_second_usd=prices.input_cost_per_second or Decimal(0),
        cliffs=tuple(Cliff(above_tokens=n, **some.model_dump()) for n, some in above if some != SomePrices()),
        tiers=tiers,
    )


def price_entry(path: str, name: str, written: JsonObject, found: Findings) -> PriceEntry | None:
    """An entry under `prices:`; what is wrong with it is found."""
    try:
        entry = PriceEntry.model_validate({**written, "name": name})
    except ValidationError as error:
        found.problems += [
            explain("", e["loc"], e["msg"], f"{path}.") for e in error.errors(include_url=False, include_input=False)
        ]
        return None
    known: JsonObject = entry.model_dump(mode="json", exclude=_OF_OURS)
    found.problems += [f"{where}: no such member; {SPELLING}{guess}" for where, guess in unknown(path, written, known)]
    return entry


def _some(prices: Prices, end: str) -> SomePrices:
    def usd(name: str) -> Decimal | None:
        return getattr(prices, f"{name}{end}", None)

    return SomePrices(
        input_usd=usd("input_cost_per_token"),
        output_usd=usd("output_cost_per_token"),
        cache_read_usd=usd("cache_read_input_token_cost"),
        cache_write_usd=usd("cache_creation_input_token_cost"),
    )
