"""A provider that tells whatever it was sent, credential and all, and goes wrong as the first word of the path says.

A status (`401`), `redirect` (away), `garbage`, `hang`, `cut` (in the middle of its answer) or `told` (an error in the middle of
its stream). `token` gives access tokens as Google does, `badtoken` refuses to. In a test: `async with echoing(TOKEN) as echo`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from schemas.base import JsonObject
from tests.mocks.bedrock import event_frame, exception_frame

FAULTS = ("400", "401", "403", "404", "429", "500", "redirect", "garbage", "hang", "cut", "told")
MARK = "as-you-said:"
"""Stands in its words before what it was sent."""


@dataclass(slots=True)
class Echo:
    """`heard`: everything that came. `access_token`: what `token` gives; `elsewhere`: where `redirect` leads."""

    access_token: str
    elsewhere: str = "http://127.0.0.1:1/"
    port: int = 0
    heard: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = [f"{name}: {value}" for name, value in request.headers.items()]
        # What is secret first: words are cut off somewhere.
        said = " ".join(sorted(headers, key=lambda line: not _is_secret(line)))
        self.heard.append(f"{request.path_qs} {said} {await request.text()}")
        fault = request.path.split("/")[1]
        if fault == "token":
            return web.json_response({"access_token": self.access_token, "expires_in": 3600, "token_type": "Bearer"})
        if fault == "hang":
            await asyncio.sleep(60)
        if fault in ("cut", "told"):
            return await _breaks_off(request, _stream(request.path, f"{MARK} {said}", told=fault == "told"))
        echoed = {f"x-echo-{name}": value for name, value in request.headers.items()}
        if fault == "redirect":
            return web.Response(status=307, headers=echoed | {"location": f"{self.elsewhere}?{said}"})
        if fault == "garbage":
            return web.Response(text=f"{MARK} {said}", headers=echoed)
        status = int(fault) if fault.isdecimal() else 400
        return web.json_response(_error(f"{MARK} {said}"), status=status, headers=echoed | {"x-amzn-errortype": said})


@asynccontextmanager
async def echoing(access_token: str) -> AsyncGenerator[Echo]:
    echo = Echo(access_token)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    echo.port = int(runner.addresses[0][1])
    try:
        yield echo
    finally:
        await runner.cleanup()


def _is_secret(header: str) -> bool:
    return header.lower().startswith(("authorization", "api-key", "x-api-key", "x-goog-api-key", "x-amz-security-token"))


def _error(words: str) -> JsonObject:
    """An error in everybody's shape at once."""
    error: JsonObject = {"message": words, "type": words, "code": words, "status": words, "param": words, "details": [words]}
    return {"type": "error", "error": error, "message": words, "Message": words, "__type": words}


def _stream(path: str, words: str, *, told: bool) -> Sequence[bytes]:
    """The beginning of a stream as the API at this path has it, then an error, or something that is cut off."""
    if "converse-stream" in path:
        begun = event_frame("messageStart", {"role": "assistant"})
        text = event_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Well"}})
        broken = exception_frame("modelStreamErrorException", words)
        return [begun, text, broken if told else broken[: len(broken) // 2]]
    if path.endswith("/messages"):
        usage: JsonObject = {"input_tokens": 1, "output_tokens": 1}
        message: JsonObject = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
        begun = _event({"type": "message_start", "message": message})
        begun += _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        text = _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Well"}})
    elif "GenerateContent" in path:
        begun, text = b"", _event({"candidates": [{"content": {"role": "model", "parts": [{"text": "Well"}]}, "index": 0}]})
    else:
        choice: JsonObject = {"index": 0, "delta": {"role": "assistant", "content": "Well"}, "finish_reason": None}
        chunk: JsonObject = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        begun, text = b"", _event(chunk)
    broken = _event(_error(words))
    return [begun, text, broken if told else broken[: len(broken) // 2]]


def _event(data: JsonObject) -> bytes:
    name = data.get("type")
    return b"event: %s\ndata: %s\n\n" % (str(name or "message").encode(), json.dumps(data).encode())


async def _breaks_off(request: web.Request, parts: Sequence[bytes]) -> web.StreamResponse:
    kind = "application/vnd.amazon.eventstream" if "converse-stream" in request.path else "text/event-stream"
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    for part in parts:
        await response.write(part)
    if request.transport is not None:
        request.transport.close()
    return response
