"""A completion as rows of `sluice.usage_log` and `sluice.attempts_log` (infra/clickhouse/migrations). Pure.

Times are unix milliseconds, which a DateTime64(3) takes as they are; money is rounded to the nano-dollar, half up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from infra.budgets import counted_ms
from infra.clickhouse.blocks import version
from infra.clickhouse.client import Columns
from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.job import Caller
from schemas.usage import Usage
from services.accounting.policy import job_ms

Row = Mapping[str, object]
"""Name of a column to its value."""

USAGE: Final = "sluice.usage_log"
ATTEMPTS: Final = "sluice.attempts_log"

_NANO: Final = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Bill:
    """The rows of one completion: one of the job, one of each provider call."""

    usage: Row
    attempts: tuple[Row, ...]


def bill(completion: Completion, offset: int, partition: int = 0) -> Bill:
    """The rows of the completion at `offset` of its partition. Of two rows of a job, or of a call, the earlier counts."""
    counted = counted_ms(completion.lane, completion.accepted_ms, completion.steps)
    payer = {"partition": partition, **_payer(completion.caller), "counted": counted}
    calls = tuple(_attempt_row(completion, attempt, offset) for attempt in completion.attempts)
    for call in calls:
        call.update(payer)
    usage = _usage_row(completion, offset)
    usage["partition"] = partition
    return Bill(usage, calls)


def tables(bills: Sequence[Bill]) -> dict[str, Columns]:
    """The bills as columns by table, in the bills' order. Calls are written first: who finds a job finds what was called."""
    calls = [row for one in bills for row in one.attempts]
    return {ATTEMPTS: _columns(calls), USAGE: _columns([one.usage for one in bills])}


def _columns(rows: Sequence[Row]) -> Columns:
    """Rows of a table are made by one function: their values stand in one order, and `zip` turns them, at a fifth of the cost."""
    return dict(zip(rows[0], zip(*(row.values() for row in rows), strict=True), strict=True)) if rows else {}


def _usage_row(completion: Completion, offset: int) -> dict[str, object]:
    usage = completion.usage
    caller, labels, fault, verdict = completion.caller, completion.labels, completion.fault, completion.verdict
    last = _decisive(completion.attempts)
    return {
        "job_id": completion.job_id,
        "ts": job_ms(completion),
        "organization": caller.organization,
        "team": caller.team,
        "project": caller.project,
        "environment": caller.environment,
        "key_id": caller.key_id,
        "user": caller.user,
        "feature": labels.feature,
        "segment": labels.segment,
        "metadata": labels.metadata,
        "lane": completion.lane.value,
        "api": completion.api.value,
        "model": completion.model,
        "deployment": last.deployment if last else "",
        "provider": last.provider if last else "",
        "status": completion.status.value,
        "error_type": (fault.code or fault.type) if fault else "",
        "cache": completion.cache,
        **_tokens(usage),
        "price_version": last.price_version if last else "",
        "policy_version": completion.policy_version,
        "service_tier": last.service_tier if last else "",
        "cost_usd": _nano(completion.cost_usd),
        "saved_usd": _nano(completion.saved_usd),
        "ttft_ms": _first_token_ms(completion.accepted_ms, last),
        "latency_ms": float(completion.ended_ms - completion.accepted_ms),
        "queue_ms": completion.queue_ms,
        "guard_verdict": verdict.verdict if verdict else "",
        "guard_findings": [finding.kind for finding in verdict.findings] if verdict else [],
        "trace_id": completion.trace_id,
        "custom_id": completion.custom_id,
        "version": version(offset),
        "accepted": completion.accepted_ms,
        "ended": completion.ended_ms,
        "ended_by": completion.ended_by,
        "steps": [(step.stage, step.at_ms) for step in completion.steps],
        "identity": caller.identity,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "route": completion.route,
        "shadow_of": completion.shadow_of,
        "guard_version": verdict.version if verdict else "",
        **_rarer(usage),
        "margin_usd": _nano(sum((attempt.margin_usd for attempt in completion.attempts), Decimal(0))),
    }


def _attempt_row(completion: Completion, attempt: Attempt, offset: int) -> dict[str, object]:
    return {
        "attempt_id": attempt.id,
        "job_id": completion.job_id,
        "n": attempt.n,
        "ts": attempt.started_ms,
        "team": completion.caller.team,
        "lane": completion.lane.value,
        "model": completion.model,
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "provider_model": attempt.provider_model,
        "status": attempt.status,
        "http_status": attempt.http_status,
        "error_type": attempt.error or "",
        **_tokens(attempt.usage),
        "cost_usd": _nano(attempt.cost_usd),
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "raw_usage": attempt.raw_usage,
        "trace_id": completion.trace_id,
        "job_ts": job_ms(completion),
        "version": version(offset),
        "cache_write_1h_tokens": attempt.usage.cache_write_1h_tokens,
        "alias": attempt.model,
        "hedge": attempt.hedge,
        **_rarer(attempt.usage),
        "margin_usd": _nano(attempt.margin_usd),
        "price_version": attempt.price_version,
        "service_tier": attempt.service_tier,
    }


def _payer(caller: Caller) -> dict[str, object]:
    return {
        "organization": caller.organization,
        "project": caller.project,
        "environment": caller.environment,
        "key_id": caller.key_id,
        "user": caller.user,
    }


def _decisive(attempts: Sequence[Attempt]) -> Attempt | None:
    """The call that answered, or else the last one."""
    answered = next((attempt for attempt in reversed(attempts) if attempt.status == "completed"), None)
    return answered or (attempts[-1] if attempts else None)


def _tokens(usage: Usage) -> Row:
    return {
        "prompt_tokens": usage.input_tokens,
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "completion_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
    }


def _rarer(usage: Usage) -> Row:
    """What is no text, and what is charged by the call."""
    return {
        "input_audio_tokens": usage.input_audio_tokens,
        "input_image_tokens": usage.input_image_tokens,
        "cached_audio_tokens": usage.cache_read_audio_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
        "output_image_tokens": usage.output_image_tokens,
        "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        "web_searches": usage.web_searches,
        "storage_searches": usage.storage_searches,
        "code_executions": usage.code_executions,
        "audio_ms": usage.audio_ms,
    }


def _first_token_ms(accepted_ms: int, last: Attempt | None) -> float | None:
    """From acceptance, as the caller waits for it."""
    if last is None or last.ttft_ms is None:
        return None
    return max(0.0, last.started_ms - accepted_ms + last.ttft_ms)


def _nano(usd: Decimal) -> Decimal:
    return usd.quantize(_NANO, ROUND_HALF_UP)
