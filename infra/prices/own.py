"""Prices that somebody of the house wrote: beside a deployment, or in the overlay."""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from infra.prices.rate import Rate, Rates, scaled
from schemas.control import Price, SomePrices
from schemas.prices import CallPrices, Capacity, TokenPrices

_MILLION = 1_000_000

_AS = {
    "cache_read": "fresh",
    "cache_write": "fresh",
    "cache_write_1h": "cache_write",
    "audio": "fresh",
    "image": "fresh",
    "cache_read_audio": "cache_read",
    "reasoning": "spoken",
    "spoken_audio": "spoken",
    "spoken_image": "spoken",
}
"""What a kind costs as that has no price of its own, in the order in which that is worked out."""


@lru_cache(maxsize=1024)
def beside(price: str) -> tuple[Rates, Mapping[str, Rates], str]:
    """A `Price` (its JSON, for it is no key itself) as rates, those of its tiers, and its version."""
    own = Price.model_validate_json(price)
    kinds = {
        "fresh": own.input_usd,
        "spoken": own.output_usd,
        "cache_read": own.cache_read_usd,
        "cache_write": own.cache_write_usd,
        "cache_write_1h": own.cache_write_1h_usd,
        "reasoning": own.reasoning_usd,
        "audio": own.input_audio_usd,
        "image": own.input_image_usd,
        "spoken_audio": own.output_audio_usd,
        "spoken_image": own.output_image_usd,
        "call": own.request_usd,
        "audio_ms": own.audio_second_usd / 1000,
    }
    cliffs = sorted(own.cliffs, key=lambda cliff: cliff.above_tokens)
    bands = [_rate(kinds), *(_rate(kinds | _given(cliff)) for cliff in cliffs)]
    starts = tuple(cliff.above_tokens for cliff in cliffs)
    tiers = {name: Rates((), (_rate(kinds | _given(prices)),)) for name, prices in sorted(own.tiers.items())}
    rates = Rates(starts, tuple(bands))
    digest = hashlib.sha256(repr((rates, tiers)).encode()).hexdigest()[:12]
    return rates, tiers, f"config:{digest}"


@lru_cache(maxsize=1024)
def per_million(prices: TokenPrices) -> Rate:
    return _rate(
        {
            "fresh": prices.input / _MILLION,
            "spoken": prices.output / _MILLION,
            **{kind: None if usd is None else usd / _MILLION for kind, usd in _kinds(prices)},
        }
    )


@lru_cache(maxsize=1024)
def with_calls(rate: Rate, prices: CallPrices) -> Rate:
    """The rate with other prices for what is charged by the call."""
    given = {
        "call": prices.request,
        "web_search": prices.web_search,
        "storage_search": prices.storage_search,
        "code_execution": prices.code_execution,
        "audio_ms": None if prices.audio_second is None else prices.audio_second / 1000,
    }
    kept = {name: getattr(rate, name) for name in Rate.__slots__}
    return Rate(**(kept | {name: scaled(usd) for name, usd in given.items() if usd is not None}))


@lru_cache(maxsize=1024)
def by_capacity(capacity: Capacity) -> Rate:
    """A token's share of what an hour could do, rounded up."""
    each = -(-scaled(capacity.hourly_usd) // capacity.tokens_per_hour)
    return Rate(**dict.fromkeys(("fresh", "spoken", *_AS), each))


def _kinds(prices: TokenPrices) -> list[tuple[str, Decimal | None]]:
    return [
        ("cache_read", prices.cache_read),
        ("cache_write", prices.cache_write),
        ("cache_write_1h", prices.cache_write_1h),
        ("reasoning", prices.reasoning),
        ("audio", prices.input_audio),
        ("image", prices.input_image),
        ("cache_read_audio", prices.cache_read_audio),
        ("spoken_audio", prices.output_audio),
        ("spoken_image", prices.output_image),
    ]


def _given(prices: SomePrices) -> dict[str, Decimal | None]:
    given = {
        "fresh": prices.input_usd,
        "spoken": prices.output_usd,
        "cache_read": prices.cache_read_usd,
        "cache_write": prices.cache_write_usd,
    }
    return {kind: usd for kind, usd in given.items() if usd is not None}


def _rate(kinds: Mapping[str, Decimal | None]) -> Rate:
    """A rate of what is given in USD, the rest as `_AS` says."""
    known = {kind: scaled(usd) for kind, usd in kinds.items() if usd is not None}
    for kind, whole in _AS.items():
        known.setdefault(kind, known[whole])
    return Rate(**known)
