"""What a provider call costs: the base price, times the service tier it was served in, times what the house has negotiated."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

from infra.prices import own as owned
from infra.prices.listed import house, list_version, listed
from infra.prices.overlay import NOTHING, Entries, Overlay, Terms
from infra.prices.rate import Rate, nano_usd
from infra.prices.tiers import STANDARD, TIERS
from schemas.control import Price
from schemas.job import Api
from schemas.usage import Usage

FREE = frozenset({"echo", "local"})
"""Providers without a bill."""

_NANO = Decimal("1e-9")
_ONE = Decimal(1)
_FREE_OF_CHARGE = Rate()


@dataclass(frozen=True, slots=True)
class Priced:
    """What a call cost, to the nano-dollar, half rounded up. `version` says by which price; "" if none is known, at cost 0.

    `margin_usd` is the part of it that is the house's and not the provider's.
    """

    cost_usd: Decimal
    version: str
    margin_usd: Decimal = Decimal(0)


class _Found(NamedTuple):
    rate: Rate
    version: str
    margin: Decimal


def is_free(api: Api, own: Price | None) -> bool:
    """True for what costs nothing where nobody wrote a price beside the deployment: OpenAI's moderations are on no price list."""
    return api is Api.MODERATIONS and own is None


class PriceBook:
    """Prices a call in microseconds, once `warm` has been called."""

    def __init__(self, entries: Entries | None = None) -> None:
        """`entries`: the house's own, as they stand; None: there are none."""
        self._overlay = Overlay(entries)

    def warm(self) -> None:
        """Reads the price list: 0.4 s, for a thread. Without it the first `price` that needs the list does."""
        listed("openai", "gpt-4o")

    def price(
        self,
        provider: str,
        provider_model: str,
        usage: Usage,
        at_ms: int,
        own: Price | None,
        service_tier: str = "",
        *,
        deployment: str = "",
        region: str | None = None,
    ) -> Priced:
        """The cost of a call that began at `at_ms`, answered by `provider_model` in `service_tier` (as the answer says).

        `own` is the price written beside the deployment.
        """
        found = self._rate(provider, provider_model, usage.input_tokens, at_ms, own, service_tier, deployment, region)
        if found is None or (found.rate.by_length and not usage.audio_ms):
            return Priced(Decimal(0), "")
        cost_usd = nano_usd(found.rate.cost(usage))
        if found.margin == 1:
            return Priced(cost_usd, found.version)
        margin_usd = (cost_usd * (found.margin - 1)).quantize(_NANO, ROUND_HALF_UP)
        return Priced(cost_usd + margin_usd, found.version, margin_usd)

    def hourly_usd(
        self, provider: str, provider_model: str, at_ms: int, own: Price | None, *, deployment: str, region: str | None
    ) -> Decimal | None:
        """What an hour of a deployment's capacity costs; None for what is paid by the call."""
        name, model = house(provider, provider_model)
        terms = self._overlay.terms(name, model, deployment, region or "", at_ms, own=own is not None)
        return terms.capacity.hourly_usd if terms.capacity else None

    def prices(
        self,
        provider: str,
        provider_model: str,
        input_tokens: int,
        at_ms: int,
        own: Price | None,
        service_tier: str = "",
        *,
        deployment: str = "",
        region: str | None = None,
    ) -> tuple[dict[str, Decimal], str] | None:
        """USD of a million tokens of each kind, and of one of each that is charged by the call, without the margin; and by which
        price. None if none is known."""
        found = self._rate(provider, provider_model, input_tokens, at_ms, own, service_tier, deployment, region)
        return (found.rate.shown(), found.version) if found else None

    def most_micro(
        self,
        provider: str,
        provider_model: str,
        input_tokens: int,
        output_tokens: int,
        at_ms: int,
        own: Price | None,
        service_tier: str = "",
        *,
        deployment: str = "",
        region: str | None = None,
        audio: bool = False,
        hour: bool = False,
    ) -> int | None:
        """The most that a call costs, in micro-dollars; None if no price is known. `audio`, `hour`: see Rate.most_micro."""
        found = self._rate(provider, provider_model, input_tokens, at_ms, own, service_tier, deployment, region)
        if found is None or found.rate.by_length:
            return None
        rate = found.rate if found.margin == 1 else found.rate.times(found.margin)
        return rate.most_micro(input_tokens, output_tokens, audio=audio, hour=hour)

    def _rate(
        self,
        provider: str,
        provider_model: str,
        input_tokens: int,
        at_ms: int,
        own: Price | None,
        tier: str,
        deployment: str,
        region: str | None,
    ) -> _Found | None:
        name, model = house(provider, provider_model)
        terms = self._overlay.terms(name, model, deployment, region or "", at_ms, own=own is not None)
        tier = "" if tier in STANDARD and tier != "default" else tier
        base = _base(provider, name, model, input_tokens, at_ms, own, tier, terms)
        if base is None:
            return None
        rate, version, needs_tier = base
        factor = _tier(name, tier, terms) if needs_tier and tier else _ONE
        if terms is NOTHING and factor is _ONE:
            return _Found(rate, version, _ONE)
        return _adjusted(rate, version, tier, factor, terms.at(at_ms), terms)


def _base(
    provider: str, name: str, model: str, input_tokens: int, at_ms: int, own: Price | None, tier: str, terms: Terms
) -> tuple[Rate, str, bool] | None:
    """The rate before anything is multiplied, by which price, and whether the tier has still to be counted in."""
    if own is not None:
        rates, tiers, version = owned.beside(_key(own))
        return (tiers[tier].of(input_tokens), version, False) if tier in tiers else (rates.of(input_tokens), version, True)
    if terms.capacity is not None:
        return owned.by_capacity(terms.capacity), "capacity", False  # pyright: ignore[reportArgumentType] frozen: it has a hash
    if terms.per_million is not None:
        return owned.per_million(terms.per_million), "prices", True  # pyright: ignore[reportArgumentType] frozen: it has a hash
    if provider in FREE:
        return _FREE_OF_CHARGE, "free", False
    entry = listed(name, model)
    found = entry.rate(input_tokens, at_ms, "" if tier in (terms.tiers or ()) else tier) if entry else None
    return (found[0], list_version(), not found[1]) if found else None


def _tier(name: str, tier: str, terms: Terms) -> Decimal | None:
    """So many times the standard price; None if nobody knows."""
    if tier in STANDARD:
        return _ONE
    if terms.tiers and tier in terms.tiers:
        return terms.tiers[tier]
    return TIERS.get(name, {}).get(tier)


@lru_cache(maxsize=4096)
def _adjusted(
    rate: Rate,
    version: str,
    tier: str,
    factor: Decimal | None,
    multiplier: Decimal,
    terms: Terms,
) -> _Found:
    """The rate with all that is multiplied, and a version that says what was: the same price can be worked out from it again."""
    said = [version]
    if factor is None:
        said.append(f"{_plain(tier)}?")
    elif factor != 1:
        rate = rate.times(factor, calls=False)
        said.append(f"{_plain(tier)}*{factor.normalize():f}")
    if terms.per_call is not None:
        rate = owned.with_calls(rate, terms.per_call)  # pyright: ignore[reportArgumentType] frozen: it has a hash
    return _Found(rate.times(multiplier), "+".join((*said, *terms.names)), terms.margin)


def _plain(tier: str) -> str:
    """A provider's word, which may be anything."""
    return "".join(c for c in tier[:32] if c.isalnum() or c in "_-.")


_keys: dict[int, tuple[Price, str]] = {}


def _key(own: Price) -> str:
    """The price as text. One object stands for as long as its deployment does, and is asked for on each call."""
    known = _keys.get(id(own))
    if known is None or known[0] is not own:
        if len(_keys) > 4096:
            _keys.clear()
        known = _keys[id(own)] = own, own.model_dump_json()
    return known[1]
