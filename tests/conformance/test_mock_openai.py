"""The mock of OpenAI is as strict as OpenAI: what it takes, and what it refuses."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from benchmarks.mock_answers import answer_text
from tests.mocks.openai import MockOpenAI

KEY = "sk-CANARY-openai"
HI: Any = {"role": "user", "content": "Hi"}
CALLS: Any = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CALLED: Any = {"role": "assistant", "tool_calls": CALLS}
OPEN: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False, "required": []}
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {**OPEN, "required": ["a"]}}}

REFUSED: list[dict[str, Any]] = [
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"top_k": 5},
    {"messages": [{**HI, "cache_control": {"type": "ephemeral"}}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]},
    {"messages": [HI, {"role": "assistant", "content": "Ho", "reasoning_content": "Hm"}, HI]},
    {"messages": [HI, {"role": "assistant", "content": "Ho", "thinking_blocks": []}, HI]},
    {"messages": [HI, {"role": "assistant", "content": None}]},
    {"messages": [HI, CALLED, HI]},
    {"messages": [HI, CALLED, {"role": "tool", "tool_call_id": "c2", "content": "1"}]},
    {"messages": [HI, {"role": "tool", "tool_call_id": "c1", "content": "1"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,no!"}}]}]},
    {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": OPEN, "strict": True}}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OPEN, "strict": True}}},
    {"response_format": {"type": "json_schema"}},
    {"tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
    {"max_tokens": 3, "max_completion_tokens": 3},
    {"stream_options": {"include_usage": True}},
    {"user": "u" * 65},
]


@pytest.fixture
async def openai() -> AsyncIterator[MockOpenAI]:
    async with MockOpenAI(KEY) as started:
        yield started


@pytest.fixture
async def client(openai: MockOpenAI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=openai.base_url, headers={"authorization": f"Bearer {KEY}"}) as made:
        yield made


async def ask(client: httpx.AsyncClient, **members: Any) -> httpx.Response:
    return await client.post("chat/completions", json={"model": "mock", "messages": [HI], **members})


async def test_words_are_the_mock_providers(client: httpx.AsyncClient) -> None:
    answer = (await ask(client)).json()
    assert answer["choices"][0]["message"]["content"] == answer_text("Hi")
    assert (await ask(client, model="mock-429-retry-7")).headers["retry-after"] == "7"


@pytest.mark.parametrize("members", REFUSED)
async def test_it_refuses_what_openai_refuses(openai: MockOpenAI, client: httpx.AsyncClient, members: dict[str, Any]) -> None:
    response = await ask(client, **members)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not openai.asked


async def test_only_its_key_is_good(openai: MockOpenAI) -> None:
    async with httpx.AsyncClient(base_url=openai.base_url, headers={"authorization": "Bearer sk-other"}) as client:
        assert (await ask(client)).status_code == 401


async def test_a_tool_is_called_and_its_result_repeated(client: httpx.AsyncClient) -> None:
    first = (await ask(client, tools=[TOOL])).json()
    choice = first["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a": 7}'}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "seven"}
    second = (await ask(client, tools=[TOOL], messages=[HI, choice["message"], result])).json()
    assert second["choices"][0]["message"]["content"] == "The tools said: seven"
    assert second["usage"]["total_tokens"] == second["usage"]["prompt_tokens"] + second["usage"]["completion_tokens"]
