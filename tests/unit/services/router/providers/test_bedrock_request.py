"""Chats that Bedrock can't be asked, and how each model is told what others are told otherwise."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import JsonObject
from services.router.providers.base import ProviderFailure
from services.router.providers.bedrock_models import Effort, traits_of
from services.router.providers.bedrock_request import converse_request
from tests.mocks.bedrock_requests import check

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
TOOL: JsonObject = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL: JsonObject = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(*messages: JsonObject, **more: object) -> JsonObject:
    given = list(messages) or [{"role": "user", "content": "Hello"}]
    return cast("JsonObject", {"model": "alias", "messages": given, **more})


def said(*parts: JsonObject) -> JsonObject:
    return {"role": "user", "content": [*parts]}


def calls(arguments: str) -> JsonObject:
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


REFUSED: list[tuple[str, JsonObject, str]] = [
    ("an address", chat(said({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}})), "data URL"),
    ("a picture of another kind", chat(said({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA=="}})), "PNG"),
    ("a file that was uploaded", chat(said({"type": "file", "file": {"file_id": "file-1"}})), "data URL"),
    ("sound", chat(said({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}})), "input_audio"),
    ("a picture in a system message", chat({**said({"type": "image_url", "image_url": {"url": "x"}}), "role": "system"}), "text"),
    ("nothing", chat(said({"type": "text", "text": " "})), "nothing to answer"),
    ("two answers", chat(n=2), "`n`"),
    ("arguments that are no object", chat(calls("[1]")), "JSON object"),
    ("broken arguments", chat(calls("{")), "JSON object"),
    ("a result of nothing", chat({"role": "tool", "content": "x"}), "tool_call_id"),
    ("a schema that isn't there", chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), "schema"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "word"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_bedrock_cannot_be_asked_is_refused_in_clear_words(body: JsonObject, word: str) -> None:
    with pytest.raises(ProviderFailure) as caught:
        converse_request(body, SONNET)
    assert (caught.value.kind, caught.value.fault.status, caught.value.fault.owner) == ("final", 400, "caller")
    assert word in caught.value.fault.message


MODELS: list[tuple[str, bool, bool, bool, Effort | None]] = [
    # claude, samplers, text_format, effort
    ("anthropic.claude-3-haiku-20240307-v1:0", True, True, False, None),
    ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", True, True, False, "budget"),
    ("anthropic.claude-sonnet-4-20250514-v1:0", True, True, False, "budget"),
    ("anthropic.claude-opus-4-1-20250805-v1:0", True, True, False, "budget"),
    ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", True, True, True, "budget"),
    ("global.anthropic.claude-opus-4-6-v1", True, True, True, "adaptive"),
    ("anthropic.claude-opus-4-8", True, False, True, "adaptive"),
    ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5", True, False, True, "adaptive"),
    ("arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama3-3-70b-instruct-v1:0", False, True, False, None),
    ("amazon.nova-pro-v1:0", False, True, False, None),
    ("us.amazon.nova-2-lite-v1:0", False, True, False, "reasoningConfig"),
    ("openai.gpt-oss-20b-1:0", False, True, True, "reasoning_effort"),
    ("us.deepseek.r1-v1:0", False, True, False, None),
    ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", True, True, True, None),
]


@pytest.mark.parametrize(("model", "claude", "samplers", "text_format", "effort"), MODELS)
def test_models_are_known_by_ids(model: str, claude: bool, samplers: bool, text_format: bool, effort: Effort | None) -> None:
    traits = traits_of(model)
    assert (traits.claude, traits.samplers, traits.text_format, traits.effort) == (claude, samplers, text_format, effort)


CACHES: list[tuple[str, JsonObject | None, JsonObject | None]] = [
    # in messages, in tools
    ("meta.llama3-3-70b-instruct-v1:0", None, None),
    ("anthropic.claude-3-haiku-20240307-v1:0", None, None),
    ("amazon.nova-pro-v1:0", {"type": "default"}, None),
    ("anthropic.claude-sonnet-4-20250514-v1:0", {"type": "default"}, {"type": "default"}),
    (SONNET, {"type": "default", "ttl": "1h"}, {"type": "default", "ttl": "1h"}),
]


@pytest.mark.parametrize(("model", "in_messages", "in_tools"), CACHES)
def test_cache_points_stand_where_models_take_them(
    model: str, in_messages: JsonObject | None, in_tools: JsonObject | None
) -> None:
    mark: JsonObject = {"type": "ephemeral", "ttl": "1h"}
    asked = chat({"role": "user", "content": "Hello", "cache_control": mark}, tools=[{**TOOL, "cache_control": mark}])
    body = converse_request(asked, model).body
    said = cast("list[JsonObject]", body["messages"])[0]["content"]
    tools = cast("JsonObject", body["toolConfig"])["tools"]
    assert [block["cachePoint"] for block in cast("list[JsonObject]", said)[1:]] == ([in_messages] if in_messages else [])
    assert [block["cachePoint"] for block in cast("list[JsonObject]", tools)[1:]] == ([in_tools] if in_tools else [])


def test_an_effort_gives_way_to_a_tool_that_must_be_called() -> None:
    body = converse_request(chat(tools=[TOOL], tool_choice="required", reasoning_effort="high"), SONNET).body
    assert "additionalModelRequestFields" not in body


@pytest.mark.parametrize("most", [1, 1024, 2047])
def test_there_is_no_thinking_in_less_than_it_takes(most: int) -> None:
    body = converse_request(chat(max_tokens=most, reasoning_effort="high"), SONNET).body
    assert body["inferenceConfig"] == {"maxTokens": most}
    assert "additionalModelRequestFields" not in body


def test_a_budget_needs_the_thoughts_behind_the_calls() -> None:
    called: JsonObject = {"role": "assistant", "tool_calls": [CALL]}
    result: JsonObject = {"role": "tool", "tool_call_id": "c1", "content": "x"}
    asked = chat({"role": "user", "content": "Hi"}, called, result, reasoning_effort="low")
    assert "additionalModelRequestFields" not in converse_request(asked, SONNET).body


def test_nova_is_told_an_effort_in_its_own_words() -> None:
    body = converse_request(chat(reasoning_effort="max"), "us.amazon.nova-2-lite-v1:0").body
    assert body["additionalModelRequestFields"] == {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}


def test_who_thinks_is_not_forced_to_answer_by_the_tool() -> None:
    wanted: JsonObject = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = converse_request(chat(response_format=wanted, thinking=thinking), "us.anthropic.claude-3-7-sonnet-20250219-v1:0")
    assert asked.answers_by_tool
    assert "toolChoice" not in cast("JsonObject", asked.body["toolConfig"])


_MARK = st.none() | st.just({"type": "ephemeral"})
_PART = st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5), "cache_control": _MARK})
_TEXT = st.text(max_size=5) | st.lists(_PART, max_size=3)
_TURN = st.one_of(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), _TEXT),
    st.tuples(st.just("calls"), st.integers(1, 3)),
)


_MODEL = st.sampled_from([model for model, *_ in MODELS])


@given(st.lists(_TURN, max_size=8), _MODEL, st.sampled_from(["auto", "none", "required"]))
def test_whatever_is_said_bedrock_takes_it(turns: list[tuple[str, object]], model: str, choice: str) -> None:
    messages: list[JsonObject] = [{"role": "user", "content": "Hello"}]
    for index, (kind, value) in enumerate(turns):
        if kind == "calls":
            ids = [f"call|{index}.{n}" for n in range(cast("int", value))]
            messages.append(cast("JsonObject", {"role": "assistant", "tool_calls": [{**CALL, "id": call_id} for call_id in ids]}))
            messages.extend({"role": "tool", "tool_call_id": call_id, "content": ""} for call_id in ids)
            # Who is asked next, is asked by somebody.
            messages.append({"role": "user", "content": "go on"})
        else:
            messages.append(cast("JsonObject", {"role": kind, "content": value}))
    tools = [TOOL] if len(turns) % 2 else []
    asked = converse_request(chat(*messages, tools=tools, tool_choice=choice), model)
    check("ConverseStream", model, asked.body)
