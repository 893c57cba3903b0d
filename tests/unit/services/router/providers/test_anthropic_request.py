"""Chat bodies as requests of Anthropic's, by cases in tests/recorded/wire/anthropic; each is one that its own SDK could send."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from schemas.base import JsonObject
from schemas.control import Deployment
from services.router.providers.anthropic_request import messages_request
from services.router.providers.base import ProviderFailure
from services.router.providers.claude import keeps_to_schemas, takes_samplers, thinks_adaptively
from tests.mocks.anthropic_requests import read_request

WIRE = Path("tests/recorded/wire/anthropic")
OLD = "claude-sonnet-4-5"
SAMPLERS = {"temperature", "top_p", "top_k"}


class Case(TypedDict):
    name: str
    body: JsonObject
    request: JsonObject
    deployment: JsonObject


class Wrong(TypedDict):
    name: str
    body: JsonObject
    param: str


CASES = TypeAdapter(list[Case]).validate_python(
    [{"deployment": {}, **case} for case in json.loads((WIRE / "requests.json").read_text())]
)
WRONG = TypeAdapter(list[Wrong]).validate_json((WIRE / "refused.json").read_bytes())


def asked(body: JsonObject, deployment: Mapping[str, object] | None = None, *, stream: bool = False) -> JsonObject:
    target = Deployment.model_validate({"id": "d1", "provider": "anthropic", "model": OLD, **(deployment or {})})
    return messages_request(body, target, stream=stream)


@cache
def _sdk() -> TypeAdapter[MessageCreateParamsNonStreaming]:
    return TypeAdapter(MessageCreateParamsNonStreaming)


def drained(value: object) -> object:
    """What the SDK's types let through; its iterables are checked as they are read."""
    match value:
        case str() | bytes():
            return value
        case Mapping():
            return {key: drained(child) for key, child in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple() | Iterator():
            return [drained(child) for child in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _ if type(value).__name__ == "ValidatorIterator":
            return [drained(child) for child in iter(value)]  # type: ignore[call-overload]
        case _:
            return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_chat_as_a_request(case: Case) -> None:
    assert asked(case["body"], case["deployment"]) == case["request"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_sdk_and_the_mock_would_take_each_request(case: Case) -> None:
    request = asked(case["body"], case["deployment"])
    assert drained(_sdk().validate_python(request)) == {k: v for k, v in request.items() if k not in SAMPLERS}
    assert read_request(json.dumps(request).encode(), "2023-06-01").model == request["model"]


def test_a_stream_is_asked_for() -> None:
    assert asked({"messages": [{"role": "user", "content": "a"}]}, stream=True)["stream"] is True


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case["name"])
def test_what_can_not_be_asked_is_refused(case: Wrong) -> None:
    with pytest.raises(ProviderFailure) as caught:
        asked({"messages": [{"role": "user", "content": "a CANARY"}], **case["body"]})
    failure = caught.value
    assert (failure.kind, failure.http_status, failure.billable) == ("final", 400, False)
    assert (failure.fault.status, failure.fault.param, failure.fault.owner) == (400, case["param"], "caller")
    assert "CANARY" not in failure.fault.message
    assert failure.__cause__ is None


TEXTS = st.sampled_from(["", " ", "a", "b ", "\n"])
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXTS}),
        st.fixed_dictionaries(
            {"role": st.just("user"), "content": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}))}
        ),
    ),
    max_size=6,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 100),
        "max_tokens": st.integers(1, 50_000),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "max"]),
        "tools": st.just([{"type": "function", "function": {"name": "a", "strict": True, "parameters": {"type": "object"}}}]),
        "tool_choice": st.sampled_from(["none", "auto", "required", {"type": "function", "function": {"name": "a"}}]),
        "parallel_tool_calls": st.booleans(),
        "user": st.sampled_from(["u-1", "ann@example.org", "+49 731 123456", "x" * 300]),
        "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    },
)
MODELS = st.sampled_from(["claude-3-5-haiku-latest", OLD, "claude-opus-4-6", "claude-opus-4-7", "claude-mythos-preview", "kimi"])


@given(MESSAGES, OPTIONS, MODELS)
def test_what_is_sent_is_what_anthropic_takes(messages: list[JsonObject], options: JsonObject, model: str) -> None:
    """Whatever is combined: all of its rules hold."""
    asks: JsonObject = {"role": "user", "content": "a"}
    request = asked({"messages": [*messages, asks], **options}, {"model": model})
    taken = read_request(json.dumps(request).encode(), "2023-06-01" if takes_samplers(model) else "2026-10-21")
    assert taken.max_tokens == request["max_tokens"]


@pytest.mark.parametrize(
    ("model", "samplers", "adaptive", "schemas"),
    [
        ("claude-3-opus-20240229", True, False, False),
        ("claude-3-5-sonnet-20241022", True, False, False),
        ("claude-opus-4-20250514", True, False, False),
        ("claude-opus-4-0", True, False, False),
        ("claude-opus-4-1-20250805", True, False, True),
        ("claude-haiku-4-5", True, False, True),
        ("claude-opus-4@20250514", True, False, False),
        ("anthropic.claude-opus-4-6-v1:0", True, True, True),
        ("claude-opus-4.7", False, True, True),
        ("claude-opus-4-8", False, True, True),
        ("claude-fable-5", False, True, True),
        ("claude-haiku-5-5-20261001", False, True, True),
        ("claude-mythos-preview", False, True, True),
        ("kimi-k2-instruct", True, False, False),
    ],
)
def test_what_a_claude_takes_is_in_its_name(model: str, samplers: bool, adaptive: bool, schemas: bool) -> None:
    assert (takes_samplers(model), thinks_adaptively(model), keeps_to_schemas(model)) == (samplers, adaptive, schemas)
