"""Whoever speaks OpenAI's API: OpenAI itself, and every other provider with an address of its own.

The caller's body goes out as it came, but for the model's name.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

import httpx
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.job import Api
from services.router.providers.base import DONE, ProviderRequest, SecretOf
from services.router.providers.failures import unavailable
from services.router.providers.http import Http, events, exhaust, failures, whole

OPENAI = "https://api.openai.com/v1"

_PATHS = {Api.CHAT: "/chat/completions", Api.EMBEDDINGS: "/embeddings", Api.MODERATIONS: "/moderations"}
_NOT_THE_CALLERS = ("api_base", "base_url", "api_key", "custom_host", "custom_llm_provider")
"""Members by which callers of other gateways choose where a request goes. Here only the config does (CVE-2024-6587)."""


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

    @asynccontextmanager
    async def _answer(self, request: ProviderRequest, body: JsonObject) -> AsyncGenerator[httpx.Response]:
        url, headers, secrets = await self._address(request)
        content = to_json({**_callers(body), "model": request.deployment.model})
        async with self._http.post(request, url, headers, content, secrets=secrets) as response:
            yield response

    async def _address(self, request: ProviderRequest) -> tuple[str, dict[str, str], tuple[str, ...]]:
        deployment = request.deployment
        base = deployment.api_base or (OPENAI if deployment.provider == "openai" else None)
        if base is None:
            raise unavailable(deployment.id, "has no address: the deployment needs an api_base")
        url = base.rstrip("/") + _PATHS[request.api]
        secret = await self._secret(deployment.api_key) if deployment.api_key else None
        if deployment.api_key and not secret:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        return (url, {"authorization": f"Bearer {secret}"}, (secret,)) if secret else (url, {}, ())


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
