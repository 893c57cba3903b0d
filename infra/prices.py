"""What a provider call cost, in USD.

Whoever wrote a price beside a deployment is believed; else the list prices bundled with genai-prices count. Nothing is ever
fetched: of that package only the data and its own arithmetic are used, and a new price comes with a new version of the package.
Why this stands in infra, and what was measured: docs/decisions/0005-prices.md.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from schemas.control import Price
from schemas.job import Api
from schemas.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

FREE: Final = frozenset({"echo", "local"})
"""Providers without a bill."""

LISTED_AS: Final[Mapping[str, str]] = {
    # LiteLLM's prefixes and OpenTelemetry's provider names, where genai-prices has another name.
    "amazon": "aws",
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "bedrock": "aws",
    "codestral": "mistral",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "meta_llama": "meta",
    "mistral_ai": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "voyage": "voyageai",
    "x_ai": "x-ai",
    "xai": "x-ai",
}

_PROBE_TOKENS = 1_000_000
_SCALE = 40
_ROUNDING = 10 ** (_SCALE - 9)
_MICRO = 10 ** (_SCALE - 6)


@dataclass(frozen=True, slots=True)
class Priced:
    """What a call cost, to the nano-dollar, half rounded up. `version` says by which price; "" if none is known, at cost 0."""

    cost_usd: Decimal
    version: str


@dataclass(frozen=True, slots=True)
class Rate:
    """What a call and each kind of token cost, in 10^-40 USD: whole numbers, so that no sum is ever rounded.

    The kinds are disjoint: `fresh` input is neither read from nor written to a cache, `spoken` output is not reasoning.
    """

    call: int
    fresh: int
    cache_read: int
    cache_write: int
    spoken: int
    reasoning: int

    def cost_usd(self, usage: Usage) -> Decimal:
        cost = (
            self.call
            + self.fresh * (usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
            + self.cache_read * usage.cache_read_tokens
            + self.cache_write * usage.cache_write_tokens
            + self.spoken * (usage.output_tokens - usage.reasoning_tokens)
            + self.reasoning * usage.reasoning_tokens
        )
        return Decimal((cost + _ROUNDING // 2) // _ROUNDING).scaleb(-9)

    def most_micro(self, input_tokens: int, output_tokens: int) -> int:
        """The most that so many tokens cost, whatever their kind: micro-dollars, rounded up."""
        dearest_input = max(self.fresh, self.cache_read, self.cache_write)
        cost = self.call + dearest_input * input_tokens + max(self.spoken, self.reasoning) * output_tokens
        return -(-cost // _MICRO)


class Listed:
    """A model on the price list. Its price may depend on date, hour, service tier, and on how much goes in ("cliff")."""

    def __init__(self, model: "ModelInfo", *, has_tiers: bool) -> None:
        self._model = model
        self._has_tiers = has_tiers
        self._rates: dict[int | str, _Rates | None] = {}

    def rate(self, input_tokens: int, at_ms: int, service_tier: str) -> Rate | None:
        """None when the model is on the list without a price that applies to tokens or calls."""
        rates = self._rates_at(at_ms, service_tier)
        return rates.of(input_tokens) if rates else None

    def _rates_at(self, at_ms: int, service_tier: str) -> "_Rates | None":
        context = {"service_tier": service_tier} if service_tier and self._has_tiers else None
        prices = self._model.get_prices(datetime.fromtimestamp(at_ms / 1000, UTC), context)
        # The list's own objects live as long as the process; a tier's prices are put together anew for each call.
        key = repr(prices) if context else id(prices)
        if key not in self._rates:
            self._rates[key] = _rates(prices)
        return self._rates[key]


@dataclass(frozen=True, slots=True)
class _Rates:
    """A rate for each band of input: `bands[n]` when the input is above `starts[n - 1]` and not above `starts[n]`."""

    starts: tuple[int, ...]
    bands: tuple[Rate, ...]

    def of(self, input_tokens: int) -> Rate:
        return self.bands[bisect_left(self.starts, input_tokens)]


_FREE_OF_CHARGE = Rate(0, 0, 0, 0, 0, 0)


def is_free(api: Api, own: Price | None) -> bool:
    """True for what costs nothing where nobody wrote a price beside the deployment: OpenAI's moderations are on no price list."""
    return api is Api.MODERATIONS and own is None


class PriceBook:
    """Prices a call in microseconds, once `warm` has been called."""

    def warm(self) -> None:
        """Reads the price list: 0.4 s, for a thread. Without it the first `price` that needs the list does."""
        _listed("openai", "gpt-4o")

    def price(
        self, provider: str, provider_model: str, usage: Usage, at_ms: int, own: Price | None, service_tier: str = ""
    ) -> Priced:
        """The cost of a call that began at `at_ms`, answered by `provider_model` in `service_tier` (as the answer says).

        `own` is the price written beside the deployment. Tokens that it has no price for cost what fresh input does.
        """
        found = self._rate(provider, provider_model, usage.input_tokens, at_ms, own, service_tier)
        return Priced(found[0].cost_usd(usage), found[1]) if found else Priced(Decimal(0), "")

    def most_micro(
        self,
        provider: str,
        provider_model: str,
        input_tokens: int,
        output_tokens: int,
        at_ms: int,
        own: Price | None,
        service_tier: str = "",
    ) -> int | None:
        """The most that a call costs, in micro-dollars; None if no price is known."""
        found = self._rate(provider, provider_model, input_tokens, at_ms, own, service_tier)
        return found[0].most_micro(input_tokens, output_tokens) if found else None

    def _rate(
        self, provider: str, provider_model: str, input_tokens: int, at_ms: int, own: Price | None, service_tier: str
    ) -> tuple[Rate, str] | None:
        """The rate of a call, and by which price."""
        if own is not None:
            return _own_rate(own.input_usd, own.output_usd, own.cache_read_usd)
        if provider in FREE:
            return _FREE_OF_CHARGE, "free"
        listed = _listed(provider, provider_model)
        rate = listed.rate(input_tokens, at_ms, service_tier) if listed else None
        return (rate, _list_version()) if rate else None


@lru_cache(maxsize=1024)
def _own_rate(input_usd: Decimal, output_usd: Decimal, cache_read_usd: Decimal | None) -> tuple[Rate, str]:
    cache_read = input_usd if cache_read_usd is None else cache_read_usd
    text = " ".join(str(usd.normalize()) for usd in (input_usd, output_usd, cache_read))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    fresh, output = _scaled(input_usd), _scaled(output_usd)
    return Rate(0, fresh, _scaled(cache_read), fresh, output, output), f"config:{digest}"


@lru_cache(maxsize=1024)
def _listed(provider: str, provider_model: str) -> Listed | None:
    from genai_prices.data import providers

    if provider == "litellm":
        # Whom LiteLLM asks stands before the model's name.
        provider, _, provider_model = provider_model.partition("/")
    # By its exact name: genai-prices would take whatever has "openai" in its name for OpenAI.
    name = LISTED_AS.get(provider, provider)
    found = next((listed for listed in providers if listed.id == name), None)
    model = found.find_model(provider_model, all_providers=providers) if found else None
    if found is None or model is None:
        return None
    # Service tiers are those of the model's own house, not of who resells it.
    return Listed(model, has_tiers=bool(model.price_variants) and any(model is own for own in found.models))


@cache
def _list_version() -> str:
    from genai_prices import __version__

    return f"genai-prices:{__version__}"


def _rates(prices: "ModelPrice") -> _Rates | None:
    """The prices as rates. What the kinds cost is asked of genai-prices itself, a million of each, within each band."""
    from genai_prices.types import TieredPrices

    known: dict[str, Decimal | TieredPrices] = {name: value for name, value in vars(prices).items() if value is not None}
    if not known.keys() & {"input_mtok", "output_mtok", "requests_kcount"}:
        return None
    tiered = [value for value in known.values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    bands = [_band_rate({name: _in_band(value, start) for name, value in known.items()}) for start in (-1, *starts)]
    return _Rates(tuple(starts), tuple(bands))


def _in_band(price: object, above: int) -> Decimal:
    """The flat price of a band whose input is just above `above` tokens: a cliff, so all tokens have the highest tier's."""
    from genai_prices.types import TieredPrices

    if not isinstance(price, TieredPrices):
        assert isinstance(price, Decimal)
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= above), price.base)


def _band_rate(flat: Mapping[str, Decimal]) -> Rate:
    from genai_prices.types import ModelPrice
    from genai_prices.types import Usage as ListUsage

    prices = ModelPrice(**flat)

    def cost(**tokens: int) -> int:
        none = {"input_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0}
        none |= {"output_tokens": 0, "output_reasoning_tokens": 0}
        return _scaled(prices.calc_price(ListUsage(**(none | tokens)))["total_price"])

    call = cost()

    def each(**tokens: int) -> int:
        return (cost(**tokens) - call) // _PROBE_TOKENS

    n = _PROBE_TOKENS
    return Rate(
        call=call,
        fresh=each(input_tokens=n),
        cache_read=each(input_tokens=n, cache_read_tokens=n),
        cache_write=each(input_tokens=n, cache_write_tokens=n),
        spoken=each(output_tokens=n),
        reasoning=each(output_tokens=n, output_reasoning_tokens=n),
    )


def _scaled(usd: Decimal) -> int:
    return int(usd.scaleb(_SCALE))
