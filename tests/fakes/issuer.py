"""An OIDC issuer of the test's own: it mints tokens, good and bad, and publishes its keys.

Over a transport of httpx (`client`), or as a real server on loopback (`serving`).
"""

import asyncio
import hmac
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.util import urlsafe_b64encode

from schemas.control import IdentityProvider

AUDIENCE = "api://sluice"
NOW_S = 1_800_000_000


@cache
def rsa_key(name: str, bits: int = 2048) -> RSAKey:
    """A key of this name, the same one for every test of a process: making one takes a tenth of a second."""
    return RSAKey.generate_key(bits, parameters={"kid": name})


@cache
def ec_key(name: str, curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, parameters={"kid": name})


@cache
def okp_key(name: str, curve: Literal["Ed25519", "Ed448", "X25519", "X448"] = "Ed25519") -> OKPKey:
    return OKPKey.generate_key(curve, parameters={"kid": name})


def published(key: Key, **members: object) -> dict[str, Any]:
    """A key as an issuer publishes it. A member that is None is left out."""
    document: dict[str, Any] = {**key.as_dict(private=False), "use": "sig", **members}
    return {name: value for name, value in document.items() if value is not None}


def signed(header: dict[str, Any] | bytes, claims: object, key: Key | bytes, algorithm: str = "RS256") -> str:
    """A token with exactly this header and these claims, whatever they are: bytes, or what JSON can say.

    A key of bytes is a secret for HS256: joserfc refuses to take a public key for one, as others don't.
    """
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    token = b".".join(map(urlsafe_b64encode, parts))
    if isinstance(key, bytes):
        signature = hmac.digest(key, token, "sha256")
    else:
        signature = jws.JWSRegistry.algorithms[algorithm].sign(token, key)
    return (token + b"." + urlsafe_b64encode(signature)).decode()


class FakeIssuer:
    """`keys`: what it publishes. `asked`: the paths that it was asked for, oldest first.

    `away`: it answers nothing; `answers`: what it answers instead, by path; `wait`: it answers only after this is set. `reached`
    is set when it is first asked.
    """

    def __init__(self, url: str = "https://login.example", *keys: Key, now_s: int = NOW_S) -> None:
        self.url, self.now_s = url, now_s
        self.keys: list[dict[str, Any]] = [published(key) for key in keys or (rsa_key("first"),)]
        self.signer: Key = keys[0] if keys else rsa_key("first")
        self.asked: list[str] = []
        self.away = False
        self.answers: dict[str, httpx.Response] = {}
        self.wait: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.discovery: dict[str, Any] = {"issuer": url, "jwks_uri": f"{url}/keys"}

    def provider(self, **members: Any) -> IdentityProvider:
        """How it is configured: RS256 unless said otherwise."""
        return IdentityProvider.model_validate({"name": "acme", "issuer": self.url, "audiences": [AUDIENCE], **members})

    def claims(self, **members: object) -> dict[str, object]:
        """Claims of an hour. A member that is None is left out."""
        given = {
            "iss": self.url,
            "sub": "alice",
            "aud": AUDIENCE,
            "iat": self.now_s,
            "nbf": self.now_s,
            "exp": self.now_s + 3600,
            "groups": ["fraud", "all"],
        } | members
        return {name: value for name, value in given.items() if value is not None}

    def token(
        self, key: Key | None = None, header: dict[str, object] | None = None, algorithm: str = "RS256", **claims: object
    ) -> str:
        """A good token, but for what is said. Members of header and claims that are None are left out."""
        key = key or self.signer
        head = {"alg": algorithm, "typ": "JWT", "kid": key.kid, **(header or {})}
        return signed({name: value for name, value in head.items() if value is not None}, self.claims(**claims), key, algorithm)

    def rotate(self, key: Key, *, keep: bool = True) -> None:
        """Signs with another key from now on, and publishes it, with the ones before or instead of them."""
        self.keys = [*(self.keys if keep else []), published(key)]
        self.signer = key

    def client(self) -> httpx.AsyncClient:
        """A client that reaches this issuer and nothing else."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def document(self, path: str) -> dict[str, Any] | None:
        """What is at a path; None if nothing is."""
        return {"/.well-known/openid-configuration": self.discovery, "/keys": {"keys": self.keys}}.get(path)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        self.reached.set()
        if self.wait is not None:
            await self.wait.wait()
        if self.away:
            raise httpx.ConnectError("nobody there")
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        found = self.document(request.url.path) if request.url.host in self.url else None
        return httpx.Response(404) if found is None else httpx.Response(200, json=found)


@contextmanager
def serving() -> Generator[FakeIssuer]:
    """An issuer that real processes can ask, on a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            found = issuer.document(self.path)
            answer = json.dumps(found).encode()
            self.send_response(503 if issuer.away else 404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        issuer = FakeIssuer(f"http://127.0.0.1:{server.server_address[1]}", now_s=int(time.time()))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()
