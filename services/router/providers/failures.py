"""From what went wrong at a provider to what the caller is told, and whether another try helps. Pure."""

import email.utils
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, cast

from pydantic_core import from_json

from infra.telemetry.logs import scrub
from schemas.base import JsonObject
from schemas.errors import ContentBlocked, Fault, ProviderError, RateLimited
from services.router.providers.base import Kind, ProviderFailure

PASSED_ON = frozenset({400, 404, 413, 415, 422})
"""Statuses that are the caller's business: passed on, with the provider's own words."""

Why = Literal["failed", "context", "content"]
"""Why a job goes on to another model: this one fails, its context is too short for the prompt, or it won't touch the content."""

_CALLERS_OWN = PASSED_ON - {404}
_CONTEXT = frozenset({"context_length_exceeded"})
_CONTENT = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
_CONTEXT_WORDS = ("maximum context length", "context length is", "prompt is too long", "context window", "exceed context limit")
_CONTENT_WORDS = ("content management policy", "content_policy_violation", "violating our usage policy", "safety system")
_CREDENTIAL = frozenset({401, 402, 403})
_TRANSIENT = frozenset({408, 409, 425})
_MOST_WORDS = 2000


Words = dict[str, str]
"""Message, type, code and param of an error, as far as they are there.

Where a provider's status misleads, `status` is the one that is meant; `retry_after_s` is what it asks for outside of the headers.
"""

WordsOf = Callable[[int, Mapping[str, str], bytes], Words]
"""Finds the words in an answer of this status, with these headers and this body; never raises. A provider with codes of its own
gives OpenAI's where they mean the same: `context_length_exceeded`, `content_filter`."""


def refused(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    deployment: str,
    secrets: Sequence[str],
    now: datetime,
    words_of: WordsOf,
) -> ProviderFailure:
    """The failure behind an answer that is no 200. `secrets`, our credentials, are taken out of the provider's words."""
    failure = _refused(status, headers, body, deployment, secrets, now, words_of)
    failure.usage = _used(body)
    return failure


def _used(body: bytes) -> JsonObject | None:
    """What a refused call used all the same, where the refusal tells it as OpenAI's answers do."""
    if b'"usage"' not in body:
        return None
    try:
        told: object = from_json(body)
    except ValueError:
        return None
    usage = cast("JsonObject", told).get("usage") if isinstance(told, dict) else None
    return usage if isinstance(usage, dict) else None


def _refused(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    deployment: str,
    secrets: Sequence[str],
    now: datetime,
    words_of: WordsOf,
) -> ProviderFailure:
    words = {name: _clean(text, secrets) for name, text in words_of(status, headers, body).items()}
    status = int(words.get("status", status))
    if status in PASSED_ON:
        return ProviderFailure("final", _passed_on(status, words), http_status=status)
    if status in _CREDENTIAL:
        fault = ProviderError(f"The provider refused the gateway's credential for deployment {deployment} ({status}).").fault()
        return ProviderFailure("denied", fault, http_status=status)
    if status == 429:
        told = words.get("retry_after_s")
        return _throttled(float(told) if told else retry_after_s(headers, now), words, deployment)
    kind: Kind = "final" if 400 <= status < 500 and status not in _TRANSIENT else "unavailable"
    said = f": {words['message']}" if words.get("message") else "."
    fault = ProviderError(f"The provider of deployment {deployment} answered with status {status}{said}").fault()
    return ProviderFailure(kind, fault, http_status=status)


def unavailable(deployment: str, what: str, *, http_status: int | None = None, billable: bool = False) -> ProviderFailure:
    """The failure of a deployment that can't be reached, or doesn't answer as it should; `what` ends the sentence."""
    fault = ProviderError(f"The provider of deployment {deployment} {what}.").fault()
    return ProviderFailure("unavailable", fault, http_status=http_status, billable=billable)


def content_refused(deployment: str) -> ProviderFailure:
    """The failure of a call that was answered, and billed, with nothing but that the content was filtered."""
    error = ContentBlocked(f"The provider of deployment {deployment} refused to answer: its content filter stopped it.")
    fault = error.fault().model_copy(update={"owner": "provider"})
    return ProviderFailure("final", fault, http_status=200, billable=True)


def leads_to(failure: ProviderFailure) -> Why | None:
    """Why another model may be asked after this failure; None where the request itself is wrong, and would be anywhere.

    Not all providers give OpenAI's codes, so a 400 is known by its words too.
    """
    fault = failure.fault
    if fault.status == 400 and (fault.code in _CONTEXT or _says(fault, _CONTEXT_WORDS)):
        return "context"
    if fault.status == 400 and (fault.code in _CONTENT or _says(fault, _CONTENT_WORDS)):
        return "content"
    return None if failure.kind == "final" and fault.status in _CALLERS_OWN else "failed"


def _says(fault: Fault, words: tuple[str, ...]) -> bool:
    said = fault.message.lower()
    return any(word in said for word in words)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The time that a provider asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _seconds(float(milliseconds) / 1000)
        given = headers.get("retry-after", "")
        if not given.strip():
            return None
        if given.strip()[0].isdigit():
            return _seconds(float(given))
        return _seconds((email.utils.parsedate_to_datetime(given) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _seconds(given: float) -> float | None:
    return max(0.0, given) if math.isfinite(given) else None


def _passed_on(status: int, words: Mapping[str, str]) -> Fault:
    return Fault(
        status=status,
        type=words.get("type") or "invalid_request_error",
        code=words.get("code"),
        message=words.get("message") or f"The provider refused the request with status {status}.",
        param=words.get("param"),
        owner="provider",
    )


def _throttled(after_s: float | None, words: Mapping[str, str], deployment: str) -> ProviderFailure:
    said = words.get("message") or f"The provider of deployment {deployment} takes no more requests for now."
    error = RateLimited(said, retry_after_s=math.ceil(after_s) if after_s is not None else 1)
    fault = error.fault().model_copy(update={"owner": "provider", "type": words.get("type") or RateLimited.type})
    return ProviderFailure("throttled", fault, http_status=429, retry_after_s=after_s)


def openai_words(status: int, headers: Mapping[str, str], body: bytes) -> Words:
    """The words of OpenAI's error object, which most others have too."""
    try:
        parsed = cast("object", from_json(body))
    except ValueError:
        return {}
    error = cast("JsonObject", parsed).get("error") if isinstance(parsed, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return {}
    texts = {name: error.get(name) for name in ("message", "type", "code", "param")}
    return {name: str(text) for name, text in texts.items() if isinstance(text, str | int) and text != ""}


def _clean(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return scrub(text)[:_MOST_WORDS]
