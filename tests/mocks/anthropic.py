"""Anthropic's Messages API on loopback: always the same answer to the same request, and a 400 for what the real one refuses.

`async with MockAnthropic() as mock: Anthropic(base_url=mock.base_url, api_key=KEY)`.

A question is answered with "You said: …"; with tools, the first of them (or the chosen one) is called, all of them where the last
message of the user has the word "both", and a result is repeated; with a schema, JSON that fits it; an image is counted. Thinking
says one thought. The model's name asks for something else: `-refusal`, `-pause`, `-cut` (the stream ends early), `-broken` (an
error in the middle of it), or a type of error (`claude-mock-overloaded_error`).
"""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from schemas.anthropic.answers import ERROR_STATUS
from schemas.base import JsonObject
from tests.mocks.anthropic_requests import VERSIONS, Image, Refused, Request, Text, ToolResult, read_request
from tests.mocks.samples import sample
from tests.mocks.serving import Serving

KEY = "sk-ant-CANARY-5678"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"

_CUT = 7


@dataclass(frozen=True, slots=True)
class _Answer:
    content: Sequence[JsonObject]
    stop_reason: str
    usage: JsonObject


class MockAnthropic:
    """The server. `requests` are those that it took, oldest first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._serving = Serving(Starlette(routes=[Route("/v1/messages", self._messages, methods=["POST"])]))

    @property
    def base_url(self) -> str:
        """What Anthropic's SDK takes as `base_url`."""
        return self._serving.base_url

    async def __aenter__(self) -> Self:
        await self._serving.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._serving.__aexit__(kind, error, at)

    async def _messages(self, http: HttpRequest) -> Response:
        version = http.headers.get("anthropic-version", "")
        if KEY not in (http.headers.get("x-api-key"), http.headers.get("authorization", "").removeprefix("Bearer ")):
            return _error("authentication_error", "invalid x-api-key")
        if version not in VERSIONS:
            return _error("invalid_request_error", "anthropic-version: is not a valid version")
        if not http.headers.get("content-type", "").startswith("application/json"):
            return _error("invalid_request_error", "content-type: must be application/json")
        try:
            request = read_request(await http.body(), version)
        except Refused as refused:
            return _error("invalid_request_error", str(refused))
        self.requests.append(request)
        for kind in ERROR_STATUS:
            if request.model.endswith(kind):
                return _error(kind, f"This is how {kind} sounds.")
        answer = _answer(request)
        if request.stream:
            return StreamingResponse(_lines(request, answer), media_type="text/event-stream")
        return JSONResponse({**_head(request), "content": [*answer.content], **_stop(answer), "usage": answer.usage})


def _error(kind: str, message: str) -> Response:
    status = next(status for name, status in ERROR_STATUS.items() if name == kind)
    headers = {"retry-after": "7"} if status == 429 else {}
    return JSONResponse(_problem(kind, message), status, headers)


def _problem(kind: str, message: str) -> JsonObject:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_mock"}


def _answer(request: Request) -> _Answer:
    content, stop_reason = _content(request), "end_turn"
    if content[-1]["type"] == "tool_use":
        stop_reason = "tool_use"
    if request.model.endswith("-refusal"):
        content, stop_reason = [], "refusal"
    if request.model.endswith("-pause"):
        stop_reason = "pause_turn"
    words = sum(len(str(block.get("text", "")).split()) for block in content)
    if words > request.max_tokens:
        content, stop_reason = [_text(" ".join(str(content[-1]["text"]).split()[: request.max_tokens]))], "max_tokens"
    for stop in request.stop_sequences:
        if content and stop in str(content[-1].get("text", "")):
            content, stop_reason = [_text(str(content[-1]["text"]).partition(stop)[0])], "stop_sequence"
    return _Answer(content, stop_reason, _usage(request, content))


def _content(request: Request) -> list[JsonObject]:
    last = request.messages[-1].content
    said = " ".join(block.text for block in last if isinstance(block, Text))
    thought: list[JsonObject] = []
    if request.thinks:
        thought = [{"type": "thinking", "thinking": "Let me see.", "signature": SIGNATURE}]
    results = [block for block in last if isinstance(block, ToolResult)]
    if results and not request.output_config.format:
        texts = [part.text for result in results for part in result.content if isinstance(part, Text)]
        return [*thought, _text("The tools said: " + ", ".join(texts))]
    choice = request.tool_choice
    if request.tools and not results and not (choice and choice.type == "none"):
        wanted = [tool for tool in request.tools if not choice or choice.type != "tool" or tool.name == choice.name]
        both = "both" in said.split() and not (choice and choice.disable_parallel_tool_use)
        uses: list[JsonObject] = [
            {"type": "tool_use", "id": f"toolu_{number}", "name": tool.name, "input": sample(tool.input_schema)}
            for number, tool in enumerate(wanted[: 2 if both else 1])
        ]
        return [*thought, _text("I'll look it up."), *uses]
    if form := request.output_config.format:
        return [*thought, _text(json.dumps(sample(form.wanted)))]
    images = sum(isinstance(block, Image) for block in last)
    return [*thought, _text(f"I see {images} image(s)." if images else f"You said: {said}")]


def _usage(request: Request, content: Sequence[JsonObject]) -> JsonObject:
    """A word is a token. What carries a mark for the cache is written to it."""
    blocks = [*request.system, *(block for turn in request.messages for block in turn.content)]
    words = [(len(block.text.split()), block.cache_control) for block in blocks if isinstance(block, Text)]
    hour = sum(count for count, mark in words if mark and mark.ttl == "1h")
    minutes = sum(count for count, mark in words if mark and mark.ttl == "5m")
    thought = 3 if request.thinks else 0
    return {
        "input_tokens": sum(count for count, mark in words if not mark),
        "cache_creation_input_tokens": hour + minutes,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
        "output_tokens": thought + sum(len(json.dumps(block).split()) for block in content if block["type"] != "thinking"),
        "output_tokens_details": {"thinking_tokens": thought},
        "service_tier": "standard",
    }


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _head(request: Request) -> JsonObject:
    return {"id": "msg_mock", "type": "message", "role": "assistant", "model": request.model}


def _stop(answer: _Answer) -> JsonObject:
    return {"stop_reason": answer.stop_reason, "stop_sequence": None}


async def _lines(request: Request, answer: _Answer) -> AsyncGenerator[str]:
    for number, event in enumerate(_events(request, answer)):
        if request.model.endswith("-cut") and number == _CUT:
            return
        if request.model.endswith("-broken") and number == _CUT:
            event = _problem("overloaded_error", "Overloaded")
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        if event["type"] == "error":
            return


def _events(request: Request, answer: _Answer) -> Iterator[JsonObject]:
    usage = {**answer.usage, "output_tokens": 1}
    start: JsonObject = {**_head(request), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(answer.content):
        empty, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    told: JsonObject = {name: answer.usage[name] for name in ("output_tokens", "output_tokens_details")}
    yield {"type": "message_delta", "delta": _stop(answer), "usage": told}
    yield {"type": "message_stop"}


def _pieces(block: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
    """A block as it begins, and what makes it whole."""
    match block:
        case {"type": "thinking", "thinking": str(thinking), "signature": signature}:
            pieces: list[JsonObject] = [{"type": "thinking_delta", "thinking": piece} for piece in _words(thinking)]
            return {**block, "thinking": "", "signature": ""}, [*pieces, {"type": "signature_delta", "signature": signature}]
        case {"type": "tool_use", "input": given}:
            text = json.dumps(given) if given else ""
            halves = ["", text[: len(text) // 2], text[len(text) // 2 :]]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": half} for half in halves]
        case _:
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _words(str(block["text"]))]


def _words(text: str) -> list[str]:
    return [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
