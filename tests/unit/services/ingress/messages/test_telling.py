"""The events of a message: their order, and that they make up the same message however the chunks of its chat were cut."""

import json
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, cast

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.base import JsonObject
from schemas.errors import Overloaded, ProviderError
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened, Served
from schemas.usage import Usage
from services.ingress.messages.telling import Telling, told_whole

DIGITS = "0123456789abcdef" * 2
JOB = f"job_{DIGITS}"
GIVEN = Usage(input_tokens=7)
SDK: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(cast("Any", RawMessageStreamEvent))

OPENED = Opened(served=Served())
USAGE: JsonObject = {
    "prompt_tokens": 29,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 9, "cache_write_1h_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOLD_USAGE: JsonObject = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 9,
    "cache_read_input_tokens": 8,
    "output_tokens": 4,
    "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 2},
    "output_tokens_details": {"thinking_tokens": 3},
}


def chunk(delta: JsonObject | None = None, finish: str | None = None, **more: object) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"object": "chat.completion.chunk", "choices": choices, **more})


def call(index: int, arguments: str, name: str = "", call_id: str = "") -> JsonObject:
    head: JsonObject = {"id": call_id, "type": "function"} if call_id else {}
    return {"tool_calls": [{"index": index, **head, "function": {"name": name, "arguments": arguments}}]}


def thought(text: str, signature: str = "") -> JsonObject:
    return {"thinking_blocks": [{"type": "thinking", "thinking": text, "signature": signature}]}


REDACTED: JsonObject = {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]}
TEXT = (chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"))
EVERYTHING = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "h"}),
    chunk({"reasoning_content": "m"}),
    # Its provider says all of it again when it signs.
    chunk(thought("hm", "sig")),
    chunk(REDACTED),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk(call(0, "", "add", "c1")),
    chunk(call(0, '{"a":')),
    chunk(call(0, "1}")),
    chunk(call(1, "{}", "sub")),
    chunk({}, "tool_calls", service_tier="default"),
    chunk(usage=USAGE),
)
MESSAGE: JsonObject = {
    "id": f"msg_{DIGITS}",
    "type": "message",
    "role": "assistant",
    "model": "small",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        # Its provider gave it no id.
        {"type": "tool_use", "id": f"toolu_{DIGITS}4", "name": "sub", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {**TOLD_USAGE, "service_tier": "standard"},
}


def streamed(chunks: Sequence[str], last: Event | None = None) -> list[Event]:
    return [OPENED, Delta(data=tuple(chunks)), last or Closed()]


def told(events: Sequence[Event | None]) -> list[JsonObject]:
    telling = Telling(JOB, "small", GIVEN)
    return telling.begin() + [one for event in events for one in telling.take(event)]


def kinds(events: Sequence[JsonObject]) -> list[str]:
    """What was told, what is told again and again once."""
    named = [
        str(cast("JsonObject", event["delta"]).get("type") or event["type"]) if "delta" in event else str(event["type"])
        for event in events
    ]
    return [kind.removeprefix("content_block_") for kind, _ in groupby(named)]


def accumulated(events: Sequence[JsonObject]) -> JsonObject:
    """What Anthropic's SDK makes of the events."""
    snapshot, buffers = None, dict[int, bytes]()
    for event in events:
        snapshot = accumulate_event(event=SDK.validate_python(event), current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return cast("JsonObject", Message.model_validate(snapshot.to_dict()).to_dict(mode="json"))


def as_sdks_see_it(message: JsonObject) -> JsonObject:
    """A message without what SDKs don't take from the events of its end."""
    seen = cast("JsonObject", Message.model_validate(message).model_dump(mode="json"))
    usage = cast("JsonObject", seen["usage"])
    known: JsonObject = {name: usage[name] for name in usage if name not in ("cache_creation", "service_tier")}
    return {**seen, "usage": known}


ORDERS: list[tuple[str, Sequence[Event | None], list[str]]] = [
    ("a text", streamed(TEXT), ["message_start", "start", "text_delta", "stop", "message_delta", "message_stop"]),
    ("nothing", streamed([chunk({}, "stop")]), ["message_start", "message_delta", "message_stop"]),
    ("silence", [None, None, *streamed([chunk({}, "stop")])], ["message_start", "ping", "message_delta", "message_stop"]),
    (
        "everything",
        streamed(EVERYTHING),
        [
            "message_start",
            *("start", "thinking_delta", "signature_delta", "stop"),
            *("start", "stop"),
            *("start", "text_delta", "stop"),
            *("start", "input_json_delta", "stop"),
            *("start", "input_json_delta", "stop"),
            *("message_delta", "message_stop"),
        ],
    ),
    (
        "broken off",
        streamed(TEXT[:3], Failed(fault=ProviderError("It broke off.").fault())),
        ["message_start", "start", "text_delta", "error"],
    ),
]


@pytest.mark.parametrize(("events", "order"), [case[1:] for case in ORDERS], ids=[case[0] for case in ORDERS])
def test_events_come_in_anthropics_order_with_anthropics_members(events: Sequence[Event | None], order: list[str]) -> None:
    found = told(events)
    assert kinds(found) == order
    for event in found:
        if event["type"] not in ("ping", "error"):
            SDK.validate_python(event)


def test_everything_that_was_said_is_in_the_message() -> None:
    assert told_whole(JOB, "small", streamed(EVERYTHING), GIVEN) == MESSAGE


def test_a_whole_answer_says_the_same_as_its_stream() -> None:
    message: JsonObject = {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "hm",
        "thinking_blocks": [
            *cast("list[Any]", thought("hm", "sig")["thinking_blocks"]),
            {"type": "redacted_thinking", "data": "x"},
        ],
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            {"type": "function", "function": {"name": "sub", "arguments": "{}"}},
        ],
    }
    choice: JsonObject = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    body = json.dumps({"choices": [choice], "usage": USAGE, "service_tier": "default"})
    assert told_whole(JOB, "small", [Answer(body=body, served=Served())], GIVEN) == MESSAGE


def test_the_first_event_has_our_count_and_the_last_the_providers() -> None:
    first, *_, last, _ = told(streamed(EVERYTHING))
    assert cast("Any", first["message"])["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
        "service_tier": None,
    }
    assert last["usage"] == TOLD_USAGE


def test_what_no_provider_counted_is_counted() -> None:
    usage = cast("JsonObject", told_whole(JOB, "small", streamed(TEXT), GIVEN)["usage"])
    assert (usage["input_tokens"], usage["output_tokens"]) == (7, 1)


THOUGHTS: list[tuple[str, Sequence[JsonObject], list[tuple[str, str]]]] = [
    ("nobody signs it", [{"reasoning_content": "a"}, {"reasoning": "b"}], [("ab", "")]),
    (
        "signed at its end",
        [{"reasoning_content": "ab"}, thought("ab", "s"), {"reasoning_content": "c"}],
        [("ab", "s"), ("c", "")],
    ),
    ("told by its blocks alone", [thought("a", "s"), thought("b", "t")], [("a", "s"), ("b", "t")]),
    (
        "told twice at once, as LiteLLM does",
        [{"reasoning_content": "ha", **thought("ha")}, {"reasoning_content": "ha", **thought("ha")}, thought("", "s")],
        [("haha", "s")],
    ),
    ("only its signature is told", [thought("", "s")], [("", "s")]),
]


@pytest.mark.parametrize(("deltas", "blocks"), [case[1:] for case in THOUGHTS], ids=[case[0] for case in THOUGHTS])
def test_thinking_is_told_once_and_each_block_is_signed_by_its_own(
    deltas: Sequence[JsonObject], blocks: list[tuple[str, str]]
) -> None:
    events = told(streamed([*map(chunk, deltas), chunk({"content": "so"}, "stop")]))
    *found, text = cast("list[Any]", accumulated(events)["content"])
    assert [(block["thinking"], block["signature"]) for block in found] == blocks
    assert text["text"] == "so"


@pytest.mark.parametrize(
    ("finish", "delta", "reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        (None, {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("tool_calls", call(0, "{}", "add"), "tool_use"),
        # OpenAI, when it was told what to call.
        ("stop", call(0, "{}", "add"), "tool_use"),
        ("length", call(0, '{"a', "add"), "max_tokens"),
        ("content_filter", {}, "refusal"),
        ("stop", {"refusal": "no"}, "refusal"),
    ],
)
def test_why_a_chat_ends_is_why_its_message_stops(finish: str | None, delta: JsonObject, reason: str) -> None:
    message = told_whole(JOB, "small", streamed([chunk(delta, finish)]), GIVEN)
    assert message["stop_reason"] == reason
    Message.model_validate(message)


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [("", {}), ('{"a": [1', {"a": [1]}), ("[1]", {"INVALID_JSON": "[1]"}), ("}{", {"INVALID_JSON": "}{"})],
)
def test_the_input_of_a_tool_is_always_an_object(arguments: str, taken: JsonObject) -> None:
    message = told_whole(JOB, "small", streamed([chunk(call(0, arguments, "add", "c1"))]), GIVEN)
    (use,) = cast("list[JsonObject]", message["content"])
    assert use["input"] == taken


def test_calls_whose_pieces_come_in_turns_are_told_one_after_the_other() -> None:
    chunks = [
        chunk(call(0, '{"a":', "add", "c1")),
        chunk(call(1, '{"b":', "sub", "c2")),
        chunk(call(0, "1}")),
        chunk(call(1, "2}")),
        chunk({}, "tool_calls"),
    ]
    found = told(streamed(chunks))
    places = [index for event in found if (index := event.get("index")) is not None]
    assert places == sorted(cast("list[int]", places))
    assert [use["input"] for use in cast("list[Any]", accumulated(found)["content"])] == [{"a": 1}, {"b": 2}]


def test_an_error_in_the_middle_has_anthropics_shape() -> None:
    (error,) = Telling(JOB, "small", GIVEN).take(Failed(fault=Overloaded("Too much.").fault()))
    assert error == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Too much.", "details": {"error_code": "overloaded"}},
        "request_id": JOB,
    }


@given(cuts=st.sets(st.integers(1, len(EVERYTHING) - 1)))
def test_however_the_chunks_are_cut_on_their_way_the_events_are_the_same(cuts: set[int]) -> None:
    borders = [0, *sorted(cuts), len(EVERYTHING)]
    events: list[Event] = [OPENED, *(Delta(data=EVERYTHING[a:b]) for a, b in pairwise(borders)), Closed()]
    assert told(events) == told(streamed(EVERYTHING))


def pieces(text: str) -> st.SearchStrategy[list[str]]:
    """A text in pieces."""
    cuts = st.sets(st.integers(1, max(1, len(text) - 1)))
    return cuts.map(lambda at: [text[a:b] for a, b in pairwise([0, *sorted(at), len(text)]) if text[a:b]])


WORDS = st.text(min_size=1, max_size=12)
INPUTS = st.dictionaries(st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=6), st.lists(st.booleans())), max_size=3)


def _delta(member: str, piece: str) -> JsonObject:
    return {member: piece}


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[JsonObject], list[JsonObject]]:
    """What an answer says, in order, and the deltas in which its provider says it, cut anywhere."""
    content: list[JsonObject] = []
    deltas: list[JsonObject] = []
    if draw(st.booleans()):
        text, signature = draw(WORDS), draw(st.sampled_from(["", "sig"]))
        deltas += [_delta("reasoning_content", piece) for piece in draw(pieces(text))]
        deltas += [thought(text, signature)] if signature else []
        thinking: JsonObject = {"type": "thinking", "thinking": text, "signature": signature}
        content.append(thinking)
    if draw(st.booleans()):
        text = draw(WORDS)
        deltas += [_delta("content", piece) for piece in draw(pieces(text))]
        content.append({"type": "text", "text": text})
    calls: list[list[JsonObject]] = []
    for index, asked in enumerate(draw(st.lists(INPUTS, max_size=3))):
        whole = json.dumps(asked)
        calls.append([call(index, "", "f", f"c{index}"), *(call(index, piece) for piece in draw(pieces(whole)))])
        content.append({"type": "tool_use", "id": f"c{index}", "name": "f", "input": cast("JsonObject", asked)})
    # The first pieces come in order, and what follows in any.
    deltas += [one[0] for one in calls]
    rest = [one[1:] for one in calls]
    while any(rest):
        deltas.append(draw(st.sampled_from([one for one in rest if one])).pop(0))
    return content, deltas


@given(answer=answers())
def test_what_an_sdk_makes_of_the_events_is_what_was_said_and_our_own_message(
    answer: tuple[list[JsonObject], list[JsonObject]],
) -> None:
    content, deltas = answer
    events = streamed([*map(chunk, deltas), chunk({}, "stop"), chunk(usage=USAGE)])
    found, ours = accumulated(told(events)), told_whole(JOB, "small", events, GIVEN)
    assert ours["content"] == content
    assert as_sdks_see_it(found) == as_sdks_see_it(ours)
