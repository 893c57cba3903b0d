"""The usage of a response. Pure."""

from schemas.base import JsonObject
from schemas.usage import Usage


def usage_object(usage: Usage) -> JsonObject:
    """Usage in the words of responses."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
