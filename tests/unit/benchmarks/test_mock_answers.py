"""The grammar of fault scripts, and answers that depend on the prompt alone."""

import json

import pytest

from benchmarks.mock_answers import (
    Behaviour,
    ChatRequest,
    answer_text,
    chat_answer,
    chat_body,
    chat_events,
    count_tokens,
    parse_behaviour,
    vector,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o-500", Behaviour()),
        ("mock", Behaviour()),
        ("mock-500", Behaviour(status=500)),
        ("mock-429", Behaviour(status=429, retry_after_s=1)),
        ("mock-429-retry-7", Behaviour(status=429, retry_after_s=7)),
        ("mock-latency-500", Behaviour(latency_ms=500)),
        ("mock-latency-500-503", Behaviour(latency_ms=500, status=503)),
        ("mock-slow-5s", Behaviour(latency_ms=5000)),
        ("mock-words-200-chunkms-20", Behaviour(words=200, chunk_ms=20)),
        ("mock-cut-words-400", Behaviour(ending="cut", words=400)),
        ("mock-hang", Behaviour(ending="hang")),
        ("mock-eu-west-nousage", Behaviour(usage=False)),
    ],
)
def test_behaviour(name: str, expected: Behaviour) -> None:
    assert parse_behaviour(name) == expected


def _request(content: object, **more: object) -> ChatRequest:
    return ChatRequest.model_validate({"model": "mock", "messages": [{"role": "user", "content": content}], **more})


def test_same_prompt_same_answer_other_prompt_other_answer() -> None:
    assert answer_text("one") == answer_text("one") != answer_text("two")
    assert vector("one", 8) == vector("one", 8) != vector("two", 8)


def test_prompt_is_all_text_of_parts_and_messages() -> None:
    parts = [{"type": "text", "text": "look at "}, {"type": "image_url"}, {"type": "text", "text": "this"}]
    assert _request(parts).prompt() == "look at this"
    assert _request(None).prompt() == ""


def test_limit_cuts_and_says_so() -> None:
    answer = chat_answer(_request("hello there", max_tokens=5), Behaviour(), "id", 0)
    body = json.loads(chat_body(answer, Behaviour()))
    assert body["choices"][0]["finish_reason"] == "length"
    assert count_tokens(body["choices"][0]["message"]["content"]) == 5
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


def test_stream_says_what_the_body_says() -> None:
    answer = chat_answer(_request("hello"), Behaviour(), "id", 0)
    events = chat_events(answer, Behaviour(), include_usage=True)
    chunks = [json.loads(event[len("data: ") :]) for event in events[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == answer_text("hello")
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert events[-1] == b"data: [DONE]\n\n"


def test_model_name_is_quoted() -> None:
    answer = chat_answer(_request("hello").model_copy(update={"model": 'a"b'}), Behaviour(), "id", 0)
    assert json.loads(chat_body(answer, Behaviour()))["model"] == 'a"b'


@pytest.mark.parametrize("ending", ["cut", "truncate", "garbage", "error"])
def test_a_spoiled_stream_never_says_done(ending: str) -> None:
    behaviour = parse_behaviour(f"mock-{ending}")
    events = chat_events(chat_answer(_request("hello"), behaviour, "id", 0), behaviour, include_usage=True)
    assert not any(b"[DONE]" in event or b'"stop"' in event for event in events)
