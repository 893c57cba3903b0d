"""From the provider's usage to ours (CONVENTIONS.md, "One canonical usage"). Pure.

OpenAI's `prompt_tokens` and `completion_tokens` are inclusive totals, as ours are; who counts otherwise is translated by its
provider's file, which also tells `prompt_tokens_details.cache_write_1h_tokens` where that is known. A zero that the provider
states is a zero. What can't be true (a negative number, a part that exceeds its whole) is bent into range, and then no longer
counts as the provider's word: its source is "estimated". The raw object stays in the attempt.
"""

from schemas.base import JsonObject
from schemas.usage import Usage

_MOST = 1_000_000_000


class _Bender:
    """Takes numbers out of a usage object, and remembers whether one had to be bent."""

    def __init__(self) -> None:
        self.bent = False

    def number(self, value: object, most: int = _MOST) -> int:
        if value is None:
            return 0
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.bent = True
            return 0
        fitting = min(max(value, 0), most)
        self.bent |= fitting != value
        return fitting


def canonical(raw: JsonObject | None) -> Usage | None:
    """The canonical form of OpenAI's usage object, or None if it says nothing."""
    if raw is None or (raw.get("prompt_tokens") is None and raw.get("completion_tokens") is None):
        return None
    bender = _Bender()
    input_tokens = bender.number(raw.get("prompt_tokens"))
    output_tokens = bender.number(raw.get("completion_tokens"))
    prompt, completion = _part(raw, "prompt_tokens_details"), _part(raw, "completion_tokens_details")
    # DeepSeek states its cache beside the totals.
    cached = prompt.get("cached_tokens", raw.get("prompt_cache_hit_tokens"))
    cache_read = bender.number(cached, input_tokens)
    cache_write = bender.number(prompt.get("cache_write_tokens"), input_tokens - cache_read)
    cache_write_1h = bender.number(prompt.get("cache_write_1h_tokens"), cache_write)
    reasoning = bender.number(completion.get("reasoning_tokens"), output_tokens)
    return Usage(
        input_tokens=input_tokens,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        cache_write_1h_tokens=cache_write_1h,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        source="estimated" if bender.bent else "provider",
    )


def _part(raw: JsonObject, name: str) -> JsonObject:
    part = raw.get(name)
    return part if isinstance(part, dict) else {}
