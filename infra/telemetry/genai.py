"""All names of spans' attributes, and what is told under them: OpenTelemetry's GenAI and messaging conventions v1.41, and ours.

Everything here is called for recorded spans only. Content is told by policy alone (`tracing.content` and `data.log`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from infra.providers import address, telemetry_name
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.completion import Completion
from schemas.control import Deployment
from schemas.job import Api, Job

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value]
Semconv = Literal["v1.41", "latest"]

OPERATIONS: Final[Mapping[Api, str]] = {Api.CHAT: "chat", Api.EMBEDDINGS: "embeddings", Api.MODERATIONS: "moderations"}

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
SLUICE_LANE: Final = "sluice.lane"
SLUICE_JOB: Final = "sluice.job"
_CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"

RENAMED: Final[Mapping[Semconv, Mapping[str, str]]] = {
    "v1.41": {},
    "latest": {_CACHE_CREATION: "gen_ai.usage.cache_write.input_tokens"},
}
"""What newer conventions call otherwise, as far as their drafts agree."""

_MOST_CONTENT: Final = 128 * 1024
"""Bytes of prompt, and of answer: longer ones are left out, for half a JSON is none."""

_MOST_TEXT: Final = 256


@dataclass(slots=True)
class Facts:
    """What a provider says of its answer beside the answer."""

    id: str = ""
    model: str = ""
    reasons: tuple[str, ...] = ()

    def hear(self, id: str, model: str, reasons: tuple[str, ...]) -> None:
        """A further part of it."""
        self.id, self.model = self.id or id, self.model or model
        self.reasons += reasons


def server(method: str, route: str, operation: str, model: object) -> Attributes:
    """Of a request to us."""
    named = model[:_MOST_TEXT] if isinstance(model, str) else ""
    return {HTTP_METHOD: method, HTTP_ROUTE: route, OPERATION: operation, REQUEST_MODEL: named}


def record(topic: str, partition: int, offset: int, group: str, kind: Literal["receive", "process"]) -> Attributes:
    """Of work on a record."""
    place: Attributes = {"messaging.destination.partition.id": str(partition), "messaging.kafka.offset": offset}
    return hop(topic, group, kind) | place


def hop(topic: str, group: str, kind: Literal["receive", "process"]) -> Attributes:
    """Of work on what stands on a topic, or would if it hadn't been handed over in memory."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.type": kind,
        "messaging.operation.name": kind,
        "messaging.consumer.group.name": group,
    }


def job(of: Job, stage: str) -> Attributes:
    """Of a job at a stage."""
    return {"sluice.stage": stage, SLUICE_LANE: of.lane.value, SLUICE_JOB: of.id}


def passed(of: Job) -> Attributes:
    """What a stage has found out about a job that goes on."""
    found: Attributes = {"sluice.cache.status": of.cache.status}
    return found | {"sluice.verdict": of.verdict.verdict} if of.verdict else found


def ended(of: Completion) -> Attributes:
    """Of a job's end."""
    found: Attributes = {
        "sluice.cache.status": of.cache,
        "sluice.queue_ms": of.queue_ms,
        "sluice.cost_usd": float(of.cost_usd),
        "sluice.status": of.status.value,
    }
    if of.verdict:
        found["sluice.verdict"] = of.verdict.verdict
    if of.fault:
        found[ERROR_TYPE] = of.fault.code or of.fault.type
    return found


def call(of: Job, deployment: Deployment, body: JsonObject, n: int, *, hedge: bool) -> Attributes:
    """Of a provider call that begins. `body`: what is asked."""
    found: Attributes = {
        OPERATION: OPERATIONS[of.api],
        PROVIDER: telemetry_name(deployment.provider),
        REQUEST_MODEL: deployment.model,
        "sluice.attempt": n,
        "sluice.deployment": deployment.id,
        "sluice.hedge": hedge,
        **job(of, "router"),
        **_server_of(deployment.provider, deployment.api_base or ""),
    }
    if of.shadow_of:
        found["sluice.shadow_of"] = of.shadow_of
    if conversation := of.labels.metadata.get("conversation_id") or of.labels.metadata.get("session_id"):
        found["gen_ai.conversation.id"] = conversation
    for member, (name, read) in _REQUEST.items():
        if (value := read(body.get(member))) is not None:
            found[name] = value
    if of.api is Api.CHAT:
        form = body.get("response_format")
        kind = form.get("type") if isinstance(form, dict) else "text"
        found["gen_ai.output.type"] = "json" if kind in ("json_object", "json_schema") else "text"
    return found | _asked(body) if tells_content(of) else found


def answered(attempt: Attempt, facts: Facts) -> Attributes:
    """Of a provider call that is over."""
    usage = attempt.usage
    found: Attributes = {"sluice.cost_usd": float(attempt.cost_usd), "sluice.status": attempt.status}
    if usage.source != "none":
        found |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            _CACHE_CREATION: usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    if facts.id:
        found["gen_ai.response.id"] = facts.id[:_MOST_TEXT]
    if facts.model:
        found["gen_ai.response.model"] = facts.model[:_MOST_TEXT]
    if facts.reasons:
        found["gen_ai.response.finish_reasons"] = facts.reasons
    if attempt.ttft_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = attempt.ttft_ms / 1000
    if (error := failure_of(attempt)) is not None:
        found[ERROR_TYPE] = error
    return found


def failure_of(attempt: Attempt) -> str | None:
    """The `error.type` of a call that failed: its status if it has one, else our word for it."""
    if attempt.status != "failed":
        return None
    bad = attempt.http_status is not None and attempt.http_status >= 400
    return str(attempt.http_status) if bad else attempt.error or "_OTHER"


def tells_content(of: Job) -> bool:
    """Whether prompts and answers of this job may be told."""
    return of.policy.tracing.content and of.policy.data.log


def said(answer: str, text: Sequence[str], reasons: Sequence[str]) -> Attributes:
    """What was answered: a whole `answer` of a chat, or the `text` of a stream."""
    messages = [_output(choice) for choice in _choices(answer)] if answer else []
    if not messages and text:
        reason = reasons[0] if reasons else "stop"
        messages = [{"role": "assistant", "parts": [_text("".join(text))], "finish_reason": reason}]
    return _content("gen_ai.output.messages", messages)


def _number(value: JsonValue) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < 2**63 else None


def _whole(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _several(value: JsonValue) -> int | None:
    return number if (number := _whole(value)) != 1 else None


def _true(value: JsonValue) -> bool | None:
    return True if value is True else None


def _texts(value: JsonValue) -> Sequence[str] | None:
    given = [value] if isinstance(value, str) else value
    texts = [text[:_MOST_TEXT] for text in given if isinstance(text, str)] if isinstance(given, list) else []
    return texts[:8] or None


_REQUEST: Final[Mapping[str, tuple[str, Callable[[JsonValue], Value | None]]]] = {
    "max_tokens": ("gen_ai.request.max_tokens", _whole),
    "max_completion_tokens": ("gen_ai.request.max_tokens", _whole),
    "temperature": ("gen_ai.request.temperature", _number),
    "top_p": ("gen_ai.request.top_p", _number),
    "top_k": ("gen_ai.request.top_k", _number),
    "seed": ("gen_ai.request.seed", _whole),
    "stop": ("gen_ai.request.stop_sequences", _texts),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", _number),
    "presence_penalty": ("gen_ai.request.presence_penalty", _number),
    "n": ("gen_ai.request.choice.count", _several),
    "stream": ("gen_ai.request.stream", _true),
    "encoding_format": ("gen_ai.request.encoding_formats", _texts),
}
"""Member of a request → its attribute, and how it is read: what came from outside may be anything."""


@lru_cache(maxsize=1024)
def _server_of(provider: str, api_base: str) -> Mapping[str, Value]:
    try:
        url = urlsplit(api_base or address(provider) or "")
        host, port = url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)
    except ValueError:
        return {}
    found: Attributes = {"server.address": host} if host else {}
    return found | {"server.port": port} if host and port else found


def _asked(body: JsonObject) -> Attributes:
    given = body.get("messages")
    messages = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    system = [part for one in messages if one.get("role") in ("system", "developer") for part in _parts(one)]
    others = [
        {"role": one.get("role"), "parts": _parts(one)} for one in messages if one.get("role") not in ("system", "developer")
    ]
    if not others and body.get("input") is not None:
        others = [{"role": "user", "parts": [_text(to_json(body["input"]).decode())]}]
    return {
        **_content("gen_ai.system_instructions", system),
        **_content("gen_ai.input.messages", others),
        **_content("gen_ai.tool.definitions", body.get("tools")),
    }


def _content(name: str, told: object) -> Attributes:
    if not told:
        return {}
    text = to_json(told).decode()
    return {name: text} if len(text) <= _MOST_CONTENT else {}


def _text(content: str) -> JsonObject:
    return {"type": "text", "content": content}


def _parts(message: JsonObject) -> list[JsonObject]:
    """A message's content in the parts that the conventions know. Pictures and the like are named, not told."""
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    parts = [_text(content)] if isinstance(content, str) else []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            text = part.get("text")
            parts.append(_text(text) if isinstance(text, str) else {"type": str(part.get("type"))})
    calls = message.get("tool_calls")
    for one in calls if isinstance(calls, list) else ():
        function = one.get("function") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(function, dict):
            told = {"name": function.get("name"), "arguments": function.get("arguments")}
            parts.append({"type": "tool_call", "id": one.get("id"), **told})
    return parts


def _choices(answer: str) -> list[JsonObject]:
    try:
        told = cast("JsonValue", from_json(answer))
    except ValueError:
        return []
    given = told.get("choices") if isinstance(told, dict) else None
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _output(choice: JsonObject) -> JsonObject:
    message = choice.get("message")
    parts = _parts(message) if isinstance(message, dict) else []
    return {"role": "assistant", "parts": list[JsonValue](parts), "finish_reason": choice.get("finish_reason")}
