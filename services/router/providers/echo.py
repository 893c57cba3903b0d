"""A provider that repeats what it is asked, and says so: for trying Sluice out, and its failures, without a model or a bill."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from pydantic_core import to_json

from infra import tokens
from schemas.base import JsonObject
from schemas.control import EchoSettings
from schemas.errors import InvalidRequest
from schemas.job import Api
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import unavailable
from services.router.strategies.base import Chance

_SAYS = "This is Sluice's echo, no model was asked. You said: "
_MOST_TOKENS = 100_000
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)


@dataclass(frozen=True, slots=True)
class _Saying:
    """What the echo answers: token by token, and what OpenAI says about an answer."""

    id: str
    created: int
    model: str
    pieces: Sequence[str]
    finish_reason: str
    usage: JsonObject


class Echo:
    """Answers chats, and lets everything pass a moderation, by the settings of the deployment."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    async def call(self, request: ProviderRequest) -> str:
        """Answers after latency and all tokens' time."""
        settings = await self._begun(request)
        if request.api is Api.MODERATIONS:
            return _moderation(request)
        saying = _saying(request)
        await asyncio.sleep(settings.token_ms * len(saying.pieces) / 1000)
        message: JsonObject = {"role": "assistant", "content": "".join(saying.pieces), "refusal": None}
        choice: JsonObject = {"index": 0, "message": message, "logprobs": None, "finish_reason": saying.finish_reason}
        return _json(saying, "chat.completion", [choice], saying.usage)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Streams token by token; all that is due at once comes in one batch."""
        settings = await self._begun(request)
        saying = _saying(request)
        deltas: list[JsonObject] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in saying.pieces)]
        events = [_chunk(saying, delta, None) for delta in deltas]
        events.append(_chunk(saying, {}, saying.finish_reason))
        events.append(_json(saying, "chat.completion.chunk", [], saying.usage))
        if settings.token_ms <= 0:
            yield [*events, DONE]
            return
        for event in events:
            yield [event]
            await asyncio.sleep(settings.token_ms / 1000)
        yield [DONE]

    async def _begun(self, request: ProviderRequest) -> EchoSettings:
        """The settings, once the latency has passed. Raises ProviderFailure as often as they say."""
        if request.api is Api.EMBEDDINGS:
            fault = InvalidRequest("The echo provider only chats; it makes no embeddings.", param="model").fault()
            raise ProviderFailure("final", fault, http_status=400)
        settings = request.deployment.echo
        await asyncio.sleep(settings.latency_ms / 1000)
        if self._chance() < settings.failure_rate:
            raise unavailable(request.deployment.id, "failed, as its failure_rate wants it", http_status=500)
        return settings


def _saying(request: ProviderRequest) -> _Saying:
    body = request.body
    text = list(tokens.pieces(_SAYS + _last_said(body)))
    wanted = request.deployment.echo.tokens or len(text)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    allowed = min(limit, _MOST_TOKENS) if isinstance(limit, int) else _MOST_TOKENS
    pieces = list(islice(cycle(text), min(wanted, allowed)))
    given = tokens.prompt_tokens(request.api, body)
    usage: JsonObject = {
        "prompt_tokens": given,
        "completion_tokens": len(pieces),
        "total_tokens": given + len(pieces),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    finish_reason = "length" if wanted > allowed else "stop"
    chat_id = f"chatcmpl-{request.id.removeprefix('att_')}"
    return _Saying(chat_id, int(time.time()), request.deployment.model, pieces, finish_reason, usage)


def _moderation(request: ProviderRequest) -> str:
    """Nothing is flagged: in each of several texts, or in the one message whose parts are given."""
    given = request.body.get("input")
    texts = len(given) if isinstance(given, list) and isinstance(given[0], str) else 1
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": dict.fromkeys(_CATEGORIES, ("text",)),
    }
    name = f"modr-{request.id.removeprefix('att_')}"
    return to_json({"id": name, "model": request.deployment.model, "results": [result] * texts}).decode()


def _last_said(body: JsonObject) -> str:
    """The text of the last message that a user said, or else of the last one."""
    messages = body.get("messages")
    said = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    by_user = [message for message in said if message.get("role") == "user"]
    last = (by_user or said)[-1:]
    return tokens.content_text(last[0].get("content")) if last else ""


def _chunk(saying: _Saying, delta: JsonObject, finish_reason: str | None) -> str:
    choice: JsonObject = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _json(saying, "chat.completion.chunk", [choice], None)


def _json(saying: _Saying, kind: str, choices: Sequence[JsonObject], usage: JsonObject | None) -> str:
    answer = {
        "id": saying.id,
        "object": kind,
        "created": saying.created,
        "model": saying.model,
        "choices": choices,
        "usage": usage,
        "system_fingerprint": "sluice-echo",
    }
    return to_json(answer).decode()
