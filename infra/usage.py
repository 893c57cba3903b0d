"""From the provider's usage to ours (CONVENTIONS.md, "One canonical usage"): for the bill, and for what a caller is told. Pure.

OpenAI's `prompt_tokens` and `completion_tokens` are inclusive totals, as ours are; who counts otherwise is translated by its
provider's file into OpenAI's words and a few more: `prompt_tokens_details.{cache_write_1h_tokens, image_tokens}`,
`completion_tokens_details.image_tokens`, and Anthropic's `server_tool_use`. A zero that the provider states is a zero. What
can't be true (a negative number, a part that exceeds its whole) is bent into range, and then no longer counts as the
provider's word: its source is "estimated". The raw object stays in the attempt.
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

    def thousandths(self, value: object) -> int:
        """Of a number that may have a fraction."""
        if isinstance(value, float) and 0 <= value < _MOST:
            return round(value * 1000)
        return self.number(value) * 1000


def canonical(raw: JsonObject | None) -> Usage | None:
    """The canonical form of OpenAI's usage object, or None if it says nothing."""
    if raw is None:
        return None
    if raw.get("prompt_tokens") is None and raw.get("completion_tokens") is None:
        return _by_length(raw)
    bender = _Bender()
    number = bender.number
    input_tokens = number(raw.get("prompt_tokens"))
    output_tokens = number(raw.get("completion_tokens"))
    prompt, completion = _part(raw, "prompt_tokens_details"), _part(raw, "completion_tokens_details")
    cached = prompt.get("cached_tokens")
    # DeepSeek states its cache beside the totals.
    cache_read = number(raw.get("prompt_cache_hit_tokens") if cached is None else cached, input_tokens)
    cache_write = number(prompt.get("cache_write_tokens"), input_tokens - cache_read)
    counts = {
        "input_tokens": input_tokens,
        "cache_read_tokens": cache_read,
        "cache_write_tokens": cache_write,
        "cache_write_1h_tokens": number(prompt.get("cache_write_1h_tokens"), cache_write),
        "output_tokens": output_tokens,
        "reasoning_tokens": number(completion.get("reasoning_tokens"), output_tokens),
    }
    if len(prompt) > 1 or len(completion) > 1:
        counts |= _rarer(bender, prompt, completion, counts)
    if tools := _part(raw, "server_tool_use"):
        counts["web_searches"] = number(tools.get("web_search_requests"))
        counts["storage_searches"] = number(tools.get("file_search_requests"))
        counts["code_executions"] = number(tools.get("code_execution_requests"))
    return Usage(**counts, source="estimated" if bender.bent else "provider")


def _rarer(bender: _Bender, prompt: JsonObject, completion: JsonObject, counts: dict[str, int]) -> dict[str, int]:
    """What goes in and comes out that is no text, and predictions."""
    input_tokens, output_tokens = counts["input_tokens"], counts["output_tokens"]
    audio = bender.number(prompt.get("audio_tokens"), input_tokens)
    spoken = bender.number(completion.get("audio_tokens"), output_tokens)
    cached = _part(prompt, "cached_tokens_details").get("audio_tokens")
    return {
        "input_audio_tokens": audio,
        "input_image_tokens": bender.number(prompt.get("image_tokens"), input_tokens - audio),
        "cache_read_audio_tokens": bender.number(cached, min(audio, counts["cache_read_tokens"])),
        "output_audio_tokens": spoken,
        "output_image_tokens": bender.number(completion.get("image_tokens"), output_tokens - spoken),
        "rejected_prediction_tokens": bender.number(completion.get("rejected_prediction_tokens"), output_tokens),
    }


def _by_length(raw: JsonObject) -> Usage | None:
    """What OpenAI tells of a transcription that is charged by its length."""
    if raw.get("type") != "duration" or raw.get("seconds") is None:
        return None
    bender = _Bender()
    audio_ms = bender.thousandths(raw.get("seconds"))
    return Usage(audio_ms=audio_ms, source="estimated" if bender.bent else "provider")


def _part(raw: JsonObject, name: str) -> JsonObject:
    part = raw.get(name)
    return part if isinstance(part, dict) else {}
