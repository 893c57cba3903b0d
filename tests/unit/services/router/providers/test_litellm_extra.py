"""The long tail, by LiteLLM's SDK; a small module stands in its place."""

import logging
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, cast

import pytest
from pydantic_core import from_json, to_json

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.answers import read_event
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import leads_to
from services.router.providers.litellm import LiteLLM

KEY = "sk-tail-CANARY-1"
CHAT: JsonObject = {"messages": [{"role": "user", "content": "see https://example.com"}], "temperature": 0.5}
USAGE: JsonObject = {
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "total_tokens": 107,
    "prompt_tokens_details": {
        "cached_tokens": 40,
        "cache_creation_tokens": 30,
        "cache_creation_token_details": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    },
    "completion_tokens_details": {"reasoning_tokens": 3},
    "cache_creation_input_tokens": 30,
}


class Answer:
    """As pydantic would dump it."""

    def __init__(self, body: JsonObject) -> None:
        self._body = body

    def model_dump(self, *, exclude_none: bool) -> JsonObject:
        assert exclude_none
        return cast("JsonObject", from_json(to_json(self._body, exclude_none=True)))


class Refusal(Exception):
    """As LiteLLM's: OpenAI's exceptions, with a status and a message."""

    def __init__(self, message: str, status_code: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message, self.status_code = message, status_code
        self.litellm_response_headers = headers


class RateLimitError(Refusal): ...


class AuthenticationError(Refusal): ...


class ContextWindowExceededError(Refusal): ...


class ContentPolicyViolationError(Refusal): ...


class APIConnectionError(Refusal): ...


@dataclass
class Sdk:
    """What was asked of the module, and what it answers: a body, chunks, or an error."""

    module: ModuleType
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    answer: object = None
    closed: bool = False

    async def complete(self, **arguments: Any) -> object:
        self.asked = arguments
        if isinstance(self.answer, Exception):
            raise self.answer
        return (
            self._chunks(cast("Sequence[object]", self.answer))
            if arguments.get("stream")
            else Answer(cast("JsonObject", self.answer))
        )

    async def _chunks(self, chunks: Sequence[object]) -> AsyncGenerator[Answer]:
        try:
            for chunk in chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield Answer(cast("JsonObject", chunk))
        finally:
            self.closed = True


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Sdk:
    module = ModuleType("litellm")
    sdk = Sdk(module)
    for name, value in {
        "acompletion": sdk.complete,
        "aembedding": sdk.complete,
        "telemetry": True,
        "success_callback": ["langfuse"],
        "callbacks": ["x"],
    }.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "litellm", module)
    for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_MODE"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    return sdk


async def secret(reference: str) -> str | None:
    return KEY if reference == "env:KEY" else None


def request(body: JsonObject = CHAT, api: Api = Api.CHAT, **changes: Any) -> ProviderRequest:
    given: dict[str, Any] = {"api_key": "env:KEY", "api_base": "https://tail.example", **changes}
    return ProviderRequest("att_1", api, body, Deployment(id="d1", provider="litellm", model="watsonx/ibm/granite", **given))


async def streamed(asked: ProviderRequest) -> list[str]:
    return [data async for batch in LiteLLM(secret).stream(asked) for data in batch]


async def failure(asked: ProviderRequest, *, stream: bool = False) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await (streamed(asked) if stream else LiteLLM(secret).call(asked))
    assert KEY not in repr(caught.value) + caught.value.fault.model_dump_json()
    assert caught.value.__cause__ is None
    return caught.value


def chat(content: str | None = "hi", **message: Any) -> JsonObject:
    said = {"role": "assistant", "content": content, "provider_specific_fields": {"x": 1}, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "granite",
        "choices": [{"index": 0, "finish_reason": "stop", "message": cast("Any", said)}],
        "usage": USAGE,
    }


def chunk(delta: JsonObject, finish: str | None = None, **more: Any) -> JsonObject:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


async def test_an_answer_is_the_hubs(sdk: Sdk) -> None:
    sdk.answer = chat(None, reasoning_content="hm", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}])
    asked = request()
    body = from_json(await LiteLLM(secret).call(asked))
    [choice] = body["choices"]
    assert choice == {
        "index": 0,
        "finish_reason": "stop",
        "message": {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
        },
    }
    usage = canonical(body["usage"])
    assert usage is not None
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (
        100,
        40,
        30,
        20,
    )
    assert (usage.output_tokens, usage.reasoning_tokens, usage.source) == (7, 3, "provider")
    assert asked.told.usage == USAGE


async def test_only_the_deployment_says_where_and_by_whom(sdk: Sdk) -> None:
    sdk.answer = chat()
    evil: JsonObject = {
        "api_base": "http://evil",
        "base_url": "http://evil",
        "api_key": "sk-other",
        "model": "openai/gpt",
        "custom_llm_provider": "openai",
        "mock_response": "x",
        "fallbacks": ["y"],
        "num_retries": 9,
        "extra_headers": {"a": "b"},
        "metadata": {"a": "b"},
        "stream": False,
    }
    await LiteLLM(secret).call(request(CHAT | evil, api_version="v9"))
    assert sdk.asked == {
        **CHAT,
        "model": "watsonx/ibm/granite",
        "api_key": KEY,
        "api_base": "https://tail.example",
        "api_version": "v9",
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": True,
        "caching": False,
        "no-log": True,
    }


async def test_it_is_quiet_and_fetches_nothing(sdk: Sdk) -> None:
    sdk.answer = chat()
    await LiteLLM(secret).call(request())
    module = cast("Any", sdk.module)
    assert (module.telemetry, module.success_callback, module.callbacks, module.num_retries) == (False, [], [], 0)
    assert (os.environ["LITELLM_LOCAL_MODEL_COST_MAP"], os.environ["LITELLM_MODE"]) == ("True", "PRODUCTION")
    assert not logging.getLogger("LiteLLM").isEnabledFor(logging.CRITICAL)


async def test_a_stream_ends_with_its_usage(sdk: Sdk) -> None:
    sdk.answer = [
        chunk({"role": "assistant", "content": "he"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        chunk({}, usage=USAGE),
    ]
    asked = request()
    *events, last = await streamed(asked)
    assert last == DONE
    readings = [read_event(data) for data in events]
    assert "".join(reading.text for reading in readings) == "hello"
    assert [reading.usage_only for reading in readings] == [False, False, False, False, True]
    usage = canonical(readings[-1].usage)
    assert usage is not None
    assert (usage.input_tokens, usage.cache_write_1h_tokens, usage.output_tokens) == (100, 20, 7)
    assert asked.told.usage == USAGE
    assert sdk.asked["stream_options"] == {"include_usage": True}
    assert sdk.closed


async def test_a_stream_that_ends_early_ends_without_done(sdk: Sdk) -> None:
    sdk.answer = [chunk({"content": "he"})]
    assert (await streamed(request()))[-1] != DONE


async def test_a_stream_left_alone_is_closed(sdk: Sdk) -> None:
    sdk.answer = [chunk({"content": "he"}), chunk({"content": "llo"})]
    stream = LiteLLM(secret).stream(request())
    await anext(stream)
    await stream.aclose()
    assert sdk.closed


async def test_a_stream_that_breaks_may_cost(sdk: Sdk) -> None:
    sdk.answer = [chunk({"content": "he"}), Refusal("broke", 500)]
    failed = await failure(request(), stream=True)
    assert (failed.kind, failed.billable) == ("unavailable", True)


async def test_embeddings(sdk: Sdk) -> None:
    sdk.answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 2},
    }
    body = from_json(await LiteLLM(secret).call(request({"input": "hi", "api_key": "x"}, Api.EMBEDDINGS)))
    assert body["data"][0]["embedding"] == [0.5]
    assert (sdk.asked["input"], sdk.asked["api_key"]) == ("hi", KEY)


ERRORS: list[tuple[Exception, str, int, str | None, str | None]] = [
    (RateLimitError(f"slow down, {KEY}", 429, {"retry-after": "7"}), "throttled", 429, "rate_limit_exceeded", "failed"),
    (AuthenticationError("no", 401), "denied", 502, "provider_error", "failed"),
    (ContextWindowExceededError("too long", 400), "final", 400, "context_length_exceeded", "context"),
    (ContentPolicyViolationError("ugly", 400), "final", 400, "content_filter", "content"),
    (Refusal("bad", "400"), "final", 400, None, None),
    (Refusal("broken", 500), "unavailable", 502, "provider_error", "failed"),
    (APIConnectionError(f"can't connect with {KEY}", 500), "unavailable", 502, "provider_error", "failed"),
    (KeyError(KEY), "unavailable", 502, "provider_error", "failed"),
]


@pytest.mark.parametrize(("error", "kind", "status", "code", "leads"), ERRORS, ids=lambda value: type(value).__name__)
async def test_errors(sdk: Sdk, error: Exception, kind: str, status: int, code: str | None, leads: str | None) -> None:
    sdk.answer = error
    failed = await failure(request())
    assert (failed.kind, failed.fault.status, failed.fault.code, leads_to(failed)) == (kind, status, code, leads)
    assert failed.retry_after_s == (7 if kind == "throttled" else None)
    assert not failed.billable


ADDRESSES: list[JsonObject] = [
    {"type": "image_url", "image_url": {"url": "https://10.0.0.1/secret.png"}},
    {"type": "image_url", "image_url": "http://169.254.169.254/"},
    {"type": "file", "file": {"file_id": "gs://bucket/x"}},
    {"type": "text", "text": "x", "image_url": {"url": " HTTP://10.0.0.1"}},
    {"type": "video_url", "video_url": {"url": "http://h"}},
]


@pytest.mark.parametrize("part", ADDRESSES)
async def test_nobody_makes_it_fetch(sdk: Sdk, part: JsonObject) -> None:
    failed = await failure(request({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]}))
    assert (failed.kind, failed.fault.status) == ("final", 400)
    assert "data URL" in failed.fault.message
    assert not sdk.asked


async def test_images_that_come_along_are_passed_on(sdk: Sdk) -> None:
    sdk.answer = chat()
    part: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    body: JsonObject = {"messages": [{"role": "user", "content": [{"type": "text", "text": "https://a"}, part]}]}
    await LiteLLM(secret).call(request(body))
    assert sdk.asked["messages"] == body["messages"]


async def test_without_the_extra_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    failed = await failure(request())
    assert failed.kind == "unavailable"
    assert "pip install sluice[litellm]" in failed.fault.message


async def test_without_its_credential_nobody_is_asked(sdk: Sdk) -> None:
    assert "credential" in (await failure(request(api_key="env:NOT_SET"))).fault.message
    assert not sdk.asked


async def test_it_does_not_moderate(sdk: Sdk) -> None:
    assert (await failure(request({"input": "x"}, Api.MODERATIONS))).fault.status == 400
