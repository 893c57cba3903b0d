"""`sluice prices`, and which deployments have none."""

from datetime import date
from decimal import Decimal

import pytest

from infra.prices.rate import UNITS
from schemas.base import JsonObject
from schemas.control import Deployment, Model, Price
from schemas.prices import PriceEntry, TokenPrices
from services.cli.pricing import Other, book, now_ms, others, unpriced

FLAT = TokenPrices(input=Decimal(1), output=Decimal(2))
ENTRY = PriceEntry(name="house", provider="vllm", since=date(2026, 1, 1), per_million=FLAT)


def model(*deployments: Deployment) -> Model:
    return Model(name="fast", deployments=deployments)


def deployment(provider: str, name: str, price: Price | None = None) -> Deployment:
    return Deployment(id=f"{provider}/{name}", provider=provider, model=name, price=price)


def test_what_has_no_price_is_named() -> None:
    models = [model(deployment("openai", "gpt-5"), deployment("vllm", "m"), deployment("echo", "e"))]
    assert list(unpriced(models)) == [("fast", "vllm/m")]
    assert list(unpriced(models, [ENTRY])) == []


@pytest.mark.parametrize(
    ("public", "found"),
    [
        ({}, []),
        ({"m": {"litellm_provider": "vllm", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}}, []),
        ({"m": {"litellm_provider": "another", "input_cost_per_token": 9}}, []),
        (
            {"vllm/m": {"input_cost_per_token": 3e-06, "cache_read_input_token_cost": 1e-07}},
            [("fresh", "1", "3.000000"), ("cache_read", "1", "0.1000000")],
        ),
    ],
)
def test_the_public_map_is_a_second_opinion(public: dict[str, JsonObject], found: list[tuple[str, str, str]]) -> None:
    expected = [Other("fast", "vllm/m", kind, Decimal(ours), Decimal(theirs)) for kind, ours, theirs in found]
    assert list(others([model(deployment("vllm", "m"))], [ENTRY], public)) == expected


def test_prices_are_shown_for_a_million_tokens_and_for_one_call() -> None:
    found = book([ENTRY]).prices("vllm", "m", 1, now_ms(), None)
    assert found is not None
    shown, version = found
    assert version == "prices+house@1"
    assert {name: shown[name] for name in ("fresh", "cache_read", "spoken", *UNITS)} == {
        "fresh": 1,
        "cache_read": 1,
        "spoken": 2,
        **dict.fromkeys(UNITS, 0),
    }
