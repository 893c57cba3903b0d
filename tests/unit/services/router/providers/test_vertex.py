"""Gemini of Vertex AI: its addresses, and its access tokens."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.control import VertexSettings
from schemas.job import Api
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.http import Http
from services.router.providers.vertex import Vertex
from tests.mocks.gemini import MockGemini
from tests.unit.services.router.providers import gemini_cases

HI: JsonObject = {"messages": [{"role": "user", "content": "what is it"}]}


class Vault:
    """Secrets that a test may change."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    async def of(self, reference: str) -> str | None:
        return self.known.get(reference)


@pytest.fixture
async def google() -> AsyncIterator[MockGemini]:
    async with MockGemini() as started:
        yield started


@pytest.fixture
def vault(google: MockGemini) -> Vault:
    made = Vault()
    made.known["file/account"] = google.account()
    return made


@pytest.fixture
async def vertex(vault: Vault) -> AsyncIterator[Vertex]:
    http = Http(10)
    yield Vertex(vault.of, http)
    await http.close()


def asked(google: MockGemini, body: JsonObject = HI, api: Api = Api.CHAT, **changes: Any) -> ProviderRequest:
    given: dict[str, Any] = {
        "provider": "vertex_ai",
        "model": "gemini-2.5-flash",
        "api_base": google.host,
        "region": "europe-west4",
        "vertex": VertexSettings(credentials="file/account"),
    }
    return gemini_cases.asked(body, api, **(given | changes))


async def failure(vertex: Vertex, request: ProviderRequest) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await vertex.call(request)
    assert "CANARY" not in repr(caught.value) + caught.value.fault.model_dump_json()
    assert "PRIVATE" not in repr(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


async def test_a_chat_and_a_stream_with_one_token(google: MockGemini, vertex: Vertex) -> None:
    said = json.loads(await vertex.call(asked(google)))["choices"][0]["message"]["content"]
    async with aclosing(vertex.stream(asked(google))) as batches:
        chunks = [data async for batch in batches for data in batch]
    assert chunks[-1] == DONE
    deltas = [choice["delta"] for chunk in chunks[:-1] for choice in json.loads(chunk)["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == said
    assert google.token_calls == 1


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        (
            {},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west4/publishers/google/models/gemini-2.5-flash",
        ),
        (
            {"region": None},
            "https://aiplatform.googleapis.com/v1/projects/acme/locations/global/publishers/google/models/gemini-2.5-flash",
        ),
        (
            {"region": "eu"},
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/acme/locations/eu/publishers/google/models/gemini-2.5-flash",
        ),
        (
            {"model": "endpoints/42", "vertex": VertexSettings(credentials="file/account", project="other")},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/other/locations/europe-west4/endpoints/42",
        ),
        (
            {"api_base": "https://vertex.internal/"},
            "https://vertex.internal/v1/projects/acme/locations/europe-west4/publishers/google/models/gemini-2.5-flash",
        ),
    ],
)
async def test_addresses(google: MockGemini, vertex: Vertex, changes: dict[str, Any], url: str) -> None:
    given: dict[str, Any] = {"api_base": None, **changes}
    door = await vertex.door(asked(google, **given))
    assert door.url == url
    assert list(google.tokens) == list(door.secrets)
    assert "CANARY" not in repr(door)


def pictured(url: str) -> JsonObject:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


async def test_google_fetches_what_lies_on_the_web_itself(google: MockGemini, vertex: Vertex) -> None:
    await vertex.call(asked(google, pictured("https://example.com/cat.png")))
    sent: Any = google.asked[0]["contents"]
    assert sent[0]["parts"] == [{"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/cat.png"}}]


async def test_nobody_reads_a_bucket_with_the_rights_of_the_project(google: MockGemini, vertex: Vertex) -> None:
    with pytest.raises(ProviderFailure, match="data URL"):
        await vertex.call(asked(google, pictured("gs://bucket/cat.png")))
    assert not google.asked


@pytest.mark.parametrize(("model", "calls"), [("gemini-embedding-001", 3), ("text-embedding-005", 1)])
async def test_embeddings_are_counted(google: MockGemini, vertex: Vertex, model: str, calls: int) -> None:
    body: JsonObject = {"input": ["one", "two words", "three"], "dimensions": 3}
    answer = json.loads(await vertex.call(asked(google, body, Api.EMBEDDINGS, model=model)))
    assert [len(one["embedding"]) for one in answer["data"]] == [3, 3, 3]
    assert len(google.asked) == calls
    usage = canonical(answer["usage"])
    assert usage is not None
    assert usage.input_tokens == 4


async def test_another_projects_model_is_not_ours(google: MockGemini, vertex: Vertex) -> None:
    request = asked(google, vertex=VertexSettings(credentials="file/account", project="another"))
    failed = await failure(vertex, request)
    assert (failed.kind, failed.http_status) == ("denied", 403)


async def test_an_account_that_google_does_not_know_is_denied(google: MockGemini, vault: Vault, vertex: Vertex) -> None:
    from joserfc.jwk import RSAKey

    vault.known["file/account"] = google.account(RSAKey.generate_key(2048))
    failed = await failure(vertex, asked(google))
    assert (failed.kind, failed.billable) == ("denied", False)
    vault.known["file/account"] = google.account()
    assert await vertex.call(asked(google))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"client_email": "a", "token_uri": "b", "private_key": "PRIVATE"}'])
async def test_what_is_no_account_asks_nobody(google: MockGemini, vault: Vault, vertex: Vertex, text: str) -> None:
    vault.known["file/account"] = text
    failed = await failure(vertex, asked(google))
    assert failed.kind == "unavailable"
    assert "credential" in failed.fault.message
    assert not google.asked


async def test_a_place_for_tokens_that_is_away(google: MockGemini, vault: Vault, vertex: Vertex) -> None:
    account = json.loads(google.account())
    vault.known["file/account"] = json.dumps({**account, "token_uri": "http://127.0.0.1:1/token"})
    assert (await failure(vertex, asked(google))).kind == "unavailable"


async def test_default_credentials_are_those_of_googles_own_tools(
    google: MockGemini, vertex: Vertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "account.json"
    file.write_text(google.account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert await vertex.call(asked(google, vertex=VertexSettings()))
    assert google.token_calls == 1


async def test_without_any_credentials_the_deployment_says_so(
    google: MockGemini, vertex: Vertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    failed = await failure(vertex, asked(google, vertex=VertexSettings()))
    assert "no default credentials" in failed.fault.message
