"""Gemini of Google AI Studio, asked over HTTP at a mock that takes nothing that Google doesn't."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers.base import DONE, Provider, ProviderFailure, ProviderRequest
from services.router.providers.failures import leads_to
from services.router.providers.gemini import Gemini
from services.router.providers.http import Http
from tests.mocks.gemini import KEY, MockGemini
from tests.unit.services.router.providers import gemini_cases

HI: JsonObject = {"messages": [{"role": "user", "content": "what is it"}]}
FUNCTION: JsonObject = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
async def google() -> AsyncIterator[MockGemini]:
    async with MockGemini() as started:
        yield started


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    http = Http(10)
    yield Gemini(_secret, http)
    await http.close()


async def _secret(reference: str) -> str | None:
    return {"os.environ/KEY": KEY, "os.environ/OLD": "AIza-CANARY-old"}.get(reference)


def asked(google: MockGemini, body: JsonObject = HI, api: Api = Api.CHAT, **deployment: Any) -> ProviderRequest:
    given = {"model": "mock-gemini-2.5", "api_base": google.base_url, "api_key": "os.environ/KEY", **deployment}
    return gemini_cases.asked(body, api, **given)


async def events(provider: Provider, request: ProviderRequest) -> list[str]:
    async with aclosing(provider.stream(request)) as batches:
        return [data async for batch in batches for data in batch]


async def failure(provider: Provider, request: ProviderRequest, stream: bool = False) -> ProviderFailure:
    """The failure, of which neither text nor chain may hold the credential."""
    with pytest.raises(ProviderFailure) as caught:
        await (events(provider, request) if stream else provider.call(request))
    assert "CANARY" not in repr(caught.value) + caught.value.fault.model_dump_json()
    assert caught.value.__cause__ is None
    return caught.value


def message(body: str) -> dict[str, Any]:
    return json.loads(body)["choices"][0]["message"]


@pytest.mark.parametrize("body", [HI, {**HI, "reasoning_effort": "low"}, {**HI, "tools": [FUNCTION]}, {**HI, "max_tokens": 3}])
@pytest.mark.parametrize("model", ["mock-gemini-2.5", "mock-gemini-3"])
async def test_a_whole_answer_and_a_stream_say_the_same(google: MockGemini, gemini: Gemini, body: JsonObject, model: str) -> None:
    whole = json.loads(await gemini.call(asked(google, body, model=model)))
    request = asked(google, body, model=model)
    streamed = await events(gemini, request)
    assert streamed[-1] == DONE
    chunks = [json.loads(data) for data in streamed[:-1]]
    said = whole["choices"][0]["message"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == (said["content"] or "")
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == said.get("reasoning_content", "")
    calls = [{**call, "index": None} for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls == [{**call, "index": None} for call in said.get("tool_calls", ())]
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert read_event(streamed[-2]).usage_only
    assert canonical(read_answer(Api.CHAT, json.dumps(whole)).usage) is not None
    assert request.told.usage is not None
    assert "promptTokenCount" in request.told.usage


@pytest.mark.parametrize("model", ["mock-gemini-2.5", "mock-gemini-3"])
async def test_a_conversation_with_a_tool(google: MockGemini, gemini: Gemini, model: str) -> None:
    body: JsonObject = {**HI, "tools": [FUNCTION]}
    made = message(await gemini.call(asked(google, body, model=model)))
    [call] = made["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    result: JsonObject = {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"}
    messages: Any = [{"role": "user", "content": "what is it"}, made, result]
    said = message(await gemini.call(asked(google, {**body, "messages": messages}, model=model)))
    assert "12 degrees" in said["content"]


async def test_a_call_that_another_model_made_is_taken_by_newer_ones_too(google: MockGemini, gemini: Gemini) -> None:
    function = {"name": "weather", "arguments": "{}"}
    messages: Any = [
        {"role": "user", "content": "what is it"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "12 degrees"},
    ]
    said = message(await gemini.call(asked(google, {"messages": messages}, model="mock-gemini-3")))
    assert "12 degrees" in said["content"]


async def test_a_schema_is_filled_in(google: MockGemini, gemini: Gemini) -> None:
    schema: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    form: JsonObject = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    said = message(await gemini.call(asked(google, {**HI, "response_format": form})))
    assert json.loads(said["content"]) == {"n": 7}


async def test_a_picture_is_seen(google: MockGemini, gemini: Gemini) -> None:
    part: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}
    said = message(await gemini.call(asked(google, {"messages": [{"role": "user", "content": [part]}]})))
    assert said["content"] == "I see image/png."


async def test_the_caller_does_not_choose_the_upstream_and_the_key_is_in_no_address(google: MockGemini, gemini: Gemini) -> None:
    await gemini.call(asked(google, {**HI, "api_base": "http://127.0.0.1:1", "api_key": "sk-other", "model": "other"}))
    assert google.asked == [{"contents": [{"role": "user", "parts": [{"text": "what is it"}]}]}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "status", "leads"),
    [
        ("mock-400", "final", 400, None),
        ("mock-404", "final", 404, "failed"),
        ("mock-401", "denied", 502, "failed"),
        ("mock-403", "denied", 502, "failed"),
        ("mock-429-retry-7", "throttled", 429, "failed"),
        ("mock-500", "unavailable", 502, "failed"),
        ("mock-503", "unavailable", 502, "failed"),
        ("gemini-blocked", "final", 400, "content"),
        ("gemini-toolong", "final", 400, "context"),
    ],
)
async def test_refusals(
    google: MockGemini, gemini: Gemini, model: str, kind: str, status: int, leads: str | None, stream: bool
) -> None:
    failed = await failure(gemini, asked(google, model=model), stream)
    assert (failed.kind, failed.fault.status, leads_to(failed)) == (kind, status, leads)
    assert failed.retry_after_s == (7 if kind == "throttled" else None)


async def test_a_wrong_key_is_no_fault_of_the_caller(google: MockGemini, gemini: Gemini) -> None:
    assert (await failure(gemini, asked(google, api_key="os.environ/OLD"))).kind == "denied"


@pytest.mark.parametrize("reference", [None, "os.environ/NOT_SET"])
async def test_without_a_key_nobody_is_asked(google: MockGemini, gemini: Gemini, reference: str | None) -> None:
    failed = await failure(gemini, asked(google, api_key=reference))
    assert (failed.kind, failed.billable) == ("unavailable", False)
    assert not google.asked


@pytest.mark.parametrize(("model", "ends"), [("mock-gemini-2.5-truncate", False), ("mock-gemini-2.5", True)])
async def test_a_stream_ends_well_only_if_google_said_why(google: MockGemini, gemini: Gemini, model: str, ends: bool) -> None:
    assert ((await events(gemini, asked(google, model=model)))[-1] == DONE) is ends


@pytest.mark.parametrize("model", ["mock-gemini-2.5-cut", "mock-gemini-2.5-error"])
async def test_a_stream_that_breaks_may_cost(google: MockGemini, gemini: Gemini, model: str) -> None:
    failed = await failure(gemini, asked(google, model=model), stream=True)
    assert (failed.kind, failed.billable) == ("unavailable", True)


async def test_garbage_is_no_answer(google: MockGemini, gemini: Gemini) -> None:
    failed = await failure(gemini, asked(google, model="mock-gemini-2.5-garbage"))
    assert (failed.kind, failed.billable) == ("unavailable", True)


async def test_connections_are_used_again_also_after_a_stream(google: MockGemini, gemini: Gemini) -> None:
    for _ in range(3):
        await gemini.call(asked(google))
        await events(gemini, asked(google))
    assert google.open_connections == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_it_closes_the_connection(google: MockGemini, gemini: Gemini, stream: bool) -> None:
    request = asked(google, model="mock-gemini-2.5-words-200-chunkms-20" if stream else "mock-gemini-2.5-hang")
    task = asyncio.create_task(events(gemini, request)) if stream else asyncio.create_task(gemini.call(request))
    while not google.ledger.in_flight:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    while google.ledger.in_flight or google.open_connections:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.005)
    assert google.ledger.entries()[0].outcome == "client_gone"


async def test_embeddings_in_both_encodings(google: MockGemini, gemini: Gemini) -> None:
    body: JsonObject = {"input": ["one", "two"], "dimensions": 4}
    plain = json.loads(await gemini.call(asked(google, body, Api.EMBEDDINGS)))
    assert [(one["index"], len(one["embedding"])) for one in plain["data"]] == [(0, 4), (1, 4)]
    assert "usage" not in plain
    packed = json.loads(await gemini.call(asked(google, {**body, "encoding_format": "base64"}, Api.EMBEDDINGS)))
    vectors = [struct.unpack("<4f", base64.b64decode(one["embedding"])) for one in packed["data"]]
    assert vectors == [pytest.approx(one["embedding"]) for one in plain["data"]]


async def test_many_texts_are_embedded_in_several_calls(google: MockGemini, gemini: Gemini) -> None:
    texts: Sequence[str] = [str(n) for n in range(250)]
    answer = json.loads(await gemini.call(asked(google, {"input": [*texts]}, Api.EMBEDDINGS)))
    assert [one["index"] for one in answer["data"]] == [*range(250)]
    assert [len(body["requests"]) for body in google.asked if isinstance(body["requests"], list)] == [100, 100, 50]


async def test_what_can_not_be_told_is_refused_before_anybody_is_asked(google: MockGemini, gemini: Gemini) -> None:
    assert (await failure(gemini, asked(google, {"input": "x"}, Api.MODERATIONS))).fault.param == "model"
    assert (await failure(gemini, asked(google, {"input": [1]}, Api.EMBEDDINGS))).fault.param == "input"
    assert (await failure(gemini, asked(google, {**HI, "logit_bias": {"1": 1}}), stream=True)).fault.param == "logit_bias"
    assert not google.asked
