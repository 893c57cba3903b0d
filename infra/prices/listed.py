"""The price list: genai-prices, its bundled data and its own arithmetic. Nothing is ever fetched."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from infra.prices.rate import Rate, Rates, scaled

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

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

_PROBE = 3_600_000
"""How many of each are priced: whole millions would do for tokens, and whole hours for audio."""

_TOKENS: Final[Mapping[str, tuple[str, ...]]] = {
    "fresh": ("input_tokens",),
    "cache_read": ("input_tokens", "cache_read_tokens"),
    "cache_write": ("input_tokens", "cache_write_tokens"),
    "cache_write_1h": ("input_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    "spoken": ("output_tokens",),
    "reasoning": ("output_tokens", "output_reasoning_tokens"),
    "audio": ("input_tokens", "input_audio_tokens"),
    "image": ("input_tokens", "input_image_tokens"),
    "cache_read_audio": ("input_tokens", "cache_read_tokens", "input_audio_tokens", "cache_audio_read_tokens"),
    "spoken_audio": ("output_tokens", "output_audio_tokens"),
    "spoken_image": ("output_tokens", "output_image_tokens"),
    "web_search": ("web_searches",),
    "storage_search": ("storage_searches",),
    "code_execution": ("code_executions",),
}
"""Our kinds in the list's words: each is a part of all that are named before it."""

_LENGTH = ("audio_seconds", "input_audio_seconds")
_CHARGED = {"input_mtok", "output_mtok", "requests_kcount", "audio_hours", "input_audio_hours"}


class Listed:
    """A model on the price list. Its price may depend on date, hour, service tier, and on how much goes in ("cliff")."""

    def __init__(self, model: "ModelInfo", *, has_tiers: bool) -> None:
        self._model = model
        self._has_tiers = has_tiers
        self._rates: dict[int | str, Rates | None] = {}

    def rate(self, input_tokens: int, at_ms: int, service_tier: str) -> tuple[Rate, bool] | None:
        """The rate, and whether it is that of the tier; None when the model is on the list without a price that applies."""
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        context = _context(service_tier) if service_tier and self._has_tiers else None
        tiered = context is not None and any(
            (variant.constraint is None or variant.constraint.active(at))
            and all(context.get(name) == value for name, value in variant.when.items())
            for variant in self._model.price_variants or ()
        )
        prices = self._model.get_prices(at, context if tiered else None)
        # The list's own objects live as long as the process; a tier's prices are put together anew for each call.
        key = repr(prices) if tiered else id(prices)
        if key not in self._rates:
            self._rates[key] = _rates(prices)
        rates = self._rates[key]
        return (rates.of(input_tokens), tiered) if rates else None


def _context(service_tier: str) -> dict[str, str]:
    """By what the list selects the prices of a tier."""
    match service_tier:
        case "batch":
            return {"processing": "batch"}
        case "fast":
            return {"service_tier": "fast", "speed": "fast"}
        case _:
            return {"service_tier": service_tier}


@lru_cache(maxsize=4096)
def house(provider: str, provider_model: str) -> tuple[str, str]:
    """The list's name of who bills, and the name of the model there."""
    if provider == "litellm":
        # Whom LiteLLM asks stands before the model's name.
        provider, _, provider_model = provider_model.partition("/")
    return LISTED_AS.get(provider, provider), provider_model


@lru_cache(maxsize=1024)
def listed(name: str, provider_model: str) -> Listed | None:
    """The model on the list of the house of this name."""
    from genai_prices.data import providers

    # By its exact name: genai-prices would take whatever has "openai" in its name for OpenAI.
    found = next((one for one in providers if one.id == name), None)
    model = found.find_model(provider_model, all_providers=providers) if found else None
    if found is None or model is None:
        return None
    # Service tiers are those of the model's own house, not of who resells it.
    return Listed(model, has_tiers=bool(model.price_variants) and any(model is own for own in found.models))


@cache
def list_version() -> str:
    from genai_prices import __version__

    return f"genai-prices:{__version__}"


def _rates(prices: "ModelPrice") -> Rates | None:
    """The prices as rates. What the kinds cost is asked of genai-prices itself, many of each, within each band."""
    from genai_prices.types import TieredPrices

    known: dict[str, Decimal | TieredPrices] = {name: value for name, value in vars(prices).items() if value is not None}
    if not known.keys() & _CHARGED:
        return None
    tiered = [value for value in known.values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    bands = [_band_rate({name: _in_band(value, start) for name, value in known.items()}) for start in (-1, *starts)]
    return Rates(tuple(starts), tuple(bands))


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
    nothing = dict.fromkeys((*(name for names in _TOKENS.values() for name in names), *_LENGTH), 0)

    def cost(names: tuple[str, ...] = ()) -> int:
        return scaled(prices.calc_price(ListUsage(**(nothing | dict.fromkeys(names, _PROBE))))["total_price"])

    call = cost()
    each = {kind: (cost(names) - call) // _PROBE for kind, names in _TOKENS.items()}
    return Rate(**each, call=call, audio_ms=(cost(_LENGTH) - call) // (_PROBE * 1000))
