"""The states of a batch, its deadline, and what is said of lines that were not run. Pure."""

from collections.abc import Mapping
from typing import Literal
from zlib import crc32

from schemas.base import JsonObject
from schemas.batch import URL_TO_API, BatchError, BatchOrder, BatchResult
from schemas.errors import InvalidRequest
from schemas.job import Api
from schemas.openai.batches import OVER, Batch, BatchProblem, BatchProblems, BatchUsage, RequestCounts
from schemas.topics import BATCH_RESULTS
from services.ingress import policy as admission

WINDOW_MS = 24 * 3_600_000
"""The one completion window that there is."""

Halted = Literal["cancelled", "expired"]
"""Why a batch ends before its last line has."""

_UNRUN: Mapping[Halted, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
}


def api_of(endpoint: str) -> Api:
    """What an endpoint asks for. Raises InvalidRequest."""
    api = URL_TO_API.get(endpoint)
    if api is None:
        known = ", ".join(URL_TO_API)
        raise InvalidRequest(f"A batch can't be run against `{endpoint[:100]}`; it can against {known}", param="endpoint")
    return api


def deadline_ms(header: str | None, metadata: Mapping[str, str] | None, created_ms: int) -> int:
    """When the batch expires: by `x-sluice-deadline`, else by `metadata.sluice_deadline`, else after 24 hours.

    Raises InvalidRequest.
    """
    wanted = admission.deadline_ms(header or (metadata or {}).get("sluice_deadline"))
    return created_ms + WINDOW_MS if wanted is None else admission.check_deadline(wanted, created_ms)


def results_partition(batch_id: str) -> int:
    """The partition of `sluice.batch_results` on which the ends of a batch's lines stand."""
    return crc32(batch_id.encode()) % BATCH_RESULTS.partitions


def asked(order: BatchOrder) -> Batch:
    """A batch as it begins."""
    return Batch(
        id=order.id,
        endpoint=order.endpoint,
        input_file_id=order.input_file_id,
        completion_window=order.completion_window,
        status="validating",
        created_at=order.created_ms // 1000,
        expires_at=order.deadline_ms // 1000,
        metadata=order.metadata,
    )


def begun(batch: Batch, total: int, model: str | None, now_s: int) -> Batch:
    """Its file is in order, its lines are being run."""
    counts = RequestCounts(total=total)
    return batch.model_copy(update={"status": "in_progress", "in_progress_at": now_s, "request_counts": counts, "model": model})


def advanced(batch: Batch, counts: RequestCounts, usage: BatchUsage) -> Batch:
    """So many lines have ended."""
    return batch.model_copy(update={"request_counts": counts, "usage": usage})


def cancelling(batch: Batch, since_s: int) -> Batch:
    return batch.model_copy(update={"status": "cancelling", "cancelling_at": since_s})


def finalizing(batch: Batch, now_s: int) -> Batch:
    """All lines have ended, the files are being made. A batch that is cancelled stays `cancelling` meanwhile."""
    status = batch.status if batch.status == "cancelling" else "finalizing"
    return batch.model_copy(update={"status": status, "finalizing_at": now_s})


def ended(batch: Batch, why: Halted | None, now_s: int, output_file_id: str | None, error_file_id: str | None) -> Batch:
    """The files are there. `why`: what kept lines from being run, if something did."""
    status = why or "completed"
    files = {"output_file_id": output_file_id, "error_file_id": error_file_id}
    return batch.model_copy(update={"status": status, f"{status}_at": now_s, **files})


def failed(batch: Batch, problems: list[BatchProblem], now_s: int) -> Batch:
    """Nothing of it was run."""
    return batch.model_copy(update={"status": "failed", "failed_at": now_s, "errors": BatchProblems(data=problems)})


def shown(batch: Batch, cancel_ms: int) -> Batch:
    """The batch as its owner sees it: from when cancelling was asked for, though the runner may not know yet."""
    return cancelling(batch, cancel_ms // 1000) if cancel_ms and batch.status in ("validating", "in_progress") else batch


def check_cancellable(batch: Batch) -> None:
    """Raises InvalidRequest. (Not 409, which SDKs would send again.)"""
    if batch.status in OVER:
        raise InvalidRequest(f"Cannot cancel a batch with status '{batch.status}'.", code="invalid_batch_status")


def unrun(result_id: str, custom_id: str, why: Halted) -> BatchResult:
    """The line of the error file for a line that was not run to its end."""
    code, message = _UNRUN[why]
    return BatchResult(id=result_id, custom_id=custom_id, error=BatchError(code=code, message=message))


def is_cancelled(result: BatchResult) -> bool:
    """True if the line ended because it was cancelled."""
    return result.error is not None and result.error.code == "batch_cancelled"


def event(batch: Batch, now_s: int) -> JsonObject:
    """The webhook's payload about a batch that is over: thin, as OpenAI's."""
    return {
        "id": f"evt_{batch.id.removeprefix('batch_')}",
        "object": "event",
        "type": f"batch.{batch.status}",
        "created_at": now_s,
        "data": {"id": batch.id},
    }
