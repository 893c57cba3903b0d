"""What can be billed, and how much of it goes into ClickHouse at once. Pure."""

from decimal import Decimal
from typing import Final

from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.ids import accepted_ms

BLOCK_ROWS: Final = 5_000
BLOCK_BYTES: Final = 16 * 1024 * 1024
BLOCK_AGE_S: Final = 0.8
"""A block costs ClickHouse 20 ms, however few its rows, and a completion is to be seen within one second and a half."""

MOST_USD: Final = Decimal(999_999_999)
"""What a Decimal(18, 9) holds, rounded."""
MOST_TOKENS: Final = 2**64
MOST_MS: Final = 10_413_792_000_000
"""2300-01-01, where ClickHouse's DateTime64 ends."""


def job_ms(completion: Completion) -> int:
    """When the job was accepted: as its id says, which every completion of the job has in common."""
    try:
        return accepted_ms(completion.job_id)
    except ValueError:
        return completion.accepted_ms


def flaw(completion: Completion) -> str | None:
    """Why ClickHouse would refuse the rows of this completion, or None.

    It has to be found before a block is planned: a block that is refused would be refused for ever.
    """
    times = (job_ms(completion), completion.accepted_ms, completion.ended_ms, *[step.at_ms for step in completion.steps])
    if min(times) < 0 or max(times) >= MOST_MS:
        return "a time is out of range"
    if not 0 <= completion.saved_usd < MOST_USD or not 0 <= completion.cost_usd < MOST_USD:
        return f"a cost is negative, or {MOST_USD} USD and more"
    tokens = 0
    for attempt in completion.attempts:
        if reason := _attempt_flaw(attempt):
            return reason
        tokens += attempt.usage.input_tokens + attempt.usage.output_tokens
    return "more tokens than can be counted" if tokens >= MOST_TOKENS else None


def _attempt_flaw(attempt: Attempt) -> str | None:
    if not 0 <= attempt.started_ms < MOST_MS:
        return "the start of an attempt is out of range"
    if not 0 <= attempt.cost_usd < MOST_USD:
        return "the cost of an attempt is negative"
    if not 0 <= attempt.n < 2**32 or not 0 <= (attempt.http_status or 0) < 2**16:
        return "the number or HTTP status of an attempt is out of range"
    return None
