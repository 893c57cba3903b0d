"""A stream that breaks after its first token: it ends with an error, or another call goes on where it stopped, marked as such."""

import asyncio

import pytest
from pydantic_core import from_json

from infra.kafka.carriage import Finish
from infra.redis.jobs import Lease
from schemas.base import JsonObject
from schemas.job import Job, JobStatus
from schemas.policy import EffectivePolicy, RoutePolicy
from schemas.reply import Closed, Delta, Failed
from tests.fakes.clock import in_virtual_time
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
    parts = [choice["delta"].get("content") or "" for c in chunks(on) for choice in c["choices"]]  # type: ignore[index, union-attr]
    return "".join(parts)


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
