"""Anthropic, and who else speaks its Messages API at an address of its own."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import httpx
from pydantic import ValidationError
from pydantic_core import to_json

from schemas.anthropic.answers import ERROR_STATUS, EVENT, ErrorAnswer, Message
from schemas.job import Api
from services.router.providers.anthropic_answer import BrokenStream, Chunks, completion, raw
from services.router.providers.anthropic_request import messages_request
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest, SecretOf
from services.router.providers.chat import refusal
from services.router.providers.failures import Words, openai_words, refused, unavailable
from services.router.providers.http import Http, events, exhaust, failures, whole

ANTHROPIC = "https://api.anthropic.com"

VERSION = "2023-06-01"
"""The newest, 2026-10-21, refuses temperature, top_p and top_k also of models that take them."""

_TOO_LONG = ("prompt is too long", "exceed context limit", "exceeds the context window")
_FILTERED = ("content filtering policy",)
# A 400 too, but no fault of the caller.
_OUR_BILL = ("credit balance is too low", "specified api usage limits", "specified workspace api usage limits")
_STATUS_OF: Mapping[str, int] = {**ERROR_STATUS}


class Anthropic:
    """Calls deployments over HTTP. `secret` resolves a credential reference, at each call."""

    def __init__(self, secret: SecretOf, http: Http) -> None:
        self._secret = secret
        self._http = http

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer."""
        async with self._answer(request, stream=False) as (response, _):
            with failures(request, billable=True):
                body = await whole(response, request)
        try:
            message = Message.model_validate_json(body)
        except ValidationError:
            # From None: the chain would hold the answer.
            raise _no_answer(request) from None
        request.told.usage = raw(message.usage)
        return completion(message, int(time.time()))

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream. A ping gives an empty batch: it says that the model is still at it."""
        chunks = Chunks(int(time.time()))
        # One and the same object: what was told of a stream that breaks is known too.
        request.told.usage = chunks.usage
        async with (
            self._answer(request, stream=True) as (response, secrets),
            aclosing(events(response, request)) as batches,
        ):
            async for batch in batches:
                # What came together with an error is held back: as long as nothing went out, another may be asked unseen.
                found = [chunk for data in batch for chunk in _chunks(chunks, data, request, secrets)]
                yield found
                if found and found[-1] == DONE:
                    await exhaust(response)
                    return

    @asynccontextmanager
    async def _answer(self, request: ProviderRequest, *, stream: bool) -> AsyncGenerator[tuple[httpx.Response, tuple[str, ...]]]:
        """The response, and our secrets, which nobody may be told."""
        if request.api is not Api.CHAT:
            raise refusal("Anthropic's models only chat: they make no embeddings, and moderate nothing.", "model")
        deployment = request.deployment
        content = to_json(messages_request(request.body, deployment, stream=stream))
        secret = await self._secret(deployment.api_key) if deployment.api_key else None
        if deployment.api_key and not secret:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        headers = {"anthropic-version": VERSION, **({"x-api-key": secret} if secret else {})}
        secrets = (secret,) if secret else ()
        post = self._http.post(request, _url(deployment.api_base), headers, content, secrets=secrets, words=anthropic_words)
        async with post as response:
            yield response, secrets


def anthropic_words(status: int, headers: Mapping[str, str], body: bytes) -> Words:
    """The words of Anthropic's error object, with OpenAI's codes."""
    words = openai_words(status, headers, body)
    said = words.get("message", "").lower()
    if status == 400 and any(sign in said for sign in _TOO_LONG):
        words["code"] = "context_length_exceeded"
    elif status == 400 and any(sign in said for sign in _FILTERED):
        words["code"] = "content_filter"
    elif status == 400 and any(sign in said for sign in _OUR_BILL):
        words["status"] = "402"
    elif status == 413:
        words["code"] = "request_too_large"
    return words


def _url(base: str | None) -> str:
    """With or without the version at its end, as both are found in the wild."""
    return (base or ANTHROPIC).rstrip("/").removesuffix("/v1") + "/v1/messages"


def _chunks(chunks: Chunks, data: str, request: ProviderRequest, secrets: Sequence[str]) -> list[str]:
    try:
        event = EVENT.validate_json(data)
        if not isinstance(event, ErrorAnswer):
            return chunks.of(event)
    except (ValidationError, BrokenStream):
        raise _no_answer(request) from None
    raise _broken(event, data, request, secrets)


def _broken(error: ErrorAnswer, data: str, request: ProviderRequest, secrets: Sequence[str]) -> ProviderFailure:
    """The failure that an error in the middle of a stream is: as if it had come with its status, but that it may cost."""
    status = _STATUS_OF.get(error.error.type, 500)
    failure = refused(status, {}, data.encode(), request.deployment.id, secrets, datetime.now(UTC), anthropic_words)
    failure.billable = True
    return failure


def _no_answer(request: ProviderRequest) -> ProviderFailure:
    return unavailable(request.deployment.id, "sent what is no answer", http_status=200, billable=True)
