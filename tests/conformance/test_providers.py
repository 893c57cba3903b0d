"""Every provider, by the same suite; and OpenAI's against a server that misbehaves in all ways its books list."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import numpy as np
import pytest
from numpy.typing import NDArray
from openai.types import ModerationCreateResponse
from pydantic import JsonValue
from pydantic_core import from_json

from benchmarks.mock_answers import answer_text
from benchmarks.mock_provider import MockProvider
from infra.usage import canonical
from schemas.base import JsonObject
from schemas.control import Deployment, EchoSettings
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers import http
from services.router.providers.base import DONE, Provider, ProviderFailure, ProviderRequest
from services.router.providers.echo import Echo
from services.router.providers.http import Http
from services.router.providers.local import DIMENSIONS, Local
from services.router.providers.openai import OpenAI
from tests.fakes.clock import in_virtual_time

SECRET = "sk-provider-CANARY-1234"
CHAT: JsonObject = {"model": "alias", "messages": [{"role": "user", "content": "what is it"}], "user": "marker-7"}


class _Embedder:
    """Vectors that say how long the text is."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text) / 3] * DIMENSIONS for text in texts], np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    async def close(self) -> None:
        return None


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider() as started:
        yield started


@pytest.fixture
async def provider() -> AsyncIterator[OpenAI]:
    http = Http(100)
    yield OpenAI(_secret, http)
    await http.close()


async def _secret(reference: str) -> str | None:
    return {"os.environ/KEY": SECRET}.get(reference)


def asked_of(mock: MockProvider, model: str = "mock", body: JsonObject = CHAT, api: Api = Api.CHAT) -> ProviderRequest:
    deployment = Deployment(id="d1", provider="acme", model=model, api_base=mock.base_url, api_key="os.environ/KEY")
    return ProviderRequest("att_1", api, body, deployment, "00-" + "1" * 32 + "-" + "2" * 16 + "-00")


def echo_request(body: JsonObject = CHAT, api: Api = Api.CHAT, **settings: float) -> ProviderRequest:
    echo = EchoSettings.model_validate(settings)
    return ProviderRequest("att_1", api, body, Deployment(id="e1", provider="echo", model="echo", echo=echo))


async def events(provider: Provider, asked: ProviderRequest) -> list[str]:
    async with aclosing(provider.stream(asked)) as batches:
        return [data async for batch in batches for data in batch]


async def failure(provider: Provider, asked: ProviderRequest, stream: bool = False) -> ProviderFailure:
    """The failure, of which neither text nor chain may hold the credential."""
    with pytest.raises(ProviderFailure) as caught:
        await (events(provider, asked) if stream else provider.call(asked))
    assert SECRET not in repr(caught.value) + caught.value.fault.model_dump_json()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own time-out bounds it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


# What every chat provider does


@pytest.fixture(params=["openai", "echo"])
def chat(request: pytest.FixtureRequest, mock: MockProvider, provider: OpenAI) -> tuple[Provider, Callable[[], ProviderRequest]]:
    if request.param == "openai":
        return provider, lambda: asked_of(mock)
    return Echo(lambda: 0.5), echo_request


async def test_a_whole_answer_and_a_stream_say_the_same(chat: tuple[Provider, Callable[[], ProviderRequest]]) -> None:
    subject, ask = chat
    whole = await subject.call(ask())
    streamed = await events(subject, ask())
    assert streamed[-1] == DONE
    readings = [read_event(data) for data in streamed[:-1]]
    message = from_json(whole)["choices"][0]["message"]["content"]
    assert "".join(reading.text for reading in readings) == message
    assert readings[-1].usage_only
    assert canonical(readings[-1].usage) == canonical(read_answer(Api.CHAT, whole).usage)
    assert sum(reading.finished for reading in readings) == 1


async def test_a_stream_left_alone_is_closed(chat: tuple[Provider, Callable[[], ProviderRequest]]) -> None:
    subject, ask = chat
    async with aclosing(subject.stream(ask())) as batches:
        async for _ in batches:
            break


# OpenAI's


async def test_the_body_passes_untouched_but_for_the_model(mock: MockProvider, provider: OpenAI) -> None:
    body = await provider.call(asked_of(mock, body={**CHAT, "max_tokens": 3, "vendor_option": {"deep": [1, None]}}))
    assert read_answer(Api.CHAT, body).usage == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert from_json(body)["choices"][0]["message"]["content"] == answer_text("what is it", 3)
    [entry] = mock.ledger.entries()
    assert (entry.model, entry.marker, entry.key_tail, entry.outcome) == ("mock", "marker-7", "1234", "finished")


async def test_the_attempt_is_named(mock: MockProvider, provider: OpenAI) -> None:
    await provider.call(asked_of(mock, body={"messages": CHAT["messages"]}))
    assert mock.ledger.entries()[0].marker == "att_1"


async def test_a_caller_does_not_choose_the_upstream(mock: MockProvider, provider: OpenAI) -> None:
    await provider.call(
        asked_of(mock, body={**CHAT, "api_base": "http://127.0.0.1:1/v1", "base_url": "x", "api_key": "sk-other"})
    )
    assert mock.ledger.entries()[0].key_tail == "1234"


async def test_embeddings(mock: MockProvider, provider: OpenAI) -> None:
    body = await provider.call(asked_of(mock, body={"input": ["one", "two words"], "dimensions": 4}, api=Api.EMBEDDINGS))
    assert len(from_json(body)["data"]) == 2
    assert canonical(read_answer(Api.EMBEDDINGS, body).usage) is not None


async def test_connections_are_used_again_also_after_a_stream(mock: MockProvider, provider: OpenAI) -> None:
    for _ in range(3):
        await provider.call(asked_of(mock))
        await events(provider, asked_of(mock))
    assert mock.open_connections == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("mock-400", "final", 400),
        ("mock-404", "final", 404),
        ("mock-401", "denied", 502),
        ("mock-403", "denied", 502),
        ("mock-429-retry-7", "throttled", 429),
        ("mock-500", "unavailable", 502),
        ("mock-503", "unavailable", 502),
    ],
)
async def test_statuses(mock: MockProvider, provider: OpenAI, model: str, kind: str, status: int, stream: bool) -> None:
    failed = await failure(provider, asked_of(mock, model), stream)
    assert (failed.kind, failed.fault.status, failed.billable) == (kind, status, False)
    assert failed.retry_after_s == (7 if kind == "throttled" else None)
    assert "mock-" not in failed.fault.message


async def test_a_cut_answer_is_a_failure_that_may_cost(mock: MockProvider, provider: OpenAI) -> None:
    failed = await failure(provider, asked_of(mock, "mock-cut"))
    assert (failed.kind, failed.billable) == ("unavailable", True)


async def test_a_cut_stream_gives_what_came(mock: MockProvider, provider: OpenAI) -> None:
    came: list[str] = []

    async def take() -> None:
        async with aclosing(provider.stream(asked_of(mock, "mock-cut"))) as batches:
            async for batch in batches:
                came.extend(batch)

    with pytest.raises(ProviderFailure):
        await take()
    assert came


async def test_a_stream_that_ends_early_ends_without_done(mock: MockProvider, provider: OpenAI) -> None:
    assert (await events(provider, asked_of(mock, "mock-truncate")))[-1] != DONE


async def test_nobody_there(provider: OpenAI) -> None:
    deployment = Deployment(id="d1", provider="openai", model="m", api_base="http://127.0.0.1:1/v1", api_key="os.environ/KEY")
    failed = await failure(provider, ProviderRequest("att_1", Api.CHAT, CHAT, deployment))
    assert (failed.kind, failed.billable, failed.http_status) == ("unavailable", False, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"api_base": None},
        {"api_key": "os.environ/NOT_SET"},
        {"api_base": "no url"},
        {"api_base": "ftp://127.0.0.1"},
        {"api_base": "http://[::1"},
    ],
)
async def test_a_deployment_that_can_not_be_asked(mock: MockProvider, provider: OpenAI, changes: dict[str, str | None]) -> None:
    asked = asked_of(mock)
    deployment = asked.deployment.model_copy(update=changes)
    failed = await failure(provider, ProviderRequest("att_1", Api.CHAT, CHAT, deployment))
    assert (failed.kind, failed.billable) == ("unavailable", False)
    assert "can't be asked" in failed.fault.message or "no address" in failed.fault.message
    assert not mock.ledger.entries()


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_it_closes_the_connection(mock: MockProvider, provider: OpenAI, stream: bool) -> None:
    asked = asked_of(mock, "mock-words-200-chunkms-20" if stream else "mock-hang")
    task = asyncio.create_task(events(provider, asked)) if stream else asyncio.create_task(provider.call(asked))
    await until(lambda: mock.ledger.in_flight == 1)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: mock.ledger.in_flight == mock.open_connections == 0)
    assert mock.ledger.entries()[0].outcome == "client_gone"


async def test_an_answer_without_end_is_cut_off(mock: MockProvider, provider: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 300)
    assert "more than 300 bytes" in (await failure(provider, asked_of(mock))).fault.message
    assert "more than 300 bytes" in (await failure(provider, asked_of(mock), stream=True)).fault.message


# Echo


async def test_the_echo_says_what_it_is_and_counts() -> None:
    body = await Echo(lambda: 0.5).call(echo_request())
    assert from_json(body)["choices"][0]["message"]["content"] == (
        "This is Sluice's echo, no model was asked. You said: what is it"
    )
    usage = canonical(read_answer(Api.CHAT, body).usage)
    assert usage is not None
    assert usage.source == "provider"
    assert usage.output_tokens > 10


async def test_the_echo_answers_with_as_many_tokens_as_it_shall() -> None:
    body = from_json(await Echo(lambda: 0.5).call(echo_request(tokens=50)))
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (50, "stop")
    body = from_json(await Echo(lambda: 0.5).call(echo_request({**CHAT, "max_tokens": 4}, tokens=50)))
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (4, "length")


@in_virtual_time
async def test_the_echo_takes_its_time() -> None:
    echo, loop = Echo(lambda: 0.5), asyncio.get_running_loop()
    await echo.call(echo_request(latency_ms=500, token_ms=100, tokens=10))
    assert loop.time() == pytest.approx(1.5)
    streamed = await events(echo, echo_request(latency_ms=500, token_ms=100, tokens=10))
    assert loop.time() == pytest.approx(1.5 + 0.5 + 1.3)
    assert len(streamed) == 14


async def test_the_echo_fails_as_often_as_it_shall() -> None:
    assert (await failure(Echo(lambda: 0.29), echo_request(failure_rate=0.3))).kind == "unavailable"
    await Echo(lambda: 0.31).call(echo_request(failure_rate=0.3))
    assert (await failure(Echo(lambda: 0.5), echo_request(api=Api.EMBEDDINGS))).fault.status == 400


# Local


def local_request(body: JsonObject, api: Api = Api.EMBEDDINGS) -> ProviderRequest:
    return ProviderRequest("att_1", api, body, Deployment(id="l1", provider="local", model="all-MiniLM-L6-v2"))


@pytest.fixture
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return Local(_Embedder())


async def test_local_embeddings_in_both_encodings(local: Local) -> None:
    plain = from_json(await local.call(local_request({"input": ["a", "four"]})))
    assert [entry["index"] for entry in plain["data"]] == [0, 1]
    assert plain["data"][1]["embedding"] == pytest.approx([4 / 3] * DIMENSIONS)
    assert plain["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    packed = from_json(await local.call(local_request({"input": "four", "encoding_format": "base64", "dimensions": 384})))
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert np.frombuffer(raw, "<f4").tolist() == pytest.approx([4 / 3] * DIMENSIONS)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "dimensions": 256}, "dimensions"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": None}, "input"),
        ({}, "input"),
    ],
)
async def test_local_refuses_what_it_can_not_do(local: Local, body: JsonObject, param: str) -> None:
    failed = await failure(local, local_request(body))
    assert (failed.kind, failed.fault.status, failed.fault.param) == ("final", 400, param)


@pytest.mark.parametrize("stream", [False, True])
async def test_local_does_not_chat(local: Local, stream: bool) -> None:
    assert (await failure(local, local_request(CHAT, Api.CHAT), stream)).fault.status == 400


@pytest.mark.parametrize(
    ("given", "results"),
    [
        ("one", 1),
        (["one", "two"], 2),
        ([{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:"}}], 1),
    ],
)
async def test_the_echo_lets_everything_pass_a_moderation(given: JsonValue, results: int) -> None:
    body = await Echo(lambda: 0.5).call(echo_request({"input": given}, Api.MODERATIONS))
    found = ModerationCreateResponse.model_validate_json(body)
    assert [result.flagged for result in found.results] == [False] * results
