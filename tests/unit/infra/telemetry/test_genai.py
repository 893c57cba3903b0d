"""What spans tell of calls: by the conventions' names, whatever was asked."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.telemetry import genai
from infra.telemetry.genai import Facts
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.policy import DataPolicy, EffectivePolicy, TracingPolicy
from schemas.usage import Usage
from tests.fakes.jobs import a_job, an_attempt

OPEN = EffectivePolicy(version="1", tracing=TracingPolicy(content=True))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = (
    "messages",
    "input",
    "tools",
    "stop",
    "n",
    "seed",
    "top_p",
    "stream",
    "max_tokens",
    "response_format",
    "encoding_format",
)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("azure", "azure.ai.openai"),
        ("azure_ai", "azure.ai.inference"),
        ("bedrock", "aws.bedrock"),
        ("vertex_ai", "gcp.vertex_ai"),
        ("gemini", "gcp.gemini"),
        ("mistral", "mistral_ai"),
        ("xai", "x_ai"),
        ("moonshot", "moonshot_ai"),
        ("watsonx", "ibm.watsonx.ai"),
    ],
)
def test_providers_have_the_names_of_the_conventions(provider: str, name: str) -> None:
    deployment = Deployment(id="d", provider=provider, model="m")
    assert genai.call(a_job(), deployment, {}, 1, hedge=False)[genai.PROVIDER] == name


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 5}, {"gen_ai.request.max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"gen_ai.request.max_tokens": 7}),
        ({"n": 1, "stream": False}, {}),
        ({"n": 3, "stream": True}, {"gen_ai.request.choice.count": 3, "gen_ai.request.stream": True}),
        ({"stop": "END"}, {"gen_ai.request.stop_sequences": ["END"]}),
        ({"stop": ["A", 1, "B"]}, {"gen_ai.request.stop_sequences": ["A", "B"]}),
        ({"temperature": "hot", "seed": True, "top_p": None, "presence_penalty": 10**400}, {}),
        ({"temperature": 1, "top_k": 40}, {"gen_ai.request.temperature": 1.0, "gen_ai.request.top_k": 40.0}),
        ({"encoding_format": "base64"}, {"gen_ai.request.encoding_formats": ["base64"]}),
    ],
)
def test_what_is_asked_is_told(body: JsonObject, expected: JsonObject) -> None:
    told = genai.call(a_job(), Deployment(id="d", provider="openai", model="m"), body, 1, hedge=False)
    asked = {name: value for name, value in told.items() if name.startswith("gen_ai.request.") and name != genai.REQUEST_MODEL}
    assert asked == expected


def test_the_server_is_that_of_the_deployment_without_its_credential() -> None:
    own = Deployment(id="d", provider="openai", model="m", api_base="https://key:secret@llm.example.org:8443/v1?code=secret")
    told = genai.call(a_job(), own, {}, 1, hedge=False)
    assert (told["server.address"], told["server.port"]) == ("llm.example.org", 8443)
    assert "secret" not in repr(told)
    usual = genai.call(a_job(), Deployment(id="d", provider="openai", model="m"), {}, 1, hedge=False)
    assert (usual["server.address"], usual["server.port"]) == ("api.openai.com", 443)


def test_what_was_answered_is_told_with_cached_tokens_in_the_input() -> None:
    usage = Usage(
        input_tokens=100, cache_read_tokens=80, cache_write_tokens=5, output_tokens=9, reasoning_tokens=4, source="provider"
    )
    attempt = an_attempt(latency_ms=10, usage=usage)
    assert genai.answered(attempt, Facts("id-1", "m-2026", ("stop",))) == {
        "sluice.cost_usd": 0.5,
        "sluice.status": "completed",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 80,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "gen_ai.response.id": "id-1",
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
    }
    failed = attempt.model_copy(update={"status": "failed", "usage": Usage(), "http_status": 429, "ttft_ms": None})
    assert genai.answered(failed, Facts())["error.type"] == "429"
    hung = failed.model_copy(update={"http_status": None, "error": "provider_error"})
    assert genai.answered(hung, Facts())["error.type"] == "provider_error"


@pytest.mark.parametrize(
    ("content", "log", "tells"), [(True, True, True), (True, False, False), (False, True, False), (False, False, False)]
)
def test_content_needs_both_policies(content: bool, log: bool, tells: bool) -> None:
    policy = EffectivePolicy(version="1", tracing=TracingPolicy(content=content), data=DataPolicy(log=log))
    body: JsonObject = {"messages": [{"role": "user", "content": "a tale"}]}
    told = genai.call(a_job(policy=policy), Deployment(id="d", provider="openai", model="m"), body, 1, hedge=False)
    assert ("a tale" in repr(told)) is tells


def test_content_has_the_form_of_the_conventions() -> None:
    call: JsonObject = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    body: JsonObject = {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:…"}}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ]
    }
    told = genai.call(a_job(policy=OPEN), Deployment(id="d", provider="openai", model="m"), body, 1, hedge=False)
    assert json.loads(str(told["gen_ai.system_instructions"])) == [{"type": "text", "content": "be brief"}]
    assert json.loads(str(told["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "hi"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sunny"}]},
    ]
    streamed = json.loads(str(genai.said("", ["Hel", "lo"], ["length"])["gen_ai.output.messages"]))
    assert streamed == [{"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "length"}]
    assert genai.said("no JSON", [], []) == {}


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON))
def test_whatever_is_asked_makes_attributes_that_can_be_sent(body: JsonObject) -> None:
    told = genai.call(a_job(policy=OPEN), Deployment(id="d", provider="openai", model="m"), body, 1, hedge=False)
    for value in told.values():
        assert isinstance(value, str | int | float | bool) or all(isinstance(one, str) for one in value)
        assert not isinstance(value, int) or abs(value) < 2**63
