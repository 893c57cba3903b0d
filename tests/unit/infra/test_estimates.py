"""Estimates: never less than the dearest way in which a request may be answered."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import tokens
from infra.estimates import USUAL_OUTPUT_TOKENS, Dearer, Estimator, Unpriced, asked_output_tokens, dearer, output_bound
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from schemas.base import JsonObject
from schemas.budget import nano, nano_up
from schemas.control import Deployment, Model, Price
from schemas.job import Api, Estimate
from schemas.policy import Ceiling, DataPolicy, EffectivePolicy, RoutePolicy
from schemas.usage import Usage

NOW_MS = 1_795_000_000_000
POLICY = EffectivePolicy(version="1")
BOOK = PriceBook()
BODY: JsonObject = {"model": "alias", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 100}


def deployment(name: str = "d", usd: str | None = "0.001", **more: Any) -> Deployment:
    """One that costs so much a token in, and twice as much a token out."""
    price = Price(input_usd=Decimal(usd), output_usd=2 * Decimal(usd)) if usd else None
    return Deployment(id=name, provider="openai", model="nobody-knows-it", price=price, **more)


def model(*deployments: Deployment, name: str = "alias", **more: Any) -> Model:
    return Model(name=name, deployments=deployments or (deployment(),), **more)


class Bench:
    def __init__(self, *models: Model) -> None:
        self.table = ControlTable()
        for one in models or (model(),):
            self.table.put(one)
        self.estimator = Estimator(self.table, BOOK)

    async def estimate(
        self, body: JsonObject = BODY, policy: EffectivePolicy = POLICY, api: Api = Api.CHAT, *, money: bool = True
    ) -> Estimate:
        return await self.estimator.estimate(api, body, self.table.models["alias"], policy, NOW_MS, money=money)


def body(**members: Any) -> JsonObject:
    return {name: value for name, value in (BODY | members).items() if value is not None}


def cost(estimate: Estimate, usd: str) -> int:
    """What it costs where a token in costs so much, and one out twice as much."""
    return nano_up(Decimal(usd) * (estimate.input_tokens + 2 * estimate.output_tokens))


async def test_input_is_counted_with_three_per_cent_and_a_constant_on_top() -> None:
    long = body(messages=[{"role": "user", "content": "word " * 1_000}])
    counted = tokens.prompt_tokens(Api.CHAT, long)
    found = await Bench().estimate(long)
    assert (found.input_tokens, found.output_tokens) == (counted + int(counted * 0.03) + 8, 100)
    assert found.usd_nano == cost(found, "0.001")


async def test_a_very_long_prompt_is_counted_too() -> None:
    long = body(messages=[{"role": "user", "content": "word " * 20_000}])
    assert (await Bench().estimate(long)).input_tokens > 20_000


async def test_pictures_count_by_the_providers_formula() -> None:
    def shown(detail: str | None) -> JsonObject:
        image = {"url": "https://example.com/a.png"} | ({"detail": detail} if detail else {})
        return body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": image}]}])

    plain = await Bench().estimate(body(messages=[{"role": "user", "content": [{"type": "text", "text": ""}]}]))
    found = {detail: await Bench().estimate(shown(detail)) for detail in ("low", "high", None)}
    assert {detail: one.input_tokens - plain.input_tokens for detail, one in found.items()} == {
        "low": 85,
        "high": 1445,
        None: 1445,
    }


OUTPUTS: list[tuple[dict[str, Any], int | None, tuple[int | None, ...], int]] = [
    ({"max_tokens": 100}, 50, (10,), 100),
    ({"max_tokens": None, "max_completion_tokens": 70}, 50, (10,), 70),
    ({"max_tokens": 100, "max_completion_tokens": 70}, None, (), 70),
    ({"max_tokens": None}, 50, (10_000,), 50),
    ({"max_tokens": None}, None, (10, 4_096, None), 4_096),
    ({"max_tokens": None}, None, (None,), USUAL_OUTPUT_TOKENS),
    ({"max_tokens": None}, None, (), USUAL_OUTPUT_TOKENS),
    ({"max_tokens": 100, "n": 3}, None, (), 300),
    ({"max_tokens": 100, "n": 1}, None, (), 100),
    ({"max_tokens": None, "n": 2}, 50, (), 100),
    ({"max_tokens": 0}, 50, (), 50),
]


@pytest.mark.parametrize(("said", "cap", "deployments", "bound"), OUTPUTS)
def test_output_is_bounded_by_request_policy_model_in_this_order(
    said: dict[str, Any], cap: int | None, deployments: tuple[int | None, ...], bound: int
) -> None:
    policy = POLICY.model_copy(update={"max_output_tokens": cap})
    reachable = tuple(deployment(max_output_tokens=most) for most in deployments)
    assert output_bound(Api.CHAT, body(**said), policy, reachable) == bound


def test_embeddings_have_no_output() -> None:
    assert output_bound(Api.EMBEDDINGS, {"input": "a", "max_tokens": 9}, POLICY, ()) == 0


@pytest.mark.parametrize("given", [None, "100", -1, 0, [1]])
def test_what_bounds_nothing(given: Any) -> None:
    assert asked_output_tokens({"max_tokens": given}) is None


async def test_the_dearest_deployment_that_can_be_reached_counts() -> None:
    found = await Bench(model(deployment("cheap", "0.001"), deployment("dear", "0.005"))).estimate()
    assert found.usd_nano == cost(found, "0.005")


async def test_fallbacks_of_all_kinds_and_their_own_count() -> None:
    for kind in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        first = model(**{kind: ("second", "nobody")})  # pyright: ignore[reportArgumentType]
        second = model(deployment("b"), name="second", fallbacks=("third",))
        third = model(deployment("c", "0.009"), name="third", fallbacks=("alias",))
        found = await Bench(first, second, third).estimate()
        assert found.usd_nano == cost(found, "0.009"), kind


async def test_only_what_the_policy_lets_it_reach_counts() -> None:
    bench = Bench(model(deployment("eu", "0.001", region="eu"), deployment("us", "0.009", region="us")))
    eu = EffectivePolicy(version="1", data=DataPolicy(regions=("eu",)))
    found = await bench.estimate(policy=eu)
    assert found.usd_nano == cost(found, "0.001")
    anywhere = await bench.estimate(policy=EffectivePolicy(version="1"))
    assert anywhere.usd_nano == cost(anywhere, "0.009"), "another caller whose documents have the same versions"
    nowhere = EffectivePolicy(version="1", route=RoutePolicy(providers=("mistral",)))
    assert (await bench.estimate(policy=nowhere)).usd_nano == 0, "nobody may be asked"


async def test_a_change_of_the_models_counts_at_once() -> None:
    bench = Bench()
    before = await bench.estimate()
    bench.table.put(model(deployment(usd="0.003")))
    bench.table.version += 1
    assert (await bench.estimate()).usd_nano == 3 * before.usd_nano


async def test_a_prompt_may_be_written_to_a_cache_which_may_be_dearer() -> None:
    claude = Deployment(id="d", provider="anthropic", model="claude-sonnet-4-5")
    found = await Bench(model(claude)).estimate()
    written = Usage(input_tokens=found.input_tokens, cache_write_tokens=found.input_tokens, output_tokens=100)
    assert found.usd_nano == nano_up(BOOK.price("anthropic", "claude-sonnet-4-5", written, NOW_MS, None).cost_usd)


async def test_above_a_cliff_everything_is_dearer() -> None:
    claude = Deployment(id="d", provider="anthropic", model="claude-sonnet-4-5")
    long = body(messages=[{"role": "user", "content": "word " * 200_000}])
    found = await Bench(model(claude)).estimate(long)
    least = BOOK.price("anthropic", "claude-sonnet-4-5", Usage(input_tokens=200_001, output_tokens=100), NOW_MS, None)
    assert found.usd_nano > nano(least.cost_usd)
    below = BOOK.price("anthropic", "claude-sonnet-4-5", Usage(input_tokens=200_000, output_tokens=0), NOW_MS, None)
    assert found.usd_nano > 1.9 * nano(below.cost_usd)


@pytest.mark.parametrize("tier", ["priority", "fast", "flex", "auto", "default", None, 7])
async def test_a_dearer_service_tier_counts_if_it_is_asked_for(tier: Any) -> None:
    listed = Bench(model(Deployment(id="d", provider="openai", model="gpt-5")))
    usual = await listed.estimate()
    found = await listed.estimate(body(service_tier=tier))
    for answered in ("", "default", "priority" if tier in ("priority", "fast") else "flex"):
        usage = Usage(input_tokens=found.input_tokens, output_tokens=100)
        assert found.usd_nano >= nano(BOOK.price("openai", "gpt-5", usage, NOW_MS, None, answered).cost_usd)
    assert (found.usd_nano > usual.usd_nano) == (tier in ("priority", "fast"))


async def test_whoever_asks_for_no_money_needs_no_price() -> None:
    bench = Bench(model(deployment(usd=None)))
    assert (await bench.estimate(money=False)).usd_nano == 0


async def test_what_has_no_price_is_refused_and_says_what_to_do() -> None:
    bench = Bench(model(deployment(), deployment("secret", usd=None)))
    with pytest.raises(Unpriced) as refused:
        await bench.estimate()
    fault = refused.value.fault()
    assert (fault.status, fault.code, fault.param) == (403, "model_not_priced", "model")
    assert fault.message == (
        "The model `alias` has no known price at secret, so no budget in USD covers it. Ask your platform team for its price "
        "(model_info) or for a ceiling (policy: unpriced)."
    )


async def test_or_is_charged_the_ceiling_of_the_policy() -> None:
    ceiling = Ceiling(input_usd=Decimal("0.01"), output_usd=Decimal("0.02"))
    policy = EffectivePolicy(version="1", unpriced=ceiling)
    found = await Bench(model(deployment(), deployment("secret", usd=None))).estimate(policy=policy)
    assert found.usd_nano == cost(found, "0.01")


async def test_what_is_free_costs_nothing() -> None:
    echo = Deployment(id="d", provider="echo", model="echo")
    assert (await Bench(model(echo)).estimate()).usd_nano == 0


async def test_it_is_rounded_up_to_the_micro_dollar() -> None:
    found = await Bench(model(deployment(usd="0.0000000001"))).estimate()
    assert found.usd_nano == 1_000


async def test_what_more_of_an_answer_costs_is_what_it_makes_the_whole_dearer() -> None:
    claude = model(Deployment(id="d", provider="anthropic", model="claude-sonnet-4-5"))
    estimator = Bench(claude).estimator
    below = [estimator.usd_nano(BODY, claude, POLICY, 1_000, out, NOW_MS) for out in (100, 1_100)]
    above = [estimator.usd_nano(BODY, claude, POLICY, 300_000, out, NOW_MS) for out in (100, 1_100)]
    assert above[1] - above[0] > below[1] - below[0] > 0, "above a cliff the answer is dearer too"


@settings(max_examples=50, deadline=None)
@given(
    prices=st.lists(st.decimals("0.0000001", "0.01", places=9), min_size=1, max_size=4),
    answered=st.integers(0, 100),
    served=st.data(),
)
async def test_no_answer_within_its_bounds_costs_more(prices: list[Decimal], answered: int, served: st.DataObject) -> None:
    deployments = [deployment(f"d{n}", str(usd)) for n, usd in enumerate(prices)]
    found = await Bench(model(*deployments)).estimate()
    by = served.draw(st.sampled_from(deployments))
    cached = served.draw(st.integers(0, found.input_tokens))
    usage = Usage(input_tokens=found.input_tokens, cache_read_tokens=cached, output_tokens=answered)
    assert nano(BOOK.price(by.provider, by.model, usage, NOW_MS, by.price).cost_usd) <= found.usd_nano


async def test_whoever_comes_while_prices_are_read_waits() -> None:
    bench = Bench()
    bench.estimator.start()
    try:
        assert (await bench.estimate()).usd_nano > 0
    finally:
        await bench.estimator.stop()


MODERATION: JsonObject = {"input": ["one two three"]}


@pytest.mark.parametrize(("price", "is_free"), [(None, True), ("0.001", False)])
async def test_a_moderation_costs_nothing_unless_somebody_wrote_a_price(price: str | None, is_free: bool) -> None:
    found = await Bench(model(deployment("d", price))).estimate(MODERATION, api=Api.MODERATIONS)
    assert (found.usd_nano == 0) == is_free
    assert (found.output_tokens, found.input_tokens > 0) == (0, True)


async def test_where_one_of_two_has_a_price_that_is_held_and_the_other_is_no_reason_to_refuse() -> None:
    bench = Bench(model(deployment("free", None), deployment("dear", "0.001")))
    found = await bench.estimate(MODERATION, api=Api.MODERATIONS)
    assert found.usd_nano == nano_up(Decimal("0.001") * found.input_tokens)
    with pytest.raises(Unpriced):
        await bench.estimate(MODERATION, api=Api.EMBEDDINGS)


_AUDIO = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
_KEPT = {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Dearer(audio=False, hour=False)),
        ({"messages": [_AUDIO]}, Dearer(audio=True, hour=False)),
        ({"modalities": ["text", "audio"]}, Dearer(audio=True, hour=False)),
        ({"messages": [_KEPT]}, Dearer(audio=False, hour=True)),
        ({"tools": [{"type": "function", "cache_control": {"ttl": "1h"}}]}, Dearer(audio=False, hour=True)),
        ({"messages": "odd", "tools": [1], "modalities": 3}, Dearer(audio=False, hour=False)),
    ],
)
def test_what_may_cost_more_than_text_is_seen_in_the_request(said: dict[str, Any], expected: Dearer) -> None:
    assert dearer(body(**said)) == expected


async def test_a_cache_for_an_hour_is_reserved_at_its_price() -> None:
    price = Price(input_usd=Decimal("0.001"), output_usd=Decimal("0.002"), cache_write_1h_usd=Decimal("0.003"))
    bench = Bench(model(deployment().model_copy(update={"price": price})))
    plain, kept = await bench.estimate(), await bench.estimate(body(messages=[_KEPT]))
    assert plain.usd_nano == cost(plain, "0.001")
    assert kept.usd_nano == nano_up(Decimal("0.003") * kept.input_tokens + Decimal("0.002") * kept.output_tokens)
