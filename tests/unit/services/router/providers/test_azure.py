"""Azure OpenAI: its addresses, its header, its filter."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers.azure import Azure
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import leads_to
from services.router.providers.http import Http
from tests.mocks.azure import MockAzure

KEY = "azure-CANARY-7"
CHAT: JsonObject = {"messages": [{"role": "user", "content": "what is it"}], "max_tokens": 4}


async def secret(reference: str) -> str | None:
    return KEY if reference == "env:AZURE" else "wrong"


@pytest.fixture
async def azure() -> AsyncIterator[MockAzure]:
    async with MockAzure(KEY) as started:
        yield started


@pytest.fixture
async def provider() -> AsyncIterator[Azure]:
    http = Http(10)
    yield Azure(secret, http)
    await http.close()


def request(
    azure: MockAzure, model: str = "mock", api: Api = Api.CHAT, body: JsonObject = CHAT, **changes: Any
) -> ProviderRequest:
    given: dict[str, Any] = {"api_base": azure.endpoint, "api_key": "env:AZURE", "api_version": "2024-10-21", **changes}
    return ProviderRequest("att_1", api, body, Deployment(id="d1", provider="azure", model=model, **given))


BASE = "https://r.openai.azure.com"
WHERE: list[tuple[str, str | None, str]] = [
    (BASE, None, f"{BASE}/openai/v1/chat/completions"),
    (f"{BASE}/", "v1", f"{BASE}/openai/v1/chat/completions"),
    (f"{BASE}/openai", "preview", f"{BASE}/openai/v1/chat/completions"),
    (f"{BASE}/openai/v1", "2024-10-21", f"{BASE}/openai/v1/chat/completions"),
    (BASE, "2024-10-21", f"{BASE}/openai/deployments/my%2Fgpt/chat/completions?api-version=2024-10-21"),
    (f"{BASE}/openai", "2024-10-21", f"{BASE}/openai/deployments/my%2Fgpt/chat/completions?api-version=2024-10-21"),
    (
        f"{BASE}/openai/deployments/x",
        "2025-04-01-preview",
        f"{BASE}/openai/deployments/x/chat/completions?api-version=2025-04-01-preview",
    ),
]


@pytest.mark.parametrize(("base", "version", "url"), WHERE)
async def test_it_is_called_where_it_is(provider: Azure, base: str, version: str | None, url: str) -> None:
    deployment = Deployment(id="d1", provider="azure", model="my/gpt", api_base=base, api_version=version)
    place = provider.place(deployment, "/chat/completions", "key-1")
    assert place == (url, {"api-key": "key-1"}, ("key-1",))


@pytest.mark.parametrize("version", ["2024-10-21", "2024-02-01", None])
async def test_it_answers_and_streams(azure: MockAzure, provider: Azure, version: str | None) -> None:
    asked = request(azure, api_version=version)
    whole = from_json(await provider.call(asked))
    assert whole["usage"]["completion_tokens"] == 4
    streamed = [data async for batch in provider.stream(asked) for data in batch]
    assert streamed[-1] == DONE
    readings = [read_event(data) for data in streamed[:-1]]
    assert "".join(reading.text for reading in readings) == whole["choices"][0]["message"]["content"]
    # The dated API from before the reasoning models refuses `stream_options`, so nothing tells of the usage.
    assert readings[-1].usage_only == (version != "2024-02-01")


async def test_embeddings(azure: MockAzure, provider: Azure) -> None:
    body = await provider.call(request(azure, api=Api.EMBEDDINGS, body={"input": "one"}))
    assert read_answer(Api.EMBEDDINGS, body).usage is not None


async def test_what_the_filter_says_of_the_prompt_is_no_output(azure: MockAzure, provider: Azure) -> None:
    streamed = [data async for batch in provider.stream(request(azure)) for data in batch]
    assert not any("prompt_filter_results" in data for data in streamed)
    assert read_event(streamed[0]).says_something is False, "the role, as ever"


async def failure(provider: Azure, asked: ProviderRequest) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await provider.call(asked)
    assert KEY not in repr(caught.value) + caught.value.fault.model_dump_json()
    return caught.value


async def test_filtered_content_leads_to_the_fallback_for_content(azure: MockAzure, provider: Azure) -> None:
    failed = await failure(provider, request(azure, "mock-filtered"))
    assert (failed.kind, failed.fault.status, failed.fault.code) == ("final", 400, "content_filter")
    assert leads_to(failed) == "content"


async def test_a_wrong_key_is_denied(azure: MockAzure, provider: Azure) -> None:
    assert (await failure(provider, request(azure, api_key="env:OTHER"))).kind == "denied"


async def test_without_an_address_nobody_is_called(azure: MockAzure, provider: Azure) -> None:
    assert "needs an api_base" in (await failure(provider, request(azure, api_base=None))).fault.message


WORDS: list[tuple[JsonObject, dict[str, str]]] = [
    (
        {"error": {"message": "m", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"message": "m", "code": "content_filter"},
    ),
    (
        {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 5 seconds."},
        {"message": "Rate limit is exceeded. Try again in 5 seconds."},
    ),
    ({"error": {"message": "m", "code": "context_length_exceeded"}}, {"message": "m", "code": "context_length_exceeded"}),
    ({"error": "m", "message": "n"}, {"message": "m"}),
    ({}, {}),
]


@pytest.mark.parametrize(("body", "words"), WORDS)
def test_words_of_errors(provider: Azure, body: JsonObject, words: dict[str, str]) -> None:
    assert provider.words(400, {}, to_json(body)) == words


def test_what_is_no_json_has_no_words(provider: Azure) -> None:
    assert provider.words(502, {}, b"<html>") == {}


async def test_who_wants_a_moderation_is_told_to_ask_another(azure: MockAzure, provider: Azure) -> None:
    with pytest.raises(ProviderFailure, match="no moderations") as refused:
        await provider.call(request(azure, api=Api.MODERATIONS, body={"input": "one"}))
    assert (refused.value.fault.status, refused.value.kind) == (400, "final")
