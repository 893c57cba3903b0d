"""From an HTTP request to a `Request` of ours: credentials, headers, the body within its limit."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from infra.oidc.tokens import looks_like_token
from infra.telemetry.spans import context_of
from schemas.base import JsonObject
from schemas.errors import InvalidKey, InvalidRequest, RequestTimeout, RequestTooLarge
from schemas.job import Api
from services.ingress import policy
from services.ingress.handler import CallerGone, Request
from services.ingress.idempotency import Repeatable
from services.ingress.identities import Credentials

_BODY_S = 30.0
_LEAST_BYTES_S = 10_000
_WORTH_WAITING = 16 * 1024

MAX_DEPTH_HINT = "The body must be one JSON object."


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a body may be at most, in bytes."""

    max_body_bytes: int


def bearer(headers: Mapping[str, str]) -> str:
    """The credential of a request (`Authorization: Bearer` or `x-api-key`). Raises InvalidKey."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    if key := headers.get("x-api-key"):
        return key.strip()
    raise InvalidKey("You didn't provide an API key. Send it as `Authorization: Bearer sk-sl-…`.")


def credentials(http: HttpRequest) -> Credentials:
    """Key, identity token and addresses of a request. Raises InvalidKey.

    A token may come as the bearer, with a key as `x-api-key`, or in `x-sluice-identity`, beside the key.
    """
    headers = http.headers
    secret, token = bearer(headers), headers.get("x-sluice-identity", "")
    if looks_like_token(secret) and (key := headers.get("x-api-key", "").strip()):
        secret, token = key, secret
    address = http.client.host if http.client else ""
    return Credentials(secret, token.strip().removeprefix("Bearer "), address, headers.get("x-forwarded-for", ""))


async def read_body(request: HttpRequest, max_bytes: int) -> bytes:
    """The body. Raises RequestTooLarge before it is read whole, RequestTimeout, CallerGone if the client leaves in the middle."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequest("Compressed request bodies are not accepted; send plain JSON.", param="content-encoding")
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(_BODY_S) as patience:
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise too_large(max_bytes)
                chunks.append(chunk)
                if size > _WORTH_WAITING:
                    patience.reschedule(began + _BODY_S + size / _LEAST_BYTES_S)
    except ClientDisconnect:
        raise CallerGone from None
    except TimeoutError:
        raise RequestTimeout(f"The request body did not come within {_BODY_S:g} s, at {_LEAST_BYTES_S:,} bytes/s.") from None
    return b"".join(chunks)


def disconnected(http: HttpRequest) -> "asyncio.Future[None]":
    """Is done when the client has closed its connection. The body must have been read."""

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    return asyncio.ensure_future(watch())


def too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is too large: at most {max_bytes:,} bytes are accepted.")


def parse_object(body: bytes) -> JsonObject:
    """The JSON object in a body. Raises InvalidRequest."""
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except (ValueError, ValidationError) as error:
        raise InvalidRequest(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(MAX_DEPTH_HINT)
    return parsed  # pyright: ignore[reportUnknownVariableType]


def read_request(api: Api, headers: Mapping[str, str], body: JsonObject, repeatable: Repeatable | None = None) -> Request:
    """The request in the words of admission. Raises InvalidRequest for a header that can't be."""
    respond_async = policy.preference(headers.get("prefer")).respond_async
    return Request(
        api=api,
        body=body,
        lane=policy.lane(headers.get("x-sluice-lane")),
        timeout_header=headers.get("x-sluice-timeout"),
        cache=policy.cache_request(headers.get("cache-control"), headers.get("x-sluice-cache-ttl")),
        labels=policy.labels(headers.get("x-sluice-metadata")),
        traceparent=context_of(headers.get("traceparent", ""), headers.get("tracestate", "")),
        detached=respond_async,
        deadline_ms=policy.deadline_ms(headers.get("x-sluice-deadline")),
        not_before_ms=policy.not_before_ms(headers.get("x-sluice-not-before")),
        webhook=headers.get("x-sluice-webhook", ""),
        repeatable=repeatable,
    )
