"""AWS Bedrock's runtime on loopback: verifies SigV4, checks requests against AWS's own model of the API, answers in its framing.

What it answers says what it was sent; `answer` and `mishaps` have it say, and do, something else.
"""

import base64
import re
import struct
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast
from urllib.parse import unquote

from aiohttp import web
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from schemas.base import JsonObject
from tests.mocks.aws_signature import Refusal, Sent, verify
from tests.mocks.bedrock_requests import check, invalid
from tests.mocks.samples import sample

ACCESS_KEY, SECRET_KEY, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1"
API_KEY = "bedrock-api-key-EXAMPLE"


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message of application/vnd.amazon.eventstream: lengths, headers, payload, and a sum after the first and the last."""
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", len(head) + len(payload) + 16, len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def event_frame(name: str, body: JsonObject) -> bytes:
    """An event; AWS pads its body."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, to_json({**body, "p": "abcdefghijklmnopqrstuvwxyz"[: len(name)]}))


def exception_frame(name: str, message: str) -> bytes:
    """An exception in a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, to_json({"message": message}))


def events_of(answer: JsonObject) -> list[tuple[str, JsonObject]]:
    """The events of a stream that says the same as an answer of Converse."""
    message = cast("JsonObject", cast("JsonObject", answer["output"])["message"])
    events: list[tuple[str, JsonObject]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(cast("list[JsonObject]", message["content"])):
        start, deltas = _in_pieces(block)
        if start:
            events.append(("contentBlockStart", {"start": start, "contentBlockIndex": index}))
        events.extend(("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in deltas)
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    events.append(("messageStop", {"stopReason": answer["stopReason"]}))
    told = {name: answer[name] for name in ("usage", "metrics", "serviceTier") if name in answer}
    return [*events, ("metadata", told)]


def _in_pieces(block: JsonObject) -> tuple[JsonObject | None, list[JsonObject]]:
    match block:
        case {"text": str(text)}:
            return None, [{"text": piece} for piece in _cut(text)]
        case {"toolUse": dict(call)}:
            given = "" if call["input"] == {} else to_json(call["input"]).decode()
            start: JsonObject = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
            return start, [{"toolUse": {"input": piece}} for piece in _cut(given)]
        case {"reasoningContent": {"reasoningText": {"text": str(text), **signed}}}:
            pieces: list[JsonObject] = [{"reasoningContent": {"text": piece}} for piece in _cut(text)]
            return None, [*pieces, *([{"reasoningContent": {**signed}}] if signed else [])]
        case {"reasoningContent": dict(thought)}:
            return None, [{"reasoningContent": {**thought}}]
        case _:
            return None, []


def _cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


def speak(model: str, body: JsonObject) -> JsonObject:
    """What the mock answers: a call where it may and no result is there yet (two, if the user says "both"), JSON where that is
    asked for, else words, at most `maxTokens` of them."""
    blocks, stop = _called(body), "tool_use"
    if not blocks:
        words, most = _text(model, body).split(" "), _object(body.get("inferenceConfig")).get("maxTokens")
        limit = most if isinstance(most, int) else len(words)
        blocks.append({"text": " ".join(words[:limit])})
        stop = "max_tokens" if limit < len(words) else "end_turn"
    if "thinking" in _object(body.get("additionalModelRequestFields")):
        thought: JsonObject = {"text": "Let me think about it.", "signature": "c2ln"}
        blocks.insert(0, {"reasoningContent": {"reasoningText": thought}})
    message: JsonObject = {"role": "assistant", "content": [*blocks]}
    return {
        "output": {"message": message},
        "stopReason": stop,
        "usage": {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18},
        "metrics": {"latencyMs": 3},
    }


def _called(body: JsonObject) -> list[JsonObject]:
    last, config = _objects(_objects(body["messages"])[-1]["content"]), _object(body.get("toolConfig"))
    specs = [_object(tool["toolSpec"]) for tool in _objects(config.get("tools")) if "toolSpec" in tool]
    if any("toolResult" in block for block in last):
        # Who must call something though a result is there calls what was offered last: Sluice's own tool for answers.
        specs = specs[-1:] if "toolChoice" in config else []
    elif not any("both" in str(block.get("text", "")).split() for block in last):
        specs = specs[:1]
    return [
        {
            "toolUse": {
                "toolUseId": f"tooluse_{number}",
                "name": spec["name"],
                "input": sample(_object(spec["inputSchema"])["json"]),
            }
        }
        for number, spec in enumerate(specs[:2], 1)
    ]


def _text(model: str, body: JsonObject) -> str:
    if "textFormat" in _object(body.get("outputConfig")):
        structure = _object(_object(_object(body["outputConfig"])["textFormat"])["structure"])
        return to_json(sample(from_json(str(_object(structure["jsonSchema"])["schema"])))).decode()
    images = [_object(block["image"]) for block in _objects(_objects(body["messages"])[-1]["content"]) if "image" in block]
    if images:
        size = len(base64.b64decode(str(_object(images[0]["source"])["bytes"])))
        return f"I see a {images[0]['format']} of {size} bytes."
    return f"Hello from {model}."


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: JsonValue) -> list[JsonObject]:
    return [_object(entry) for entry in value] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with one request: refused with a status, or in its stream after so many events.

    `then`: an exception of this name comes, a sum doesn't fit, or the connection ends.
    """

    name: str = "ThrottlingException"
    message: str = "Too many requests, please wait before trying again."
    status: int | None = None
    after: int = 0
    then: str = "exception"


@dataclass(slots=True)
class MockBedrock:
    """What it takes, and what it was sent. `answer` makes the answer of Converse; `mishaps` befall the next requests."""

    base_url: str = ""
    secrets: dict[str, str] = field(default_factory=lambda: {ACCESS_KEY: SECRET_KEY})
    token: str | None = None
    region: str = REGION
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    answer: Callable[[str, JsonObject], JsonObject] = speak
    mishaps: deque[Mishap] = field(default_factory=deque[Mishap])
    sent: list[Sent] = field(default_factory=list[Sent])
    asked: list[JsonObject] = field(default_factory=list[JsonObject])

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        sent = Sent(request.method, request.raw_path, headers, await request.read())
        self.sent.append(sent)
        try:
            if headers.get("authorization", "") != f"Bearer {API_KEY}":
                verify(sent, self.secrets, self.token, self.region, self.now())
            return await self._answered(request, sent)
        except Refusal as error:
            told = {"x-amzn-errortype": f"{error.name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
            return web.json_response({"message": error.message}, status=error.status, headers=told)

    async def _answered(self, request: web.Request, sent: Sent) -> web.StreamResponse:
        found = re.fullmatch(r"/model/([^/]+)/(converse|converse-stream|invoke)", sent.path)
        if found is None or sent.headers.get("content-type") != "application/json":
            raise Refusal(404, "UnknownOperationException", "")
        model, action, body = unquote(found[1]), found[2], cast("JsonObject", from_json(sent.body))
        self.asked.append(body)
        mishap = self.mishaps.popleft() if self.mishaps else None
        if mishap is not None and mishap.status is not None:
            raise Refusal(mishap.status, mishap.name, mishap.message)
        if action == "invoke":
            return _embedded(model, body)
        check("Converse" if action == "converse" else "ConverseStream", model, body)
        answer = self.answer(model, body)
        if action == "converse":
            return web.json_response(answer)
        return await _streamed(request, [event_frame(name, told) for name, told in events_of(answer)], mishap)


async def _streamed(request: web.Request, frames: Sequence[bytes], mishap: Mishap | None) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/vnd.amazon.eventstream"})
    await response.prepare(request)
    for data in frames[: mishap.after] if mishap else frames:
        await response.write(data)
    if mishap is not None and mishap.then == "exception":
        await response.write(exception_frame(mishap.name, mishap.message))
    elif mishap is not None and mishap.then == "corrupt":
        broken = bytearray(frames[mishap.after])
        broken[-5] ^= 1
        await response.write(bytes(broken))
    return response


def _embedded(model: str, body: JsonObject) -> web.Response:
    """Vectors that say how long a text is; tokens are words."""
    match body:
        case {"inputText": str(text), **rest} if "amazon.titan-embed" in model and set(rest) <= {"dimensions", "normalize"}:
            tokens = len(text.split())
            answer: JsonObject = {"embedding": [float(len(text)), 0.5], "inputTextTokenCount": tokens}
        case {"texts": list(texts), "input_type": str(), **rest} if "cohere.embed" in model and len(texts) <= 96:
            tokens = sum(len(str(text).split()) for text in texts)
            rows: list[JsonValue] = [[float(len(str(text))), 0.25] for text in texts]
            answer = {"id": "e1", "texts": texts, "embeddings": {"float": rows} if "embedding_types" in rest else rows}
        case _:
            raise invalid("Malformed input request, please reformat your input and try again.")
    return web.json_response(answer, headers={"x-amzn-bedrock-input-token-count": str(tokens)})


@asynccontextmanager
async def mock_bedrock() -> AsyncGenerator[MockBedrock]:
    """The mock, listening."""
    mock = MockBedrock()
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", mock.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mock.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield mock
    finally:
        await runner.cleanup()
