"""What is read out of a provider's answer."""

import pytest

from schemas.job import Api
from services.router.answers import NoAnswer, read_answer, read_event
from tests.unit.services.router.doubles import answer, chunk, usage_chunk


def test_a_chat() -> None:
    reading = read_answer(Api.CHAT, answer("hi", {}))
    assert (reading.text, reading.usage, reading.finished) == ("hi", {}, True)
    tool = '{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}'
    assert read_answer(Api.CHAT, tool).text == "f{}"
    assert read_answer(Api.CHAT, '{"choices":[],"service_tier":"flex"}').service_tier == "flex"


def test_no_name_that_a_provider_gives_fills_the_books() -> None:
    long = "x" * 5_000
    reading = read_answer(Api.CHAT, f'{{"choices":[],"service_tier":"{long}","model":"{long}"}}')
    assert (reading.service_tier, reading.model) == (long[:256], long[:256])


def test_embeddings() -> None:
    reading = read_answer(Api.EMBEDDINGS, '{"data":[],"usage":{"prompt_tokens":3}}')
    assert reading.usage == {"prompt_tokens": 3}


def test_moderations() -> None:
    reading = read_answer(Api.MODERATIONS, '{"results":[{"flagged":false}]}')
    assert (reading.usage, reading.finished) == (None, True)
    with pytest.raises(NoAnswer):
        read_answer(Api.MODERATIONS, '{"data":[]}')


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "[]", "null", "{", '{"id":1}', '{"choices":{}}', '{"error":{"message":"m"},"choices":[]}', "[" * 10_000],
)
def test_what_is_no_answer(body: str) -> None:
    with pytest.raises(NoAnswer):
        read_answer(Api.CHAT, body)


EVENTS = [
    (chunk("", role="assistant"), "", False, False),
    (chunk("hi"), "hi", False, True),
    (chunk(finish="stop"), "", True, True),
    ('{"choices":[{"delta":{"reasoning_content":"hm"}}]}', "hm", False, True),
    ('{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}', "{", False, True),
    ('{"choices":[{"delta":null}]}', "", False, False),
    ('{"choices":[],"prompt_filter_results":[]}', "", False, False),
    ('{"id":"x"}', "", False, False),
]


@pytest.mark.parametrize(("data", "text", "finished", "says_something"), EVENTS)
def test_events(data: str, text: str, finished: bool, says_something: bool) -> None:
    reading = read_event(data)
    assert (reading.text, reading.finished, reading.says_something) == (text, finished, says_something)
    assert not reading.usage_only


def test_usage_alone() -> None:
    reading = read_event(usage_chunk(7, 9))
    assert reading.usage_only
    assert reading.usage == {"prompt_tokens": 7, "completion_tokens": 9}


def test_an_error_in_a_stream() -> None:
    with pytest.raises(NoAnswer):
        read_event('{"error":{"message":"overloaded"}}')
