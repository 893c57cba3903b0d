"""A response as its owner sees it, from what is kept of it. Pure."""

from pydantic import JsonValue

from infra.redis.tickets import Found
from schemas.base import JsonObject
from schemas.job import JobStatus
from schemas.ticket import Ended
from services.ingress.job_object import status_of
from services.ingress.responses.usage import usage_object


def frame(response_id: str, accepted_ms: int, told: JsonObject) -> JsonObject:
    """All of a response that doesn't change while it comes to be."""
    return {"id": response_id, "object": "response", "created_at": accepted_ms // 1000, **told}


def unfinished(frame: JsonObject, status: str) -> JsonObject:
    """A response of which no more can be told than how it stands."""
    output: list[JsonValue] = []
    return {**frame, "status": status, "error": None, "incomplete_details": None, "usage": None, "output": output}


def status_before_end(found: Found | None) -> str:
    """How a response stands that hasn't ended. Nobody calls a provider for one that was cancelled, even if it isn't noted yet."""
    if found is None:
        return JobStatus.QUEUED.value
    return JobStatus.CANCELLED.value if found.state == "abandoned" else status_of(found).value


def with_end(response: JsonObject, ended: Ended) -> JsonObject:
    """The response with what only the end of its job tells: when that was, and tokens that the provider didn't count."""
    more: JsonObject = {}
    if response["status"] == JobStatus.COMPLETED.value:
        more["completed_at"] = ended.ended_ms // 1000
    if response["usage"] is None and ended.usage.source != "none":
        more["usage"] = usage_object(ended.usage)
    return response | more
