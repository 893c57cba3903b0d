"""One try to deliver: a POST to an address that was checked, and to no other.

A connection of its own for each try, which knows the checked addresses only: a name that leads elsewhere a moment later is never
asked again. Certificates are still checked for the name. No redirects, no proxies, no cookies.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from infra.webhooks.lookup import Resolve, Unreachable, checked_addresses, resolve
from infra.webhooks.targets import Target

TIMEOUT_S = 10.0

_MOST_BYTES = 4096
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What an endpoint answered: its status, and the header `retry-after` as it came."""

    status: int
    retry_after: str = ""


class Courier:
    """Delivers. `tls`: the certificates that are trusted, those of this machine unless said otherwise."""

    def __init__(self, look_up: Resolve = resolve, tls: ssl.SSLContext | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._look_up, self._tls, self._timeout_s = look_up, tls, timeout_s

    async def send(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answered:
        """Checks the target's addresses and posts to one of them.

        Raises Refused if one of them is not allowed, Unreachable if there was no answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await checked_addresses(target, self._look_up)
                return await self._post(target, addresses, headers, body)
        except TimeoutError:
            raise Unreachable(f"{target.where} did not answer within {self._timeout_s:g} s") from None
        except aiohttp.ClientSSLError:
            raise Unreachable(f"{target.where} has no certificate that is trusted here, or speaks no TLS") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # From None: the chain would hold the URL, and with it what is secret in its query.
            raise Unreachable(f"{target.where} can't be reached, or gave no HTTP answer ({type(error).__name__})") from None

    async def _post(self, target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes) -> Answered:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target.host, addresses), use_dns_cache=False, force_close=True, ssl=self._tls or _tls()
        )
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        )
        async with (
            session,
            session.post(_url(target), data=body, headers=headers, allow_redirects=False) as response,
        ):
            # Only so that the endpoint isn't cut off in the middle of a word: the status is all that counts.
            with suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await response.content.read(_MOST_BYTES)
            return Answered(response.status, response.headers.get("retry-after", ""))


class _Pinned(AbstractResolver):
    """Knows one host, and of it only the addresses that were checked."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        self._host, self._addresses = host, addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        if host != self._host:
            raise OSError("this connection is for another host")
        return [_resolved(host, port, address) for address in self._addresses]

    async def close(self) -> None:
        return


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)


def _url(target: Target) -> URL:
    """Made of the parts that were checked: nobody reads the text again, and perhaps in another way."""
    path, _, query = target.path.partition("?")
    return URL.build(scheme=target.scheme, host=target.host, port=target.port, path=path, query_string=query, encoded=True)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Certificates of certifi, or those that SSL_CERT_FILE names; 20 ms, once."""
    return httpx.create_ssl_context()
