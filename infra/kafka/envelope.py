"""Record <-> schema. Pure: gives a message or a Poison, never raises on what was read.

CloudEvents in binary mode (Kafka protocol binding 1.0.2): the value is the data, attributes are headers with the prefix
`ce_`. `traceparent` (W3C) stands beside them, where OpenTelemetry's Kafka instrumentations look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from pydantic import ValidationError

from infra.kafka.log import Headers, Incoming, Outgoing
from infra.telemetry.spans import context_of, traceparent_of, tracestate_of
from schemas.base import Message

SPEC_VERSION = b"1.0"
JSON = b"application/json"
MAX_INLINE_BYTES = 512 * 1024

H_TRACEPARENT = "traceparent"
H_TRACESTATE = "tracestate"
H_DATAREF = "ce_dataref"
H_TYPE = "ce_type"
H_ID = "ce_id"
H_EXPIRY = "ce_expirytime"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that can't be handled: why, in a word for machines and a sentence for people."""

    reason: str
    detail: str


def encode(
    message: Message,
    *,
    topic: str,
    key: str,
    event_id: str,
    source: str,
    now_ms: int,
    partition: int | None = None,
    traceparent: str = "",
    expires_ms: int | None = None,
    subject: str = "",
    exclude_defaults: bool = True,
) -> Outgoing:
    """The record that carries `message`. `source` names the service, `subject` the job.

    Between ourselves members at their default are left out; a public message (`exclude_defaults=False`) has them all.
    """
    headers = [
        ("content-type", JSON),
        ("ce_specversion", SPEC_VERSION),
        (H_TYPE, message.TYPE.encode()),
        ("ce_source", source.encode()),
        (H_ID, event_id.encode()),
        ("ce_time", rfc3339(now_ms)),
    ]
    if subject:
        headers.append(("ce_subject", subject.encode()))
    if expires_ms is not None:
        headers.append((H_EXPIRY, rfc3339(expires_ms)))
    if traceparent:
        headers.append((H_TRACEPARENT, traceparent_of(traceparent).encode()))
        if tracestate := tracestate_of(traceparent):
            headers.append((H_TRACESTATE, tracestate.encode()))
    value = message.__pydantic_serializer__.to_json(message, exclude_defaults=exclude_defaults)
    return Outgoing(topic=topic, key=key.encode(), value=value, headers=tuple(headers), partition=partition)


def decode(record: Incoming, model: type[M]) -> M | Poison:
    """The message in a record of one of our own topics, or why it is none."""
    declared = header(record.headers, H_TYPE)
    if declared and declared != model.TYPE:
        return Poison("unknown_type", f"the record says it is {declared[:100]!r}; this topic carries {model.TYPE!r}")
    if not record.value:
        return Poison("empty", "the record has no value")
    try:
        return model.model_validate_json(record.value)
    except ValidationError as error:
        return Poison("invalid", explain(error))


def header(headers: Sequence[tuple[str, bytes | None]], name: str) -> str:
    """The text of a header; empty if it is missing, null or not UTF-8."""
    for key, value in headers:
        if key == name and value is not None:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return ""
    return ""


def trace_context(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """The context of the trace that a record belongs to: by Kafka's habit, or by CloudEvents' extension."""
    found = context_of(header(headers, H_TRACEPARENT), header(headers, H_TRACESTATE))
    return found or context_of(header(headers, f"ce_{H_TRACEPARENT}"), header(headers, f"ce_{H_TRACESTATE}"))


def explain(error: ValidationError) -> str:
    """What is wrong with a message, member by member, without repeating its content (it may be secret)."""
    lines = [f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)[:5]]
    return "; ".join(lines)


def rfc3339(unix_ms: int) -> bytes:
    """A time as CloudEvents write it: RFC 3339 in UTC with milliseconds."""
    return b"%s.%03dZ" % (_second(unix_ms // 1000), unix_ms % 1000)


@lru_cache(maxsize=256)
def _second(unix_s: int) -> bytes:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def by_reference(record: Outgoing, reference: str) -> Outgoing:
    """The same record with its body elsewhere (claim check): no value, and a header that says where it lies."""
    headers: Headers = (*record.headers, (H_DATAREF, reference.encode()))
    return Outgoing(record.topic, record.key, b"", headers, record.partition)
