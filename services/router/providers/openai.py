"""Whoever speaks OpenAI's API: OpenAI itself, and every other provider with an address of its own.

httpx's transport API over aiohttp's connections, without httpx's client: 130 µs of CPU a call instead of 230, and no cookies, no
redirects, no proxies from the environment. The caller's body goes out as it came, but for the model's name.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.job import Api
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import refused, unavailable
from services.router.sse import EventSplitter, LineTooLong

OPENAI = "https://api.openai.com/v1"
MOST_BYTES = 32 * 1024 * 1024
"""Of one answer. A longer one is a failure of the provider."""

_MOST_EVENT_BYTES = 4 * 1024 * 1024
_MOST_ERROR_BYTES = 64 * 1024
_PATHS = {Api.CHAT: "/chat/completions", Api.EMBEDDINGS: "/embeddings"}
_TIMEOUT = {"connect": 10.0, "pool": 30.0, "read": None, "write": None}
_KEEP_ALIVE_S = 15.0
_AFTER_DONE_S = 0.05
_NOT_THE_CALLERS = ("api_base", "base_url", "api_key", "custom_host", "custom_llm_provider")
"""Members by which callers of other gateways choose where a request goes. Here only the config does (CVE-2024-6587)."""

SecretOf = Callable[[str], str | None]


class OpenAI:
    """Calls deployments over HTTP. `secret` resolves a credential reference, at each call."""

    def __init__(self, secret: SecretOf, connections: int) -> None:
        self._secret = secret
        self._connections = connections
        self._transport: AiohttpTransport | None = None

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer."""
        async with self._answer(request, request.body) as response:
            with _failures(request, billable=True):
                return (await _read(response, MOST_BYTES, request)).decode()

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream, with usage at its end."""
        async with self._answer(request, _streamed(request.body)) as response:
            splitter, left = EventSplitter(_MOST_EVENT_BYTES), MOST_BYTES
            with _failures(request, billable=True):
                async for data in _chunks(response):
                    left -= len(data)
                    if left < 0:
                        raise _too_long(request)
                    if events := splitter.feed(data):
                        yield events
                        if events[-1].startswith(DONE):
                            await _exhaust(response)
                            return
                if events := splitter.close():
                    yield events

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    @asynccontextmanager
    async def _answer(self, request: ProviderRequest, body: JsonObject) -> AsyncGenerator[httpx.Response]:
        """A response of status 200, whose body is still to come."""
        with _failures(request):
            url, headers, secret = self._address(request)
            content = to_json({**_callers(body), "model": request.deployment.model})
            response = await self._opened().handle_async_request(_request(url, headers, content))
            response.headers.encoding = "latin-1"
        try:
            if response.status_code != 200:
                with _failures(request):
                    words = await _beginning(response, _MOST_ERROR_BYTES)
                raise refused(response.status_code, response.headers, words, request.deployment.id, secret, datetime.now(UTC))
            yield response
        finally:
            await response.aclose()

    def _address(self, request: ProviderRequest) -> tuple[httpx.URL, dict[str, str], str | None]:
        deployment = request.deployment
        base = deployment.api_base or (OPENAI if deployment.provider == "openai" else None)
        if base is None:
            raise unavailable(deployment.id, "has no address: the deployment needs an api_base")
        secret = self._secret(deployment.api_key) if deployment.api_key else None
        if deployment.api_key and not secret:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "sluice",
            "x-request-id": request.id,
            "traceparent": request.traceparent,
        }
        if secret:
            headers["authorization"] = f"Bearer {secret}"
        return _url(base, request.api), headers, secret

    def _opened(self) -> AiohttpTransport:
        if self._transport is None:
            self._transport = AiohttpTransport(verify=_tls(), client=self._session)
        return self._transport

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE_S, ssl=_tls())
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


class _failures:
    """Turns whatever the transport raises into a ProviderFailure that holds nothing of the request."""

    def __init__(self, request: ProviderRequest, *, billable: bool = False) -> None:
        self._deployment = request.deployment.id
        self._billable = billable

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        what = _told(error)
        if what:
            # From None: the chain would hold the request, and with it the credential.
            raise unavailable(
                self._deployment, what, http_status=200 if self._billable else None, billable=self._billable
            ) from None


def _told(error: BaseException | None) -> str:
    """What happened, in words of ours; empty for what is no failure of the provider."""
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return "can't be reached, or closed the connection"
        case httpx.TimeoutException() | TimeoutError():
            return "did not answer in time"
        case LineTooLong() | UnicodeDecodeError() | httpx.DecodingError():
            return "sent what is no answer"
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return "can't be asked: its address is no HTTP address"
        case httpx.HTTPError() | aiohttp.ClientError() | OSError():
            return "broke off its answer"
        case ValueError():
            return "can't be asked: its address or its credential is malformed"
        case _:
            return ""


def _request(url: httpx.URL, headers: Mapping[str, str], content: bytes) -> httpx.Request:
    """A request as httpx would make it of the same arguments, in a third of the time: aiohttp adds host and length anyway."""
    request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(content), extensions={"timeout": _TIMEOUT})
    request.read()
    # Known, so that it isn't found out again for each header.
    request.headers.encoding = "latin-1"
    return request


async def _read(response: httpx.Response, most_bytes: int, request: ProviderRequest) -> bytes:
    parts: list[bytes] = []
    async for data in _chunks(response):
        parts.append(data)
        most_bytes -= len(data)
        if most_bytes < 0:
            raise _too_long(request)
    return b"".join(parts)


async def _beginning(response: httpx.Response, most_bytes: int) -> bytes:
    """As much of the body as an error may have; the rest is left."""
    parts: list[bytes] = []
    async for data in _chunks(response):
        parts.append(data)
        most_bytes -= len(data)
        if most_bytes < 0:
            break
    return b"".join(parts)


def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it arrives; decoded only if the provider compressed it unasked."""
    if "content-encoding" in response.headers:
        return response.aiter_bytes()
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    return aiter(stream)


async def _exhaust(response: httpx.Response) -> None:
    """Reads the end of the transfer that follows on the last event: only then may the connection be used again."""
    try:
        async with asyncio.timeout(_AFTER_DONE_S):
            async for _ in _chunks(response):
                return
    except TimeoutError:
        return


def _too_long(request: ProviderRequest) -> ProviderFailure:
    return unavailable(request.deployment.id, f"sent more than {MOST_BYTES} bytes", http_status=200, billable=True)


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


@lru_cache(maxsize=1024)
def _url(base: str, api: Api) -> httpx.URL:
    return httpx.URL(base.rstrip("/") + _PATHS[api])


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Certificates of the system's trust store or of certifi; 20 ms, once."""
    return httpx.create_ssl_context(trust_env=False)
