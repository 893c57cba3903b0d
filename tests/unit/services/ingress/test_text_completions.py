"""Text completions: the chat that is asked, and the texts that are told of what it says."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from infra.redis.tickets import Found
from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.job import Api, Caller, JobStatus
from schemas.openai.requests import ChatRequest, CompletionRequest
from schemas.reply import Answer, Closed, Event, Served
from schemas.ticket import Ended, Ticket
from schemas.topics import Lane
from services.ingress.assembly import assembled
from services.ingress.handler import checked
from services.ingress.job_object import job_object
from services.ingress.text_completions import COMPLETIONS, chat_body, text_completion, told_text

JOB = f"job_{'0123456789abcdef' * 2}"


def asked(**members: Any) -> JsonObject:
    body: JsonObject = {"model": "m", "prompt": "Say hi"} | members
    return chat_body(checked(CompletionRequest, body), body)


def test_the_prompt_is_what_a_user_says_and_the_text_may_have_sixteen_tokens() -> None:
    said = [{"role": "user", "content": "Say hi"}]
    assert asked() == {"model": "m", "messages": said, "max_completion_tokens": 16}
    assert asked(prompt=["Say hi"], max_tokens=None) == asked()
    assert asked(max_tokens=256)["max_completion_tokens"] == 256


def test_what_chats_have_too_is_passed_on_and_so_is_what_nobody_knows() -> None:
    shared: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 1,
        "n": 2,
        "stop": ["\n"],
        "seed": 7,
        "user": "u",
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": {"50256": -100},
        "of_tomorrow": [1],
    }
    found = asked(**shared)
    assert {name: found[name] for name in shared} == shared
    assert checked(ChatRequest, found).n == 2


def test_what_asks_for_nothing_is_left_out() -> None:
    assert asked(suffix="", echo=False, logprobs=None, best_of=1) == asked()


REFUSED: list[tuple[str, object, str]] = [
    ("suffix", "the end", "say it in the prompt"),
    ("echo", True, "put it before the text"),
    ("logprobs", 0, "ask /v1/chat/completions"),
    ("best_of", 2, "with `n`"),
    ("prompt", ["one", "two"], "one prompt a request"),
    ("prompt", [1, 2], "as text"),
    ("prompt", [[1], [2]], "as text"),
    ("prompt", [], "as text"),
    ("prompt", None, "Invalid value for `prompt`"),
    ("prompt", [{"text": "x"}], "Invalid value for `prompt"),
    ("max_tokens", 0, "Invalid value for `max_tokens`"),
]


@pytest.mark.parametrize(("name", "value", "says"), REFUSED)
def test_what_no_chat_can_do_is_refused_with_what_to_do_instead(name: str, value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        asked(**{name: value})
    assert (refused.value.fault().param or "").split(".")[0] == name


def whole(*messages: JsonObject, **members: Any) -> JsonObject:
    choices: list[Any] = [{"index": n, "message": one, "finish_reason": "stop"} for n, one in enumerate(messages)]
    head: JsonObject = {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "real"}
    return {**head, "choices": choices, **members}


def test_a_text_completion_is_one_to_the_sdk() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    told = text_completion(JOB, whole({"content": "Hi"}, {"content": "Ho"}, usage=usage, system_fingerprint="fp"))
    found = Completion.model_validate(told)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in found.choices] == [
        (0, "Hi", "stop"),
        (1, "Ho", "stop"),
    ]
    assert (found.id, found.object, found.created, found.model) == (f"cmpl-{JOB[4:]}", "text_completion", 5, "real")
    assert found.usage is not None
    assert (found.usage.total_tokens, found.system_fingerprint) == (6, "fp")


MESSAGES: list[tuple[JsonObject, str]] = [
    ({"content": None, "refusal": "I won't"}, "I won't"),
    ({"content": "Hi", "reasoning_content": "hm", "refusal": None}, "Hi"),
    ({"content": [{"type": "text", "text": "Hi"}]}, "Hi"),
    ({"content": None, "tool_calls": []}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("message", "text"), MESSAGES)
def test_the_text_is_what_the_model_says_not_what_it_thinks(message: JsonObject, text: str) -> None:
    assert Completion.model_validate(text_completion(JOB, whole(message))).choices[0].text == text


@pytest.mark.parametrize(
    ("finish", "told"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("tool_calls", "stop"), (None, None)],
)
def test_why_it_ends_is_told_in_words_that_texts_know(finish: str | None, told: str | None) -> None:
    chunk: JsonObject = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    assert json.loads(told_text(JOB, json.dumps(chunk)))["choices"][0]["finish_reason"] == told


def test_usage_alone_and_the_mark_of_another_call_stay_as_they_are() -> None:
    chunk: JsonObject = {"choices": [], "usage": {"prompt_tokens": 1}, "sluice": {"continued": {"model": "m"}}}
    told = json.loads(told_text(JOB, json.dumps(chunk)))
    assert {name: told[name] for name in chunk} == chunk


def chunks(pieces: Sequence[str]) -> tuple[str, ...]:
    deltas: list[JsonObject] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces), {}]
    return tuple(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas)


@given(st.lists(st.text()))
def test_the_parts_of_a_stream_make_up_the_text_of_the_whole(pieces: list[str]) -> None:
    stream = chunks(pieces)
    parts: list[Any] = [json.loads(told_text(JOB, data))["choices"][0]["text"] for data in stream]
    told: Any = text_completion(JOB, assembled(stream))
    assert "".join(parts) == told["choices"][0]["text"] == "".join(pieces)


def ended(last: Event, stream: tuple[str, ...] = (), endpoint: str = COMPLETIONS) -> Any:
    ticket = Ticket(
        job_id=JOB,
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="m",
        caller=Caller(organization="o", team="t", key_id="k"),
        stream=bool(stream),
        partition=0,
        accepted_ms=0,
        deadline_ms=1,
        endpoint=endpoint,
    )
    return job_object(Found(ticket, Ended(status=JobStatus.COMPLETED, ended_ms=1, last=last, stream=stream), "done", 1))


def test_a_job_that_is_asked_for_later_has_the_same_result() -> None:
    answer = Answer(status=200, body=json.dumps(whole({"content": "Hi"})), served=Served())
    assert ended(answer)["result"] == text_completion(JOB, whole({"content": "Hi"}))
    assert ended(answer)["endpoint"] == COMPLETIONS
    assert ended(answer, endpoint="")["result"]["object"] == "chat.completion"
    assert ended(Closed(), chunks(["H", "i"]))["result"]["choices"][0]["text"] == "Hi"
