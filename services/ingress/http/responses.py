"""From our events to HTTP: headers and bodies."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from email.utils import format_datetime

from starlette.responses import Response

from infra.charging import rate_headers
from infra.redis.admission import Standing
from schemas.base import JsonObject
from schemas.control import Model
from schemas.job import Job
from schemas.reply import Served

JSON = "application/json"
ASK_AGAIN_S = 1


_NOTICE = timedelta(days=90)
"""So long before its end a model counts as deprecated."""


def job_headers(job: Job, models: Mapping[str, Model], rates: Sequence[Standing] = ()) -> dict[str, str]:
    """What is known of a job when it was admitted."""
    headers = {"x-request-id": job.id, "x-sluice-job": job.id, "openai-version": "2020-10-01"}
    if rates:
        headers |= rate_headers(rates)
    if model := models.get(job.model):
        headers |= sunset_headers(model, job.accepted_ms)
    return headers


def sunset_headers(model: Model, now_ms: int) -> dict[str, str]:
    """When the first deployment of a model is shut down (RFC 8594), and since when that is to be heeded (RFC 9745)."""
    day = model.shutdown_date
    if day is None:
        return {}
    end = datetime.combine(day, time(), UTC)
    since_s = int((end - _NOTICE).timestamp())
    return {"sunset": format_datetime(end, usegmt=True), "deprecation": f"@{since_s}"} if since_s * 1000 <= now_ms else {}


def served_headers(served: Served, total_ms: float) -> dict[str, str]:
    """What is known of a job when its answer begins. Overhead is what we added to the provider's own time."""
    headers = {
        "x-sluice-cache": served.cache,
        "x-sluice-model": served.model,
        "x-sluice-deployment": served.deployment,
        "x-sluice-overhead-ms": f"{max(0.0, total_ms - served.provider_ms):.1f}",
        "openai-processing-ms": str(round(total_ms)),
    }
    if served.cost_usd is not None:
        headers["x-sluice-cost-usd"] = format(served.cost_usd, "f")
    if served.verdict is not None:
        headers["x-sluice-guard"] = "; ".join([served.verdict.verdict, *(f"{f.kind}={f.count}" for f in served.verdict.findings)])
    if served.age_s is not None:
        headers["age"] = str(served.age_s)
    return {name: value for name, value in headers.items() if value}


def accepted(told: JsonObject, headers: Mapping[str, str]) -> Response:
    """202 (RFC 7240): the job is on its way, and this is where to ask for it."""
    where = {"location": f"/v1/jobs/{told['id']}", "preference-applied": "respond-async", "retry-after": str(ASK_AGAIN_S)}
    return Response(json.dumps(told), 202, {**headers, **where}, JSON)
