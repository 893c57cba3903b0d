"""A request for a message, and the chat completion that is asked instead."""

import json
from typing import Any, cast

import pytest

from schemas.anthropic.requests import MessagesRequest
from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.openai.requests import ChatRequest
from services.ingress.handler import checked
from services.ingress.messages.request import chat_body, check

EPHEMERAL = {"type": "ephemeral"}
SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
SCHEMA: JsonObject = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED: JsonObject = {**SCHEMA, "required": ["a"], "additionalProperties": False}

# OpenAI is strict about none of these.
LOOSE: list[JsonObject] = [
    {**CLOSED, "additionalProperties": True},
    {**CLOSED, "required": []},
    {**CLOSED, "properties": {"a": SCHEMA}},
    {**CLOSED, "$defs": {"A": SCHEMA}},
    {**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, SCHEMA]}}},
]


def body(**members: Any) -> JsonObject:
    given: JsonObject = {"model": "small", "max_tokens": 64, "messages": [cast("JsonObject", HELLO)], **members}
    asked = checked(MessagesRequest, given)
    check(given)
    found = chat_body(asked, stream=bool(asked.stream))
    # It is admitted as one.
    checked(ChatRequest, found)
    return found


def text(words: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": words, **more}


def said(role: str, *content: object) -> dict[str, object]:
    return {"role": role, "content": [*content]}


def call(call_id: str, arguments: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": "add", "arguments": arguments}}


def use(call_id: str, **more: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call_id, "name": "add", "input": {"a": 1}, **more}


def result(content: object = None, **more: object) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": "t1", **({} if content is None else {"content": content}), **more}


CONVERSATIONS: list[tuple[str, list[Any], list[Any]]] = [
    ("a text", [{"role": "user", "content": "Hello"}], [HELLO]),
    ("one block is a text", [said("user", text("Hello"))], [HELLO]),
    ("several are parts", [said("user", text("a"), text("b"))], [said("user", text("a"), text("b"))]),
    (
        "what is marked stays marked",
        [said("user", text("Hello", cache_control=EPHEMERAL))],
        [said("user", text("Hello", cache_control=EPHEMERAL))],
    ),
    (
        "images",
        [said("user", {"type": "image", "source": PNG}, {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}})],
        [said("user", SEEN, {"type": "image_url", "image_url": {"url": "https://a/b.png"}})],
    ),
    (
        "a document that is text, with what is said about it",
        [said("user", {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "d"}})],
        [said("user", text("T"), text("d"))],
    ),
    (
        "a document of blocks",
        [
            said(
                "user",
                {
                    "type": "document",
                    "source": {"type": "content", "content": [text("d"), {"type": "image", "source": PNG}]},
                    "cache_control": EPHEMERAL,
                },
            )
        ],
        [said("user", text("d"), {**SEEN, "cache_control": EPHEMERAL})],
    ),
    (
        "a PDF",
        [
            said(
                "user",
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
                    "title": "a.pdf",
                },
            )
        ],
        [said("user", {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}})],
    ),
    (
        "a search result",
        [said("user", {"type": "search_result", "source": "https://a", "title": "T", "content": [text("one"), text("two")]})],
        [{"role": "user", "content": "T\nhttps://a\none\ntwo"}],
    ),
    (
        "a turn of thinking, text and tools",
        [
            said(
                "assistant",
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                text("Let me see."),
                use("t1"),
                use("t2", cache_control=EPHEMERAL),
            )
        ],
        [
            {
                "role": "assistant",
                "content": "Let me see.",
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                ],
                "tool_calls": [call("t1", '{"a":1}'), call("t2", '{"a":1}')],
                "cache_control": EPHEMERAL,
            }
        ],
    ),
    (
        "thinking that nobody signed goes back as text alone",
        [said("assistant", {"type": "thinking", "thinking": "hm", "signature": ""}, use("t1"))],
        [{"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call("t1", '{"a":1}')]}],
    ),
    (
        "results stand behind their calls, whatever is said beside them",
        [said("user", text("And?"), result("2"), result([text("3"), text("4")], is_error=True, cache_control=EPHEMERAL))],
        [
            {"role": "tool", "tool_call_id": "t1", "content": "2"},
            {"role": "tool", "tool_call_id": "t1", "content": "Error: 3\n4", "cache_control": EPHEMERAL},
            {"role": "user", "content": "And?"},
        ],
    ),
    (
        "what a tool shows is shown by the user",
        [said("user", result([text("see", cache_control=EPHEMERAL), {"type": "image", "source": PNG}]))],
        [
            {"role": "tool", "tool_call_id": "t1", "content": "see", "cache_control": EPHEMERAL},
            said("user", text("From the result of t1:"), SEEN),
        ],
    ),
    ("a tool that says nothing", [said("user", result())], [{"role": "tool", "tool_call_id": "t1", "content": ""}]),
    (
        "a system message in between, and the beginning of an answer",
        [HELLO, {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Well,"}],
        [HELLO, SYSTEM, {"role": "assistant", "content": "Well,"}],
    ),
]


@pytest.mark.parametrize(("turns", "messages"), [case[1:] for case in CONVERSATIONS], ids=[case[0] for case in CONVERSATIONS])
def test_every_turn_is_said_in_a_chat(turns: list[Any], messages: list[Any]) -> None:
    assert body(messages=turns)["messages"] == messages


MEMBERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_completion_tokens": 64}),
    ({"system": "Be brief."}, {"messages": [SYSTEM, HELLO]}),
    (
        {"system": [text("Be brief.", cache_control=EPHEMERAL), text("Be kind.")]},
        {"messages": [said("system", text("Be brief.", cache_control=EPHEMERAL), text("Be kind.")), HELLO]},
    ),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    (
        {"temperature": 0, "top_p": 0.5, "top_k": 5, "stop_sequences": ["END"]},
        {"temperature": 0, "top_p": 0.5, "top_k": 5, "stop": ["END"]},
    ),
    ({"thinking": {"type": "enabled", "budget_tokens": 32}}, {"thinking": {"type": "enabled", "budget_tokens": 32}}),
    ({"metadata": {"user_id": "ada"}}, {"user": "ada"}),
    ({"service_tier": "standard_only"}, {"service_tier": "default"}),
    ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": CLOSED, "strict": True}}},
    ),
    (
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": False}}},
    ),
    (
        {"tools": [{"name": "add", "description": "Adds", "input_schema": SCHEMA, "cache_control": EPHEMERAL}]},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "add", "description": "Adds", "parameters": SCHEMA},
                    "cache_control": EPHEMERAL,
                }
            ]
        },
    ),
    ({"cache_control": EPHEMERAL}, {"messages": [{**HELLO, "cache_control": EPHEMERAL}]}),
    # Nobody knows these, and nobody minds.
    ({"context_management": {"edits": []}, "betas": ["a"]}, {"max_completion_tokens": 64}),
]


@pytest.mark.parametrize(("given", "told"), MEMBERS)
def test_every_member_has_its_word_in_a_chat(given: dict[str, Any], told: dict[str, Any]) -> None:
    found = body(**given)
    assert {name: found.get(name) for name in told} == told


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "add"}, {"tool_choice": {"type": "function", "function": {"name": "add"}}}),
    ],
)
def test_which_tool_is_used_may_be_said(choice: JsonObject, told: JsonObject) -> None:
    found = body(tools=[{"type": "custom", "name": "add", "input_schema": SCHEMA}], tool_choice=choice)
    assert {name: found.get(name) for name in ("tool_choice", "parallel_tool_calls") if name in found} == told


@pytest.mark.parametrize("schema", LOOSE)
def test_a_form_that_openai_is_not_strict_about_is_not_asked_for_strictly(schema: JsonObject) -> None:
    asked = body(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert asked["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": False},
    }


def test_a_user_id_that_is_longer_than_openai_takes_stays_the_same_user() -> None:
    long = json.dumps({"device_id": "d" * 64, "session_id": "s"})
    found = body(metadata={"user_id": long})["user"]
    assert found == body(metadata={"user_id": long})["user"] != body(metadata={"user_id": f"{long} "})["user"]
    assert len(str(found)) == 64


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": None}, "max_tokens", "integer"),
    ({"temperature": 1.5}, "temperature", "less than or equal to 1"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "'user', 'assistant', 'system'"),
    ({"messages": [said("user", {"type": "server_tool_use"})]}, "messages.0.user.content.0", "'server_tool_use'"),
    ({"messages": [said("user", use("t1"))]}, "messages.0.user.content.0", "'tool_use'"),
    (
        {"messages": [said("user", {"type": "image", "source": {"type": "file", "file_id": "f"}})]},
        "messages.0.user.content.0.image.source",
        "'base64', 'url'",
    ),
    (
        {"messages": [said("user", {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}})]},
        "messages.0.user.content.0.document.source",
        "'base64', 'text', 'content'",
    ),
    (
        {"messages": [said("user", {"type": "document", "source": {"type": "base64", "media_type": "a/b", "data": ""}})]},
        "messages.0.content.0.source.media_type",
        "'a/b'",
    ),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type", "Anthropic's own"),
    ({"tools": [{"name": "add"}]}, "tools.0", "input_schema"),
    (
        {"tools": [{"name": "add", "input_schema": {}}], "tool_choice": {"type": "tool"}},
        "tool_choice.name",
        "needs a `name`",
    ),
    ({"container": "c"}, "container", "Anthropic's own"),
    ({"mcp_servers": [{}]}, "mcp_servers", "tools of yours"),
    ({"inference_geo": "us"}, "inference_geo", "policy"),
]


@pytest.mark.parametrize(("members", "param", "words"), REFUSED)
def test_what_no_chat_can_do_is_refused_with_a_sentence(members: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(**members)
    assert caught.value.param == param
    assert words in caught.value.message
