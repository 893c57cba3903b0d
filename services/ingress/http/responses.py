"""From our events to HTTP: headers and bodies."""

import json
from collections.abc import Mapping

from starlette.responses import Response

from infra.redis.admission import Admission
from schemas.base import JsonObject
from schemas.job import Job
from schemas.reply import Served

JSON = "application/json"
ASK_AGAIN_S = 1


def job_headers(job: Job, rate: Admission | None) -> dict[str, str]:
    """What is known of a job when it was admitted."""
    headers = {"x-request-id": job.id, "x-sluice-job": job.id, "openai-version": "2020-10-01"}
    return headers | rate_headers(rate)


def rate_headers(rate: Admission | None) -> dict[str, str]:
    """OpenAI's rate limit headers, for the tightest limit."""
    if rate is None or rate.limit is None:
        return {}
    return {
        "x-ratelimit-limit-requests": str(rate.limit.requests_per_minute),
        "x-ratelimit-remaining-requests": str(rate.remaining),
        "x-ratelimit-reset-requests": duration(rate.reset_ms),
    }


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


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: `1s`, `6m0s`, `120ms`."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
