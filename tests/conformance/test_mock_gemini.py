"""The mock of Gemini is as strict as Gemini: what it takes, and what it refuses."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.mocks.gemini import KEY, PROJECT, MockGemini

CONTENTS: list[Any] = [{"role": "user", "parts": [{"text": "Hi"}]}]

REFUSED: list[dict[str, Any]] = [
    {"contents": CONTENTS, "model": "gemini-2.5-flash"},
    {"contents": CONTENTS, "generationConfig": {"max_tokens": 3}},
    {"contents": CONTENTS, "generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}},
    {"contents": []},
    {"contents": [{"role": "assistant", "parts": [{"text": "Hi"}]}]},
    {"contents": [{"role": "user", "parts": []}]},
    {"contents": [{"role": "user", "parts": [{"text": ""}]}]},
    {"contents": [{"role": "user", "parts": [{"text": "a", "inlineData": {"mimeType": "image/png", "data": "AA=="}}]}]},
    {"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "no base64!"}}]}]},
    {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": "no object"}}]}]},
    {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f"}}]}, *CONTENTS]},
    {"contents": CONTENTS, "tools": [{"functionDeclarations": [{"name": "1st"}]}]},
]


@pytest.fixture
async def google() -> AsyncIterator[MockGemini]:
    async with MockGemini() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers={"x-goog-api-key": KEY}) as made:
        yield made


async def ask(client: httpx.AsyncClient, google: MockGemini, body: Any, model: str = "gemini-2.5-flash") -> httpx.Response:
    return await client.post(f"{google.base_url}/models/{model}:generateContent", json=body)


async def test_it_answers_and_counts(google: MockGemini, client: httpx.AsyncClient) -> None:
    answer = (await ask(client, google, {"contents": CONTENTS})).json()
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert answer["usageMetadata"] == {"promptTokenCount": 1, "candidatesTokenCount": 12, "totalTokenCount": 13}
    assert [entry.model for entry in google.ledger.entries()] == ["gemini-2.5-flash"]


@pytest.mark.parametrize("body", REFUSED)
async def test_it_refuses_what_google_refuses(google: MockGemini, client: httpx.AsyncClient, body: Any) -> None:
    response = await ask(client, google, body)
    assert response.status_code == 400
    assert response.json()["error"]["status"] == "INVALID_ARGUMENT"


async def test_newer_models_want_their_signatures_back(google: MockGemini, client: httpx.AsyncClient) -> None:
    call: Any = {"functionCall": {"name": "f", "args": {"a": 1}}}
    result: Any = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"ok": True}}}]}
    body: Any = {"contents": [*CONTENTS, {"role": "model", "parts": [call]}, result]}
    assert (await ask(client, google, body)).status_code == 200
    assert (await ask(client, google, body, "gemini-3-flash")).status_code == 400
    signed = {**call, "thoughtSignature": "skip_thought_signature_validator"}
    body = {"contents": [*CONTENTS, {"role": "model", "parts": [signed]}, result]}
    assert (await ask(client, google, body, "gemini-3-flash")).status_code == 200


async def test_a_key_belongs_into_the_header(google: MockGemini) -> None:
    url = f"{google.base_url}/models/gemini-2.5-flash:generateContent"
    async with httpx.AsyncClient() as client:
        responses = [await client.post(url, json={"contents": CONTENTS}, params=given) for given in ({}, {"key": KEY})]
    assert [response.json()["error"]["details"][0]["reason"] for response in responses] == ["API_KEY_INVALID"] * 2


async def test_vertex_takes_only_tokens_that_it_gave(google: MockGemini, client: httpx.AsyncClient) -> None:
    url = f"{google.host}/v1/projects/{PROJECT}/locations/global/publishers/google/models/gemini-2.5-flash:generateContent"
    given = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "e30.e30.e30"}
    assert (await client.post(f"{google.host}/token", data=given)).json()["error"] == "invalid_grant"
    headers = {"authorization": "Bearer ya29.made-up"}
    assert (await client.post(url, json={"contents": CONTENTS}, headers=headers)).status_code == 401
    assert (await client.post(url, json={"contents": CONTENTS})).status_code == 401
