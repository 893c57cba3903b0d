"""A job as its owner sees it. Pure."""

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from infra.redis.tickets import Found
from schemas.base import JsonObject
from schemas.batch import URL_TO_API
from schemas.job import JobStatus
from schemas.reply import Answer, Failed
from schemas.ticket import Ended, Ticket
from schemas.topics import Lane
from services.ingress.assembly import assembled
from services.ingress.messages.telling import MESSAGES, told_whole
from services.ingress.text_completions import COMPLETIONS, text_completion

NOT_KNOWN_YET: JsonObject = {"object": "job", "status": JobStatus.QUEUED.value}

_ENDPOINTS = {api: url for url, api in URL_TO_API.items()}
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)
_AT_WORK = ("leased", "answered", "ending")


def job_object(found: Found | None, lag: JsonObject | None = None) -> JsonObject | None:
    """What GET /v1/jobs/{id} says; `lag`: how far its lane is behind, told while the job is queued."""
    if found is None:
        return None
    ticket, ended = found.ticket, found.ended
    status = status_of(found)
    told: JsonObject = {
        "id": ticket.job_id,
        "object": "job",
        "status": status.value,
        "endpoint": ticket.endpoint or _ENDPOINTS[ticket.api],
        "model": ticket.model,
        "lane": ticket.lane.value,
        "stream": ticket.stream,
        "created_at": ticket.accepted_ms // 1000,
        "expires_at": ticket.deadline_ms // 1000,
        "not_before": ticket.not_before_ms // 1000 or None,
        "completed_at": ended.ended_ms // 1000 if ended else None,
        "cancel_requested": found.state == "abandoned",
        "attempts": ended.attempts if ended else found.attempts,
        "queue": lag if status is JobStatus.QUEUED else None,
        "metadata": {**ticket.labels.metadata},
        "events_url": f"/v1/jobs/{ticket.job_id}/events",
    }
    return told | (_outcome(ticket, ended) if ended else _NO_OUTCOME)


def status_of(found: Found) -> JobStatus:
    if found.ended is not None:
        return found.ended.status
    return JobStatus.IN_PROGRESS if found.state in _AT_WORK else JobStatus.QUEUED


def matches(found: Found, status: str | None, model: str | None, lane: Lane | None) -> bool:
    """True if the job is one of those that were asked for."""
    return (
        (status is None or status_of(found).value == status)
        and (model is None or found.ticket.model == model)
        and (lane is None or found.ticket.lane is lane)
    )


_NO_OUTCOME: JsonObject = {"status_code": None, "result": None, "error": None, "usage": None, "cost_usd": None}


def _outcome(ticket: Ticket, ended: Ended) -> JsonObject:
    """What HTTP would have answered: a status, and a body or an error."""
    status_code, result, error = 200, None, None
    match ended.last:
        case Answer() if ticket.endpoint == MESSAGES:
            result = told_whole(ticket.job_id, ticket.model, [ended.last], ended.usage)
        case Answer(status=status, body=body):
            status_code, result = status, _parsed(body)
        case Failed(fault=fault):
            status_code, error = fault.status, fault.openai()["error"]
        case _:
            # A stream that was too long to be kept has no result but its events.
            result = assembled(ended.stream) if ended.stream else None
    if result is not None and ticket.endpoint == COMPLETIONS:
        result = text_completion(ticket.job_id, result)
    usage: JsonObject = {
        "input_tokens": ended.usage.input_tokens,
        "output_tokens": ended.usage.output_tokens,
        "total_tokens": ended.usage.input_tokens + ended.usage.output_tokens,
    }
    cost_usd = format(ended.cost_usd, "f")
    return {"status_code": status_code, "result": result, "error": error, "usage": usage, "cost_usd": cost_usd}


def _parsed(body: str) -> JsonObject | None:
    try:
        return _OBJECT.validate_python(from_json(body))
    except (ValueError, ValidationError):
        return None
