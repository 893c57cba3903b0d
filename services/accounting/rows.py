"""A completion as rows of `sluice.usage_log` and `sluice.attempts_log` (infra/clickhouse/migrations). Pure.

Times are unix milliseconds, which a DateTime64(3) takes as they are; money is rounded to the nano-dollar, half up. A row is the
bare tuple of its values: ten thousand are made a second, and wait in their block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from operator import itemgetter
from typing import Final

from pydantic import BaseModel

from infra.budgets import counted_ms
from infra.clickhouse.blocks import version
from infra.clickhouse.client import Columns
from schemas.attempt import Attempt
from schemas.completion import Completion
from services.accounting.policy import job_ms

Row = Mapping[str, object]
"""Name of a column to its value."""
Values = tuple[object, ...]
"""Of a row, in the order of its table's columns here."""

USAGE: Final = "sluice.usage_log"
ATTEMPTS: Final = "sluice.attempts_log"

_NANO: Final = Decimal("1e-9")


class _Members:
    """Columns that are members of a model: of its name, or `column="member"`. One by one they would cost double."""

    def __init__(self, *alike: str, **named: str) -> None:
        self.columns = (*alike, *named)
        self._take = itemgetter(*alike, *named.values())

    def of(self, model: BaseModel) -> Values:
        return self._take(vars(model))


_CALLER: Final = _Members("organization", "team", "project", "environment", "key_id", "user")
_LABELS: Final = _Members("feature", "segment", "metadata")
_JOB: Final = _Members(
    "cache",
    "policy_version",
    "queue_ms",
    "custom_id",
    "ended_by",
    "route",
    "shadow_of",
    accepted="accepted_ms",
    ended="ended_ms",
)
_LAST: Final = _Members("deployment", "provider", "price_version", "service_tier")
_CALL: Final = _Members(
    *_LAST.columns,
    "n",
    "provider_model",
    "status",
    "http_status",
    "latency_ms",
    "ttft_ms",
    "raw_usage",
    "hedge",
    attempt_id="id",
    ts="started_ms",
    alias="model",
)
_TOKENS: Final = _Members(
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "rejected_prediction_tokens",
    "web_searches",
    "storage_searches",
    "code_executions",
    "audio_ms",
    prompt_tokens="input_tokens",
    cached_tokens="cache_read_tokens",
    cached_audio_tokens="cache_read_audio_tokens",
    completion_tokens="output_tokens",
    usage_source="source",
)
_BOTH: Final = ("job_id", "model", "trace_id", "lane", "version", "partition", *_CALLER.columns)

USAGE_COLUMNS: Final = (
    *_BOTH,
    *_JOB.columns,
    *_LABELS.columns,
    *_TOKENS.columns,
    *_LAST.columns,
    *("ts", "api", "status", "error_type", "identity", "steps"),
    *("cost_usd", "saved_usd", "margin_usd", "ttft_ms", "latency_ms"),
    *("guard_verdict", "guard_findings", "guard_version"),
)
ATTEMPTS_COLUMNS: Final = (
    *_BOTH,
    *_CALL.columns,
    *_TOKENS.columns,
    *("error_type", "cost_usd", "margin_usd", "job_ts", "counted"),
)


@dataclass(frozen=True, slots=True)
class Bill:
    """The rows of one completion: one of the job, one of each provider call."""

    usage: Values
    attempts: tuple[Values, ...]


def bill(completion: Completion, offset: int, partition: int = 0) -> Bill:
    """The rows of the completion at `offset` of its partition. Of two rows of a job, or of a call, the earlier counts."""
    lane, ts = completion.lane.value, job_ms(completion)
    ids = (completion.job_id, completion.model, completion.trace_id, lane, version(offset), partition)
    both = (*ids, *_CALLER.of(completion.caller))
    counted = counted_ms(completion.lane, completion.accepted_ms, completion.steps)
    calls = tuple([_attempt_values(attempt, both, ts, counted) for attempt in completion.attempts])
    return Bill(_usage_values(completion, both, ts), calls)


def tables(bills: Sequence[Bill]) -> dict[str, Columns]:
    """The bills as columns by table, in the bills' order. Calls are written first: who finds a job finds what was called."""
    calls = [values for one in bills for values in one.attempts]
    return {ATTEMPTS: _columns(ATTEMPTS_COLUMNS, calls), USAGE: _columns(USAGE_COLUMNS, [one.usage for one in bills])}


def _columns(names: Sequence[str], rows: Sequence[Values]) -> Columns:
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def _usage_values(completion: Completion, both: Values, ts: int) -> Values:
    fault, verdict, last = completion.fault, completion.verdict, _decisive(completion.attempts)
    return (
        *both,
        *_JOB.of(completion),
        *_LABELS.of(completion.labels),
        *_TOKENS.of(completion.usage),
        *(_LAST.of(last) if last else ("", "", "", "")),
        ts,
        completion.api.value,
        completion.status.value,
        (fault.code or fault.type) if fault else "",
        completion.caller.identity,
        [(step.stage, step.at_ms) for step in completion.steps],
        _nano(completion.cost_usd),
        _nano(completion.saved_usd),
        _nano(_margin_usd(completion.attempts)),
        _first_token_ms(completion.accepted_ms, last),
        float(completion.ended_ms - completion.accepted_ms),
        verdict.verdict if verdict else "",
        [finding.kind for finding in verdict.findings] if verdict else [],
        verdict.version if verdict else "",
    )


def _attempt_values(attempt: Attempt, both: Values, job_ts: int, counted: int) -> Values:
    money = _nano(attempt.cost_usd), _nano(attempt.margin_usd)
    return (*both, *_CALL.of(attempt), *_TOKENS.of(attempt.usage), attempt.error or "", *money, job_ts, counted)


def _decisive(attempts: Sequence[Attempt]) -> Attempt | None:
    """The call that answered, or else the last one."""
    for attempt in reversed(attempts):
        if attempt.status == "completed":
            return attempt
    return attempts[-1] if attempts else None


def _margin_usd(attempts: Sequence[Attempt]) -> Decimal:
    return attempts[0].margin_usd if len(attempts) == 1 else sum((one.margin_usd for one in attempts), Decimal(0))


def _first_token_ms(accepted_ms: int, last: Attempt | None) -> float | None:
    """From acceptance, as the caller waits for it."""
    if last is None or last.ttft_ms is None:
        return None
    return max(0.0, last.started_ms - accepted_ms + last.ttft_ms)


def _nano(usd: Decimal) -> Decimal:
    return usd.quantize(_NANO, ROUND_HALF_UP)
