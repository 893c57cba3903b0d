"""OpenAI's chat completions on loopback, strict about every member; the rest is the mock provider's.

In a test: `async with MockOpenAI("key") as openai: ... openai.base_url, openai.asked`. It calls the first tool that it may call
(or the chosen one; all of them where the user says the word "both") unless it was just told a result; else it fills in a schema,
repeats what tools have said, tells how large the images are that it sees; and all else is answered, and fails, as by the mock
provider.
"""

import base64
import json
from collections.abc import Collection, Iterator
from typing import cast

from pydantic import JsonValue

from benchmarks.mock_answers import Behaviour, count_tokens, error_body
from benchmarks.mock_provider import MockProvider
from benchmarks.mock_wire import Reply, Request, json_reply, stream_reply
from schemas.base import JsonObject
from tests.mocks.openai_requests import (
    Function,
    ImagePart,
    Message,
    Refused,
    TextPart,
    ToolChoice,
    ToolMessage,
    UserMessage,
    read_request,
)
from tests.mocks.openai_requests import Request as Asked
from tests.mocks.samples import sample

_PIECE = 5
REASONED = 3
"""Tokens of thought of whoever is told an effort."""


class MockOpenAI(MockProvider):
    """The server. `key` is the only one it takes, None: any; `knows`: members beyond OpenAI's. `asked`: bodies that it took."""

    def __init__(self, key: str | None = None, port: int = 0, knows: Collection[str] = ()) -> None:
        super().__init__(port)
        self._knows = knows
        self._bearer = key and f"Bearer {key}"
        self.asked: list[JsonObject] = []

    def reply(self, request: Request) -> Reply:
        """As the mock provider, once credential and body are in order."""
        if self._bearer and request.header(b"authorization") != self._bearer:
            return json_reply(401, error_body(401, "Incorrect API key provided."))
        if request.target.split(b"?")[0] != b"/v1/chat/completions":
            return super().reply(request)
        try:
            asked = read_request(request.body, self._knows)
        except Refused as refused:
            return json_reply(400, error_body(400, str(refused)))
        self.asked.append(cast("JsonObject", json.loads(request.body)))
        message = _message(asked)
        return super().reply(request) if message is None else self._said(request, asked, message)

    def _said(self, request: Request, asked: Asked, message: JsonObject) -> Reply:
        entry = self._entry("chat", asked.model, asked.user, request)
        entry.stream, entry.status = bool(asked.stream), 200
        reasoned = REASONED if asked.reasoning_effort not in (None, "none") else 0
        given, made = count_tokens(_texts(asked)), count_tokens(json.dumps(message)) + reasoned
        entry.prompt_tokens, entry.completion_tokens = given, made
        usage: JsonObject = {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoned, "audio_tokens": 0},
        }
        head: JsonObject = {"id": entry.id, "created": int(entry.at), "model": asked.model, "system_fingerprint": "fp_mock"}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        if asked.stream:
            told = usage if asked.stream_options and asked.stream_options.include_usage else None
            return stream_reply([*_events(head, message, finish, told)], Behaviour(), entry)
        choice: JsonObject = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        body: JsonObject = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return json_reply(200, json.dumps(body).encode(), None, entry)


def _message(asked: Asked) -> JsonObject | None:
    """What is said beyond words; None for words."""
    last, choice = asked.messages[-1], asked.tool_choice
    if asked.tools and choice != "none" and not isinstance(last, ToolMessage):
        functions = [tool.function for tool in asked.tools]
        if isinstance(choice, ToolChoice):
            functions = [function for function in functions if function.name == choice.function.name]
        elif "both" not in _said(last).split():
            functions = functions[:1]
        calls = [_call(function, f"call_{len(asked.messages)}_{n}") for n, function in enumerate(functions)]
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [*calls]}
    text = _text(asked)
    return None if text is None else {"role": "assistant", "content": text, "refusal": None}


def _call(function: Function, name: str) -> JsonObject:
    given = json.dumps(sample(function.parameters), ensure_ascii=False)
    return {"id": name, "type": "function", "function": {"name": function.name, "arguments": given}}


def _text(asked: Asked) -> str | None:
    last, form = asked.messages[-1], asked.response_format
    if form and form.type != "text":
        return json.dumps(sample(form.json_schema.wanted if form.json_schema else {"type": "object"}), ensure_ascii=False)
    if isinstance(last, ToolMessage):
        return f"The tools said: {_said(last)}"
    images = [part for part in last.content if isinstance(part, ImagePart)] if isinstance(last, UserMessage) else []
    if images:
        sizes = [len(base64.b64decode(image.image_url.url.partition(",")[2])) for image in images]
        return f"I see images of {sizes} bytes."
    return "I have thought about it." if asked.reasoning_effort not in (None, "none") else None


def _texts(asked: Asked) -> str:
    return "\n".join(_said(message) for message in asked.messages)


def _said(message: Message) -> str:
    return "".join(part.text for part in message.content or () if isinstance(part, TextPart))


def _events(head: JsonObject, message: JsonObject, finish: str, usage: JsonObject | None) -> Iterator[bytes]:
    told: JsonObject = {} if usage is None else {"usage": None}
    deltas = [*_deltas(message)]
    for n, delta in enumerate([*deltas, {}]):
        choice: JsonObject = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish if n == len(deltas) else None}
        yield _event({**head, "object": "chat.completion.chunk", "choices": [choice], **told})
    if usage is not None:
        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _deltas(message: JsonObject) -> Iterator[JsonObject]:
    match message:
        case {"tool_calls": list(calls)}:
            yield {"role": "assistant", "content": None}
            for index, call in enumerate(calls):
                yield from _pieces(index, call)
        case _:
            yield {"role": "assistant", "content": "", "refusal": None}
            for piece in _cut(str(message["content"])):
                yield {"content": piece}


def _pieces(index: int, call: JsonValue) -> Iterator[JsonObject]:
    match call:
        case {"function": {"name": name, "arguments": str(text)}, **begun}:
            yield {"tool_calls": [{**begun, "index": index, "function": {"name": name, "arguments": ""}}]}
            for piece in _cut(text):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
        case _:
            raise AssertionError(call)


def _cut(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _event(chunk: JsonObject) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()
