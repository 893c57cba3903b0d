"""Anthropic's answers, streams and errors as OpenAI's, by cases in tests/recorded/wire/anthropic, however the bytes are cut."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NotRequired

import httpx
import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter
from pydantic_core import from_json
from typing_extensions import TypedDict

from infra.usage import canonical
from schemas.anthropic.answers import ERROR_STATUS, EVENT, Message, Usage
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers.anthropic import VERSION, Anthropic
from services.router.providers.anthropic_answer import Chunks, chat_usage, completion, raw
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import WordsOf, leads_to, openai_words
from services.router.providers.http import Http

WIRE = Path("tests/recorded/wire/anthropic")
SECRET = "CANARY.of.no.known.shape"
CHAT: JsonObject = {"model": "alias", "messages": [{"role": "user", "content": "what is it"}]}


class Answered(TypedDict):
    name: str
    message: JsonObject
    said: JsonObject
    finish_reason: str
    service_tier: NotRequired[str]
    usage: JsonObject


class Streamed(TypedDict):
    name: str
    events: list[JsonObject]
    deltas: list[JsonObject]
    finish_reason: str
    service_tier: NotRequired[str]
    usage: JsonObject
    raw: JsonObject


class Failed(TypedDict):
    name: str
    status: int
    type: str
    message: str
    headers: NotRequired[dict[str, str]]
    kind: str
    told: int
    code: str | None
    retry_after_s: NotRequired[float]


ANSWERS = TypeAdapter(list[Answered]).validate_json((WIRE / "answers.json").read_bytes())
STREAMS = TypeAdapter(list[Streamed]).validate_json((WIRE / "streams.json").read_bytes())
ERRORS = TypeAdapter(list[Failed]).validate_json((WIRE / "errors.json").read_bytes())


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = iter(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Recorded(Http):
    """Http with one recorded answer, and no network."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(1)
        self._pieces = pieces
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self.content: JsonObject = {}

    @asynccontextmanager
    async def post(
        self,
        request: ProviderRequest,
        url: str,
        headers: Mapping[str, str],
        content: bytes,
        *,
        secrets: Sequence[str] = (),
        words: WordsOf = openai_words,
        method: str = "POST",
    ) -> AsyncGenerator[httpx.Response]:
        self.url, self.headers, self.content = url, headers, from_json(content)
        yield httpx.Response(200, stream=_Pieces(self._pieces))


async def _secret(reference: str) -> str | None:
    return {"os.environ/KEY": SECRET}.get(reference)


def request_of(api: Api = Api.CHAT, **deployment: str | None) -> ProviderRequest:
    members = {"id": "d1", "provider": "anthropic", "model": "claude-sonnet-4-5", "api_key": "os.environ/KEY", **deployment}
    return ProviderRequest("att_1", api, CHAT, Deployment.model_validate(members), "00-" + "1" * 32 + "-" + "2" * 16 + "-00")


def sse(events: Sequence[JsonObject]) -> bytes:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode()


async def chunks_of(http: Http, asked: ProviderRequest) -> list[str]:
    async with aclosing(Anthropic(_secret, http).stream(asked)) as batches:
        return [chunk async for batch in batches for chunk in batch]


def timeless(chunks: Sequence[str]) -> list[JsonObject | str]:
    return [chunk if chunk == DONE else {**from_json(chunk), "created": 0} for chunk in chunks]


# Whole answers


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case["name"])
async def test_an_answer_as_a_completion(case: Answered) -> None:
    http, asked = Recorded([json.dumps(case["message"]).encode()]), request_of()
    body = await Anthropic(_secret, http).call(asked)
    told = from_json(body)
    [choice] = told["choices"]
    assert choice == {"index": 0, "message": case["said"], "logprobs": None, "finish_reason": case["finish_reason"]}
    assert (told["id"], told["model"], told["object"]) == (case["message"]["id"], case["message"]["model"], "chat.completion")
    assert told["usage"] == case["usage"]
    assert told.get("service_tier") == case.get("service_tier")
    assert asked.told.usage == case["message"]["usage"]
    ChatCompletion.model_validate_json(body)
    reading = read_answer(Api.CHAT, body)
    assert reading.refused == (case["finish_reason"] == "content_filter")
    usage = canonical(reading.usage)
    assert usage is not None
    assert usage.source == "provider"


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case["name"])
def test_the_recorded_answers_are_what_the_sdk_reads(case: Answered) -> None:
    assert SdkMessage.model_validate(case["message"]).id == case["message"]["id"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"type":"message"}'])
async def test_what_is_no_answer_is_a_failure_that_may_cost(body: bytes) -> None:
    with pytest.raises(ProviderFailure) as caught:
        await Anthropic(_secret, Recorded([body])).call(request_of())
    assert (caught.value.kind, caught.value.billable, caught.value.__cause__) == ("unavailable", True, None)


# Streams


@cache
def _sdk_event() -> TypeAdapter[RawMessageStreamEvent]:
    return TypeAdapter(RawMessageStreamEvent)


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["name"])
async def test_a_stream_as_chunks(case: Streamed) -> None:
    asked = request_of()
    chunks = await chunks_of(Recorded([sse(case["events"])]), asked)
    assert chunks[-1] == DONE
    *said, last = [ChatCompletionChunk.model_validate_json(chunk) for chunk in chunks[:-1]]
    assert [from_json(chunk)["choices"][0]["delta"] for chunk in chunks[:-2]] == case["deltas"]
    assert [chunk.choices[0].finish_reason for chunk in said if chunk.choices[0].finish_reason] == [case["finish_reason"]]
    assert said[-1].choices[0].finish_reason == case["finish_reason"]
    assert all(chunk.usage is None for chunk in said)
    assert len({chunk.id for chunk in [*said, last]}) == 1
    ending = from_json(chunks[-2])
    assert (ending["choices"], ending["usage"], ending.get("service_tier")) == ([], case["usage"], case.get("service_tier"))
    assert asked.told.usage == case["raw"]
    readings = [read_event(chunk) for chunk in chunks[:-1]]
    assert readings[-1].usage_only
    assert not readings[0].says_something
    assert sum(reading.finished for reading in readings) == 1


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["name"])
def test_the_recorded_events_are_what_the_sdk_reads(case: Streamed) -> None:
    for event in case["events"]:
        if event["type"] not in ("ping",):
            assert _sdk_event().validate_python(event).type == event["type"]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4000), max_size=12))
def test_any_cut_gives_the_same_chunks(case: Streamed, cuts: list[int]) -> None:
    data = sse(case["events"])
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    cut, whole = request_of(), request_of()
    assert timeless(asyncio.run(chunks_of(Recorded(pieces), cut))) == timeless(asyncio.run(chunks_of(Recorded([data]), whole)))
    assert cut.told.usage == whole.told.usage == case["raw"]


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["name"])
async def test_a_stream_that_ends_early_never_ends_well(case: Streamed) -> None:
    for length in range(1, len(case["events"])):
        chunks = await chunks_of(Recorded([sse(case["events"][:length])]), request_of())
        assert DONE not in chunks
        assert not any(read_event(chunk).finished for chunk in chunks)


async def test_the_usage_of_a_stream_that_was_cut_is_told() -> None:
    asked = request_of()
    await chunks_of(Recorded([sse(STREAMS[0]["events"][:4])]), asked)
    assert asked.told.usage == STREAMS[0]["raw"] | {"output_tokens": 1}


@pytest.mark.parametrize("kind", [*ERROR_STATUS, "brand_new_error"])
async def test_an_error_in_the_middle_is_a_failure_that_may_cost(kind: str) -> None:
    error: JsonObject = {"type": "error", "error": {"type": kind, "message": f"no, {SECRET}"}, "request_id": None}
    came: list[str] = []
    asked = request_of()

    async def take() -> None:
        http = Recorded([sse(STREAMS[0]["events"][:4]), sse([error])])
        async with aclosing(Anthropic(_secret, http).stream(asked)) as batches:
            async for batch in batches:
                came.extend(batch)

    with pytest.raises(ProviderFailure) as caught:
        await take()
    assert asked.told.usage == STREAMS[0]["raw"] | {"output_tokens": 1}
    expected = {400: "final", 401: "denied", 402: "denied", 403: "denied", 404: "final", 413: "final", 429: "throttled"}
    status = {**ERROR_STATUS}.get(kind, 500)  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.billable) == (expected.get(status, "unavailable"), True)
    assert SECRET not in caught.value.fault.model_dump_json()
    assert len(came) == 2


@pytest.mark.parametrize("data", ["{", "[]", '{"type":"content_block_delta"}', '{"type":"message_stop"}'])
async def test_what_is_no_event_is_a_failure(data: str) -> None:
    with pytest.raises(ProviderFailure) as caught:
        await chunks_of(Recorded([f"data: {data}\n\n".encode()]), request_of())
    assert (caught.value.kind, caught.value.billable) == ("unavailable", True)


async def test_a_ping_shows_that_it_lives() -> None:
    events = STREAMS[0]["events"]
    async with aclosing(Anthropic(_secret, Recorded([sse([event]) for event in events])).stream(request_of())) as batches:
        assert [len(batch) async for batch in batches] == [1, 0, 0, 1, 1, 0, 0, 3]


# How it is asked


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, "https://api.anthropic.com/v1/messages"),
        ("https://host.example", "https://host.example/v1/messages"),
        ("https://host.example/v1/", "https://host.example/v1/messages"),
        ("https://host.example/anthropic", "https://host.example/anthropic/v1/messages"),
    ],
)
async def test_where_and_how_it_is_asked(base: str | None, url: str) -> None:
    http = Recorded([json.dumps(ANSWERS[0]["message"]).encode()])
    await Anthropic(_secret, http).call(request_of(api_base=base))
    assert (http.url, http.content["model"]) == (url, "claude-sonnet-4-5")
    assert http.headers == {"anthropic-version": VERSION, "x-api-key": SECRET}


async def test_a_credential_that_is_not_set_is_no_call() -> None:
    http = Recorded([])
    with pytest.raises(ProviderFailure) as caught:
        await Anthropic(_secret, http).call(request_of(api_key="os.environ/NOT_SET"))
    assert (caught.value.kind, http.url) == ("unavailable", "")


async def test_it_makes_no_embeddings() -> None:
    with pytest.raises(ProviderFailure) as caught:
        await Anthropic(_secret, Recorded([])).call(request_of(Api.EMBEDDINGS))
    assert (caught.value.kind, caught.value.fault.param) == ("final", "model")


# Errors


class _Refusing(httpx.AsyncBaseTransport):
    def __init__(self, case: Failed) -> None:
        self._case = case

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        error = {"type": self._case["type"], "message": f"{self._case['message']} {SECRET}"}
        body = {"type": "error", "error": error, "request_id": "req_1"}
        return httpx.Response(
            self._case["status"], headers=self._case.get("headers", {}), stream=_Pieces([json.dumps(body).encode()])
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case["name"])
async def test_errors_as_openai_has_them(case: Failed, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    http = Http(1)
    monkeypatch.setattr(http, "_opened", lambda: _Refusing(case))
    with pytest.raises(ProviderFailure) as caught:
        await (chunks_of(http, request_of()) if stream else Anthropic(_secret, http).call(request_of()))
    failure = caught.value
    assert (failure.kind, failure.fault.status, failure.fault.code) == (case["kind"], case["told"], case["code"])
    assert (failure.retry_after_s, failure.billable) == (case.get("retry_after_s"), False)
    assert SECRET not in repr(failure) + failure.fault.model_dump_json()
    if case["code"] == "context_length_exceeded":
        assert leads_to(failure) == "context"
    if case["code"] == "content_filter":
        assert leads_to(failure) == "content"


# Usage


COUNT = st.integers(0, 10_000_000)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.booleans())
def test_the_disjoint_parts_of_usage_make_up_the_totals(
    fresh: int, read: int, minutes: int, hour: int, spoken: int, thought: int, streamed: bool
) -> None:
    told: JsonObject = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": minutes + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
        "output_tokens": spoken + thought,
        "output_tokens_details": {"thinking_tokens": thought},
    }
    usage = canonical(chat_usage(Usage.model_validate(_merged(told) if streamed else told)))
    assert usage is not None
    assert usage.source == "provider"
    written_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
    uncached = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    assert (uncached, usage.cache_read_tokens, written_5m, usage.cache_write_1h_tokens) == (fresh, read, minutes, hour)
    assert (usage.output_tokens - usage.reasoning_tokens, usage.reasoning_tokens) == (spoken, thought)
    assert usage.input_tokens == fresh + read + minutes + hour


def _merged(told: JsonObject) -> JsonObject:
    """The usage of a stream that tells its output last, and cumulatively."""
    last = {name: value for name, value in told.items() if name.startswith("output")}
    first = {**told, "output_tokens": 1, "output_tokens_details": None}
    chunks = Chunks(0)
    message: JsonObject = {"id": "m", "model": "m", "content": [], "usage": first}
    for event in (
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {}, "usage": {**last, "output_tokens": 1}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last},
    ):
        chunks.of(EVENT.validate_python(event))
    return chunks.usage


def test_no_usage_is_told_where_none_is() -> None:
    message = Message.model_validate({"id": "m", "model": "m", "content": [], "usage": {}})
    assert from_json(completion(message, 0))["usage"] is None
    assert raw(message.usage) == {}
    chunks = Chunks(0)
    for event in ({"type": "message_start", "message": message.model_dump()}, {"type": "message_stop"}):
        found = chunks.of(EVENT.validate_python(event))
    assert len(found) == 2
