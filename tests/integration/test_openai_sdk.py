"""OpenAI's own SDK, unmodified, against the whole system: answers, streams, embeddings, models, and errors as its own types."""

import asyncio
import json
import math
from decimal import Decimal
from typing import Any, cast

import openai
import pytest
from openai import AsyncStream
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from benchmarks.mock_answers import answer_text
from tests.fakes.recorder import ANSWER, Recorder
from tests.system import PROVIDER_KEY, Provider, System, Team, chat, cost_usd, prompt

WORDS = 12
"""What the mock answers to any prompt."""


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("sdk")


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def read_into(chunks: list[ChatCompletionChunk], stream: AsyncStream[ChatCompletionChunk]) -> None:
    """What comes before a stream breaks off is kept."""
    async for chunk in stream:
        chunks.append(chunk)


async def test_chat_is_the_providers_answer_with_our_headers(team: Team) -> None:
    asked = prompt("one two three")
    async with team.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(model="mock", messages=said(asked))
    answer = raw.parse()
    assert answer.choices[0].message.content == answer_text(asked)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, WORDS)
    headers = raw.headers
    assert headers["x-sluice-job"].startswith("job_")
    assert headers["x-request-id"] == headers["x-sluice-job"]
    assert headers["x-sluice-cache"] == "miss"
    assert headers["x-sluice-model"] == "mock"
    assert headers["x-sluice-deployment"] == "mock@mocked"
    assert Decimal(headers["x-sluice-cost-usd"]) == cost_usd(4, WORDS)
    assert float(headers["x-sluice-overhead-ms"]) >= 0


async def test_a_chat_is_billed_once_with_its_tokens(team: Team, system: System) -> None:
    labels = json.dumps({"feature": "search", "segment": "gold", "template": "v7"})
    async with team.openai(default_headers={"x-sluice-metadata": labels}) as client:
        raw = await client.chat.completions.with_raw_response.create(model="mock", messages=said(prompt("one two three")))
    row = await system.job(raw.headers["x-sluice-job"])
    assert (row["team"], row["model"], row["deployment"], row["status"]) == (team.name, "mock", "mock@mocked", "completed")
    assert (row["prompt_tokens"], row["completion_tokens"], row["usage_source"]) == (4, WORDS, "provider")
    assert row["cost_usd"] == cost_usd(4, WORDS)
    assert (row["feature"], row["segment"], row["metadata"]) == ("search", "gold", {"template": "v7"})
    attempts = await system.attempts(row["job_id"])
    assert [(a["n"], a["status"], a["http_status"], a["cost_usd"]) for a in attempts] == [(1, "completed", 200, row["cost_usd"])]


async def test_a_stream_comes_as_the_provider_wrote_it(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client:
        stream = await client.chat.completions.create(model="mock", messages=said(asked), stream=True)
        chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == answer_text(asked)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_a_stream_ends_with_its_usage_if_asked(team: Team, system: System) -> None:
    async with team.openai() as client:
        stream = await client.chat.completions.create(
            model="mock", messages=said(prompt("one two three")), stream=True, stream_options={"include_usage": True}
        )
        job_id = stream.response.headers["x-sluice-job"]
        chunks = [chunk async for chunk in stream]
    *others, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (4, WORDS)
    assert all(chunk.usage is None for chunk in others)
    assert (await system.job(job_id))["cost_usd"] == cost_usd(4, WORDS)


async def test_a_stream_is_billed_even_if_nobody_asked_for_usage(team: Team, system: System) -> None:
    async with team.openai() as client:
        stream = await client.chat.completions.create(model="mock", messages=said(prompt("one two three")), stream=True)
        job_id = stream.response.headers["x-sluice-job"]
        _ = [chunk async for chunk in stream]
    row = await system.job(job_id)
    assert (row["prompt_tokens"], row["completion_tokens"], row["usage_source"]) == (4, WORDS, "provider")
    assert row["cost_usd"] == cost_usd(4, WORDS)
    assert row["ttft_ms"] > 0


async def test_the_synchronous_client_streams_the_echo(team: Team) -> None:
    def ask() -> str:
        with openai.OpenAI(base_url=f"{team.url}/v1", api_key=team.key) as client:
            stream = client.chat.completions.create(model="echo", messages=said("hello there"), stream=True)
            return text_of(list(stream))

    answer = await asyncio.to_thread(ask)
    assert "echo" in answer
    assert answer.endswith("hello there")


async def test_embeddings_by_default_and_as_numbers(team: Team) -> None:
    texts = ["a cat sits on the mat", "the feline rests on a rug", "quarterly revenue grew"]
    async with team.openai() as client:
        packed = await client.embeddings.create(model="minilm", input=texts)
        plain = await client.embeddings.create(model="minilm", input=texts, encoding_format="float")
        one = await client.embeddings.create(model="minilm", input=texts[0])
    assert [entry.index for entry in packed.data] == [0, 1, 2]
    assert vector(packed, 0) == pytest.approx(vector(plain, 0), abs=1e-6)
    assert vector(packed, 0) == pytest.approx(vector(one, 0), abs=0.02)
    assert math.hypot(*vector(plain, 0)) == pytest.approx(1, abs=1e-3)
    assert cosine(plain, 0, 1) > cosine(plain, 0, 2) + 0.2
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


def vector(answer: CreateEmbeddingResponse, index: int) -> list[float]:
    assert len(answer.data[index].embedding) == 384
    return answer.data[index].embedding


def cosine(answer: CreateEmbeddingResponse, a: int, b: int) -> float:
    return sum(x * y for x, y in zip(vector(answer, a), vector(answer, b), strict=True))


async def test_models_are_listed_and_found(team: Team) -> None:
    async with team.openai() as client:
        names = [model.id async for model in client.models.list()]
        found = await client.models.retrieve("minilm")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-nobody")
    assert {"mock", "echo", "minilm"} <= set(names)
    assert (found.id, found.object) == ("minilm", "model")


async def test_members_that_we_do_not_know_pass_both_ways(team: Team, recorder: Recorder) -> None:
    user = prompt("user")
    more = {"reasoning_effort": "low", "a_member_of_tomorrow": {"deep": [1, 2.5, None, "ü", {"": True}]}, "big": 2**60}
    async with team.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="recorded", messages=said("hi"), user=user, seed=7, extra_body=more
        )
    (seen,) = recorder.with_user(user)
    assert seen.body == {"model": "recorded", "messages": said("hi"), "user": user, "seed": 7, **more}
    assert json.loads(raw.text) == ANSWER


async def test_the_provider_gets_the_deployments_credential_and_nothing_of_the_caller(team: Team, recorder: Recorder) -> None:
    user = prompt("user")
    async with team.http() as client:
        headers = {"x-api-key": team.key, "cookie": "session=1", "x-sluice-metadata": '{"feature": "f"}'}
        answer = await client.post("/v1/chat/completions", json=chat("recorded", user=user), headers=headers)
    assert answer.status_code == 200
    (seen,) = recorder.with_user(user)
    assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert team.key not in str(seen)
    assert not {"cookie", "x-api-key", "x-sluice-metadata"} & seen.headers.keys()


async def test_a_wrong_key_is_an_authentication_error(team: Team, system: System) -> None:
    revoked = await system.json("keys", "create", "--team", team.name)
    async with system.admin() as admin:
        await admin.delete(f"/admin/v1/keys/{revoked['id']}")
    mistyped = team.key[:-1] + ("a" if team.key[-1] != "a" else "b")
    for key in ("sk-sl-wrong", mistyped, "none at all", str(revoked["key"])):
        async with team.openai(api_key=key) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(model="mock", messages=said("hi"))
            assert caught.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "nobody says it"}]}, "messages.0.role"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
    ],
)
async def test_what_is_wrong_in_a_body_is_a_bad_request_that_names_it(team: Team, more: dict[str, Any], param: str) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="mock", messages=said("hi"), extra_body=more)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param


async def test_an_unknown_model_is_not_found(team: Team) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="gpt-nobody", messages=said("hi"))
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="gpt-nobody", input="hi")


async def test_a_model_that_a_team_may_not_use_is_denied(system: System) -> None:
    team = await system.create_team_under("narrow", {"models": ["echo"]})
    async with team.openai() as client:
        assert [model.id async for model in client.models.list()] == ["echo"]
        assert (await client.chat.completions.create(model="echo", messages=said("hi"))).choices
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await client.chat.completions.create(model="mock", messages=said("hi"))
    assert caught.value.code == "model_not_allowed"


async def test_a_fourth_request_in_a_minute_of_three_is_rate_limited(system: System) -> None:
    team = await system.create_team("limited", "--rpm", "3")
    async with team.openai() as client:
        for left in ("2", "1", "0"):
            raw = await client.chat.completions.with_raw_response.create(model="mock", messages=said(prompt()))
            assert raw.headers["x-ratelimit-limit-requests"] == "3"
            assert raw.headers["x-ratelimit-remaining-requests"] == left
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="mock", messages=said(prompt()))
    error = caught.value
    assert error.code == "rate_limit_exceeded"
    assert team.name in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 20
    assert error.response.headers["x-should-retry"] == "true"


async def test_a_request_that_the_provider_refuses_keeps_the_providers_words(team: Team, system: System) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="mock-400", messages=said(prompt()))
    assert "fault 400 as asked" in caught.value.message
    row = await system.job(caught.value.response.headers["x-sluice-job"])
    assert (row["status"], row["cost_usd"], row["error_type"]) == ("failed", 0, "invalid_request_error")


async def test_a_throttled_provider_is_a_rate_limit_with_the_providers_own_wait(team: Team, provider: Provider) -> None:
    marker = prompt("throttled")
    async with team.openai() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="mock-429-retry-7", messages=said(prompt()), user=marker)
    assert caught.value.response.headers["retry-after"] == "7"
    assert len(await provider.entries(marker=marker)) == 1


@pytest.mark.parametrize("model", ["mock-500-often", "mock-garbage", "mock-cut"])
async def test_a_broken_provider_is_tried_again_and_then_a_502(
    team: Team, provider: Provider, system: System, model: str
) -> None:
    marker = prompt("broken")
    async with team.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=model, messages=said(prompt()), user=marker)
    assert caught.value.status_code == 502
    assert caught.value.code == "provider_error"
    job_id = caught.value.response.headers["x-sluice-job"]
    await system.job(job_id)
    attempts = await system.attempts(job_id)
    assert [a["status"] for a in attempts] == ["failed"] * len(await provider.entries(marker=marker)) == ["failed"] * 3


async def test_our_credential_at_the_provider_is_not_the_callers_fault(team: Team) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="mock-401", messages=said(prompt()))
    assert caught.value.status_code == 502
    assert PROVIDER_KEY not in caught.value.response.text


async def test_a_stream_that_breaks_off_is_an_error_and_never_a_whole_answer(
    team: Team, provider: Provider, system: System
) -> None:
    marker, chunks = prompt("torn"), list[ChatCompletionChunk]()
    async with team.openai() as client:
        stream = await client.chat.completions.create(model="mock-cut", messages=said(prompt()), stream=True, user=marker)
        job_id = stream.response.headers["x-sluice-job"]
        with pytest.raises(openai.APIError) as caught:
            await read_into(chunks, stream)
    assert cast("dict[str, object]", caught.value.body)["code"] == "provider_error"
    assert len(text_of(chunks).split()) == WORDS // 2
    # What the caller has seen can't be taken back: such a stream is never tried again.
    assert len(await provider.entries(marker=marker)) == 1
    row = await system.job(job_id)
    assert row["status"] in ("failed", "incomplete")
    assert row["completion_tokens"] > 0


async def test_usage_that_the_provider_does_not_tell_is_estimated(team: Team, system: System) -> None:
    async with team.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(model="mock-nousage", messages=said(prompt()))
    row = await system.job(raw.headers["x-sluice-job"])
    assert row["usage_source"] == "estimated"
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] >= WORDS
    assert row["cost_usd"] == cost_usd(row["prompt_tokens"], row["completion_tokens"])
