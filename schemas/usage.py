"""One canonical usage: inclusive totals with subsets, as OpenTelemetry and genai-prices count.

`input_tokens` is everything that went in; cache reads and writes are subsets of it and are never added again.
`output_tokens` is everything that came out, reasoning included. Providers disagree on this (CONVENTIONS.md, "One
canonical usage"); an adapter per API flavour turns theirs into ours. What is charged by the call and not by the token (a web
search, a second of audio) stands beside the tokens.
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from schemas.base import Part

UsageSource = Literal["provider", "estimated", "none"]


class Usage(Part):
    """What one provider call used, or the sum over the calls of a job."""

    input_tokens: NonNegativeInt = 0
    cache_read_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    cache_write_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    cache_write_1h_tokens: NonNegativeInt = Field(default=0, description="subset of cache_write_tokens: kept for an hour")
    output_tokens: NonNegativeInt = 0
    reasoning_tokens: NonNegativeInt = Field(default=0, description="subset of output_tokens")
    source: UsageSource = "none"
    input_audio_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    input_image_tokens: NonNegativeInt = Field(default=0, description="subset of input_tokens")
    cache_read_audio_tokens: NonNegativeInt = Field(
        default=0, description="subset of cache_read_tokens and of input_audio_tokens"
    )
    output_audio_tokens: NonNegativeInt = Field(default=0, description="subset of output_tokens")
    output_image_tokens: NonNegativeInt = Field(default=0, description="subset of output_tokens")
    rejected_prediction_tokens: NonNegativeInt = Field(
        default=0, description="subset of output_tokens: predicted by the caller, not used, and charged all the same"
    )
    web_searches: NonNegativeInt = 0
    storage_searches: NonNegativeInt = Field(default=0, description="searches of files that the provider stores")
    code_executions: NonNegativeInt = 0
    audio_ms: NonNegativeInt = Field(default=0, description="length of audio, where that and no token is charged")

    @model_validator(mode="after")
    def _subsets_fit(self) -> Self:
        if self.cache_read_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError("cache reads and writes are parts of input_tokens and can't exceed it")
        if self.cache_write_1h_tokens > self.cache_write_tokens:
            raise ValueError("cache writes for an hour are a part of all cache writes and can't exceed them")
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError("reasoning is a part of output_tokens and can't exceed it")
        if self.input_audio_tokens + self.input_image_tokens > self.input_tokens:
            raise ValueError("audio and images are parts of input_tokens and can't exceed it")
        if self.cache_read_audio_tokens > min(self.cache_read_tokens, self.input_audio_tokens):
            raise ValueError("audio read from a cache is a part of what was read, and of all audio")
        if max(self.output_audio_tokens + self.output_image_tokens, self.rejected_prediction_tokens) > self.output_tokens:
            raise ValueError("audio, images and rejected predictions are parts of output_tokens and can't exceed it")
        return self

    def __add__(self, other: "Usage") -> "Usage":
        """Members that are added one day are summed too."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Usage(**sums, source=_weaker(self.source, other.source))


COUNTS = tuple(name for name in Usage.model_fields if name != "source")
"""The members that are numbers."""


def _weaker(a: UsageSource, b: UsageSource) -> UsageSource:
    if "estimated" in (a, b):
        return "estimated"
    return "provider" if "provider" in (a, b) else "none"
