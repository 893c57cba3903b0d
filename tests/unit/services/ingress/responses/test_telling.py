"""The events of a response: their order, their numbers, and that nothing but the job's events decides about them."""

import json
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from schemas.base import JsonObject
from schemas.errors import Cancelled, DeadlineExceeded, Fault, ProviderError, RateLimited
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened, Served
from services.ingress.http.responses_stream import stream, wire
from services.ingress.responses.response_object import frame
from services.ingress.responses.telling import Telling, told_whole
from tests.fakes.clock import in_virtual_time

ID = "resp_" + "0123456789abcdef" * 2
DIGITS = ID.removeprefix("resp_")
TOLD: JsonObject = {"model": "small", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
PLAIN = frame(ID, 1_800_000_000_000, {**TOLD, "background": False})
BACKGROUND = frame(ID, 1_800_000_000_000, {**TOLD, "background": True})
SDK: TypeAdapter[ResponseStreamEvent] = TypeAdapter(cast("Any", ResponseStreamEvent))

OPENED = Opened(served=Served())
BROKEN = Failed(fault=ProviderError("It broke off.").fault())
USAGE: JsonObject = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def chunk(delta: JsonObject | None = None, finish: str | None = None, **more: object) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"object": "chat.completion.chunk", "choices": choices, **more})


def call(index: int, arguments: str, name: str = "", call_id: str = "") -> JsonObject:
    head: JsonObject = {"id": call_id, "type": "function"} if call_id else {}
    return {"tool_calls": [{"index": index, **head, "function": {"name": name, "arguments": arguments}}]}


TEXT = (chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"))
EVERYTHING = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "hm", "reasoning": "hm"}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({"refusal": "but no"}),
    chunk(call(0, "", "add", "c1")),
    chunk(call(0, '{"a":')),
    chunk(call(0, "1}")),
    chunk(call(1, "{}", "sub")),
    chunk({}, "tool_calls", service_tier="flex"),
    chunk(usage=USAGE),
)


def told(events: Sequence[Event | None], of: JsonObject = PLAIN) -> list[JsonObject]:
    telling = Telling(of)
    return telling.begin() + [one for event in events for one in telling.take(event)]


def streamed(chunks: Sequence[str], last: Event | None = None) -> list[Event]:
    return [OPENED, Delta(data=tuple(chunks)), last or Closed()]


def kinds(events: Sequence[JsonObject]) -> list[str]:
    return [str(event["type"]).removeprefix("response.") for event in events]


WRITTEN = ["output_item.added", "content_part.added", "output_text.delta", "output_text.delta"]
CLOSED = ["output_text.done", "content_part.done", "output_item.done"]
CALLED = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]

ORDERS: list[tuple[str, JsonObject, Sequence[Event], list[str]]] = [
    ("a text", PLAIN, streamed(TEXT), ["created", "in_progress", *WRITTEN, *CLOSED, "completed"]),
    ("in the background", BACKGROUND, streamed(TEXT), ["created", "queued", "in_progress", *WRITTEN, *CLOSED, "completed"]),
    ("nothing", PLAIN, streamed([chunk({}, "stop")]), ["created", "in_progress", "completed"]),
    (
        "everything",
        PLAIN,
        streamed(EVERYTHING),
        [
            *("created", "in_progress"),
            *("output_item.added", "content_part.added", "reasoning_text.delta"),
            *("reasoning_text.done", "content_part.done", "output_item.done"),
            *WRITTEN,
            *("output_text.done", "content_part.done"),
            *("content_part.added", "refusal.delta", "refusal.done", "content_part.done", "output_item.done"),
            *(CALLED[0], CALLED[1], *CALLED[1:]),
            *CALLED,
            "completed",
        ],
    ),
    (
        "cut by its limit",
        PLAIN,
        streamed([TEXT[1], TEXT[2], chunk({}, "length")]),
        [*("created", "in_progress"), *WRITTEN, *CLOSED, "incomplete"],
    ),
    ("broken off", PLAIN, streamed(TEXT[:3], BROKEN), ["created", "in_progress", *WRITTEN, "error", "failed"]),
    ("failed before it began", BACKGROUND, [BROKEN], ["created", "queued", "error", "failed"]),
    (
        "cancelled",
        BACKGROUND,
        streamed(TEXT[:3], Failed(fault=Cancelled("c").fault())),
        ["created", "queued", "in_progress", *WRITTEN, "failed"],
    ),
]


@pytest.mark.parametrize(("of", "events", "order"), [case[1:] for case in ORDERS], ids=[case[0] for case in ORDERS])
def test_events_come_in_openais_order_with_openais_members(of: JsonObject, events: Sequence[Event], order: list[str]) -> None:
    found = told(events, of)
    assert [kind for kind in kinds(found)] == order
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        SDK.validate_python(event)


def test_everything_that_was_said_is_in_the_object() -> None:
    response = told_whole(PLAIN, streamed(EVERYTHING))
    assert response["output"] == [
        {
            "id": f"rs_{DIGITS}o0",
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "id": f"msg_{DIGITS}o1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "but no"},
            ],
        },
        {
            "id": f"fc_{DIGITS}o2",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "add",
            "arguments": '{"a":1}',
        },
        {
            "id": f"fc_{DIGITS}o3",
            "type": "function_call",
            "status": "completed",
            # Its provider gave it none.
            "call_id": f"call_{DIGITS}o3",
            "name": "sub",
            "arguments": "{}",
        },
    ]
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 13,
    }
    assert (response["status"], response["service_tier"], response["error"]) == ("completed", "flex", None)
    Response.model_validate(response)


def test_a_whole_answer_says_the_same_as_its_stream() -> None:
    message: JsonObject = {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "hm",
        "refusal": "but no",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            {"type": "function", "function": {"name": "sub", "arguments": "{}"}},
        ],
    }
    choice: JsonObject = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    body = json.dumps({"choices": [choice], "usage": USAGE, "service_tier": "flex"})
    assert told_whole(PLAIN, [Answer(body=body, served=Served())]) == told_whole(PLAIN, streamed(EVERYTHING))


def test_text_in_parts_is_text_and_a_second_choice_is_nobodys() -> None:
    parts: JsonObject = {"content": [{"type": "thinking"}, {"type": "text", "text": "Hello"}]}
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "not this"}}]})
    response = told_whole(PLAIN, streamed([chunk(parts), other]))
    content = cast("list[JsonObject]", cast("list[JsonObject]", response["output"])[0]["content"])
    assert [part["text"] for part in content] == ["Hello"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ProviderError("x").fault(), "failed", "server_error"),
        (DeadlineExceeded("x").fault(), "failed", "server_error"),
        (RateLimited("x").fault(), "failed", "rate_limit_exceeded"),
        (Fault(status=400, type="invalid_request_error", message="x"), "failed", "invalid_prompt"),
        (Cancelled("x").fault(), "cancelled", None),
    ],
)
def test_how_a_job_fails_is_how_its_response_does(fault: Fault, status: str, code: str | None) -> None:
    response = told_whole(PLAIN, streamed(TEXT[:2], Failed(fault=fault)))
    assert response["status"] == status
    error = response["error"]
    assert (error["code"] if isinstance(error, dict) else None) == code
    assert [item["status"] for item in cast("list[JsonObject]", response["output"])] == ["incomplete"]
    Response.model_validate(response)


@given(cuts=st.sets(st.integers(1, len(EVERYTHING) - 1)), silences=st.sets(st.integers(0, 5)))
def test_however_the_chunks_are_cut_on_their_way_the_events_are_the_same(cuts: set[int], silences: set[int]) -> None:
    borders = [0, *sorted(cuts), len(EVERYTHING)]
    events: list[Event | None] = [OPENED, *(Delta(data=EVERYTHING[a:b]) for a, b in pairwise(borders)), Closed()]
    for index in silences:
        events.insert(min(index, len(events) - 1), None)
    assert told(events, BACKGROUND) == told(streamed(EVERYTHING), BACKGROUND)


@in_virtual_time
async def test_behind_every_event_exactly_the_rest_is_told() -> None:
    for events in (streamed(EVERYTHING), streamed(TEXT[:3], BROKEN), streamed(TEXT)):
        whole = told(events, BACKGROUND)
        for after in range(-1, len(whole)):
            assert await read_again(events, after) == wire(whole[after + 1 :])


@in_virtual_time
async def test_who_comes_back_to_a_stream_of_which_only_the_failure_is_known_learns_of_it() -> None:
    numbers = [number_of(part) for part in (await read_again([BROKEN], 40)).split(b"\n\n") if part]
    assert numbers == [41, 42]


async def read_again(events: Sequence[Event], after: int) -> bytes:
    async def come() -> AsyncGenerator[Event | None]:
        for event in events:
            yield event

    parts = [part async for part in stream(Telling(BACKGROUND), come(), after)]
    return b"".join(part for part in parts if not part.startswith(b":"))


def number_of(part: bytes) -> int:
    return json.loads(part.split(b"data: ")[1])["sequence_number"]
