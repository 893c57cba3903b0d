"""The mock of Anthropic against Anthropic's own SDK, and against our provider."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam, ToolParam
from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.providers.anthropic import Anthropic
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.http import Http
from tests.mocks.anthropic import KEY, MockAnthropic

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello there"}]
TOOLS: list[ToolParam] = [
    {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"name": "time", "input_schema": {"type": "object", "properties": {}}},
]
PIXEL = "iVBORw0KGgo="


@pytest.fixture
async def mock() -> AsyncIterator[MockAnthropic]:
    async with MockAnthropic() as started:
        yield started


@pytest.fixture
async def sdk(mock: MockAnthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=mock.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def provider() -> AsyncIterator[Anthropic]:
    async def secret(reference: str) -> str | None:
        return KEY if reference == "os.environ/KEY" else "sk-wrong"

    http = Http(10)
    yield Anthropic(secret, http)
    await http.close()


def asked_of(mock: MockAnthropic, model: str = "claude-mock-4-5", key: str = "os.environ/KEY", **body: object) -> ProviderRequest:
    deployment = Deployment(id="d1", provider="anthropic", model=model, api_base=mock.base_url, api_key=key)
    given: JsonObject = from_json(_json({"messages": [{"role": "user", "content": "Hello there"}], **body}))
    return ProviderRequest("att_1", Api.CHAT, given, deployment)


def _json(value: object) -> bytes:
    return httpx.Request("POST", "http://a.example", json=value).content


async def chunks_of(provider: Anthropic, asked: ProviderRequest) -> list[str]:
    async with aclosing(provider.stream(asked)) as batches:
        return [chunk async for batch in batches for chunk in batch]


# The SDK


async def test_a_question_whole_and_streamed(sdk: anthropic.AsyncAnthropic) -> None:
    whole = await sdk.messages.create(model="claude-mock", max_tokens=100, messages=HELLO)
    async with sdk.messages.stream(model="claude-mock", max_tokens=100, messages=HELLO) as stream:
        streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert [block.model_dump(include={"type", "text"}) for block in message.content] == [
            {"type": "text", "text": "You said: Hello there"}
        ]
        assert message.stop_reason == "end_turn"
    assert whole.usage.output_tokens == streamed.usage.output_tokens > 1


async def test_tools_and_their_results(sdk: anthropic.AsyncAnthropic) -> None:
    both: list[MessageParam] = [{"role": "user", "content": "look at both"}]
    async with sdk.messages.stream(model="claude-mock", max_tokens=100, messages=both, tools=TOOLS) as stream:
        called = await stream.get_final_message()
    uses = [block for block in called.content if block.type == "tool_use"]
    assert [(use.name, use.input) for use in uses] == [("weather", {"city": "Paris"}), ("time", {})]
    results: list[MessageParam] = [
        *both,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": use.name} for use in uses]},
    ]
    answered = await sdk.messages.create(model="claude-mock", max_tokens=100, messages=results, tools=TOOLS)
    assert answered.content[0].model_dump()["text"] == "The tools said: weather, time"


async def test_a_schema_an_image_and_a_thought(sdk: anthropic.AsyncAnthropic) -> None:
    answered = await sdk.messages.create(
        model="claude-mock",
        max_tokens=2000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=HELLO,
        output_config={
            "format": {
                "type": "json_schema",
                "schema": {"type": "object", "properties": {"age": {"type": "integer"}}, "additionalProperties": False},
            }
        },
    )
    assert [block.type for block in answered.content] == ["thinking", "text"]
    assert answered.content[1].model_dump()["text"] == '{"age": 7}'
    seen = await sdk.messages.create(
        model="claude-mock",
        max_tokens=20,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}},
                ],
            }
        ],
    )
    assert seen.content[0].model_dump()["text"] == "I see 2 image(s)."


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("rate_limit_error", anthropic.RateLimitError),
        ("overloaded_error", anthropic.InternalServerError),
        ("not_found_error", anthropic.NotFoundError),
    ],
)
async def test_errors_by_the_models_name(
    sdk: anthropic.AsyncAnthropic, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(raised):
        await sdk.messages.create(model=f"claude-mock-{kind}", max_tokens=10, messages=HELLO)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"seed": 7}, "seed: Extra inputs are not permitted"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, "unexpected `tool_use_id`"),
        ({"tool_choice": {"type": "any"}}, "tools must be provided"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": 1, "top_p": 1}, "cannot both"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "must be greater"),
        ({"stop_sequences": ["\n"]}, "non-whitespace"),
        ({"metadata": {"user_id": "a@example.org"}}, "email"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
    ],
)
async def test_a_wrong_request_is_refused(mock: MockAnthropic, body: JsonObject, said: str) -> None:
    right: JsonObject = {"model": "claude-mock", "max_tokens": 10, "messages": [{"role": "user", "content": "a"}]}
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=mock.base_url, headers=headers) as client:
        assert (await client.post("/v1/messages", json=right)).status_code == 200
        refused = await client.post("/v1/messages", json={**right, **body})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        assert said in refused.json()["error"]["message"]
    assert len(mock.requests) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "sk-wrong"}, 401),
        ({"x-api-key": KEY, "anthropic-version": "2020-01-01"}, 400),
        ({"x-api-key": KEY, "anthropic-version": "2026-10-21"}, 400),
    ],
)
async def test_headers_are_looked_at(mock: MockAnthropic, headers: dict[str, str], status: int) -> None:
    """The newest version knows no temperature."""
    body = {"model": "claude-mock", "max_tokens": 10, "temperature": 1, "messages": [{"role": "user", "content": "a"}]}
    async with httpx.AsyncClient(base_url=mock.base_url, headers={"anthropic-version": "2023-06-01", **headers}) as client:
        assert (await client.post("/v1/messages", json=body)).status_code == status


# Our provider


async def test_our_provider_whole_and_streamed(mock: MockAnthropic, provider: Anthropic) -> None:
    whole = from_json(await provider.call(asked_of(mock, user="u-1")))
    assert whole["choices"][0]["message"]["content"] == "You said: Hello there"
    chunks = await chunks_of(provider, asked_of(mock))
    texts = [choice["delta"].get("content", "") for data in chunks[:-1] for choice in from_json(data)["choices"]]
    assert ("".join(texts), chunks[-1]) == ("You said: Hello there", DONE)
    assert from_json(chunks[-2])["usage"] == whole["usage"]
    assert mock.requests[0].metadata.user_id == "u-1"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-mock-rate_limit_error", "throttled"),
        ("claude-mock-overloaded_error", "unavailable"),
        ("claude-mock-invalid_request_error", "final"),
        ("claude-mock-permission_error", "denied"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_our_provider_fails(mock: MockAnthropic, provider: Anthropic, model: str, kind: str, stream: bool) -> None:
    with pytest.raises(ProviderFailure) as caught:
        await (chunks_of(provider, asked_of(mock, model)) if stream else provider.call(asked_of(mock, model)))
    assert caught.value.kind == kind
    assert caught.value.retry_after_s == (7 if kind == "throttled" else None)


async def test_our_provider_is_told_who_it_is_not(mock: MockAnthropic, provider: Anthropic) -> None:
    with pytest.raises(ProviderFailure) as caught:
        await provider.call(asked_of(mock, key="os.environ/OTHER"))
    assert caught.value.kind == "denied"


async def test_a_stream_that_breaks(mock: MockAnthropic, provider: Anthropic) -> None:
    assert DONE not in await chunks_of(provider, asked_of(mock, "claude-mock-cut"))
    with pytest.raises(ProviderFailure) as caught:
        await chunks_of(provider, asked_of(mock, "claude-mock-broken"))
    assert (caught.value.kind, caught.value.billable) == ("unavailable", True)
