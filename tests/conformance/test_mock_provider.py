"""The mock provider seen by OpenAI's own SDK: a fake is of use only if the real client takes it for real."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.mock_answers import answer_text, vector
from benchmarks.mock_provider import MockProvider


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider() as started:
        yield started


@pytest.fixture
async def client(provider: MockProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk-mock-1234", max_retries=0) as opened:
        yield opened


def _ask(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_chat(provider: MockProvider, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="mock", messages=_ask("what is it"), user="marker-1")
    assert answer.choices[0].message.content == answer_text("what is it")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 12)
    [entry] = provider.ledger.entries()
    assert (entry.id, entry.marker, entry.key_tail, entry.outcome) == (answer.id, "marker-1", "1234", "finished")
    assert (entry.status, entry.prompt_tokens, entry.completion_tokens) == (200, 3, 12)


async def test_stream_with_usage(provider: MockProvider, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="mock", messages=_ask("what is it"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer_text("what is it")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15
    assert provider.ledger.entries()[0].completion_tokens == 12


async def test_stream_without_usage_has_none(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="mock-chunkms-1", messages=_ask("hi"), stream=True)
    assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    # The SDK asks for base64 by itself and decodes it.
    answer = await client.embeddings.create(model="mock", input=["one", "two words"], dimensions=8)
    assert [pytest.approx(item.embedding) for item in answer.data] == [vector("one", 8), vector("two words", 8)]
    assert answer.usage.prompt_tokens == 3


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert "mock" in [model.id async for model in client.models.list()]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("mock-400", openai.BadRequestError),
        ("mock-401", openai.AuthenticationError),
        ("mock-404", openai.NotFoundError),
        ("mock-429-retry-7", openai.RateLimitError),
        ("mock-500", openai.InternalServerError),
        ("mock-cut", openai.APIConnectionError),
    ],
)
async def test_errors(client: openai.AsyncOpenAI, model: str, error: type[openai.APIError]) -> None:
    with pytest.raises(error):
        await client.chat.completions.create(model=model, messages=_ask("hi"))


async def test_retry_after(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="mock-429-retry-7", messages=_ask("hi"))
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.code == "rate_limit_exceeded"


async def test_bad_body_is_400(provider: MockProvider) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{provider.base_url}/chat/completions", content=b"{not json")
    assert answer.status_code == 400


async def test_stream_cut_in_the_middle(provider: MockProvider, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="mock-cut", messages=_ask("hi"), stream=True)
    words: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert "".join(words) == answer_text("hi", 6)
    [entry] = provider.ledger.entries()
    assert (entry.outcome, entry.completion_tokens) == ("cut", 6)


async def test_error_in_the_middle_of_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="mock-error", messages=_ask("hi"), stream=True)
    with pytest.raises(openai.APIError, match="mock provider"):
        _ = [chunk async for chunk in stream]


async def test_script_is_used_up_in_order(provider: MockProvider, client: openai.AsyncOpenAI) -> None:
    async with httpx.AsyncClient() as http:
        await http.post(f"{provider.base_url.removesuffix('/v1')}/faults", json={"gpt-x": ["500", "ok", "429"]})
    statuses: list[int] = []
    for _ in range(4):
        try:
            answer = await client.chat.completions.with_raw_response.create(model="gpt-x", messages=_ask("hi"))
            statuses.append(answer.http_response.status_code)
        except openai.APIStatusError as error:
            statuses.append(error.status_code)
    assert statuses == [500, 200, 429, 200]


async def test_a_client_that_leaves_is_seen(provider: MockProvider) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    body = b'{"model": "mock-hang", "messages": [{"role": "user", "content": "hi"}]}'
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    async with httpx.AsyncClient(base_url=provider.base_url.removesuffix("/v1")) as http:
        while (await http.get("/ledger/summary")).json()["in_flight"] == 0:
            pass
        writer.close()
        await writer.wait_closed()
        while (await http.get("/ledger/summary")).json()["in_flight"] == 1:
            pass
        [entry] = (await http.get("/ledger")).json()
        assert (await http.get("/ledger", params={"after": entry["seq"]})).json() == []
        assert (entry["outcome"], entry["prompt_tokens"], entry["completion_tokens"]) == ("client_gone", 0, 0)
        assert (await http.delete("/ledger")).status_code == 200
        assert (await http.get("/ledger")).json() == []


async def test_stop_ends_what_runs(client: openai.AsyncOpenAI, provider: MockProvider) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(_outcome(client))
        async with httpx.AsyncClient(base_url=provider.base_url.removesuffix("/v1")) as http:
            while (await http.get("/ledger/summary")).json()["in_flight"] == 0:
                pass
        await provider.stop()
    assert asked.result() == "APIConnectionError"
    assert provider.open_connections == 0
    assert provider.ledger.summary()["by_outcome"] == {"client_gone": 1}


async def _outcome(client: openai.AsyncOpenAI) -> str:
    try:
        await client.chat.completions.create(model="mock-slow-60s", messages=_ask("hi"))
    except openai.APIError as error:
        return type(error).__name__
    return "answered"
