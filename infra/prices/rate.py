"""What a call and each kind of token cost, and what a usage costs by that. Whole numbers, so that no sum is ever rounded."""

from bisect import bisect_left
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import lru_cache

from schemas.usage import Usage

SCALE = 40
_ROUNDING = 10 ** (SCALE - 9)
_MICRO = 10 ** (SCALE - 6)


def scaled(usd: Decimal) -> int:
    """In 10^-40 USD."""
    return int(usd.scaleb(SCALE))


def nano_usd(cost: int) -> Decimal:
    """To the nano-dollar, half rounded up."""
    return Decimal((cost + _ROUNDING // 2) // _ROUNDING).scaleb(-9)


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """What each costs, in 10^-40 USD; known by its identity, for comparing so many numbers takes longer than pricing a call.

    The kinds of token are disjoint (`parts`): `fresh` input is text that is neither read from nor written to a cache, `spoken`
    output is text and no reasoning.
    """

    fresh: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    spoken: int = 0
    reasoning: int = 0
    audio: int = 0
    image: int = 0
    cache_read_audio: int = 0
    spoken_audio: int = 0
    spoken_image: int = 0
    call: int = 0
    web_search: int = 0
    storage_search: int = 0
    code_execution: int = 0
    audio_ms: int = 0

    @property
    def by_length(self) -> bool:
        """True for what is charged by the length of audio only: tokens say nothing of it."""
        return self.audio_ms > 0 and not (self.fresh or self.spoken or self.call)

    def cost(self, usage: Usage) -> int:
        """In 10^-40 USD."""
        if _has_rarer(usage):
            return self.call + sum(getattr(self, kind) * count for kind, count in parts(usage).items())
        # Nearly every call is this one: a third of the time.
        read, written, hour = usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
        reasoned = usage.reasoning_tokens
        return (
            self.call
            + self.fresh * (usage.input_tokens - read - written)
            + self.cache_read * read
            + self.cache_write * (written - hour)
            + self.cache_write_1h * hour
            + self.spoken * (usage.output_tokens - reasoned)
            + self.reasoning * reasoned
        )

    def shown(self) -> dict[str, Decimal]:
        """In USD: of a million tokens, of one call or search, of a second of audio."""
        times = dict.fromkeys(self.__slots__, 6) | dict.fromkeys(UNITS, 0) | {"audio_ms": 3}
        return {kind: Decimal(getattr(self, kind)).scaleb(zeros - SCALE) for kind, zeros in times.items()}

    def most_micro(self, input_tokens: int, output_tokens: int, *, audio: bool, hour: bool) -> int:
        """The most that so many tokens cost, whatever their kind: micro-dollars, rounded up. `audio`: some may be that;
        `hour`: the cache may be asked to keep them for one."""
        dearest_input = max(self.fresh, self.cache_read, self.cache_write, self.image, self.cache_write_1h if hour else 0)
        dearest_output = max(self.spoken, self.reasoning)
        if audio:
            dearest_input, dearest_output = max(dearest_input, self.audio), max(dearest_output, self.spoken_audio)
        cost = self.call + dearest_input * input_tokens + dearest_output * output_tokens
        return -(-cost // _MICRO)

    @lru_cache(maxsize=4096)  # noqa: B019 - rates are few, and live as long as the price list
    def times(self, multiplier: Decimal, *, calls: bool = True) -> "Rate":
        """So many times as dear; without `calls` only tokens are."""
        numerator, denominator = multiplier.as_integer_ratio()
        kept = () if calls else UNITS
        return Rate(
            **{
                name: (price if name in kept else price * numerator // denominator)
                for name, price in ((one.name, getattr(self, one.name)) for one in fields(self))
            }
        )


UNITS = ("call", "web_search", "storage_search", "code_execution", "audio_ms")
"""What is charged that is no token."""


def parts(usage: Usage) -> dict[str, int]:
    """The usage as disjoint parts, by the kind that each is charged as: all tokens, each once.

    Where a provider doesn't say of which modality the cached tokens are, they are taken to be text first.
    """
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    audio = min(usage.input_audio_tokens - usage.cache_read_audio_tokens, fresh)
    image = min(usage.input_image_tokens, fresh - audio)
    said = usage.output_tokens - usage.reasoning_tokens
    spoken_audio = min(usage.output_audio_tokens, said)
    spoken_image = min(usage.output_image_tokens, said - spoken_audio)
    return {
        "fresh": fresh - audio - image,
        "audio": audio,
        "image": image,
        "cache_read": usage.cache_read_tokens - usage.cache_read_audio_tokens,
        "cache_read_audio": usage.cache_read_audio_tokens,
        "cache_write": usage.cache_write_tokens - usage.cache_write_1h_tokens,
        "cache_write_1h": usage.cache_write_1h_tokens,
        "spoken": said - spoken_audio - spoken_image,
        "spoken_audio": spoken_audio,
        "spoken_image": spoken_image,
        "reasoning": usage.reasoning_tokens,
        "web_search": usage.web_searches,
        "storage_search": usage.storage_searches,
        "code_execution": usage.code_executions,
        "audio_ms": usage.audio_ms,
    }


def _has_rarer(usage: Usage) -> bool:
    return bool(
        usage.input_audio_tokens
        or usage.input_image_tokens
        or usage.output_audio_tokens
        or usage.output_image_tokens
        or usage.web_searches
        or usage.storage_searches
        or usage.code_executions
        or usage.audio_ms
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """A rate for each band of input: `bands[n]` when the input is above `starts[n - 1]` and not above `starts[n]`."""

    starts: tuple[int, ...]
    bands: tuple[Rate, ...]

    def of(self, input_tokens: int) -> Rate:
        return self.bands[bisect_left(self.starts, input_tokens)]
