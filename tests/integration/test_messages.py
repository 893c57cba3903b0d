"""Anthropic's own SDK, unmodified, speaking Messages to providers that know only chats."""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, cast

import anthropic
import httpx
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam

from benchmarks.mock_answers import answer_text
from tests.fakes.recorder import ANSWER, Recorder
from tests.system import Provider, System, Team, cost_usd, prompt, until

WORDS = 12
EPHEMERAL = {"type": "ephemeral"}
ADD: ToolParam = {
    "name": "add",
    "description": "Adds",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
SENT_ADD = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": ADD["input_schema"]}}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("messages")


def sdk(team: Team, **options: Any) -> AsyncAnthropic:
    """Anthropic's SDK, as it is; it doesn't retry unless asked to."""
    settings: dict[str, Any] = {"base_url": team.url, "api_key": team.key, "max_retries": 0, "timeout": 60}
    return AsyncAnthropic(**(settings | options))


def said(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def body(model: str = "mock", text: str = "", **more: object) -> dict[str, object]:
    return {"model": model, "max_tokens": 64, "messages": said(text or prompt()), **more}


def chunks(*deltas: Mapping[str, object], finish: str = "stop") -> list[dict[str, object]]:
    """A stream of a provider's."""
    told: list[tuple[Mapping[str, object], str | None]] = [*((delta, None) for delta in deltas), ({}, finish)]
    usage = {"prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 15}}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "recorded"}
    events: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in told
    ]
    return [*events, {**head, "choices": [], "usage": usage}]


def whole(finish: str = "stop", **message: object) -> dict[str, object]:
    """A whole answer of a provider's."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return {**ANSWER, "choices": [choice]}


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def test_a_message_is_the_providers_answer_with_our_headers(team: Team, system: System) -> None:
    asked = prompt("one two three")
    labels = json.dumps({"feature": "search"})
    async with sdk(team, default_headers={"x-sluice-metadata": labels}) as client:
        raw = await client.messages.with_raw_response.create(model="mock", max_tokens=64, messages=said(asked))
    message, headers = await raw.parse(), raw.headers
    assert (text_of(message), message.stop_reason, message.model) == (answer_text(asked), "end_turn", "mock")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, WORDS)
    assert (message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens) == (0, 0)
    job_id = headers["x-sluice-job"]
    assert (headers["request-id"], message.id) == (job_id, job_id.replace("job_", "msg_"))
    assert (headers["x-sluice-cache"], headers["x-sluice-deployment"]) == ("miss", "mock@mocked")
    assert Decimal(headers["x-sluice-cost-usd"]) == cost_usd(4, WORDS)
    assert not [name for name in headers if name.startswith(("openai-", "x-ratelimit-", "x-request-id"))]
    row = await system.job(job_id)
    assert (row["team"], row["feature"], row["status"], row["cost_usd"]) == (team.name, "search", "completed", cost_usd(4, WORDS))


async def test_a_stream_tells_the_same(team: Team) -> None:
    asked = prompt("one two three")
    async with sdk(team) as client, client.messages.stream(model="mock", max_tokens=64, messages=said(asked)) as stream:
        kinds = [event.type async for event in stream if event.type != "text"]
        message = await stream.get_final_message()
        request_id = stream.response.headers["request-id"]
    assert [kind for kind, _ in groupby(kinds)] == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert (text_of(message), message.stop_reason) == (answer_text(asked), "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, WORDS)
    assert message.id == request_id.replace("job_", "msg_")


async def test_on_the_wire_are_names_and_data_and_no_end_mark(team: Team) -> None:
    async with team.http() as client:
        answer = await client.post("/v1/messages", json=body(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [part.split("\n") for part in answer.text.strip().split("\n\n")]
    for name, data in events:
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    first = json.loads(events[0][1].removeprefix("data: "))
    assert first["message"]["usage"]["input_tokens"] > 0
    assert events[-1][0] == "event: message_stop"


async def test_a_key_may_come_as_x_api_key_or_bearer(team: Team) -> None:
    for options in ({"api_key": team.key}, {"api_key": None, "auth_token": team.key}):
        async with sdk(team, **options) as client:
            assert (await client.messages.create(model="echo", max_tokens=64, messages=said("hi"))).content


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_used_and_their_results_sent_back(team: Team, recorder: Recorder, streamed: bool) -> None:
    user = prompt("tools")
    pieces = [{"tool_calls": [{**CALLED, "index": 0, "function": {"name": "add", "arguments": ""}}]}] + [
        {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ('{"a"', ": 1}")
    ]
    said_by_model: Any = chunks({"content": "Let me see."}, *pieces, finish="tool_calls")
    recorder.answers[user] = said_by_model if streamed else whole("tool_calls", content="Let me see.", tool_calls=[CALLED])
    asked: dict[str, Any] = {"model": "recorded", "max_tokens": 64, "tools": [ADD], "metadata": {"user_id": user}}
    async with sdk(team) as client:
        message = await message_of(client, streamed, **asked, messages=said("1?"), tool_choice={"type": "any"})
        use = message.content[1]
        assert use.type == "tool_use"
        assert (use.name, use.input, message.stop_reason) == ("add", {"a": 1}, "tool_use")
        turns: list[Any] = [
            *said("1?"),
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "2"}]},
        ]
        await message_of(client, streamed, **asked, messages=turns)
    first, second = (seen.body for seen in recorder.with_user(user))
    assert (first["tools"], first["tool_choice"]) == ([SENT_ADD], "required")
    assert second["messages"][1]["tool_calls"][0]["id"] == "call_1"
    assert json.loads(second["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert second["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "2"}


async def message_of(client: AsyncAnthropic, streamed: bool, **members: Any) -> Message:
    """A message, whole or as the SDK puts its stream together."""
    if not streamed:
        return cast("Message", await client.messages.create(**members))
    async with client.messages.stream(**members) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("streamed", [False, True])
async def test_thinking_is_told_with_its_signature(team: Team, recorder: Recorder, streamed: bool) -> None:
    user = prompt("thinking")
    signed = [{"type": "thinking", "thinking": "hm, so", "signature": "sig"}]
    deltas: Sequence[Mapping[str, object]] = (
        {"reasoning_content": "hm"},
        {"reasoning_content": ", so"},
        {"thinking_blocks": signed},
        {"content": "Two."},
    )
    plain = whole(content="Two.", reasoning_content="hm, so", thinking_blocks=signed)
    recorder.answers[user] = chunks(*deltas) if streamed else plain
    asked: dict[str, Any] = {"model": "recorded", "max_tokens": 2048, "metadata": {"user_id": user}}
    asked["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    async with sdk(team) as client:
        message = await message_of(client, streamed, **asked, messages=said("1?"))
        assert [block.to_dict() for block in message.content] == [signed[0], {"type": "text", "text": "Two."}]
        turns: list[Any] = [*said("1?"), {"role": "assistant", "content": message.content}, *said("Sure?")]
        await message_of(client, streamed, **asked, messages=turns)
    if streamed:
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (5, 15, 9)
    first, second = (seen.body for seen in recorder.with_user(user))
    # The recorder speaks OpenAI's API: who speaks Anthropic's gets all of it (test_sdk_matrix.py).
    assert (first["reasoning_effort"], first.get("thinking")) == ("low", None)
    assert second["messages"][1] == {"role": "assistant", "content": "Two."}


async def test_what_claude_code_sends_is_understood(team: Team, recorder: Recorder) -> None:
    user = json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": prompt()})
    system = [{"type": "text", "text": "You are Claude Code."}, {"type": "text", "text": "Be brief.", "cache_control": EPHEMERAL}]
    asked = body(
        "recorded",
        system=system,
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>"}, {"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [{"type": "text", "text": "a.py"}],
                        "is_error": False,
                        "cache_control": EPHEMERAL,
                    }
                ],
            },
        ],
        tools=[{"name": "Bash", "description": "Runs", "input_schema": {"type": "object"}, "cache_control": EPHEMERAL}],
        metadata={"user_id": user},
        max_tokens=32_000,
        thinking={"type": "adaptive"},
        output_config={"effort": "medium"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        stream=True,
    )
    headers = {
        "x-api-key": team.key,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
        "x-app": "cli",
    }
    # It is longer than OpenAI takes one.
    sent_user = hashlib.sha256(user.encode()).hexdigest()
    recorder.answers[sent_user] = chunks({"content": "noted"})
    async with httpx.AsyncClient(base_url=team.url, headers=headers, trust_env=False, timeout=60) as client:
        counted = await client.post("/v1/messages/count_tokens?beta=true", json=asked)
        answer = await client.post("/v1/messages?beta=true", json=asked)
    assert (counted.status_code, answer.status_code) == (200, 200), answer.text
    (seen,) = (one.body for one in recorder.with_user(sent_user))
    # What OpenAI's API doesn't know is left out.
    unmarked = [{"type": "text", "text": part["text"]} for part in system]
    assert seen["messages"][0] == {"role": "system", "content": unmarked}
    assert seen["messages"][-1] == {"role": "tool", "tool_call_id": "toolu_1", "content": "a.py"}
    assert (seen["max_tokens"], seen["reasoning_effort"]) == (32_000, "medium")


async def test_tokens_are_counted_without_a_job(team: Team, system: System) -> None:
    narrow = await system.create_team_under("narrow", {"models": ["echo"], "limits": {"requests_per_minute": 1}})
    async with sdk(narrow) as client:
        short = await client.messages.count_tokens(model="echo", messages=said("one"))
        counts = [await client.messages.count_tokens(model="echo", messages=said("one two three")) for _ in range(3)]
        tools = await client.messages.count_tokens(model="echo", messages=said("one"), tools=[ADD], system="Be brief.")
        message = await client.messages.create(model="echo", max_tokens=64, messages=said("one two three"))
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.count_tokens(model="mock", messages=said("one"))
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="gpt-nobody", messages=said("one"))
    assert 0 < short.input_tokens < counts[0].input_tokens == message.usage.input_tokens
    assert tools.input_tokens > short.input_tokens
    async with sdk(team, api_key="sk-sl-wrong") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.count_tokens(model="echo", messages=said("one"))


async def test_models_are_listed_in_anthropics_shape_to_who_speaks_it(team: Team, system: System) -> None:
    async with sdk(team) as client:
        names = [model.id async for model in client.models.list(limit=3)]
        page = await client.models.list(limit=2)
        back = await client.models.list(before_id=names[2], limit=1)
        found = await client.models.retrieve("minilm")
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.models.retrieve("gpt-nobody")
        with pytest.raises(anthropic.BadRequestError):
            await client.models.list(after_id="gpt-nobody")
    assert {"mock", "echo", "minilm"} <= set(names)
    assert names == sorted(set(names)), "each once, over all pages"
    assert (page.has_more, page.first_id, page.last_id) == (True, names[0], names[1])
    assert ([model.id for model in back.data], back.has_more) == ([names[1]], True)
    assert (found.type, found.id, found.display_name, found.lifecycle) == ("model", "minilm", "minilm", "active")
    assert found.created_at.tzinfo is not None
    assert caught.value.type == "not_found_error"
    narrow = await system.create_team_under("narrow", {"models": ["echo"]})
    async with sdk(narrow) as client, narrow.openai() as other:
        assert [model.id async for model in client.models.list()] == [model.id async for model in other.models.list()] == ["echo"]


# Errors


REFUSED: list[tuple[dict[str, Any], type[anthropic.APIStatusError], int, str, str]] = [
    ({"model": "gpt-nobody"}, anthropic.NotFoundError, 404, "not_found_error", "gpt-nobody"),
    ({"max_tokens": 0}, anthropic.BadRequestError, 400, "invalid_request_error", "max_tokens"),
    ({"messages": []}, anthropic.BadRequestError, 400, "invalid_request_error", "messages"),
    (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        anthropic.BadRequestError,
        400,
        "invalid_request_error",
        "tools.0.type",
    ),
    ({"extra_headers": {"x-sluice-lane": "fast"}}, anthropic.BadRequestError, 400, "invalid_request_error", "x-sluice-lane"),
    ({"model": "mock-400"}, anthropic.BadRequestError, 400, "invalid_request_error", "fault 400 as asked"),
    ({"model": "mock-429-retry-7"}, anthropic.RateLimitError, 429, "rate_limit_error", ""),
    ({"model": "mock-500"}, anthropic.InternalServerError, 502, "api_error", "mock-500@mocked"),
    (
        {"model": "mock-latency-5000", "extra_headers": {"x-sluice-timeout": "0.3"}},
        anthropic.InternalServerError,
        504,
        "timeout_error",
        "x-sluice-timeout",
    ),
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("members", "error", "status", "kind", "words"), REFUSED)
async def test_every_error_has_anthropics_shape_and_type(
    team: Team,
    members: dict[str, Any],
    error: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    words: str,
    streamed: bool,
) -> None:
    asked: dict[str, Any] = {"model": "mock", "max_tokens": 64, "messages": said(prompt()), "stream": streamed, **members}
    async with sdk(team) as client:
        with pytest.raises(error) as caught:
            await client.messages.create(**asked)
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert words in str(caught.value.api_message)
    told = cast("dict[str, Any]", caught.value.body)
    assert told["type"] == "error"
    assert told["request_id"] == caught.value.request_id
    assert re.fullmatch(r"(req|job)_[0-9a-f]{32}", str(caught.value.request_id))


async def test_who_may_not_is_told_so_in_anthropics_words(team: Team, system: System) -> None:
    narrow = await system.create_team_under("narrow", {"models": ["echo"]})
    async with sdk(narrow) as client:
        with pytest.raises(anthropic.PermissionDeniedError) as denied:
            await client.messages.create(model="mock", max_tokens=64, messages=said("hi"))
    async with sdk(team, api_key="sk-sl-wrong") as client:
        for wrong in (client.messages.create(model="mock", max_tokens=64, messages=said("hi")), client.models.list()):
            with pytest.raises(anthropic.AuthenticationError) as unknown:
                await wrong
            assert (unknown.value.type, unknown.value.error_code) == ("authentication_error", "invalid_api_key")
    assert (denied.value.type, denied.value.error_code) == ("permission_error", "model_not_allowed")


async def test_what_never_reaches_an_endpoint_has_anthropics_shape_too(team: Team) -> None:
    async with team.http() as client:
        answers = [
            await client.get("/v1/messages"),
            await client.post("/v1/messages/batches", json={}),
            await client.post("/v1/messages", content=b"{"),
            await client.post("/v1/messages", content=b"x" * (11 * 1024 * 1024)),
        ]
    told = [(answer.status_code, answer.json()["error"]["type"]) for answer in answers]
    assert told == [
        (405, "invalid_request_error"),
        (404, "not_found_error"),
        (400, "invalid_request_error"),
        (413, "request_too_large"),
    ]


async def test_limits_are_told_in_anthropics_headers(system: System) -> None:
    team = await system.create_team_under("limited", {"limits": {"requests_per_minute": 2, "tokens_per_minute": 100_000}})
    async with sdk(team) as client:
        raw = await client.messages.with_raw_response.create(model="mock", max_tokens=64, messages=said(prompt()))
        await client.messages.create(model="mock", max_tokens=64, messages=said(prompt()))
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="mock", max_tokens=64, messages=said(prompt()))
    now = datetime.now(UTC)
    for headers, left in ((raw.headers, "1"), (caught.value.response.headers, "0")):
        assert headers["anthropic-ratelimit-requests-limit"] == "2"
        assert headers["anthropic-ratelimit-requests-remaining"] == left
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert 0 < (reset - now).total_seconds() <= 61
    assert raw.headers["anthropic-ratelimit-tokens-limit"] == "100000"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.headers["x-should-retry"] == "true"


async def test_a_spent_budget_is_no_reason_to_try_again(system: System) -> None:
    team = await system.create_team_under("poor", {"budgets": [{"usd": "0.000001", "period": "total"}]})
    async with sdk(team, max_retries=2) as client:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="mock", max_tokens=64, messages=said(prompt()))
    assert (caught.value.type, caught.value.error_code) == ("rate_limit_error", "budget_exceeded")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


async def test_what_the_guard_blocks_is_an_error_and_no_message(system: System) -> None:
    team = await system.create_team_under("blocking", {"guard": {"actions": {"card": "block"}}})
    async with sdk(team) as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(model="mock", max_tokens=64, messages=said("my card is 4111 1111 1111 1111"))
    assert (caught.value.type, caught.value.error_code) == ("invalid_request_error", "content_filter")


async def test_a_stream_that_breaks_off_ends_with_an_error_event(team: Team) -> None:
    kinds: list[str] = []

    async def read(client: AsyncAnthropic) -> None:
        async for event in await client.messages.create(model="mock-cut", max_tokens=64, messages=said(prompt()), stream=True):
            kinds.append(event.type)

    async with sdk(team) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await read(client)
    assert caught.value.type == "api_error"
    assert kinds[0] == "message_start"
    assert "message_stop" not in kinds


# As every job


async def test_the_same_key_is_the_same_message_and_never_another(team: Team) -> None:
    key, asked = {"idempotency-key": prompt()}, body()
    async with team.http() as client:
        first, second = [await client.post("/v1/messages", json=asked, headers=key) for _ in range(2)]
        other = await client.post("/v1/messages", json=body(), headers=key)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["error"]["type"]) == (422, "invalid_request_error")


@pytest.mark.parametrize("streamed", [False, True])
async def test_later_it_is_asked_for_as_a_job(team: Team, streamed: bool) -> None:
    asked = prompt("one two three")
    async with team.http() as client:
        answer = await client.post("/v1/messages", json=body(text=asked, stream=streamed), headers={"prefer": "respond-async"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
        where = answer.headers["location"]

        async def ended() -> dict[str, Any] | None:
            job = (await client.get(where)).json()
            return job if job["status"] == "completed" else None

        job = await until(ended)
        waited = await client.post("/v1/messages", json=body(), headers={"prefer": "respond-async, wait=20"})
    message = Message.model_validate(job["result"])
    assert (job["endpoint"], text_of(message)) == ("/v1/messages", answer_text(asked))
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, WORDS)
    assert (waited.status_code, waited.json()["type"]) == (200, "message")


async def test_who_leaves_ends_the_providers_call(team: Team, provider: Provider) -> None:
    marker = prompt("left")
    async with sdk(team) as client:
        stream = await client.messages.create(
            model="mock-words-200-chunkms-50",
            max_tokens=1024,
            messages=said(prompt()),
            metadata={"user_id": marker},
            stream=True,
        )
        async for event in stream:
            if event.type == "content_block_delta":
                break
        await stream.close()

    async def gone() -> bool:
        return [entry.outcome for entry in await provider.entries(marker=marker)] == ["client_gone"]

    assert await until(gone)


async def test_the_sdks_own_retry_finds_the_job_that_runs_already(team: Team, provider: Provider) -> None:
    marker = prompt("again")
    async with sdk(team, max_retries=2, timeout=1) as client:
        message = await client.messages.create(
            model="mock-latency-1500", max_tokens=64, messages=said(prompt()), metadata={"user_id": marker}
        )
    assert message.content
    assert len(await provider.entries(marker=marker)) == 1


async def test_answers_of_many_at_once_are_their_own(team: Team) -> None:
    async with sdk(team) as client:

        async def ask(streamed: bool) -> tuple[str, str]:
            asked = prompt()
            return asked, text_of(await message_of(client, streamed, model="mock", max_tokens=64, messages=said(asked)))

        found = await asyncio.gather(*(ask(bool(n % 2)) for n in range(20)))
    assert all(text == answer_text(asked) for asked, text in found)
