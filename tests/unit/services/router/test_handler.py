"""The way of a job: what each lease means, and that every call is told of whatever becomes of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from infra.kafka.carriage import Booked, Finish, Nothing
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import Lease
from schemas.control import Model, Price
from schemas.errors import Fault, SluiceError
from schemas.job import Api, Job, JobStatus
from schemas.kept import Kept
from schemas.reply import Answer, Closed, Delta, Failed, Opened
from services.router import policy
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import (
    GRANTED,
    START_MS,
    STREAM,
    Bench,
    Hangs,
    answer,
    chunk,
    deployment,
    failure,
    job,
    model,
    usage_chunk,
)


def finished(outcome: object) -> Finish:
    assert isinstance(outcome, Finish)
    return outcome


def fault_of(outcome: object) -> Fault:
    last = finished(outcome).last
    assert isinstance(last, Failed)
    assert last.fault == finished(outcome).completion.fault
    return last.fault


@in_virtual_time
async def test_a_failure_is_kept_too_and_the_next_life_tells_the_same() -> None:
    bench = Bench(failure("final", 400))
    end = finished(await bench.handle(job()))
    kept = Kept.model_validate_json(bench.records.kept)
    assert (kept.completion, kept.failed, kept.answer) == (end.completion, end.last, None)
    bench.records.leases.append(Lease("answered", answer=bench.records.kept))
    again = finished(await bench.handle(job()))
    assert (again.completion, again.last, again.again) == (end.completion, end.last, True)


async def test_calls_of_a_job_that_was_put_off_and_ended_elsewhere_are_booked() -> None:
    first = Bench(failure("final", 400))
    made = finished(await first.handle(job())).completion.attempts
    bench = Bench()
    bench.records.leases += [Lease("done"), Lease("done"), Lease("stale")]
    booked = await bench.handle(job(made=made))
    assert isinstance(booked, Booked)
    assert booked.completion.attempts == made
    assert isinstance(await bench.handle(job()), Nothing), "nothing was called"
    assert isinstance(await bench.handle(job(made=made)), Nothing), "a copy that knows of more tells of them"


@in_virtual_time
async def test_an_answer_is_kept_then_published_with_its_cost() -> None:
    bench = Bench(answer("hi"))
    end = finished(await bench.handle())
    assert isinstance(end.last, Answer)
    assert end.last.body == answer("hi")
    assert end.completion.status is JobStatus.COMPLETED
    [attempt] = end.completion.attempts
    assert (attempt.n, attempt.deployment, attempt.status, attempt.http_status) == (1, "d1", "completed", 200)
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.source) == (5, 2, "provider")
    assert attempt.cost_usd == Decimal("0.009")
    assert attempt.price_version.startswith("config:")
    assert attempt.raw_usage == '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
    assert (end.last.served.deployment, end.last.served.cache, end.last.served.cost_usd) == ("d1", "miss", Decimal("0.009"))
    kept = Kept.model_validate_json(bench.records.kept)
    assert (kept.completion, kept.answer) == (end.completion, end.last)
    assert bench.provider.asked[0].id == "att_018f00000000700080000000000000aa_1"


@in_virtual_time
async def test_without_usage_from_the_provider_it_is_estimated() -> None:
    [attempt] = finished(await Bench(answer("a few words more", usage={})).handle()).completion.attempts
    assert attempt.usage.source == "estimated"
    assert attempt.usage.output_tokens == 4
    assert attempt.usage.input_tokens > 2


@in_virtual_time
async def test_what_is_too_long_to_keep_is_published_all_the_same() -> None:
    bench = Bench(answer("x" * 600_000))
    end = finished(await bench.handle())
    assert end.completion.cache_key is None
    assert bench.records.kept == b""


@in_virtual_time
async def test_an_answer_that_comes_too_late_is_booked_and_not_sent_twice() -> None:
    bench = Bench(answer())
    bench.records.late = True
    outcome = await bench.handle()
    assert isinstance(outcome, Booked)
    assert len(outcome.completion.attempts) == 1


@in_virtual_time
async def test_an_answer_that_redis_does_not_keep_is_published() -> None:
    bench = Bench(answer())
    bench.records.down.append(RedisUnavailable("away"))
    assert isinstance(finished(await bench.handle()).last, Answer)


# What a lease says


@in_virtual_time
async def test_done_means_nothing() -> None:
    bench = Bench()
    bench.records.leases.append(Lease("done"))
    assert await bench.handle() == Nothing()


@in_virtual_time
async def test_a_lease_elsewhere_is_waited_for() -> None:
    bench = Bench()
    bench.records.leases += [Lease("leased", left_ms=9_000), Lease("leased", left_ms=8_500), Lease("done")]
    began = asyncio.get_running_loop().time()
    assert await bench.handle() == Nothing()
    assert 1.0 <= asyncio.get_running_loop().time() - began < 1.1


@in_virtual_time
async def test_a_question_without_an_answer_is_asked_again_under_its_name() -> None:
    bench = Bench(answer())
    bench.records.leases += [RedisUnavailable("slow"), RedisUnavailable("slow")]
    assert isinstance(finished(await bench.handle()).last, Answer)
    assert len({ask["ask"] for ask in bench.records.asks}) == 1
    assert len(bench.records.asks) == 3


@in_virtual_time
async def test_an_answer_kept_by_a_dead_life_is_published() -> None:
    first = Bench(answer())
    end = finished(await first.handle())
    again = Bench()
    again.records.leases.append(Lease("answered", answer=first.records.kept))
    assert finished(await again.handle()) == replace(end, again=True)
    assert not again.provider.asked


@in_virtual_time
async def test_the_last_event_of_a_stream_is_sent_again() -> None:
    first = Bench(STREAM)
    end = finished(await first.handle(job(stream=True)))
    again = Bench()
    again.records.leases.append(Lease("answered", answer=first.records.kept))
    repeated = finished(await again.handle(job(stream=True)))
    assert (repeated.last, repeated.seq, repeated.attempt) == (Closed(), end.seq, 1)
    assert repeated.completion == end.completion


@in_virtual_time
async def test_a_kept_answer_that_nobody_understands_ends_the_job() -> None:
    bench = Bench()
    bench.records.leases.append(Lease("answered", answer=b"{"))
    with pytest.raises(SluiceError):
        await bench.handle()


CASES = [
    (Lease("interrupted", n=1, notes=(f"{START_MS} d1",)), "stream_interrupted", JobStatus.FAILED),
    (Lease("abandoned", n=1, notes=(f"{START_MS} d1",)), "cancelled", JobStatus.CANCELLED),
    (Lease("exhausted", n=1, notes=(f"{START_MS} d1",)), "internal_error", JobStatus.FAILED),
]


@pytest.mark.parametrize(("lease", "code", "status"), CASES)
def test_a_job_that_nobody_may_call_for_ends_with_what_was_called(lease: Lease, code: str, status: JobStatus) -> None:
    @in_virtual_time
    async def check() -> None:
        bench = Bench()
        bench.records.leases.append(lease)
        end = finished(await bench.handle())
        assert fault_of(end).code == code
        assert end.completion.status is status
        [attempt] = end.completion.attempts
        assert (attempt.n, attempt.status, attempt.deployment, attempt.started_ms) == (1, "unknown", "d1", START_MS)
        assert attempt.usage.source == "estimated"
        assert attempt.cost_usd > 0

    check()


@in_virtual_time
async def test_the_calls_of_a_dead_life_stand_before_ours() -> None:
    bench = Bench(answer())
    bench.records.leases.append(Lease("granted", n=2, notes=(f"{START_MS - 5} gone",)))
    end = finished(await bench.handle())
    assert [(a.n, a.status, a.deployment) for a in end.completion.attempts] == [(1, "unknown", "gone"), (2, "completed", "d1")]
    assert end.attempt == 2


@in_virtual_time
async def test_an_ending_job_is_left_to_the_carriage() -> None:
    bench = Bench()
    bench.records.leases.append(Lease("ending"))
    with pytest.raises(SluiceError):
        await bench.handle()


@pytest.mark.parametrize("table", [Model(name="other", deployments=(deployment(),)), Model(name="alias", deployments=())])
def test_a_model_that_is_not_there(table: Model) -> None:
    @in_virtual_time
    async def check() -> None:
        bench = Bench(table=table)
        bench.records.leases.append(Lease("exhausted"))
        end = await bench.handle()
        assert fault_of(end).code == "model_not_found"
        assert bench.records.asks[0]["attempts"] == 0

    check()


@in_virtual_time
async def test_past_the_deadline_no_attempt_may_begin() -> None:
    bench = Bench()
    bench.now_ms = START_MS + 60_001
    bench.records.leases.append(Lease("exhausted"))
    end = finished(await bench.handle())
    assert fault_of(end).status == 504
    assert end.completion.status is JobStatus.EXPIRED
    assert bench.records.asks[0]["attempts"] == 0


# Further tries


@in_virtual_time
async def test_a_failure_is_tried_again_elsewhere_and_each_call_counts() -> None:
    bench = Bench(failure(), answer(), table=model(deployment("d1"), deployment("d2")))
    end = finished(await bench.handle())
    assert [(a.n, a.deployment, a.status) for a in end.completion.attempts] == [(1, "d1", "failed"), (2, "d2", "completed")]
    assert end.completion.attempts[0].usage.source == "none"
    assert bench.records.asks[1]["held"] == 1
    assert bench.records.asks[1]["note"] == f"{START_MS} d2"
    assert isinstance(end.last, Answer)
    assert end.last.served.deployment == "d2"


@in_virtual_time
async def test_no_more_than_three_attempts() -> None:
    bench = Bench(failure(), failure(), failure())
    end = finished(await bench.handle())
    assert fault_of(end).code == "provider_error"
    assert [a.n for a in end.completion.attempts] == [1, 2, 3]
    assert end.completion.status is JobStatus.FAILED


@in_virtual_time
async def test_what_the_provider_refuses_for_good_is_not_repeated() -> None:
    bench = Bench(failure("final", 400), table=model(deployment("d1"), deployment("d2")))
    assert len(finished(await bench.handle()).completion.attempts) == 1


@in_virtual_time
async def test_a_body_that_is_no_answer_is_a_failure_that_may_cost() -> None:
    bench = Bench("<html>", '{"error": {"message": "no"}}', '{"object": "list"}')
    end = finished(await bench.handle())
    assert [a.status for a in end.completion.attempts] == ["failed"] * 3
    assert all(a.usage.source == "estimated" and a.usage.output_tokens == 0 for a in end.completion.attempts)


@in_virtual_time
async def test_a_call_longer_than_its_deployment_allows_is_tried_elsewhere() -> None:
    bench = Bench(Hangs(), answer(), table=model(deployment("d1", timeout_s=2), deployment("d2")))
    end = finished(await bench.handle())
    assert [a.status for a in end.completion.attempts] == ["failed", "completed"]
    assert bench.provider.closed == 2


@in_virtual_time
async def test_a_lease_lost_between_two_tries_ends_our_part() -> None:
    bench = Bench(failure())
    bench.records.leases += [GRANTED, Lease("leased", left_ms=100)]
    assert await bench.handle() == Nothing()


@in_virtual_time
async def test_a_job_abandoned_between_two_tries() -> None:
    bench = Bench(failure())
    bench.records.leases += [GRANTED, Lease("abandoned", n=1)]
    end = finished(await bench.handle())
    assert end.completion.status is JobStatus.CANCELLED
    assert len(end.completion.attempts) == 1


# Streams


def texts(bench: Bench) -> Sequence[str]:
    return [data for event, _, _ in bench.post.sent if isinstance(event, Delta) for data in event.data]


@in_virtual_time
async def test_a_stream_goes_out_in_order_after_it_is_marked() -> None:
    bench = Bench(STREAM)
    end = finished(await bench.handle(job(stream=True)))
    assert bench.records.calls == ["streamed", "opened", "delta", "delta", "delta", "answered"]
    assert [(attempt, seq) for _, attempt, seq in bench.post.sent] == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert (end.last, end.attempt, end.seq) == (Closed(), 1, 4)
    assert bench.post.acknowledged == 4
    assert texts(bench) == [*STREAM[0], *STREAM[1], STREAM[2][0]], "the usage nobody asked for is taken out"
    opened, *_ = (event for event, _, _ in bench.post.sent)
    assert isinstance(opened, Opened)
    assert opened.served.deployment == "d1"
    [attempt] = end.completion.attempts
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.source) == (5, 2, "provider")
    assert attempt.ttft_ms is not None
    assert end.completion.cache_key == "k"
    assert Kept.model_validate_json(bench.records.kept).stream == tuple(texts(bench))


@in_virtual_time
async def test_usage_that_was_asked_for_goes_out() -> None:
    bench = Bench(STREAM)
    await bench.handle(job(stream=True, include_usage=True))
    assert texts(bench)[-1] == STREAM[2][1]


@in_virtual_time
async def test_a_long_stream_is_not_kept_for_the_cache() -> None:
    bench = Bench([[chunk("x" * 70_000)], [chunk(finish="stop"), usage_chunk(), "[DONE]"]])
    end = finished(await bench.handle(job(stream=True)))
    assert end.completion.cache_key is None
    kept = Kept.model_validate_json(bench.records.kept)
    assert (kept.stream, kept.seq, kept.completion.cache_key) == ((), 3, None)


@in_virtual_time
async def test_before_the_first_token_a_stream_is_tried_again() -> None:
    bench = Bench([[chunk("", role="assistant")], failure()], STREAM)
    end = finished(await bench.handle(job(stream=True)))
    assert [a.status for a in end.completion.attempts] == ["failed", "completed"]
    assert {attempt for _, attempt, _ in bench.post.sent} == {2}
    assert [seq for _, _, seq in bench.post.sent] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "broken", [failure(billable=True), [chunk("x"), "{not json"], [chunk("x"), '{"error": {"message": "m"}}']]
)
def test_after_the_first_token_a_failure_is_the_end(broken: object) -> None:
    @in_virtual_time
    async def check() -> None:
        bench = Bench([[chunk("one two three")], broken], table=model(deployment("d1"), deployment("d2")))
        end = finished(await bench.handle(job(stream=True)))
        assert fault_of(end).code == "provider_error"
        assert len(bench.provider.asked) == 1
        [attempt] = end.completion.attempts
        assert attempt.usage.source == "estimated"
        assert attempt.usage.output_tokens >= 3
        assert end.seq == len(bench.post.sent) == bench.post.acknowledged

    check()


@in_virtual_time
async def test_a_stream_that_ends_without_an_end_is_broken() -> None:
    bench = Bench([[chunk("one")]])
    assert fault_of(await bench.handle(job(stream=True))).code == "provider_error"


@in_virtual_time
async def test_a_finish_without_done_is_an_end() -> None:
    bench = Bench([[chunk("one"), chunk(finish="stop")]])
    assert finished(await bench.handle(job(stream=True))).last == Closed()


@in_virtual_time
async def test_silence_after_the_first_token_is_an_end() -> None:
    bench = Bench([[chunk("one")], Hangs()])
    began = asyncio.get_running_loop().time()
    assert fault_of(await bench.handle(job(stream=True))).code == "provider_error"
    assert asyncio.get_running_loop().time() - began == pytest.approx(policy.SILENCE_S)


@in_virtual_time
async def test_no_token_goes_out_unmarked() -> None:
    bench = Bench(STREAM)
    bench.records.down += [RedisUnavailable("away"), RedisUnavailable("away")]
    await bench.handle(job(stream=True))
    assert bench.records.calls[:4] == ["streamed", "streamed", "streamed", "opened"]


@in_virtual_time
async def test_a_broker_that_does_not_acknowledge_ends_the_job_with_what_it_cost() -> None:
    bench = Bench(STREAM)
    bench.post.broken = True
    end = finished(await bench.handle(job(stream=True)))
    assert fault_of(end).code == "internal_error"
    assert len(end.completion.attempts) == 1


# Deadline, cancel, drain


@pytest.mark.parametrize("stream", [False, True])
def test_the_deadline_ends_the_call(stream: bool) -> None:
    @in_virtual_time
    async def check() -> None:
        loop = asyncio.get_running_loop()
        bench = Bench([[chunk("one two")], *([chunk(".")], Hangs())] if stream else Hangs())
        given = job(stream=stream, deadline_ms=START_MS + 20_000)
        end = finished(await bench.handle(given))
        assert loop.time() == pytest.approx(19.95)
        assert fault_of(end).code == "deadline_exceeded"
        assert end.completion.status is JobStatus.EXPIRED
        [attempt] = end.completion.attempts
        assert (attempt.status, attempt.usage.source) == ("cancelled", "estimated")
        assert bool(attempt.usage.output_tokens) == stream
        assert bench.provider.closed == 1

    check()


async def _until_asked(bench: Bench) -> None:
    while not bench.provider.asked:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)


@in_virtual_time
async def test_a_cancel_closes_the_call_and_ends_the_job() -> None:
    bench = Bench([[chunk("one two three four")], Hangs()])
    given = job(stream=True)
    task = asyncio.create_task(bench.handle(given))
    await _until_asked(bench)
    bench.running.cancel("job_of_somebody_else")
    bench.running.cancel(given.id)
    end = finished(await task)
    assert end.completion.status is JobStatus.CANCELLED
    [attempt] = end.completion.attempts
    assert (attempt.status, attempt.error, attempt.usage.output_tokens) == ("cancelled", "cancelled", 4)
    assert bench.provider.closed == 1
    assert len(bench.running) == 0
    bench.running.cancel(given.id)


@in_virtual_time
async def test_a_drain_gives_the_lease_back() -> None:
    bench = Bench(Hangs())
    task = asyncio.create_task(bench.handle())
    await _until_asked(bench)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert bench.records.calls == ["release"]
    assert bench.provider.closed == 1


@in_virtual_time
async def test_leases_are_renewed_while_the_call_lasts() -> None:
    async def slow() -> str:
        await asyncio.sleep(10)
        return answer()

    bench = Bench(slow)
    await bench.running.start()
    await bench.handle()
    await bench.running.stop()
    assert bench.records.calls.count("renew 1") == 3


@in_virtual_time
async def test_a_waiting_job_does_not_block_another() -> None:
    bench = Bench(answer())
    bench.records.leases.append(Lease("leased", left_ms=10_000))
    first = asyncio.create_task(bench.handle())
    await asyncio.sleep(0.1)
    bench.records.leases += [GRANTED, Lease("done")]
    other: Job = job(id="job_018f00000000700080000000000000bb")
    assert isinstance(finished(await bench.handle(other)).last, Answer)
    assert await first == Nothing()


MODERATION = {"api": Api.MODERATIONS, "body": {"input": "one two three"}}


@pytest.mark.parametrize(
    ("price", "usage", "booked"),
    [
        (None, "", ("none", 0, "0")),
        (Price(input_usd=Decimal("0.001"), output_usd=Decimal(0)), "", ("estimated", 3, "0.003")),
        (Price(input_usd=Decimal("0.001"), output_usd=Decimal(0)), ',"usage":{"prompt_tokens":5}', ("provider", 5, "0.005")),
    ],
)
@in_virtual_time
async def test_a_moderation_is_free_unless_a_price_stands_beside_the_deployment(
    price: Price | None, usage: str, booked: tuple[str, int, str]
) -> None:
    said = f'{{"results":[{{"flagged":false}}]{usage}}}'
    end = finished(await Bench(said, table=model(deployment(price=price))).handle(job(**MODERATION)))
    assert isinstance(end.last, Answer)
    assert end.last.body == said
    [attempt] = end.completion.attempts
    assert (attempt.usage.source, attempt.usage.input_tokens, attempt.cost_usd) == (*booked[:2], Decimal(booked[2]))
