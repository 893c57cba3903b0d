"""What the house has negotiated: which entry holds, and what it does to a price."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.prices import PriceBook, Priced
from infra.prices.capacity import spread
from infra.prices.rate import UNITS, Rate, parts
from schemas.control import Price, SomePrices
from schemas.prices import CallPrices, Capacity, Hours, PriceEntry, TokenPrices
from schemas.usage import COUNTS, Usage
from tests.unit.infra.prices.test_book import usages
from tests.unit.infra.prices.test_worked_cases import Table

DAY = date(2026, 11, 20)
NOW = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
OWN = Price(input_usd=Decimal("0.000001"), output_usd=Decimal("0.000002"))
FLAT = TokenPrices(input=Decimal(1), output=Decimal(2))
MILLION = Usage(input_tokens=1_000_000)


def entry(name: str = "e", **members: Any) -> PriceEntry:
    return PriceEntry.model_validate({"name": name, "since": date(2026, 1, 1), **members})


def book(*entries: PriceEntry) -> PriceBook:
    return PriceBook(Table(prices={one.name: one for one in entries}))


def price(of: PriceBook, usage: Usage = MILLION, own: Price | None = None, tier: str = "", **where: Any) -> Priced:
    told: dict[str, Any] = {"provider": "openai", "model": "gpt-5", "at_ms": NOW, "deployment": "d", "region": None} | where
    return of.price(
        told["provider"], told["model"], usage, told["at_ms"], own, tier, deployment=told["deployment"], region=told["region"]
    )


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        ({}, True),
        ({"provider": "openai"}, True),
        ({"provider": "azure"}, False),
        ({"model": "gpt-5"}, True),
        ({"model": "gpt-*"}, True),
        ({"model": "gpt-4*"}, False),
        ({"deployment": "d"}, True),
        ({"deployment": "other"}, False),
        ({"provider": "openai", "model": "o*"}, False),
        ({"since": date(2026, 11, 20)}, True),
        ({"since": date(2026, 11, 21)}, False),
        ({"until": date(2026, 11, 20)}, False),
        ({"until": date(2026, 11, 21)}, True),
    ],
)
def test_an_entry_holds_for_what_it_names_and_from_its_day_on(names: dict[str, Any], fits: bool) -> None:
    priced = price(book(entry(per_million=FLAT, **names)))
    assert priced.version == ("prices+e@1" if fits else "genai-prices:0.2.3")


def test_the_entry_that_names_most_is_believed_member_by_member() -> None:
    everywhere = entry("all", margin="1.1", multiplier="0.5")
    openai = entry("openai", provider="openai", multiplier="0.9", per_million=FLAT)
    old, new = (
        entry("old", model="gpt-5", multiplier="0.8"),
        entry("new", model="gpt-5", multiplier="0.7", since=date(2026, 6, 1)),
    )
    priced = price(book(everywhere, openai, old, new))
    assert (priced.cost_usd, priced.margin_usd) == (Decimal("0.77"), Decimal("0.07"))
    assert priced.version == "prices+new@1+openai@1+all@1"


def test_a_change_of_the_entries_is_seen() -> None:
    table = Table(prices={"e": entry(per_million=FLAT)})
    of = PriceBook(table)
    assert price(of).cost_usd == 1
    table.prices["e"], table.version = entry(per_million=FLAT, multiplier="0.5", version=2), 1
    assert price(of) == Priced(Decimal("0.5"), "prices+e@2")


def test_a_discount_holds_for_a_price_beside_a_deployment_only_where_it_names_that() -> None:
    assert price(book(entry(provider="openai", multiplier="0.5", per_million=FLAT)), own=OWN).cost_usd == 1
    assert price(book(entry(deployment="d", multiplier="0.5")), own=OWN).cost_usd == Decimal("0.5")
    assert price(book(entry(provider="openai", margin=2)), own=OWN).cost_usd == 2


def test_a_surcharge_by_region() -> None:
    of = book(entry(per_million=FLAT, regions={"eu": "1.1"}))
    assert price(of, region="eu").cost_usd == Decimal("1.1")
    assert price(of, region="us").cost_usd == 1


@pytest.mark.parametrize(("hour", "usd"), [(16, "1"), (17, "0.5"), (23, "0.5"), (0, "0.5"), (1, "1")])
def test_hours_go_over_midnight(hour: int, usd: str) -> None:
    of = book(entry(per_million=FLAT, hours=[Hours(begin=time(16, 30), end=time(0, 30), multiplier=Decimal("0.5"))]))
    at = int(datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp() * 1000)
    assert price(of, at_ms=at).cost_usd == Decimal(usd)


def test_tiers_of_the_house_go_before_the_lists_and_the_providers() -> None:
    of = book(entry(tiers={"flex": "0.4", "turbo": 3}))
    standard, version = price(of).cost_usd, "genai-prices:0.2.3"
    assert price(of, tier="flex") == Priced(standard * Decimal("0.4"), f"{version}+flex*0.4+e@1")
    assert price(of, tier="turbo").cost_usd == 3 * standard
    assert price(PriceBook(), tier="flex").cost_usd == standard / 2


def test_an_own_price_of_a_tier_goes_before_any_multiplier() -> None:
    own = OWN.model_copy(update={"tiers": {"flex": SomePrices(input_usd=Decimal("0.0000003"))}})
    assert price(PriceBook(), own=own, tier="flex").cost_usd == Decimal("0.3")
    assert price(PriceBook(), own=own, tier="batch").cost_usd == Decimal("0.5")


def test_calls_have_prices_of_their_own() -> None:
    of = book(entry(per_million=FLAT, per_call=CallPrices(request=Decimal("0.001"), web_search=Decimal("0.02"))))
    assert price(of, Usage(web_searches=2)).cost_usd == Decimal("0.041")


def test_most_is_never_less_than_what_it_costs_in_the_end() -> None:
    of = book(entry(per_million=FLAT, margin="1.25", multiplier="1.1"))
    most = of.most_micro("openai", "gpt-5", 1000, 1000, NOW, None, deployment="d")
    assert most == 4125
    assert price(of, Usage(input_tokens=1000, output_tokens=1000)).cost_usd * 10**6 == most


@pytest.mark.parametrize(
    "members",
    [
        {"until": date(2025, 1, 1)},
        {"capacity": Capacity(hourly_usd=Decimal(1), tokens_per_hour=1)},
        {"capacity": Capacity(hourly_usd=Decimal(1), tokens_per_hour=1), "deployment": "d", "per_million": FLAT},
        {"margin": "0.9"},
        {"multiplier": "-1"},
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        entry(**members)


rates = st.builds(Rate, **dict.fromkeys(Rate.__slots__, st.integers(0, 10**36)))


@given(usages())
def test_each_token_is_in_exactly_one_part(usage: Usage) -> None:
    found = parts(usage)
    assert min(found.values()) >= 0
    units = sum(found[name] for name in UNITS if name != "call")
    assert sum(found.values()) - units == usage.input_tokens + usage.output_tokens


@given(rates, usages(), usages())
def test_money_is_additive_and_never_negative(rate: Rate, one: Usage, other: Usage) -> None:
    call = rate.call
    assert rate.cost(one + other) - call == rate.cost(one) - call + rate.cost(other) - call
    assert rate.cost(one) >= call >= 0


@given(rates, usages())
def test_the_short_way_gives_what_the_parts_do(rate: Rate, usage: Usage) -> None:
    rarer = ("audio", "image", "searches", "executions")
    plain = usage.model_copy(update={name: 0 for name in COUNTS if any(word in name for word in rarer)})
    assert rate.cost(plain) == rate.call + sum(getattr(rate, kind) * count for kind, count in parts(plain).items())


@given(st.decimals(0, 10**6, places=9), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_an_hour_is_spread_to_the_last_nano_dollar(usd: Decimal, tokens: list[int]) -> None:
    shares = spread(usd, tokens)
    assert min(shares) >= 0
    assert sum(shares) == (usd if sum(tokens) else 0)
