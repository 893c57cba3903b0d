"""Whoever speaks OpenAI's API: OpenAI itself, and every other provider with an address of its own.

The caller's body goes out as it came, but for the model's name and what the server wouldn't take (compatible.py).
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import httpx
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.providers.base import DONE, ProviderRequest, SecretOf
from services.router.providers.compatible import Dialect, base_of, dialect_of, spoken
from services.router.providers.failures import Words, openai_words, unavailable
from services.router.providers.http import Http, events, exhaust, failures, whole

PATHS = {Api.CHAT: "/chat/completions", Api.EMBEDDINGS: "/embeddings", Api.MODERATIONS: "/moderations"}
_NOT_THE_CALLERS = ("api_base", "base_url", "api_key", "custom_host", "custom_llm_provider")
"""Members by which callers of other gateways choose where a request goes. Here only the config does (CVE-2024-6587)."""


class Place(NamedTuple):
    """Where a deployment is called, and by whom: a header with the credential."""

    url: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]


class OpenAI:
    """Calls deployments over HTTP. `secret` resolves a credential reference, at each call."""

    def __init__(self, secret: SecretOf, http: Http) -> None:
        self._secret = secret
        self._http = http

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer."""
        async with self._answer(request, request.body) as response:
            with failures(request, billable=True):
                return (await whole(response, request)).decode()

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream, with usage at its end."""
        async with self._answer(request, _streamed(request.body)) as response, aclosing(events(response, request)) as batches:
            async for batch in batches:
                yield batch
                if batch[-1].startswith(DONE):
                    await exhaust(response)
                    return

    def place(self, deployment: Deployment, path: str, secret: str | None) -> Place:
        """Raises ProviderFailure where nobody says where it is."""
        base = base_of(deployment)
        if base is None:
            raise unavailable(deployment.id, "has no address: the deployment needs an api_base")
        return Place(base + path, {"authorization": f"Bearer {secret}"} if secret else {}, (secret,) if secret else ())

    def dialect(self, deployment: Deployment) -> Dialect:
        return dialect_of(deployment)

    def words(self, status: int, headers: Mapping[str, str], body: bytes) -> Words:
        """What an error says, in OpenAI's words."""
        return openai_words(status, headers, body)

    @asynccontextmanager
    async def _answer(self, request: ProviderRequest, body: JsonObject) -> AsyncGenerator[httpx.Response]:
        deployment = request.deployment
        secret = await self._secret(deployment.api_key) if deployment.api_key else None
        if deployment.api_key and not secret:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        place = self.place(deployment, PATHS[request.api], secret)
        body = spoken(body, self.dialect(deployment), deployment) if request.api is Api.CHAT else body
        content = to_json({**_callers(body), "model": deployment.model})
        async with self._http.post(
            request, place.url, place.headers, content, secrets=place.secrets, words=self.words
        ) as response:
            yield response


def _callers(body: JsonObject) -> Mapping[str, object]:
    """The caller's body without what would choose another upstream."""
    if not any(name in body for name in _NOT_THE_CALLERS):
        return body
    return {name: value for name, value in body.items() if name not in _NOT_THE_CALLERS}


def _streamed(body: JsonObject) -> JsonObject:
    """The body with usage asked for, and whatever other options the caller gave."""
    given = body.get("stream_options")
    options = given if isinstance(given, dict) else {}
    return {**body, "stream": True, "stream_options": {**options, "include_usage": True}}
