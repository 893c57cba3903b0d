"""What becomes of Gemini's answers, and of its errors."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from infra.usage import canonical
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers.base import DONE, ProviderFailure
from services.router.providers.failures import leads_to, refused
from services.router.providers.google.answers import Translation, chat_usage
from services.router.providers.google.words import google_words
from services.router.sse import EventSplitter
from tests.unit.services.router.providers.gemini_cases import asked, cases

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TWO = {"parts": [{"functionCall": {"name": "f"}}, {"functionCall": {"name": "g"}}]}
CALLS = {"candidates": [{"content": TWO, "finishReason": "STOP"}]}


@pytest.mark.parametrize("case", cases("answers"), ids=lambda case: case["name"])
def test_a_whole_answer(case: dict[str, Any]) -> None:
    request = asked()
    text = Translation(request, 7).whole(to_json(case["wire"]))
    answer = json.loads(text)
    [choice] = answer["choices"]
    assert choice["message"] == case["message"]
    assert (choice["finish_reason"], choice["logprobs"]) == (case["finish_reason"], case.get("logprobs"))
    assert answer.get("usage") == case["usage"]
    assert request.told.usage == case["wire"].get("usageMetadata")
    assert (answer["id"], answer["object"], answer["created"]) == ("chatcmpl-018f_1", "chat.completion", 7)
    assert answer["model"] == "gemini-2.5-flash"
    assert read_answer(Api.CHAT, text).finished


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", cases("refused_answers"), ids=lambda case: case["name"])
def test_what_is_no_answer(case: dict[str, Any], stream: bool) -> None:
    translation = Translation(asked(), 7)
    body = to_json(case["wire"])
    if stream and case["name"] in ("no end", "nothing said"):
        translation.chunks(body.decode())
        assert translation.end() == []
        return
    with pytest.raises(ProviderFailure) as caught:
        translation.chunks(body.decode()) if stream else translation.whole(body)
    failure = caught.value
    assert (failure.kind, failure.fault.status, failure.fault.code) == (case["kind"], case["status"], case["code"])
    assert failure.billable
    assert failure.__cause__ is None


@pytest.mark.parametrize("case", cases("errors"), ids=lambda case: case["name"])
def test_an_error(case: dict[str, Any]) -> None:
    failure = refused(case["http"], {}, to_json(case["wire"]), "d1", (), NOW, google_words)
    assert (failure.kind, failure.fault.status, failure.fault.code) == (case["kind"], case["status"], case["code"])
    assert leads_to(failure) == case["leads_to"]
    assert failure.retry_after_s == case.get("retry_after_s")
    assert failure.fault.message == case.get("message", failure.fault.message)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b'{"error": "no"}', b"\xff"])
def test_what_is_no_error_has_no_words(body: bytes) -> None:
    assert google_words(500, {}, body) == {}


@pytest.mark.parametrize("case", cases("streams"), ids=lambda case: case["name"])
def test_a_stream(case: dict[str, Any]) -> None:
    request = asked()
    chunks = streamed(case["events"], request)
    assert chunks[-1] == DONE
    *said, last = [json.loads(chunk) for chunk in chunks[:-1]]
    assert (last["choices"], last["usage"]) == ([], case["usage"])
    assert request.told.usage == case["events"][-1]["usageMetadata"]
    deltas = [chunk["choices"][0]["delta"] for chunk in said]
    assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert "".join(delta.get("content", "") for delta in deltas) == case["content"]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == case["reasoning"]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [*range(len(calls))]
    assert [[c["id"], c["function"]["name"], c["function"]["arguments"], _signature(c)] for c in calls] == case["calls"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [*[None] * (len(said) - 1), case["finish_reason"]]
    readings = [read_event(chunk) for chunk in chunks[:-1]]
    assert sum(reading.finished for reading in readings) == 1
    assert readings[-1].usage_only


@pytest.mark.parametrize("counted", [{"promptTokenCount": None}, {"promptTokenCount": "many"}])
def test_usage_that_is_none_is_not_told(counted: dict[str, Any]) -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}], "usageMetadata": counted}
    assert "usage" not in json.loads(Translation(asked(), 7).whole(to_json(answer)))
    assert [json.loads(chunk)["usage"] for chunk in streamed([answer])[:-1]] == [None, None]


def test_an_event_that_says_nothing_is_no_chunk() -> None:
    chunks = Translation(asked(), 7)
    assert chunks.chunks('{"candidates": [{"content": {"parts": [{"text": ""}]}}]}') != []
    assert chunks.chunks('{"candidates": [{"content": {"parts": [{"text": ""}]}}]}') == []


def test_all_answers_must_have_ended() -> None:
    one = {"content": {"parts": [{"text": "a"}]}}
    assert streamed([{"candidates": [{**one, "finishReason": "STOP"}, {**one, "index": 1}]}])[-1] != DONE
    assert streamed([{"candidates": [{**one, "finishReason": "STOP"}, {**one, "index": 1, "finishReason": "STOP"}]}])[-1] == DONE
    assert streamed([]) == []


def test_only_one_call_where_only_one_is_wanted() -> None:
    request = asked({"parallel_tool_calls": False})
    answer = json.loads(Translation(request, 7).whole(to_json(CALLS)))
    assert [call["function"]["name"] for call in answer["choices"][0]["message"]["tool_calls"]] == ["f"]
    chunks = [json.loads(chunk) for chunk in streamed([CALLS], request)[:-1]]
    assert [len(chunk["choices"][0]["delta"].get("tool_calls", ())) for chunk in chunks] == [1, 0]


def test_calls_get_ids_of_their_own_that_no_other_answer_has() -> None:
    ids = [call_ids(attempt) for attempt in ("att_018f_1", "att_018f_2")]
    assert len({*ids[0], *ids[1]}) == 4
    assert all(len(made) <= 40 for made in ids[0])


def call_ids(attempt: str) -> list[str]:
    answer = json.loads(Translation(replace(asked(), id=attempt), 7).whole(to_json(CALLS)))
    return [call["id"] for call in answer["choices"][0]["message"]["tool_calls"]]


@given(st.sampled_from(cases("streams")), st.lists(st.integers(0, 1500), max_size=30), st.booleans())
def test_wherever_a_stream_is_cut_it_says_the_same(case: dict[str, Any], cuts: list[int], crlf: bool) -> None:
    end = b"\r\n\r\n" if crlf else b"\n\n"
    wire = b"".join(b"data: " + to_json(event) + end for event in case["events"])
    places = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    splitter, translation = EventSplitter(1 << 20), Translation(asked(), 7)
    found = [data for a, b in pairwise(places) for data in splitter.feed(wire[a:b])]
    chunks = [chunk for data in [*found, *splitter.close()] for chunk in translation.chunks(data)]
    assert chunks + translation.end() == streamed(case["events"])


COUNT = st.integers(0, 2_000_000)


@given(COUNT, COUNT, COUNT, COUNT, st.integers(0, 100))
def test_the_parts_of_usage_add_up(prompt: int, tools: int, candidates: int, thoughts: int, cached_percent: int) -> None:
    cached = prompt * cached_percent // 100
    raw = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "toolUsePromptTokenCount": tools,
        "candidatesTokenCount": candidates,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": prompt + tools + candidates + thoughts,
    }
    told = chat_usage({name: value for name, value in raw.items() if value})
    usage = canonical(told)
    assert usage is not None
    assert usage.source == "provider"
    assert usage.input_tokens + usage.output_tokens == told["total_tokens"] == raw["totalTokenCount"]
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (cached, thoughts)


def streamed(events: list[Any], request: Any = None) -> list[str]:
    """All chunks of a stream of these events."""
    translation = Translation(request or asked(), 7)
    chunks = [chunk for event in events for chunk in translation.chunks(to_json(event).decode())]
    return chunks + translation.end()


def _signature(call: dict[str, Any]) -> str:
    return call.get("extra_content", {}).get("google", {}).get("thought_signature", "")
