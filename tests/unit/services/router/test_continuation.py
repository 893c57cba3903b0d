"""A stream that breaks after its first token: it ends with an error, or another call goes on where it stopped, marked as such."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from pydantic_core import from_json, to_json

from infra import tokens
from infra.kafka.carriage import Finish
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from schemas.base import JsonObject
from schemas.job import Job, JobStatus
from schemas.policy import EffectivePolicy, RoutePolicy
from schemas.reply import Closed, Delta, Event, Failed, Opened
from schemas.usage import Usage
from services.ingress.assembly import assembled
from services.ingress.messages import telling as messages
from services.ingress.responses import telling as responses
from tests.fakes.clock import FakeClock, in_virtual_time
from tests.fakes.redis import LuaRedis
from tests.unit.services.router.doubles import (
    Bench,
    Hangs,
    chunk,
    deployment,
    failure,
    job,
    model,
    usage_chunk,
    virtual_clock,
)

CONTINUE = EffectivePolicy(version="1", route=RoutePolicy(on_broken_stream="continue"))
BROKEN = [[chunk("", role="assistant"), chunk("The sky is ")], failure(billable=True)]
REST = [[chunk("", role="assistant")], [chunk("blue.")], [chunk(finish="stop"), usage_chunk(30, 4), "[DONE]"]]


def bench(*script: object) -> Bench:
    return Bench(*script, table=model(deployment("d1"), deployment("d2")), clock=virtual_clock)


def asked(**changes: object) -> Job:
    return job(stream=True, include_usage=True, policy=CONTINUE, **changes)


def chunks(on: Bench) -> list[JsonObject]:
    return [from_json(text) for event, _, _ in on.post.sent if isinstance(event, Delta) for text in event.data]


def said(on: Bench) -> str:
    choices = [choice for told in chunks(on) for choice in cast("list[JsonObject]", told["choices"])]
    return "".join(str(cast("JsonObject", choice["delta"]).get("content") or "") for choice in choices)


@in_virtual_time
async def test_another_call_goes_on_where_the_stream_broke() -> None:
    on = bench(BROKEN, REST)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Closed)
    assert end.completion.status is JobStatus.COMPLETED
    assert said(on) == "The sky is blue."
    # In the name of one attempt, in order and without a gap.
    assert [(n, seq) for _, n, seq in on.post.sent] == [(1, seq) for seq in range(len(on.post.sent))]
    assert (end.attempt, end.seq) == (1, len(on.post.sent))
    [marker] = [c for c in chunks(on) if "sluice" in c]
    assert marker["sluice"] == {"continued": {"model": "alias", "deployment": "d2"}}
    assert [a.status for a in end.completion.attempts] == ["failed", "completed"]
    assert end.completion.cache_key is None


@in_virtual_time
async def test_the_second_call_is_told_what_was_said() -> None:
    on = bench(BROKEN, REST)
    await on.handle(asked())
    before, after = (request.body["messages"] for request in on.provider.asked)
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert after[: len(before)] == before
    [assistant, user] = after[len(before) :]
    assert assistant == {"role": "assistant", "content": "The sky is "}
    assert isinstance(user, dict)
    assert user["role"] == "user"


@in_virtual_time
async def test_the_usage_is_that_of_both() -> None:
    on = bench(BROKEN, REST)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    [told] = [c["usage"] for c in chunks(on) if c.get("usage")]
    assert isinstance(told, dict)
    usage = end.completion.usage
    assert (told["prompt_tokens"], told["completion_tokens"]) == (usage.input_tokens, usage.output_tokens)
    assert usage.input_tokens > 30


@in_virtual_time
async def test_it_may_break_twice() -> None:
    on = bench(BROKEN, [[chunk("", role="assistant"), chunk("dark ")], failure(billable=True)], REST)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert said(on) == "The sky is dark blue."
    last = on.provider.asked[-1].body["messages"]
    assert isinstance(last, list)
    assert {"role": "assistant", "content": "The sky is dark "} in last
    assert len(last) == 3


@in_virtual_time
async def test_the_first_token_of_who_goes_on_is_waited_for_like_any() -> None:
    on = Bench(
        [[chunk("One ")], failure(billable=True)],
        [[chunk("", role="assistant")], Hangs()],
        [[chunk("two")], [chunk(finish="stop"), "[DONE]"]],
        table=model(*(deployment(f"d{n}", first_token_timeout_s=2) for n in (1, 2, 3))),
        clock=virtual_clock,
    )
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert said(on) == "One two"
    assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.5)


ENDS = {
    "a policy that says nothing": (job(stream=True), BROKEN),
    "calls of tools": (
        asked(),
        [
            ['{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]}'],
            failure(billable=True),
        ],
    ),
    "several choices": (asked(), [['{"choices": [{"index": 1, "delta": {"content": "x"}}]}'], failure(billable=True)]),
    "what is refused for good": (asked(), [[chunk("x")], failure("final", 400, billable=True)]),
    "an answer that had come to its end": (asked(), [[chunk("x"), chunk(finish="stop")], failure(billable=True)]),
    "one call allowed": (
        asked().model_copy(
            update={"policy": EffectivePolicy(version="1", route=RoutePolicy(on_broken_stream="continue", max_attempts=1))}
        ),
        BROKEN,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_else_it_ends_with_an_error(name: str) -> None:
    given, script = ENDS[name]

    @in_virtual_time
    async def run() -> None:
        on = bench(script)
        end = await on.handle(given)
        assert isinstance(end, Finish)
        assert isinstance(end.last, Failed)
        assert len(on.provider.asked) == 1
        assert (end.attempt, end.seq) == (1, len(on.post.sent))

    run()


@in_virtual_time
async def test_who_has_lost_the_job_meanwhile_says_no_more() -> None:
    on = bench(BROKEN, REST)
    on.records.leases.extend([Lease("granted", n=1), Lease("leased", left_ms=500)])
    await on.handle(asked())
    assert said(on) == "The sky is "
    assert on.records.asks[-1]["goes_on"] is True


# What the reader has, and what it hasn't.


def bodies(on: Bench) -> list[JsonObject]:
    return [request.body for request in on.provider.asked]


def texts(messages: object) -> list[object]:
    assert isinstance(messages, list)
    return [cast("JsonObject", message)["content"] for message in cast("list[object]", messages)]


@in_virtual_time
async def test_what_came_with_the_break_and_was_never_told_is_asked_for_again() -> None:
    on = bench([[chunk("The ")], [chunk("sea "), "<html>"]], REST)
    await on.handle(asked())
    assert texts(bodies(on)[1]["messages"])[-2] == "The "
    assert said(on) == "The blue."


@in_virtual_time
async def test_a_call_that_fails_before_it_speaks_doesnt_make_the_first_one_free() -> None:
    on = Bench(BROKEN, failure(), REST, table=model(*(deployment(f"d{n}") for n in (1, 2, 3))), clock=virtual_clock)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    [told] = [c["usage"] for c in chunks(on) if c.get("usage")]
    assert isinstance(told, dict)
    usage = end.completion.usage
    assert usage.input_tokens > 30
    assert (told["prompt_tokens"], told["completion_tokens"]) == (usage.input_tokens, usage.output_tokens)


@in_virtual_time
async def test_usage_beside_the_last_words_is_that_of_both_too() -> None:
    last = from_json(chunk(finish="stop")) | {"usage": {"prompt_tokens": 30, "completion_tokens": 4}}
    on = bench(BROKEN, [[chunk("blue.")], [to_json(last).decode(), "[DONE]"]])
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    [told] = [c["usage"] for c in chunks(on) if c.get("usage")]
    assert isinstance(told, dict)
    assert told["prompt_tokens"] == end.completion.usage.input_tokens


NULLS = (
    '{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null,"tool_calls":null},"finish_reason":null}]}'
)


@in_virtual_time
async def test_members_that_are_null_say_nothing() -> None:
    """OpenAI's first chunk has `refusal: null`."""
    on = bench([[NULLS, chunk("The sky is ")], failure(billable=True)], [[NULLS], *REST[1:]])
    await on.handle(asked())
    assert said(on) == "The sky is blue."


def thought(text: str) -> str:
    return to_json({"choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]}).decode()


@in_virtual_time
async def test_thoughts_about_how_to_go_on_belong_to_no_answer() -> None:
    on = bench([[thought("hm"), chunk("The sky is ")], failure(billable=True)], [[thought("they want")], *REST[1:]])
    await on.handle(asked())
    assert [c["choices"][0]["delta"].get("reasoning_content") for c in chunks(on) if c["choices"]].count("they want") == 0  # type: ignore[index, union-attr, call-overload]
    assert said(on) == "The sky is blue."


@in_virtual_time
async def test_who_has_only_thought_so_far_is_asked_anew() -> None:
    on = bench([[thought("hm")], failure(billable=True)], [[thought("well"), chunk("blue.")], [chunk(finish="stop"), "[DONE]"]])
    await on.handle(asked())
    first, second = bodies(on)
    assert second == first
    assert said(on) == "blue."


@in_virtual_time
async def test_the_rest_may_be_as_long_as_what_is_left() -> None:
    on = bench(BROKEN, REST)
    await on.handle(asked(body={"messages": [], "max_tokens": 10}))
    assert [body["max_tokens"] for body in bodies(on)] == [10, 10 - tokens.count("The sky is ")]


NOT_ONE_TEXT: dict[str, JsonObject] = {"two answers": {"n": 2}, "an object": {"response_format": {"type": "json_object"}}}


@pytest.mark.parametrize("name", NOT_ONE_TEXT)
def test_what_is_not_one_text_ends_with_an_error(name: str) -> None:
    @in_virtual_time
    async def run() -> None:
        on = bench(BROKEN, REST)
        end = await on.handle(asked(body={"messages": []} | NOT_ONE_TEXT[name]))
        assert isinstance(end, Finish)
        assert isinstance(end.last, Failed)
        assert len(on.provider.asked) == 1

    run()


# Our own servers are slow in the middle of it.


@in_virtual_time
async def test_a_provider_is_not_late_while_redis_is_away() -> None:
    on = Bench(
        [[chunk("One ")], [chunk(finish="stop"), "[DONE]"]],
        table=model(deployment(first_token_timeout_s=2)),
        clock=virtual_clock,
    )
    on.records.down.extend([RedisUnavailable("away")] * 20)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Closed)
    assert asyncio.get_running_loop().time() == pytest.approx(5)


@in_virtual_time
async def test_who_goes_on_with_what_never_went_out_opens_the_stream() -> None:
    """The first call was cut while Redis was asked whether its first token may go out."""
    on = Bench(
        [[chunk("One ")], Hangs()],
        REST,
        table=model(deployment("d1", timeout_s=3, first_token_timeout_s=2), deployment("d2")),
        clock=virtual_clock,
    )
    on.records.down.extend([RedisUnavailable("away")] * 20)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert isinstance(end.last, Closed)
    assert isinstance(on.post.sent[0][0], Opened)
    assert said(on) == "blue."
    assert bodies(on)[1] == bodies(on)[0]
    marks = [n for n, call in enumerate(on.records.calls) if call == "streamed"]
    assert len(marks) > 13, "it is marked again, before anything goes out"
    assert marks[-1] < on.records.calls.index("opened")


@in_virtual_time
async def test_an_event_that_was_never_handed_over_leaves_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The brokers are away in the middle of a stream, for longer than its call may take."""
    on = Bench(
        [[chunk("The ")], [chunk("sea ")], Hangs()],
        REST,
        table=model(deployment("d1", timeout_s=5, first_token_timeout_s=2), deployment("d2")),
        clock=virtual_clock,
    )
    begin = on.post.begin_reply

    async def away(given: Job, event: Event, attempt: int, seq: int, traceparent: str) -> Awaitable[object]:
        if seq == 2 and asyncio.get_running_loop().time() < 10:
            await asyncio.sleep(10)
        return await begin(given, event, attempt, seq, traceparent)

    monkeypatch.setattr(on.post, "begin_reply", away)
    end = await on.handle(asked())
    assert isinstance(end, Finish)
    assert [seq for _, _, seq in on.post.sent] == list(range(end.seq))
    assert said(on) == "The blue."


# The lease, as the script has it.


async def test_calls_made_while_redis_was_away_are_counted() -> None:
    """A policy that is fail-open: the first two calls had no lease, the third one has."""
    records = JobRecords(LuaRedis(FakeClock()), "slot", "life")

    async def ask(name: str, held: int) -> Lease:
        return await records.lease("job", 60_000, lease_ms=10_000, attempts=4, ask=name, held=held, note=name)

    assert (await ask("3", 2)).n == 3
    assert (await ask("4", 3)).n == 4
    assert (await ask("5", 4)).state == "exhausted"


async def test_a_job_is_not_lost_to_its_own_lease() -> None:
    """Its first call had a lease, the second one had none, for Redis was away."""
    records = JobRecords(LuaRedis(FakeClock()), "slot", "life")

    async def ask(name: str, held: int) -> Lease:
        return await records.lease("job", 60_000, lease_ms=10_000, attempts=4, ask=name, held=held, note=name)

    assert (await ask("1", 0)).n == 1
    assert (await ask("3", 2)).n == 3
    assert (await ask("2", 1)).state == "leased", "asked late, by who doesn't know of the others"


# How the fronts tell it.


@in_virtual_time
async def test_every_front_tells_one_answer() -> None:
    on = bench(BROKEN, [[thought("they want")], *REST[1:]])
    end = await on.handle(asked(keep_s=60))
    assert isinstance(end, Finish)
    told = [*(event for event, _, _ in on.post.sent), end.last]
    [message] = responses.told_whole({"id": "resp_1"}, told)["output"]  # type: ignore[misc]
    assert cast("JsonObject", message)["type"] == "message"
    assert "The sky is blue." in to_json(message).decode()
    whole = messages.told_whole("job_1", "alias", told, Usage())
    assert whole["content"] == [{"type": "text", "text": "The sky is blue."}]
    [choice] = assembled(end.stream)["choices"]  # type: ignore[misc]
    assert cast("JsonObject", cast("JsonObject", choice)["message"])["content"] == "The sky is blue."
    usage = end.completion.usage
    assert cast("JsonObject", assembled(end.stream)["usage"])["prompt_tokens"] == usage.input_tokens
