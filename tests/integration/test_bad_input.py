"""Whatever comes over HTTP gets an answer: an error in OpenAI's shape that says what is wrong, and never a crash."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.system import System, Team, chat, until

CHAT = "/v1/chat/completions"
MEGABYTE = 1024 * 1024
GOOD = b'{"model": "mock", "messages": [{"role": "user", "content": "hi"}]%b}'


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("bad")


@pytest.fixture
async def client(team: Team) -> AsyncGenerator[httpx.AsyncClient]:
    """One connection, which has to survive whatever a test sends, and after that still serves."""
    limits = httpx.Limits(max_connections=1)
    headers = {"authorization": f"Bearer {team.key}"}
    async with httpx.AsyncClient(base_url=team.url, headers=headers, trust_env=False, timeout=60, limits=limits) as client:
        yield client
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200


def refused(answer: httpx.Response, status: int) -> dict[str, str | None]:
    """The error object of an answer, checked for OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"null",
        b"[]",
        b'"text"',
        b"42",
        b'{"model": "mock", "messages": [}',
        GOOD[:-3] + b', "x": NaN}',
        GOOD[:-3] + b', "x": Infinity}',
        GOOD[:-3] + b', "x": "\\ud800"}',
        GOOD[:-3] + b', "x": "\xff\xfe"}',
        GOOD[:-3] + b', "x": "\x00"}',
        GOOD[:-3] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        GOOD[:-3] + b', "x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b"%PDF-1.7",
    ],
)
async def test_what_is_no_json_object_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    error = refused(await client.post(CHAT, content=body), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("depth", [10, 100, 150, 190, 250])
async def test_nesting_is_served_or_refused_but_never_breaks(client: httpx.AsyncClient, depth: int) -> None:
    nested = b', "x": ' + b"[" * depth + b"]" * depth
    answer = await client.post(CHAT, content=GOOD % nested)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "extra", [b', "x": 1e400', b', "x": 123456789012345678901234567890', b', "x": -0.0', b', "x": "\\u0000"']
)
async def test_odd_values_are_served_or_refused_but_never_break(client: httpx.AsyncClient, extra: bytes) -> None:
    answer = await client.post(CHAT, content=GOOD % extra)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": None}, "model"),
        ({"model": ["mock"]}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"model": "mock"}, "messages"),
        ({"model": "mock", "messages": []}, "messages"),
        ({"model": "mock", "messages": [7]}, "messages.0"),
        ({"model": "mock", "messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"model": "mock", "messages": [{"role": "", "content": "hi"}]}, "messages.0.role"),
    ],
)
async def test_wrong_types_are_named(client: httpx.AsyncClient, body: object, param: str) -> None:
    error = refused(await client.post(CHAT, json=body), 400)
    assert error["param"] == param


@pytest.mark.parametrize("given", [None, 7, "", [], [""], ["hi", 7], {"text": "hi"}])
async def test_an_embedding_of_what_is_no_text(client: httpx.AsyncClient, given: object) -> None:
    error = refused(await client.post("/v1/embeddings", json={"model": "minilm", "input": given}), 400)
    assert (error["param"] or "").startswith("input")


async def test_a_model_that_cannot_do_what_is_asked(client: httpx.AsyncClient) -> None:
    refused(await client.post("/v1/embeddings", json={"model": "echo", "input": "hi"}), 400)
    refused(await client.post(CHAT, json=chat("minilm")), 400)


async def test_an_unknown_model(client: httpx.AsyncClient) -> None:
    for model in ("gpt-nobody", "../admin", "mock\n", "ｍｏｃｋ", "sluice.control"):
        assert refused(await client.post(CHAT, json=chat(model)), 404)["code"] == "model_not_found"


async def test_a_body_of_20_mb_is_too_large_and_the_connection_survives(client: httpx.AsyncClient) -> None:
    error = refused(await client.post(CHAT, json=chat("mock", "x" * 20 * MEGABYTE)), 413)
    assert error["code"] == "request_too_large"


async def test_a_body_of_20_mb_that_does_not_say_so_is_too_large(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * MEGABYTE

    assert refused(await client.post(CHAT, content=chunks()), 413)["code"] == "request_too_large"


async def test_a_body_of_5_mb_is_served(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, json=chat("mock", "word " * MEGABYTE))
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == MEGABYTE


async def test_a_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    refused(await client.post(CHAT, content=b"\x1f\x8b\x08", headers={"content-encoding": "gzip"}), 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-sluice-timeout": "soon"},
        {"x-sluice-timeout": "-1"},
        {"x-sluice-timeout": "nan"},
        {"x-sluice-timeout": "1e9"},
        {"x-sluice-lane": "express"},
        {"x-sluice-metadata": "{"},
        {"x-sluice-metadata": "[]"},
        {"x-sluice-metadata": json.dumps({"a": "x" * 5000})},
        {"x-sluice-metadata": json.dumps({str(n): n for n in range(100)})},
        {"x-sluice-cache-ttl": "0"},
        {"x-sluice-cache-ttl": "9" * 100},
        {"cache-control": "max-age=soon"},
    ],
)
async def test_a_header_that_cannot_be_is_named(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    error = refused(await client.post(CHAT, json=chat("mock"), headers=headers), 400)
    assert next(iter(headers)) in (error["param"] or error["message"] or "")


async def test_strange_headers_do_no_harm(client: httpx.AsyncClient) -> None:
    strange = {"traceparent": "00-x", "cache-control": ",,;=", "x-huge": "x" * 60_000, "x-sluice-metadata": "", "x-Ünknown": "é"}
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in strange.items() if name.isascii()]
    assert (await client.post(CHAT, json=chat("mock"), headers=headers)).status_code == 200


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer sk-sl-x", "sk-sl-x", "Bearer \xe9"])
async def test_no_key_or_a_wrong_one(system: System, authorization: str) -> None:
    headers = [(b"authorization", authorization.encode("latin-1"))] if authorization else []
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:
        for answer in (
            await client.post(CHAT, json=chat("mock"), headers=headers),
            await client.post("/v1/embeddings", content=b"{", headers=headers),
            await client.get("/v1/models", headers=headers),
            await client.post("/v1/job_tokens", headers=headers),
        ):
            assert refused(answer, 401)["code"] == "invalid_api_key"


async def test_the_admin_key_is_no_virtual_key(system: System) -> None:
    async with system.admin() as client:
        refused(await client.post(CHAT, json=chat("mock")), 401)


async def test_unknown_routes_and_methods(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v2/chat/completions", "/v1/chat/completions/", "/admin/v1/nothing", "/%00", "/%ff"):
        refused(await client.post(path, json={}), 404)
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused(await client.request(method, CHAT), 405)
    assert (await client.get("/v1/models/" + "m" * 5000)).status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    ],
)
async def test_what_is_hardly_http_breaks_nothing(system: System, sent: bytes) -> None:
    url = urlsplit(system.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(sent)
    writer.write_eof()
    try:
        async with asyncio.timeout(10):
            answer = await reader.read(100)
    except ConnectionError:
        answer = b""
    writer.close()
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    await still_serves(system)


async def test_a_client_that_stops_in_the_middle_of_its_body(system: System, team: Team) -> None:
    url = urlsplit(system.url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {team.key}\r\nContent-Length: 1000\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    writer.transport.abort()
    await still_serves(system)


async def still_serves(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.url, trust_env=False) as client:

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        assert await until(ready)
