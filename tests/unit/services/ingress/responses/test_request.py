"""A request for a response, and the chat that says the same."""

from typing import cast

import pytest
from openai.types.responses import Response

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.openai.responses import ResponsesRequest
from services.ingress.responses.items import chat_messages, input_items, named, resolved
from services.ingress.responses.request import chat_body, check, told
from services.ingress.responses.response_object import frame, unfinished

ID = "resp_" + "0123456789abcdef" * 2
PNG = "data:image/png;base64,AAAA"
CALL: JsonObject = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
CALLED: JsonObject = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def body_of(members: JsonObject, *, stream: bool = False) -> JsonObject:
    given: JsonObject = {"model": "small", "input": "hello", **members}
    asked = ResponsesRequest.model_validate(given)
    check(asked, given, background=False)
    return chat_body(asked, given, input_items(asked.input), stream=stream)


HELLO: JsonObject = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}

BODIES: list[tuple[JsonObject, JsonObject]] = [
    ({}, {}),
    ({"max_output_tokens": 7}, {"max_completion_tokens": 7}),
    ({"temperature": 0, "top_p": 0.5, "user": "u", "seed": 3}, {"temperature": 0, "top_p": 0.5, "user": "u", "seed": 3}),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}},
    ),
    (
        {
            "tools": [{"type": "function", "name": "f", "description": None, "parameters": {"type": "object"}, "strict": False}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
        },
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": False}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        },
    ),
    # Without tools, OpenAI refuses a chat that says how to choose among them.
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    # What belongs to responses alone doesn't reach a provider that would refuse it.
    ({"metadata": {"a": "b"}, "store": True, "truncation": "auto", "include": [], "of_tomorrow": 1}, {}),
    ({"include": ["reasoning.encrypted_content"]}, {}),
]


@pytest.mark.parametrize(("given", "more"), BODIES)
def test_members_become_those_of_a_chat(given: JsonObject, more: JsonObject) -> None:
    assert body_of(given) == HELLO | more


def test_instructions_come_first_and_a_stream_asks_for_its_usage() -> None:
    body = body_of({"instructions": "Be brief."}, stream=True)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


MESSAGES: list[tuple[str, list[JsonObject], list[JsonObject]]] = [
    ("a message needs no type", [{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]),
    ("every provider knows system", [{"role": "developer", "content": "a"}], [{"role": "system", "content": "a"}]),
    (
        "one text is a text",
        [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        [{"role": "user", "content": "a"}],
    ),
    (
        "images and files are parts",
        [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": PNG, "detail": "low"},
                    {"type": "input_file", "file_data": PNG, "filename": "f"},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                    {"type": "file", "file": {"file_data": PNG, "filename": "f"}},
                ],
            }
        ],
    ),
    (
        "what the model said before",
        [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            }
        ],
        [{"role": "assistant", "content": "ab"}],
    ),
    (
        "a call, its output, and the thoughts before it",
        [{"type": "reasoning", "summary": []}, CALL, {"type": "function_call_output", "call_id": "c1", "output": "2"}],
        [{"role": "assistant", "content": None, "tool_calls": [CALLED]}, {"role": "tool", "tool_call_id": "c1", "content": "2"}],
    ),
    (
        "calls made together with a text are one message",
        [{"role": "assistant", "content": "wait"}, CALL, {**CALL, "call_id": "c2"}],
        [{"role": "assistant", "content": "wait", "tool_calls": [CALLED, {**CALLED, "id": "c2"}]}],
    ),
    (
        "an output in parts",
        [{"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "2"}]}],
        [{"role": "tool", "tool_call_id": "c1", "content": "2"}],
    ),
]


@pytest.mark.parametrize(("items", "messages"), [case[1:] for case in MESSAGES], ids=[case[0] for case in MESSAGES])
def test_items_become_messages(items: list[JsonObject], messages: list[JsonObject]) -> None:
    assert chat_messages(input_items(items)) == messages


REFUSED: list[tuple[JsonObject, str]] = [
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"tools": [{"type": "function", "name": "f"}, {"type": "code_interpreter"}]}, "tools[1].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "file_search"}}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format"),
    ({"input": []}, "input"),
    ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
    ({"input": [{"role": "critic", "content": "a"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]}, "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]}, "input[0].content[0].file_data"),
    ({"input": [{"role": "system", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
]


@pytest.mark.parametrize(("given", "param"), REFUSED)
def test_what_a_chat_cant_say_is_named(given: JsonObject, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body_of(given)
    assert caught.value.param == param
    assert len(caught.value.message) > 20


def test_items_keep_their_ids_and_get_those_they_lack() -> None:
    items = named(input_items([{"role": "user", "content": "a", "id": "msg_mine"}, CALL]), ID)
    assert [item["id"] for item in items] == ["msg_mine", f"fc_{ID.removeprefix('resp_')}i1"]
    assert items[0]["content"] == [{"type": "input_text", "text": "a"}]


def test_an_item_that_is_only_named_must_be_known() -> None:
    named_only: JsonObject = {"type": "item_reference", "id": "fc_1"}
    assert resolved([named_only], {"fc_1": CALL}) == (CALL,)
    with pytest.raises(InvalidRequest) as caught:
        resolved([CALL, named_only], {})
    assert caught.value.param == "input[1].id"


@pytest.mark.parametrize("given", [case[0] for case in BODIES])
def test_a_response_that_has_not_begun_has_all_members_that_openais_type_requires(given: JsonObject) -> None:
    given = {"model": "small", "input": "hello", **given}
    repeated = told(ResponsesRequest.model_validate(given), given, background=True)
    response = Response.model_validate(unfinished(frame(ID, 1_800_000_000_999, repeated), "queued"))
    assert (response.id, response.created_at, response.status) == (ID, 1_800_000_000, "queued")
    if "tools" in given:
        assert [tool.model_dump()["name"] for tool in response.tools] == [
            tool["name"] for tool in cast("list[JsonObject]", given["tools"])
        ]
