"""The keys of issuers: fetched when first needed, kept, fetched anew when they are old or one is missing.

No address comes from a caller: it stands in an identity provider's resource, or in the document that the issuer publishes.
Concurrent callers share one fetch; how often there is one doesn't depend on how many ask.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.clock import Clock
from infra.oidc.keys import Keys, read_keys
from schemas.control import IdentityProvider
from schemas.errors import Unavailable

log = logging.getLogger(__name__)

FRESH_MS = 10 * 60_000
"""Older keys are still used, and fetched anew in the background."""
UNWATCHED_MS = 2 * FRESH_MS
"""If nobody has asked the issuer for so long, since no tokens came, it is asked before its keys are used again."""
STALE_MS = 24 * 3_600_000
"""Keys that nobody could fetch anew for so long are used no more."""
MISSING_MS = 30_000
"""For a key id that isn't there, an issuer is asked so often at most."""
RETRY_MS = 5_000
"""After a fetch that failed, there is none for so long."""
TIMEOUT_S = 3.0
MOST_BYTES = 512 * 1024

_MOST_ISSUERS = 1000
_DISCOVERY = "/.well-known/openid-configuration"


class _Unusable(Exception):
    """What an issuer answered can't be used. A sentence for a log; nothing in it is secret."""


class _Discovery(BaseModel):
    """An issuer about itself (OpenID Connect Discovery 1.0, 3)."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    issuer: str
    jwks_uri: str


@dataclass(slots=True)
class _Issuer:
    """What is known of one issuer. `keys` stay what they are, or are replaced whole."""

    name: str
    jwks_url: str | None
    keys: Keys | None = None
    fetched_ms: int = 0
    tried_ms: int = 0
    missing_ms: int = 0
    not_before_ms: int = 0
    fetch: asyncio.Task[None] | None = None


class IssuerKeys:
    """Keys by issuer. `open_client` gives a client for one fetch; it is closed after it."""

    def __init__(self, clock: Clock, open_client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._clock = clock
        self._open_client = open_client or _client
        self._issuers: dict[tuple[str, str | None], _Issuer] = {}

    def known(self, provider: IdentityProvider) -> Keys | None:
        """The keys that may be used at once; None if there are none.

        Those that are no longer fresh are fetched anew in the background.
        """
        issuer, now_ms = self._issuer(provider), self._clock()
        age_ms = now_ms - issuer.fetched_ms
        if issuer.keys is None or age_ms >= STALE_MS or now_ms - issuer.tried_ms >= UNWATCHED_MS:
            return None
        if age_ms >= FRESH_MS:
            self._fetch_soon(issuer)
        return issuer.keys

    async def keys(self, provider: IdentityProvider) -> Keys:
        """The keys, fetched first if none may be used at once. Raises Unavailable if they can't be had."""
        found = self.known(provider)
        if found is None:
            issuer = self._issuer(provider)
            self._fetch_soon(issuer)
            await _end_of_fetch(issuer)
            found = self.known(provider)
        if found is None:
            raise Unavailable(
                f"The keys of the identity provider {provider.name} can't be had now, so that its tokens can't be checked. "
                "Try again, or without an identity token.",
                code="identity_provider_unavailable",
                retry_after_s=RETRY_MS // 1000,
            )
        return found

    async def newer(self, provider: IdentityProvider, than: Keys) -> Keys:
        """The keys after a look for newer ones than these; the same if there was one lately, or the issuer is away."""
        issuer, now_ms = self._issuer(provider), self._clock()
        if issuer.keys is than and issuer.fetch is None and now_ms - issuer.missing_ms >= MISSING_MS:
            self._fetch_soon(issuer)
            if issuer.fetch is not None:
                issuer.missing_ms = now_ms
        await _end_of_fetch(issuer)
        return than if issuer.keys is None else issuer.keys

    async def close(self) -> None:
        """Ends fetches that run."""
        running = [issuer.fetch for issuer in self._issuers.values() if issuer.fetch is not None]
        for fetch in running:
            fetch.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _issuer(self, provider: IdentityProvider) -> _Issuer:
        """By what its keys depend on, so that a change of the provider's groups costs no fetch, one of its address does."""
        place = (provider.issuer, provider.jwks_url)
        issuer = self._issuers.get(place)
        if issuer is None:
            issuer = self._issuers[place] = _Issuer(*place)
            if len(self._issuers) > _MOST_ISSUERS:
                del self._issuers[next(iter(self._issuers))]
        return issuer

    def _fetch_soon(self, issuer: _Issuer) -> None:
        if issuer.fetch is None and self._clock() >= issuer.not_before_ms:
            issuer.fetch = asyncio.create_task(self._fetch(issuer))

    async def _fetch(self, issuer: _Issuer) -> None:
        """Fetches the keys. What fails is logged and leaves the keys as they were."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._open_client() as http:
                issuer.keys = await _published(http, issuer)
                issuer.fetched_ms = self._clock()
            if not issuer.keys:
                log.warning("oidc: %s publishes no key that tokens may be signed with", issuer.name)
        except Exception as error:
            # Broad: whoever waits must go on, whatever an issuer sends.
            issuer.not_before_ms = self._clock() + RETRY_MS
            reason = str(error) if isinstance(error, _Unusable) else type(error).__name__
            log.warning("oidc: no keys of %s: %s", issuer.name, reason)
        finally:
            issuer.fetch, issuer.tried_ms = None, self._clock()


async def _end_of_fetch(issuer: _Issuer) -> None:
    """Neither does a caller that leaves cancel what others wait for, nor a fetch that is cancelled its callers."""
    if issuer.fetch is not None:
        await asyncio.wait([issuer.fetch])


async def _published(http: httpx.AsyncClient, issuer: _Issuer) -> Keys:
    url = issuer.jwks_url or await _discovered(http, issuer.name)
    document = await _get(http, url)
    try:
        return read_keys(document)
    except ValueError as error:
        raise _Unusable(f"what is at the address of its keys can't be used: {error}") from None


async def _discovered(http: httpx.AsyncClient, issuer: str) -> str:
    document = await _get(http, issuer.rstrip("/") + _DISCOVERY)
    try:
        found = _Discovery.model_validate_json(document)
    except ValidationError:
        raise _Unusable(f"its {_DISCOVERY} names no issuer and jwks_uri") from None
    if found.issuer != issuer:
        raise _Unusable(f"its {_DISCOVERY} is that of another issuer, {found.issuer[:200]!r}; write that one, to the letter")
    if _is_loopback(httpx.URL(found.jwks_uri).host) and not _is_loopback(httpx.URL(issuer).host):
        raise _Unusable("its jwks_uri leads to this machine")
    return found.jwks_uri


async def _get(http: httpx.AsyncClient, url: str) -> bytes:
    """The document at a URL that is https, or of this machine. Redirects are not followed."""
    parsed = httpx.URL(url)
    if parsed.userinfo or not (parsed.scheme == "https" or (parsed.scheme == "http" and _is_loopback(parsed.host))):
        raise _Unusable("the addresses of an issuer and its keys must begin with https:// and hold no password")
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with http.stream("GET", parsed, headers=headers, follow_redirects=False) as response:
        if response.status_code != 200:
            raise _Unusable(f"{parsed.host} answered {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _Unusable(f"{parsed.host} answered compressed")
        document = bytearray()
        async for chunk in response.aiter_bytes():
            document += chunk
            if len(document) > MOST_BYTES:
                raise _Unusable(f"{parsed.host} answered more than {MOST_BYTES} bytes")
        return bytes(document)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_tls(), timeout=TIMEOUT_S, trust_env=False)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Certificates of certifi, or those that SSL_CERT_FILE names; 20 ms, once."""
    return httpx.create_ssl_context()
