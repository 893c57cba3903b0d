"""What is kept of a job for an auditor: what was asked and answered, by whom, under which policy. Only where the policy asks."""

import hashlib
from typing import ClassVar, cast

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from schemas.base import JsonObject, Message, Part
from schemas.completion import Completion
from schemas.job import Api, Caller, Job, JobStatus, Verdict
from schemas.policy import DEFAULT_GUARD, AuditContent, FindingKind
from schemas.reply import Answer, Event

_DAY_MS = 86_400_000
_RETRIEVED = frozenset({"tool", "function"})
_DOCUMENTS = frozenset({"file", "document", "input_file", "search_result"})


class Heard(Part):
    """What a stream has said: its text, and its first event."""

    text: str = ""
    first: str = ""


class AuditRecord(Message):
    """One job. With `content` hashed, `prompt`, `context` and `completion` are `sha256:<hex of salt and text>`.

    `context`: what was retrieved for the prompt (results of tools, documents), which stands in the prompt too. `kinds`: what is
    to be redacted, of a record that still has to be.
    """

    TYPE: ClassVar[str] = "io.sluice.audit.v1"

    job_id: str
    content: AuditContent
    salt: str
    expires_ms: int
    caller: Caller
    api: Api
    model: str
    deployment: str = ""
    provider: str = ""
    provider_model: str = ""
    model_version: str = ""
    status: JobStatus
    error: str = ""
    cache: str = ""
    verdict: Verdict | None = None
    policy_version: str
    price_version: str = ""
    accepted_ms: int
    ended_ms: int
    ended_by: str
    trace_id: str = ""
    prompt: str = ""
    context: str = ""
    completion: str = ""
    kinds: tuple[FindingKind, ...] = ()


def audit_of(
    job: Job, completion: Completion, last: Event, stream: tuple[str, ...], heard: Heard | None, salt: str
) -> AuditRecord:
    """What the job's policy, which must ask for something, wants kept of it. Vectors are no text, and left out."""
    content, served = job.policy.audited, completion.attempts[-1] if completion.attempts else None
    answer, first = last.body if isinstance(last, Answer) else "", stream[0] if stream else ""
    version = _version(answer or (heard.first if heard else "") or first)
    said = "" if job.api is Api.EMBEDDINGS else answer or (heard.text if heard else "") or _said(stream)
    texts = {"prompt": _json(job.body), "context": _context(job.body), "completion": said}
    if content == "hashed":
        texts = {name: digest(salt, text) if text else "" for name, text in texts.items()}
    return AuditRecord(
        job_id=job.id,
        content=content,
        salt=salt,
        expires_ms=job.accepted_ms + job.policy.audit.retention_days * _DAY_MS,
        caller=job.caller,
        api=job.api,
        model=job.model,
        deployment=served.deployment if served else "",
        provider=served.provider if served else "",
        provider_model=served.provider_model if served else "",
        model_version=version,
        status=completion.status,
        error=completion.fault.code or completion.fault.type if completion.fault else "",
        cache=completion.cache,
        verdict=completion.verdict,
        policy_version=completion.policy_version,
        price_version=served.price_version if served else "",
        accepted_ms=job.accepted_ms,
        ended_ms=completion.ended_ms,
        ended_by=completion.ended_by,
        trace_id=completion.trace_id,
        kinds=tuple(job.policy.guard.actions or DEFAULT_GUARD.actions) if content == "redacted" else (),
        **texts,
    )


def digest(salt: str, text: str) -> str:
    """How a text is written down without its words; nobody can try likely ones once the salt is gone."""
    return f"sha256:{hashlib.sha256(f'{salt}{text}'.encode()).hexdigest()}"


def _context(body: JsonObject) -> str:
    messages = body.get("messages")
    found: list[JsonValue] = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if message.get("role") in _RETRIEVED:
            found.append(message)
        elif isinstance(content, list):
            found += [part for part in content if isinstance(part, dict) and part.get("type") in _DOCUMENTS]
    return _json(found) if found else ""


def _said(stream: tuple[str, ...]) -> str:
    """The text of a chat stream; its events as they are where there is none, as with calls of tools."""
    pieces: list[str] = []
    for event in map(_object, stream):
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            content = delta.get("content") if isinstance(delta, dict) else None
            pieces += [content] if isinstance(content, str) else []
    return "".join(pieces) or "\n".join(stream)


def _version(text: str) -> str:
    """The model as the provider's answer names it, and its build."""
    told = _object(text)
    named = (told.get("model"), told.get("system_fingerprint"))
    return " ".join(name for name in named if isinstance(name, str) and name)


def _object(text: str) -> JsonObject:
    """A JSON object; an empty one for whatever is none."""
    try:
        parsed = cast("object", from_json(text)) if text else None
    except ValueError:
        return {}
    return cast("JsonObject", parsed) if isinstance(parsed, dict) else {}


def _json(value: JsonValue) -> str:
    return to_json(value).decode()
