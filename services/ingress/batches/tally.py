"""Which lines of a batch have ended, and what they add up to: the same in whatever order, and however often, it is told. Pure."""

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from schemas.base import JsonObject
from schemas.batch import BatchResult
from schemas.openai.answers import ChatUsage
from schemas.openai.batches import BatchUsage, InputDetails, OutputDetails, RequestCounts

Part = Literal["output", "errors"]


class Tally:
    """Counts each line once, by its custom id."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        self._done = bytearray(len(ids))
        self._completed = self._failed = 0
        self.expired = False
        """True if a line ended because its time was over."""
        self._input = self._cached = self._output = self._reasoning = 0

    @property
    def left(self) -> int:
        """How many lines have not ended."""
        return len(self._done) - self._completed - self._failed

    def is_done(self, custom_id: str) -> bool:
        return bool(self._done[self._ids[custom_id]])

    def undone(self) -> list[str]:
        """The custom ids of lines that have not ended, in the order of the lines."""
        return [custom_id for custom_id, place in self._ids.items() if not self._done[place]]

    def take(self, result: BatchResult) -> Part | None:
        """Counts how a line ended, and says in which file that is to be told; None if it is known, or none of ours."""
        place = self._ids.get(result.custom_id)
        if place is None or self._done[place]:
            return None
        self._done[place] = 1
        response = result.response
        if response is None or not 200 <= response.status_code < 300:
            self._failed += 1
            self.expired |= result.error is not None and result.error.code == "batch_expired"
            return "errors"
        self._completed += 1
        self._add_usage(response.body)
        return "output"

    @property
    def counts(self) -> RequestCounts:
        return RequestCounts(total=len(self._done), completed=self._completed, failed=self._failed)

    @property
    def usage(self) -> BatchUsage:
        return BatchUsage(
            input_tokens=self._input,
            input_tokens_details=InputDetails(cached_tokens=self._cached),
            output_tokens=self._output,
            output_tokens_details=OutputDetails(reasoning_tokens=self._reasoning),
            total_tokens=self._input + self._output,
        )

    def _add_usage(self, body: JsonObject) -> None:
        try:
            usage = ChatUsage.model_validate(body.get("usage") or {})
        except ValidationError:
            return
        self._input += usage.prompt_tokens
        self._output += usage.completion_tokens
        if usage.prompt_tokens_details:
            self._cached += usage.prompt_tokens_details.cached_tokens or 0
        if usage.completion_tokens_details:
            self._reasoning += usage.completion_tokens_details.reasoning_tokens or 0
