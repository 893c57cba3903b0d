"""How Anthropic's SDKs want to be answered over HTTP: whom that concerns, headers, errors."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from infra.charging import duration_ms
from infra.clock import new_id, now_ms
from schemas.errors import Fault


def asks(request: Request) -> bool:
    """True if who asks speaks Anthropic's API: at its paths, and by its header at those that OpenAI has too."""
    return request.url.path.startswith("/v1/messages") or "anthropic-version" in request.headers


def headers(ours: Mapping[str, str], at_ms: int) -> dict[str, str]:
    """Our headers in Anthropic's words; what is OpenAI's alone is left out."""
    told: dict[str, str] = {}
    for name, value in ours.items():
        if name.startswith("x-ratelimit-"):
            what, _, unit = name.removeprefix("x-ratelimit-").partition("-")
            told[f"anthropic-ratelimit-{unit}-{what}"] = _moment(at_ms + duration_ms(value)) if what == "reset" else value
        elif name == "x-request-id":
            told["request-id"] = value
        elif not name.startswith("openai-"):
            told[name] = value
    return told


def error_response(fault: Fault, ours: Mapping[str, str]) -> Response:
    """An error in Anthropic's shape. What never became a job has an id of its own to be asked about."""
    at_ms = now_ms()
    told = headers(ours, at_ms)
    request_id = told.setdefault("request-id", new_id("req", at_ms))
    return Response(json.dumps(fault.anthropic(request_id)), fault.anthropic_status, told, "application/json")


def _moment(unix_ms: int) -> str:
    """RFC 3339, in whole seconds, never too early."""
    return datetime.fromtimestamp(-(-unix_ms // 1000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
