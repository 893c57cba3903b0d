"""One canonical usage: inclusive totals with subsets, as OpenTelemetry and genai-prices count.

`input_tokens` is everything that went in; cache reads and writes are subsets of it and are never added again.
`output_tokens` is everything that came out, reasoning included. Providers disagree on this (CONVENTIONS.md, "One
canonical usage"); an adapter per API flavour turns theirs into ours.
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from schemas.base import Part

UsageSource = Literal["provider", "estimated", "none"]


class Usage(Part):
    """Tokens of one provider call, or the sum over the calls of a job."""

    input_tokens: NonNegativeInt = 0
    cache_read_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    cache_write_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    cache_write_1h_tokens: NonNegativeInt = Field(default=0, description="subset of cache_write_tokens: kept for an hour")
    output_tokens: NonNegativeInt = 0
    reasoning_tokens: NonNegativeInt = Field(default=0, description="subset of output_tokens")
    source: UsageSource = "none"

    @model_validator(mode="after")
    def _subsets_fit(self) -> Self:
        if self.cache_read_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError("cache reads and writes are parts of input_tokens and can't exceed it")
        if self.cache_write_1h_tokens > self.cache_write_tokens:
            raise ValueError("cache writes for an hour are a part of all cache writes and can't exceed them")
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError("reasoning is a part of output_tokens and can't exceed it")
        return self

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            source=_weaker(self.source, other.source),
        )


def _weaker(a: UsageSource, b: UsageSource) -> UsageSource:
    if "estimated" in (a, b):
        return "estimated"
    return "provider" if "provider" in (a, b) else "none"
