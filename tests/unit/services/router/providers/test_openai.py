"""What goes out to servers that speak OpenAI's API: where to, and what of the body."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from infra.providers import COMPATIBLE, NATIVE, OWN_HOUSE, needs_address, telemetry_name
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.providers.base import ProviderFailure, ProviderRequest
from services.router.providers.compatible import dialect_of, spoken
from services.router.providers.http import Http
from services.router.providers.openai import OpenAI

MARK: JsonObject = {"type": "ephemeral"}
PLAIN: JsonObject = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.1, "vendor_option": {"deep": [1, None]}}


class Recording:
    """In the place of Http: remembers what would go out, and answers with an empty object."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self.body: JsonObject = {}

    @asynccontextmanager
    async def post(
        self, request: ProviderRequest, url: str, headers: Mapping[str, str], content: bytes, **_: object
    ) -> AsyncGenerator[httpx.Response]:
        self.url, self.headers, self.body = url, headers, from_json(content)
        yield httpx.Response(200, stream=httpx.ByteStream(b"{}"))


async def secret(reference: str) -> str | None:
    return {"env:KEY": "sk-1"}.get(reference)


def deployment(provider: str, **changes: Any) -> Deployment:
    return Deployment(id="d", provider=provider, model="real", **changes)


async def sent(body: JsonObject, where: Deployment, api: Api = Api.CHAT) -> Recording:
    http = Recording()
    await OpenAI(secret, cast("Http", http)).call(ProviderRequest("att_1", api, body, where))
    return http


def said(body: JsonObject, provider: str, **changes: Any) -> JsonObject:
    where = deployment(provider, **changes)
    return spoken(body, dialect_of(where), where)


WHERE: dict[tuple[str, str | None], str] = {
    ("openai", None): "https://api.openai.com/v1/chat/completions",
    ("openai", "https://eu.api.openai.com/v1/"): "https://eu.api.openai.com/v1/chat/completions",
    ("groq", None): "https://api.groq.com/openai/v1/chat/completions",
    ("groq", "http://h/v1"): "http://h/v1/chat/completions",
    ("ollama", None): "http://localhost:11434/v1/chat/completions",
    ("ollama", "http://h:11434"): "http://h:11434/v1/chat/completions",
    ("ollama_chat", "http://h:11434/v1/"): "http://h:11434/v1/chat/completions",
    ("hosted_vllm", "http://h:8000/v1"): "http://h:8000/v1/chat/completions",
    ("acme", "https://acme.example/api"): "https://acme.example/api/chat/completions",
}


@pytest.mark.parametrize(("provider", "base"), WHERE)
async def test_each_is_called_where_it_is(provider: str, base: str | None) -> None:
    http = await sent(PLAIN, deployment(provider, api_base=base, api_key="env:KEY"))
    assert http.url == WHERE[provider, base]
    assert http.headers == {"authorization": "Bearer sk-1"}
    assert http.body == {**PLAIN, "model": "real"}


@pytest.mark.parametrize("provider", ["acme", "hosted_vllm", "tgi"])
async def test_who_is_nowhere_is_not_called(provider: str) -> None:
    with pytest.raises(ProviderFailure, match="needs an api_base"):
        await sent(PLAIN, deployment(provider))


@pytest.mark.parametrize("name", [*COMPATIBLE, *NATIVE, *OWN_HOUSE, "acme"])
def test_every_provider_has_an_address_or_is_known_to_need_one(name: str) -> None:
    known = COMPATIBLE.get(name)
    assert needs_address(name) == (name in ("acme", "azure", "hosted_vllm", "tgi", "vllm"))
    assert known is None or known.api_base.startswith(("https://", "http://localhost")) or needs_address(name)


def test_telemetry_has_names_of_its_own() -> None:
    assert [telemetry_name(name) for name in ("bedrock", "mistral", "xai", "groq", "acme")] == [
        "aws.bedrock",
        "mistral_ai",
        "x_ai",
        "groq",
        "acme",
    ]


THINKING: JsonObject = {"type": "enabled", "budget_tokens": 4096}
BODIES: list[tuple[str, str, JsonObject, JsonObject]] = [
    ("OpenAI's reasoning models know the newer name alone", "openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
    (
        "one of two names is enough",
        "openai",
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"max_completion_tokens": 6},
    ),
    ("older servers know the older name", "together_ai", {"max_completion_tokens": 5}, {"max_tokens": 5}),
    ("Mistral refuses the newer one", "mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}),
    ("Groq knows both", "groq", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    ("thinking is effort elsewhere", "openai", {"thinking": THINKING}, {"reasoning_effort": "medium"}),
    ("a little", "groq", {"thinking": {"type": "enabled", "budget_tokens": 2047}}, {"reasoning_effort": "low"}),
    ("much", "acme", {"thinking": {"type": "enabled", "budget_tokens": 16_384}}, {"reasoning_effort": "high"}),
    ("what was said goes first", "openai", {"thinking": THINKING, "reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("no thinking is no effort", "openai", {"thinking": {"type": "disabled"}}, {}),
    ("as much as it likes", "openai", {"thinking": {"type": "adaptive"}}, {}),
    ("nonsense", "openai", {"thinking": {"type": "enabled", "budget_tokens": True}}, {}),
    ("DeepSeek has the switch itself", "deepseek", {"thinking": THINKING}, {"thinking": {"type": "enabled"}}),
    ("Mistral has neither", "mistral", {"thinking": THINKING}, {}),
    ("top_k is refused by OpenAI", "openai", {"top_k": 5}, {}),
    ("and taken by vLLM", "hosted_vllm", {"top_k": 5}, {"top_k": 5}),
    ("and, who knows, by others", "acme", {"top_k": 5}, {"top_k": 5}),
    ("the tier passes", "openai", {"service_tier": "flex"}, {"service_tier": "flex"}),
    ("Mistral refuses options of streams", "mistral", {"stream_options": {"include_usage": True}, "user": "u"}, {}),
    ("and calls the seed otherwise", "mistral", {"seed": 7}, {"random_seed": 7}),
    ("the mark of a cache for a whole request", "openai", {"cache_control": MARK}, {}),
]


@pytest.mark.parametrize(("provider", "body", "expected"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_members_of_the_body(provider: str, body: JsonObject, expected: JsonObject) -> None:
    assert said(PLAIN | body, provider) == PLAIN | expected


def test_who_is_known_not_to_reason_is_asked_for_no_effort() -> None:
    assert said({"thinking": THINKING}, "openai", capabilities=("tools",)) == {}
    assert said({"thinking": THINKING}, "openai", capabilities=("reasoning",)) == {"reasoning_effort": "medium"}


def test_openai_at_another_address_may_be_anybody() -> None:
    body: JsonObject = {"max_tokens": 5, "top_k": 2}
    assert said(body, "openai", api_base="http://localhost:8000/v1") == body
    assert said(body, "openai", api_base="https://us.api.openai.com/v1") == {"max_completion_tokens": 5}
    assert said(body, "openai", api_base="https://api.openai.com.evil.example/v1") == body


CALL: JsonObject = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"cache_control": 1}'}}
SIGNED: JsonObject = {"extra_content": {"google": {"thought_signature": "s"}}}
HISTORY: list[JsonObject] = [
    {"role": "developer", "content": [{"type": "text", "text": "rules", "cache_control": MARK}]},
    {"role": "user", "content": "hi", "cache_control": MARK},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, **SIGNED}],
        **SIGNED,
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
    },
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "no", "cache_control": MARK}], "is_error": True},
]
TOOLS: list[JsonObject] = [
    {"type": "function", "function": {"name": "f", "cache_control": MARK}},
    {"type": "function", "function": {"name": "g"}, "cache_control": MARK},
]


def _history(provider: str) -> tuple[list[Any], list[Any]]:
    body = said(cast("JsonObject", {"messages": HISTORY, "tools": TOOLS}), provider)
    return cast("list[Any]", body["messages"]), cast("list[Any]", body["tools"])


def test_openai_gets_what_openai_knows() -> None:
    messages, tools = _history("openai")
    assert messages == [
        {"role": "developer", "content": [{"type": "text", "text": "rules"}]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "no"}]},
    ]
    assert tools == [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}]


def test_others_know_no_developer() -> None:
    messages, _ = _history("groq")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]


def test_openrouter_keeps_the_marks_of_caches() -> None:
    messages, tools = _history("openrouter")
    assert tools == TOOLS
    assert (messages[0]["content"], messages[1]) == (HISTORY[0]["content"], HISTORY[1])
    assert "thinking_blocks" not in messages[2]


def test_deepseek_is_told_what_it_thought() -> None:
    messages, _ = _history("deepseek")
    assert messages[2]["reasoning_content"] == "hm"
    assert "thinking_blocks" not in messages[2]


@given(
    st.sampled_from(sorted(COMPATIBLE)),
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant"])},
            optional={"content": st.text(max_size=5) | st.none(), "name": st.text(max_size=5)},
        )
        | st.text(max_size=3)
    ),
)
def test_messages_without_extensions_are_the_same_objects(provider: str, messages: list[Any]) -> None:
    body: JsonObject = {"messages": messages}
    assert said(body, provider) is body


async def test_what_is_no_chat_passes_as_it_came() -> None:
    http = await sent({"input": "hi", "user": "u", "api_base": "http://evil"}, deployment("mistral"), Api.EMBEDDINGS)
    assert http.url == "https://api.mistral.ai/v1/embeddings"
    assert http.body == {"input": "hi", "user": "u", "model": "real"}
