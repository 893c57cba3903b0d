"""Money: worked cases, and the price list's own arithmetic as the judge of ours."""

import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
import pytest
from genai_prices.data import providers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.prices import LISTED_AS, PriceBook, Priced
from schemas.control import Price
from schemas.usage import Usage

NANO = Decimal("1e-9")
AT = datetime(2026, 11, 1, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
LISTED = f"genai-prices:{genai_prices.__version__}"
BOOK = PriceBook()


def usd(price: Priced) -> Decimal:
    assert price.cost_usd == price.cost_usd.quantize(NANO)
    return price.cost_usd


@st.composite
def usages(draw: st.DrawFn, most: int = 2_000_000) -> Usage:
    count = st.integers(0, most) | st.just(0)
    fresh, read, short, hour, audio, image, cached_audio = (draw(count) for _ in range(7))
    spoken, reasoning, spoken_audio, spoken_image = (draw(count) for _ in range(4))
    out = spoken + reasoning + spoken_audio + spoken_image
    return Usage(
        input_tokens=fresh + read + short + hour + audio + image + cached_audio,
        cache_read_tokens=read + cached_audio,
        cache_write_tokens=short + hour,
        cache_write_1h_tokens=hour,
        output_tokens=out,
        reasoning_tokens=reasoning,
        input_audio_tokens=audio + cached_audio,
        cache_read_audio_tokens=cached_audio,
        input_image_tokens=image,
        output_audio_tokens=spoken_audio,
        output_image_tokens=spoken_image,
        rejected_prediction_tokens=draw(st.integers(0, out)),
        web_searches=draw(st.integers(0, 9)),
        storage_searches=draw(st.integers(0, 9)),
        code_executions=draw(st.integers(0, 9)),
    )


prices = st.decimals(0, "0.01", allow_nan=False, places=15)
own_prices = st.builds(Price, input_usd=prices, output_usd=prices, cache_read_usd=st.none() | prices)
tiers = st.sampled_from(["", "default", "batch", "flex", "priority", "fast", "somebody's"])
moments = st.datetimes(datetime(2023, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))
# An id may name a family that no model answers to.
listed = st.sampled_from(
    [(p.id, model.id) for p in providers for model in p.models if p.find_model(model.id, all_providers=providers)]
)


class TestWorkedCases:
    CACHED = Usage(input_tokens=4814, cache_read_tokens=4736, output_tokens=10)
    OWN = Price(input_usd=Decimal("0.00000125"), output_usd=Decimal("0.00001"), cache_read_usd=Decimal("0.000000125"))

    def test_cached_tokens_are_a_part_of_the_input_and_paid_once(self) -> None:
        """CONVENTIONS.md, case 1: $1.25, $0.125 and $10 a million. Seen in the field instead: $0.0067095."""
        assert usd(BOOK.price("openai", "gpt-5", self.CACHED, AT_MS, None)) == Decimal("0.0007895")
        assert usd(BOOK.price("openai", "any", self.CACHED, AT_MS, self.OWN)) == Decimal("0.0007895")

    def test_an_own_price_without_cached_tokens_charges_them_as_input(self) -> None:
        own = self.OWN.model_copy(update={"cache_read_usd": None})
        assert usd(BOOK.price("openai", "any", self.CACHED, AT_MS, own)) == Decimal("0.0061175")

    def test_anthropic_reads_and_writes(self) -> None:
        """CONVENTIONS.md, case 2, at $3, $3.75, $0.30 and $15 a million."""
        usage = Usage(input_tokens=504 + 123 + 2000, cache_write_tokens=123, cache_read_tokens=2000, output_tokens=97)
        expected = Decimal(504 * 3 + 97 * 15) / 10**6 + Decimal(123) * Decimal("3.75e-6") + Decimal(2000) * Decimal("0.3e-6")
        assert usd(BOOK.price("anthropic", "claude-sonnet-4-5", usage, AT_MS, None)) == expected

    def test_above_a_cliff_every_token_has_the_higher_price(self) -> None:
        def cost(tokens: int) -> Decimal:
            return usd(BOOK.price("gemini", "gemini-2.5-pro", Usage(input_tokens=tokens), AT_MS, None))

        assert cost(200_000) == Decimal("0.25")
        assert cost(200_001) == Decimal("0.5000025")

    def test_a_price_of_zero_is_a_price(self) -> None:
        free = Price(input_usd=Decimal(0), output_usd=Decimal(0))
        price = BOOK.price("openai", "gpt-5", self.CACHED, AT_MS, free)
        assert price.cost_usd == 0
        assert price.version.startswith("config:")

    def test_half_a_nano_dollar_is_rounded_up(self) -> None:
        own = Price(input_usd=Decimal("0.0000000005"), output_usd=Decimal("0.00000000049"))
        assert usd(BOOK.price("x", "x", Usage(input_tokens=1), AT_MS, own)) == NANO
        assert usd(BOOK.price("x", "x", Usage(output_tokens=1), AT_MS, own)) == 0


@pytest.mark.parametrize("provider", ["echo", "local"])
def test_our_own_providers_are_free(provider: str) -> None:
    assert BOOK.price(provider, "gpt-5", Usage(input_tokens=9), AT_MS, None) == Priced(Decimal(0), "free")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("nobody", "gpt-5"),
        ("my-openai-proxy", "gpt-5"),
        ("", ""),
        # Paid by the second of audio, of which a usage tells nothing.
        ("groq", "whisper-large-v3"),
    ],
)
def test_what_has_no_price_says_so(provider: str, model: str) -> None:
    assert BOOK.price(provider, model, Usage(input_tokens=9), AT_MS, None) == Priced(Decimal(0), "")


@pytest.mark.parametrize("name", sorted(LISTED_AS))
def test_other_names_of_providers_lead_to_the_list(name: str) -> None:
    assert LISTED_AS[name] in {provider.id for provider in providers}
    assert name not in {provider.id for provider in providers}


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-mini-2024-07-18"),
        ("azure", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20250929"),
        ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("vertex_ai", "gemini-2.5-flash"),
        ("mistral", "mistral-large-latest"),
        ("groq", "llama-3.3-70b-versatile"),
        ("xai", "grok-4"),
        ("cohere", "command-r-plus"),
        ("deepseek", "deepseek-chat"),
        ("openai", "text-embedding-3-small"),
    ],
)
def test_the_usual_models_have_a_price(provider: str, model: str) -> None:
    price = BOOK.price(provider, model, Usage(input_tokens=1_000_000), AT_MS, None)
    assert price.cost_usd > 0
    assert price.version == LISTED


@settings(max_examples=300, deadline=None)
@given(listed, usages(), moments, tiers)
def test_the_kept_rates_give_what_the_list_itself_calculates(
    entry: tuple[str, str], usage: Usage, at: datetime, tier: str
) -> None:
    provider, model = entry
    # Of some models the list wants to be told how much of the images, or of the searches, was cached: it gives no sum without.
    assume(not (usage.cache_read_tokens and usage.input_image_tokens))
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            input_audio_tokens=usage.input_audio_tokens,
            input_image_tokens=usage.input_image_tokens,
            cache_audio_read_tokens=usage.cache_read_audio_tokens,
            output_audio_tokens=usage.output_audio_tokens,
            output_image_tokens=usage.output_image_tokens,
            web_searches=usage.web_searches,
            storage_searches=usage.storage_searches,
            code_executions=usage.code_executions,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context={"service_tier": tier, "processing": tier, "speed": tier} if tier else None,
    )
    ours = BOOK.price(provider, model, usage, round(at.timestamp() * 1000), None, tier)
    version, _, said = ours.version.partition("+")
    assert version in (LISTED, "")
    if "*" not in said:
        assert said in ("", f"{tier}?".replace("'", ""))
        assert usd(ours) == theirs.total_price.quantize(NANO, ROUND_HALF_UP)
        return
    # The list has no price of its own for this tier: all tokens cost so many times as much, searches do not.
    searches = Usage(
        web_searches=usage.web_searches, storage_searches=usage.storage_searches, code_executions=usage.code_executions
    )
    others = BOOK.price(provider, model, searches, round(at.timestamp() * 1000), None).cost_usd
    factor = Decimal(said.removeprefix(f"{tier}*"))
    assert usd(ours) == ((theirs.total_price - others) * factor + others).quantize(NANO, ROUND_HALF_UP)


@given(own_prices, usages())
def test_an_own_price_is_paid_for_each_token_once(own: Price, usage: Usage) -> None:
    cache_read = own.input_usd if own.cache_read_usd is None else own.cache_read_usd
    expected = (
        own.input_usd * (usage.input_tokens - usage.cache_read_tokens)
        + cache_read * usage.cache_read_tokens
        + own.output_usd * usage.output_tokens
    )
    assert usd(BOOK.price("openai", "gpt-5", usage, AT_MS, own)) == expected.quantize(NANO, ROUND_HALF_UP)


@given(own_prices, usages(), usages())
def test_more_tokens_never_cost_less(own: Price, usage: Usage, more: Usage) -> None:
    assert usd(BOOK.price("a", "b", usage + more, AT_MS, own)) >= usd(BOOK.price("a", "b", usage, AT_MS, own))


@given(own_prices, own_prices)
def test_a_version_names_one_price(one: Price, other: Price) -> None:
    def version(price: Price) -> str:
        return BOOK.price("a", "b", Usage(), AT_MS, price).version

    def pays(price: Price) -> tuple[Decimal, Decimal, Decimal]:
        cache_read = price.input_usd if price.cache_read_usd is None else price.cache_read_usd
        return price.input_usd, price.output_usd, cache_read

    assert (version(one) == version(other)) == (pays(one) == pays(other))


@given(st.integers(0, 10**300))
def test_absurd_numbers_of_tokens_have_a_price_too(tokens: int) -> None:
    own = Price(input_usd=Decimal(1), output_usd=Decimal(1))
    assert BOOK.price("a", "b", Usage(input_tokens=tokens), AT_MS, own).cost_usd >= 0


def test_no_socket_is_opened() -> None:
    program = """
        import sys, threading
        opened = []
        sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
        from infra.prices import PriceBook
        from schemas.usage import Usage
        assert "genai_prices" not in sys.modules
        book = PriceBook()
        book.warm()
        assert book.price("openai", "gpt-5", Usage(input_tokens=1), 0, None).cost_usd > 0
        assert threading.active_count() == 1
        assert not opened, opened
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)
