"""From our events to HTTP: headers, bodies, server-sent events, errors. The one place where faults become responses."""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.redis.admission import Admission
from schemas.errors import Fault
from schemas.job import Job
from schemas.reply import Served

JSON = "application/json"
_SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def job_headers(job: Job, rate: Admission | None) -> dict[str, str]:
    """What is known of a job when it was admitted."""
    headers = {"x-request-id": job.id, "x-sluice-job": job.id, "openai-version": "2020-10-01"}
    return headers | rate_headers(rate)


def rate_headers(rate: Admission | None) -> dict[str, str]:
    """OpenAI's rate limit headers, for the tightest limit."""
    if rate is None:
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


class EventStream(Response):
    """A stream of server-sent events. The parts end by themselves when the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self._parts = parts
        self.init_headers({**headers, **_SSE_HEADERS})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts):
            async for part in self._parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def sse(data: Iterable[str]) -> bytes:
    """Server-sent events, one for each text."""
    return "".join(f"data: {text}\n\n" for text in data).encode()


def sse_error(fault: Fault) -> bytes:
    """An error in the middle of a stream: OpenAI's error object, and no `[DONE]` after it."""
    return sse([json.dumps(fault.openai())])


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: `1s`, `6m0s`, `120ms`."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
