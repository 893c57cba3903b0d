"""The fifteen cases of CONVENTIONS.md ("Cases to work out by hand"), each with its cost worked out by hand in its comment.

Prices are USD for a million tokens unless said otherwise. The list's are those of genai-prices 0.2.3; what a case is about is
written
beside the deployment, so that no new version of the list moves it. Cases 8 to 11 end to end: tests/faults, tests/integration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from infra.prices import PriceBook
from infra.prices.capacity import spread
from infra.usage import canonical
from schemas.anthropic.answers import Usage as AnthropicUsage
from schemas.base import JsonObject
from schemas.control import Cliff, Price
from schemas.prices import Capacity, PriceEntry
from schemas.usage import Usage
from services.router.providers.anthropic_answer import chat_usage as of_anthropic
from services.router.providers.bedrock_answer import chat_usage as of_bedrock
from services.router.providers.google.answers import chat_usage as of_google


@dataclass
class Table:
    version: int = 0
    prices: dict[str, PriceEntry] = field(default_factory=dict[str, PriceEntry])


def at(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp() * 1000)  # pyright: ignore[reportArgumentType]


NOW = at(2026, 11, 20)
BOOK = PriceBook()


def per_million(given: float | str, made: float | str, **others: float | str) -> Price:
    usd = {"input": given, "output": made, **others}
    return Price.model_validate({f"{name}_usd": Decimal(str(value)) / 10**6 for name, value in usd.items()})


def cost(
    raw: JsonObject | None, price: Price | None, provider: str = "openai", model: str = "m", tier: str = "", when: int = NOW
) -> str:
    usage = canonical(raw)
    assert usage is not None
    priced = BOOK.price(provider, model, usage, when, price, tier)
    return f"{priced.cost_usd:f}"


def openai(
    given: int, made: int, prompt: Mapping[str, int] | None = None, completion: Mapping[str, int] | None = None
) -> JsonObject:
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "prompt_tokens_details": dict(prompt or {}),
        "completion_tokens_details": dict(completion or {}),
    }


def anthropic(**told: Any) -> JsonObject | None:
    return of_anthropic(AnthropicUsage.model_validate(told))


def test_case_1_cached_tokens_are_a_part_of_the_prompt() -> None:
    """4,814 − 4,736 = 78 fresh at 1.25, 4,736 at 0.125, 10 out at 10: (97.5 + 592 + 100) / 10^6 = 0.0007895."""
    raw = openai(4814, 10, {"cached_tokens": 4736})
    assert cost(raw, per_million(1.25, 10, cache_read=0.125)) == "0.000789500"
    assert cost(raw, None, "openai", "gpt-5") == "0.000789500"


def test_case_2_anthropics_input_is_the_uncached_rest() -> None:
    """504 at 3, 123 written at 3.75, 2,000 read at 0.30, 97 out at 15: (1,512 + 461.25 + 600 + 1,455) / 10^6 = 0.00402825."""
    raw = anthropic(input_tokens=504, cache_creation_input_tokens=123, cache_read_input_tokens=2000, output_tokens=97)
    assert cost(raw, None, "anthropic", "claude-sonnet-4-5") == "0.004028250"
    bedrock: JsonObject = {"inputTokens": 504, "cacheWriteInputTokens": 123, "cacheReadInputTokens": 2000, "outputTokens": 97}
    assert cost(of_bedrock(bedrock), per_million(3, 15, cache_read="0.3", cache_write=3.75)) == "0.004028250"


def test_case_3_writes_for_an_hour_beside_writes_for_five_minutes() -> None:
    """10 at 3, 100 written for 5 min at 3.75, 200 for 1 h at 6, 50 out at 15: (30 + 375 + 1,200 + 750) / 10^6 = 0.002355."""
    kept = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
    raw = anthropic(input_tokens=10, cache_creation_input_tokens=300, cache_creation=kept, output_tokens=50)
    assert cost(raw, None, "anthropic", "claude-sonnet-4-5") == "0.002355000"


GEMINI: JsonObject = {
    "promptTokenCount": 250_000,
    "cachedContentTokenCount": 100_000,
    "toolUsePromptTokenCount": 1_000,
    "candidatesTokenCount": 500,
    "thoughtsTokenCount": 1_500,
}


def test_case_4_gemini_with_thoughts_cached_content_and_above_its_cliff() -> None:
    """Above 200,000 in, all at 2.50 / 0.25 / 15. In: 250,000 and 1,000 that tools gave, of which 100,000 cached: 151,000 at
    2.50 and
    100,000 at 0.25; out 500 and 1,500 thoughts, added, at 15: (377,500 + 25,000 + 30,000) / 10^6 = 0.4325."""
    cliff = Cliff(
        above_tokens=200_000, input_usd=Decimal("2.5e-6"), output_usd=Decimal("15e-6"), cache_read_usd=Decimal("0.25e-6")
    )
    price = per_million(1.25, 10, cache_read="0.125").model_copy(update={"cliffs": (cliff,)})
    assert cost(of_google(GEMINI), price, "gemini", "m") == "0.432500000"
    assert cost(of_google(GEMINI), None, "gemini", "gemini-2.5-pro") == "0.432500000"
    below: JsonObject = {**GEMINI, "promptTokenCount": 199_000}
    # 100,000 fresh at 1.25, 100,000 at 0.125, 2,000 at 10: (125,000 + 12,500 + 20,000) / 10^6; exactly 200,000 is not above.
    assert cost(of_google(below), price, "gemini", "m") == "0.157500000"


def test_case_5_a_cliff_a_cache_write_and_a_price_that_fell() -> None:
    """GPT-5.6 Luna, 300,000 in of which 50,000 written, 1,000 out, above 272,000.
    Before 2026-07-30: 250,000 at 2, 50,000 at 2.50, 1,000 at 9: (500,000 + 125,000 + 9,000) / 10^6 = 0.634.
    From then on: 250,000 at 0.40, 50,000 at 0.50, 1,000 at 1.80: (100,000 + 25,000 + 1,800) / 10^6 = 0.1268."""
    raw = openai(300_000, 1_000, {"cache_write_tokens": 50_000})
    before, after = at(2026, 7, 29, 23, 59), at(2026, 7, 30)
    assert cost(raw, None, "openai", "gpt-5.6-luna", when=before) == "0.634000000"
    assert cost(raw, None, "openai", "gpt-5.6-luna", when=after) == "0.126800000"


@pytest.mark.parametrize(("answered", "usd"), [("default", "0.002000000"), ("flex", "0.001000000"), ("priority", "0.004000000")])
def test_case_6_the_tier_in_the_answer_is_charged_whatever_was_asked(answered: str, usd: str) -> None:
    """1,000 at 1 and 500 at 2: 0.002; flex is half, priority twice. Books only ever give the tier of the answer."""
    assert cost(openai(1000, 500), per_million(1, 2), tier=answered) == usd


def test_case_6_a_tier_that_nobody_knows_is_charged_as_standard_and_says_so() -> None:
    priced = BOOK.price("openai", "m", Usage(input_tokens=1000), NOW, per_million(1, 2), "tur bo+1")
    assert priced.cost_usd == Decimal("0.001")
    assert priced.version.endswith("+turbo1?")


def test_case_7_a_batch_line_with_cached_tokens_is_half_of_all_its_tokens() -> None:
    """1,000 in of which 600 cached, 100 out at 2.50 / 1.25 / 10: (1,000 + 750 + 1,000) / 10^6 = 0.00275, half: 0.001375."""
    raw, price = openai(1000, 100, {"cached_tokens": 600}), per_million(2.5, 10, cache_read=1.25)
    assert cost(raw, price, tier="batch") == "0.001375000"
    assert cost(raw, price) == "0.002750000", "our own batch lane over live calls"


def test_case_8_a_cut_stream_is_charged_by_what_came_or_by_what_was_told() -> None:
    """Told: 20 in, 60 out at 1 and 2: 0.00014, though 40 came. Not told: 20 and 40 counted here: 0.0001."""
    assert cost(openai(20, 60), per_million(1, 2)) == "0.000140000"
    counted = Usage(input_tokens=20, output_tokens=40, source="estimated")
    assert BOOK.price("openai", "m", counted, NOW, per_million(1, 2)).cost_usd == Decimal("0.0001")


def test_case_9_and_10_each_call_of_a_job_has_its_cost_and_the_job_their_sum() -> None:
    """A hedge: both answered, 100 in and 10 out each at 1 and 2: 0.00012 twice. A 429 whose body tells 100 in: 0.0001 more."""
    told: list[JsonObject] = [openai(100, 10), openai(100, 10), {"prompt_tokens": 100, "completion_tokens": 0}]
    each = [Decimal(cost(raw, per_million(1, 2))) for raw in told]
    assert each == [Decimal("0.00012"), Decimal("0.00012"), Decimal("0.0001")]
    assert sum(each) == Decimal("0.00034")


def test_case_11_no_call_no_cost() -> None:
    """An exact or semantic hit, and who follows another's flight, make no attempt: nothing is priced. What nobody used is
    free."""
    assert BOOK.price("openai", "m", Usage(), NOW, per_million(1, 2)).cost_usd == 0


def test_case_12_embeddings_images_audio_and_searches() -> None:
    """Embeddings, 1,000 at 0.02: 0.00002. 1,000 in of which 200 audio and 300 image at 1 / 40 / 5, 100 out of which 60 audio at
    2 / 80: (500 + 8,000 + 1,500 + 80 + 4,800) / 10^6 = 0.01488. 90.5 s at 0.0001: 0.00905. Three searches at 10 a thousand and
    100 in at 3, 10 out at 15: 0.03 + 0.00045 = 0.03045."""
    assert cost({"prompt_tokens": 1000, "total_tokens": 1000}, None, "openai", "text-embedding-3-small") == "0.000020000"
    raw = openai(1000, 100, {"audio_tokens": 200, "image_tokens": 300}, {"audio_tokens": 60})
    assert cost(raw, per_million(1, 2, input_audio=40, input_image=5, output_audio=80)) == "0.014880000"
    by_length = Price(input_usd=Decimal(0), output_usd=Decimal(0), audio_second_usd=Decimal("0.0001"))
    assert cost({"type": "duration", "seconds": 90.5}, by_length) == "0.009050000"
    searched = anthropic(input_tokens=100, output_tokens=10, server_tool_use={"web_search_requests": 3})
    assert cost(searched, None, "anthropic", "claude-sonnet-4-5") == "0.030450000"
    assert cost(searched, None, "anthropic", "claude-sonnet-4-5", "batch") == "0.030225000", "searches cost the same in a batch"


def test_case_13_no_price_is_not_a_price_of_zero_and_a_stated_zero_stays() -> None:
    unknown = BOOK.price("openai", "nobody-knows-it", Usage(input_tokens=9), NOW, None)
    assert (unknown.cost_usd, unknown.version) == (0, "")
    free = BOOK.price("openai", "nobody-knows-it", Usage(input_tokens=9), NOW, per_million(0, 0))
    assert free.cost_usd == 0
    assert free.version.startswith("config:")
    zero = canonical(openai(0, 0))
    assert zero is not None
    assert zero.source == "provider"
    assert BOOK.price("openai", "m", zero, NOW, per_million(1, 2)).cost_usd == 0


def test_case_14_rejected_predictions_are_in_the_output_and_charged_once() -> None:
    """50 out, of which 20 were predicted and rejected, at 2: 0.0001; 100 in at 1: 0.0001."""
    raw = openai(100, 50, None, {"accepted_prediction_tokens": 5, "rejected_prediction_tokens": 20})
    usage = canonical(raw)
    assert usage is not None
    assert usage.rejected_prediction_tokens == 20
    assert cost(raw, per_million(1, 2)) == "0.000200000"


def test_case_15_capacity_at_30_per_cent_use() -> None:
    """100 an hour for 1,000,000 tokens: a call is booked at 0.0001 a token. 300,000 were used: 30 are booked, and the hour's
    100 are
    spread over them afterwards: 100,000 tokens cost 33.33…, 200,000 cost 66.66…, together 100 to the nano-dollar."""
    capacity = Capacity(hourly_usd=Decimal(100), tokens_per_hour=1_000_000)
    entry = PriceEntry(name="ptu", deployment="eu", since=date(2026, 1, 1), capacity=capacity, version=3)
    book = PriceBook(Table(prices={"ptu": entry}))
    usages = [Usage(input_tokens=90_000, output_tokens=10_000), Usage(input_tokens=150_000, output_tokens=50_000)]
    booked = [book.price("azure", "gpt-4o", usage, NOW, None, "provisioned", deployment="eu") for usage in usages]
    assert [one.cost_usd for one in booked] == [Decimal(10), Decimal(20)]
    assert {one.version for one in booked} == {"capacity+ptu@3"}
    shares = spread(Decimal(100), [usage.input_tokens + usage.output_tokens for usage in usages])
    assert shares == [Decimal("33.333333333"), Decimal("66.666666667")]
    assert sum(shares) == 100
