"""How a job passes a stage. Tests are named after what is feared."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.files import FileStore
from infra.kafka.carriage import MAX_DELIVERIES, Booked, Carriage, Delivery, Finish, Forward, Nothing, Outcome, PutOff
from infra.kafka.envelope import decode, encode
from infra.kafka.log import Headers, Incoming, Outgoing
from infra.kafka.post import Post
from infra.kafka.shards import partitions_of
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import Ending
from infra.telemetry.spans import Tracing
from schemas.attempt import Attempt
from schemas.batch import BatchResult
from schemas.completion import Completion, completion_of
from schemas.errors import ContentBlocked
from schemas.job import Job, JobStatus, ReplyTo
from schemas.policy import EffectivePolicy
from schemas.reply import Answer, Failed, Reply, Served
from schemas.slip import Stage
from tests.fakes.clock import FakeClock
from tests.fakes.jobs import NOW_MS, SIGNER, FakeRecords, FakeTickets, a_job
from tests.fakes.log import MemoryLog, Record

TOPIC = "sluice.guard.interactive"
CALL = Attempt(
    id="att_1", n=1, deployment="d", provider="p", provider_model="m", started_ms=NOW_MS, latency_ms=5, status="failed"
)


class Bench:
    """A guard stage, all of whose surroundings are fakes, and a handler that gives what the test says."""

    def __init__(self, folder: Path, *, leased: bool = False) -> None:
        self.log = MemoryLog(partitions=8)
        self.records = FakeRecords()
        self.tickets = FakeTickets()
        self.clock = FakeClock(NOW_MS)
        self.files = FileStore(folder)
        self.deliveries: list[Delivery] = []
        self.outcome: Callable[[Job], Outcome] = lambda job: Forward(job.past(Stage.GUARD))
        post = Post(self.log, self.files, self.clock, "guard")
        tracing = Tracing(None)
        self.next_is_here = False
        self.told = False
        self.asked: list[tuple[str, str, int]] = []
        self.handed_over: list[tuple[Job, str, Delivery]] = []
        self.carriage = Carriage(
            stage=Stage.GUARD,
            handler=self._handle,
            post=post,
            records=self.records,
            tickets=self.tickets,
            signer=SIGNER,
            files=self.files,
            clock=self.clock,
            tracing=tracing,
            hand_over=self._hand_over,
            told=self._is_told,
            leased=leased,
            retry_s=0,
        )

    async def _handle(self, job: Job, delivery: Delivery) -> Outcome:
        self.deliveries.append(delivery)
        return self.outcome(job)

    async def _is_told(self, team: str, result_id: str, since_ms: int) -> bool:
        self.asked.append((team, result_id, since_ms))
        return self.told

    async def _hand_over(self, job: Job, record: Incoming, delivery: Delivery) -> bool:
        if self.next_is_here:
            self.handed_over.append((job, record.topic, delivery))
        return self.next_is_here

    async def work(self, record: Record, *, suspect: bool = False) -> None:
        await self.carriage.work(record, suspect)

    @property
    def replies(self) -> list[Reply]:
        replies = [decode(record, Reply) for record in self.log.records("sluice.replies")]
        return [reply for reply in replies if isinstance(reply, Reply)]

    @property
    def completions(self) -> list[Completion]:
        completions = [decode(record, Completion) for record in self.log.records("sluice.completions")]
        return [completion for completion in completions if isinstance(completion, Completion)]

    @property
    def dead(self) -> list[Record]:
        return self.log.records("sluice.dead")

    @property
    def nothing_sent(self) -> bool:
        topics = ("sluice.replies", "sluice.completions", "sluice.dead", "sluice.cache.interactive")
        return not any(self.log.records(topic) for topic in topics)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def leased(tmp_path: Path) -> Bench:
    return Bench(tmp_path, leased=True)


def carried(job: Job, offset: int = 7) -> Record:
    record = encode(
        job,
        topic=TOPIC,
        key="fraud",
        event_id=job.id,
        source="ingress",
        now_ms=NOW_MS,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    return as_read(record, offset)


def as_read(record: Outgoing, offset: int = 7) -> Record:
    return Record(record.topic, 2, offset, NOW_MS, record.key, record.value, record.headers)


def answered(job: Job, **members: str) -> Finish:
    completion = completion_of(job, JobStatus.COMPLETED, "guard", NOW_MS).model_copy(update=members)
    return Finish(completion, Answer(body='{"id": 1}', served=Served()), attempt=1, seq=0)


def answered_again(job: Job) -> Finish:
    return replace(answered(job), again=True)


# What can't be handled.


def forged(**members: object) -> Job:
    """A job that was changed after admission had signed it."""
    return a_job().model_copy(update=members)


POISON: dict[str, tuple[bytes | None, Headers, str]] = {
    "no value": (None, (), "empty"),
    "broken JSON": (b'{"id": "job', (), "invalid"),
    "another type": (b"{}", (("ce_type", b"io.sluice.reply.v1"),), "unknown_type"),
    "no type and no job": (b'{"a": 1}', (), "invalid"),
    "a body that is gone": (b"", (("ce_dataref", b"0" * 32),), "dataref"),
    "a body in another folder": (b"", (("ce_dataref", b"../../etc/passwd"),), "dataref"),
    "no signature": (carried(forged(signature="")).value, (), "signature"),
    "a signature of letters": (carried(forged(signature="é" * 64)).value, (), "signature"),
    "another team's bill": (carried(forged(caller=a_job().caller.model_copy(update={"team": "x"}))).value, (), "signature"),
    "a way that was made longer": (carried(forged(slip=(Stage.GUARD, Stage.GUARD))).value, (), "signature"),
    "a slip without its end": (carried(forged(slip=(Stage.GUARD,))).value, (), "signature"),
    "an empty slip": (carried(forged(slip=())).value, (), "slip"),
    "a slip of another stage": (carried(a_job().past(Stage.GUARD)).value, (), "slip"),
    "a stage of tomorrow": ((carried(a_job()).value or b"").replace(b'"guard"', b'"audit"'), (), "invalid"),
}


@pytest.mark.parametrize("kind", POISON)
async def test_poison_is_put_aside_with_its_reason(bench: Bench, kind: str) -> None:
    value, headers, reason = POISON[kind]
    await bench.work(Record(TOPIC, 3, 42, NOW_MS, b"key", value, headers))
    (dead,) = bench.dead
    said = dict(dead.headers)
    assert said["sluice_dead_reason"] == reason.encode()
    assert said["sluice_dead_origin"] == b"sluice.guard.interactive/3@42"
    assert said["sluice_dead_stage"] == b"guard"
    assert said["sluice_dead_detail"]
    assert (dead.key, dead.value) == (b"key", value or b"")
    assert bench.deliveries == []
    assert not bench.completions


async def test_headers_that_nobody_can_read_are_put_aside_readable_and_without_credentials(bench: Bench) -> None:
    headers = (("a", None), ("b", b"\xff\xfe"), ("c", b"kept"), ("authorization", b"Bearer secret"))
    await bench.work(Record(TOPIC, 0, 0, 0, None, b"{", headers))
    (dead,) = bench.dead
    said = dict(dead.headers)
    assert {"a", "authorization"}.isdisjoint(said)
    assert said["c"] == b"kept"
    assert said["b"] == "\ufffd\ufffd".encode()
    assert dead.key == b"sluice.guard.interactive/0@0"


async def test_unreadable_headers_of_a_good_job_harm_nobody(bench: Bench) -> None:
    record = carried(a_job())
    for name in ("ce_type", "ce_dataref", "traceparent", "x"):
        for value in (None, b"\xff"):
            await bench.work(Record(TOPIC, 0, 0, 0, b"k", record.value, ((name, value),)))
    assert len(bench.deliveries) == 8
    assert bench.dead == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.none() | st.binary(max_size=99),
    st.lists(st.tuples(st.sampled_from(["ce_type", "ce_dataref", "x"]), st.none() | st.binary(max_size=40)), max_size=3),
)
async def test_nothing_makes_it_fail(bench: Bench, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    before = len(bench.dead)
    await bench.work(Record(TOPIC, 0, 0, 0, None, value, tuple(headers)))
    assert len(bench.dead) == before + 1


# What becomes of a job.


async def test_a_job_goes_on_to_its_next_stage(bench: Bench) -> None:
    job = a_job()
    await bench.work(carried(job))
    (onward,) = bench.log.records("sluice.cache.interactive")
    assert decode(onward, Job) == job.taken(Stage.GUARD, NOW_MS).past(Stage.GUARD)
    assert onward.partition in partitions_of("fraud", 8)
    assert dict(onward.headers)["traceparent"] == b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    assert not bench.completions


async def test_a_body_too_long_for_the_topic_lies_elsewhere_on_its_way(bench: Bench) -> None:
    job = a_job(body={"long": "x" * 600_000})
    await bench.work(carried(job))
    (onward,) = bench.log.records("sluice.cache.interactive")
    assert onward.value == b""
    bench.outcome = lambda job: Forward(job)
    moved = Record(TOPIC, onward.partition, 0, 0, onward.key, onward.value, onward.headers)
    await bench.work(moved)
    assert dict(bench.dead[0].headers)["sluice_dead_reason"] == b"slip", "it was found, and is past the guard"


async def test_a_job_ends_with_an_answer_then_a_completion(bench: Bench) -> None:
    job = a_job()
    bench.outcome = answered
    await bench.work(carried(job))
    (reply,), (completion,) = bench.replies, bench.completions
    assert (reply.job_id, reply.attempt, reply.seq, reply.event) == (job.id, 1, 0, answered(job).last)
    assert completion == answered(job.taken(Stage.GUARD, NOW_MS)).completion
    assert [r.partition for r in bench.log.records("sluice.replies")] == [5]
    assert bench.records.ended == {job.id}
    assert bench.records.kept == set()


async def test_an_answer_that_the_cache_wants_is_kept(bench: Bench) -> None:
    bench.outcome = lambda job: answered(job, cache_key="key")
    await bench.work(carried(job := a_job()))
    assert bench.records.kept == {job.id}


async def test_a_job_whose_next_stage_is_here_does_not_go_over_kafka(bench: Bench) -> None:
    bench.next_is_here = True
    await bench.work(carried(job := a_job()), suspect=True)
    assert bench.nothing_sent
    [(onward, topic, delivery)] = bench.handed_over
    assert (onward, topic, delivery.suspect) == (job.taken(Stage.GUARD, NOW_MS).past(Stage.GUARD), TOPIC, True)


async def test_a_line_of_the_kafka_door_is_answered_on_its_teams_topic(bench: Bench) -> None:
    bench.outcome = answered
    await bench.work(carried(job := a_job(reply_to=ReplyTo(kind="results"), custom_id="line 1")))
    (line,) = bench.log.records("sluice.results.fraud")
    result = decode(line, BatchResult)
    assert isinstance(result, BatchResult)
    assert result.custom_id == "line 1"
    assert result.response
    assert (result.response.status_code, result.response.request_id, result.response.body) == (200, job.id, {"id": 1})
    assert json.loads(line.value or b"")["error"] is None, "the public line has all its members"
    assert not bench.replies


async def test_nothing_is_sent_for_nothing_and_only_books_for_booked(bench: Bench) -> None:
    bench.outcome = lambda _: Nothing()
    await bench.work(carried(a_job()))
    assert bench.nothing_sent
    bench.outcome = lambda job: Booked(answered(job).completion)
    await bench.work(carried(job := a_job()))
    assert [completion.job_id for completion in bench.completions] == [job.id]
    assert not bench.replies


async def test_a_fault_of_the_handler_ends_the_job(bench: Bench) -> None:
    def blocked(_: Job) -> Outcome:
        raise ContentBlocked("no cards")

    bench.outcome = blocked
    await bench.work(carried(job := a_job()))
    (reply,), (completion,) = bench.replies, bench.completions
    assert completion.status is JobStatus.FAILED
    assert completion.fault == ContentBlocked("no cards").fault()
    assert isinstance(reply.event, Failed)
    assert reply.event.fault == completion.fault
    assert bench.records.ended == {job.id}


async def test_a_handler_that_breaks_ends_the_job_and_tells_nothing_of_the_inside(bench: Bench) -> None:
    def broken(_: Job) -> Outcome:
        raise KeyError("hunter2")

    bench.outcome = broken
    await bench.work(carried(job := a_job()))
    (completion,) = bench.completions
    assert completion.status is JobStatus.FAILED
    assert completion.fault
    assert (completion.fault.status, completion.fault.code) == (500, "internal_error")
    assert job.id in completion.fault.message
    assert "hunter2" not in completion.model_dump_json()


async def test_a_job_that_waited_too_long_expires_without_being_worked_on(bench: Bench) -> None:
    bench.clock.move(120_000)
    await bench.work(carried(a_job()))
    (reply,), (completion,) = bench.replies, bench.completions
    assert completion.status is JobStatus.EXPIRED
    assert isinstance(reply.event, Failed)
    assert (reply.event.fault.status, reply.event.fault.code) == (504, "deadline_exceeded")
    assert "120 s" in reply.event.fault.message
    assert bench.deliveries == []


async def test_a_leased_stage_looks_after_the_deadline_itself(leased: Bench) -> None:
    leased.outcome = answered
    leased.clock.move(500_000)
    suspect, first = a_job(), a_job()
    await leased.work(carried(suspect), suspect=True)
    await leased.work(carried(first))
    statuses = {completion.job_id: completion.status for completion in leased.completions}
    assert statuses == {suspect.id: JobStatus.COMPLETED, first.id: JobStatus.COMPLETED}


async def test_a_leased_stage_is_not_asked_twice_for_what_its_lease_entitles_it_to(leased: Bench) -> None:
    leased.outcome = answered
    await leased.work(carried(job := a_job()))
    assert leased.records.ending == {}
    assert leased.records.ended == {job.id}


# What comes twice.


async def test_a_job_that_has_ended_is_not_worked_on_again(bench: Bench) -> None:
    bench.outcome = answered
    record = carried(a_job())
    await bench.work(record)
    await bench.work(record, suspect=True)
    assert len(bench.completions) == len(bench.replies) == len(bench.deliveries) == 1


async def test_a_second_copy_of_a_job_does_not_end_it_again(bench: Bench) -> None:
    bench.outcome = answered
    job = a_job()
    await bench.work(carried(job, offset=7))
    await bench.work(carried(job, offset=8))
    assert len(bench.completions) == len(bench.replies) == 1


async def test_a_copy_whose_process_died_before_it_published_ends_the_job_when_it_comes_again(bench: Bench) -> None:
    bench.outcome = answered
    job = a_job()
    await bench.records.may_end(job.id, 0, f"{TOPIC}/2@7")
    await bench.work(carried(job, offset=8))
    assert bench.nothing_sent
    await bench.work(carried(job, offset=7), suspect=True)
    assert len(bench.completions) == 1


@pytest.mark.parametrize("told", [False, True])
async def test_a_result_that_a_dead_life_may_have_told_is_looked_for_in_the_log(bench: Bench, told: bool) -> None:
    bench.told, bench.outcome = told, answered_again
    await bench.work(carried(job := a_job(reply_to=ReplyTo(kind="results"), custom_id="line 1")), suspect=True)
    assert len(bench.log.records("sluice.results.fraud")) == (0 if told else 1)
    assert bench.asked == [("fraud", f"batch_req_{job.id.removeprefix('job_')}", job.accepted_ms)]
    assert len(bench.completions) == 1
    assert bench.records.ended == {job.id}


async def test_nobody_looks_for_what_was_not_begun_before_or_goes_to_a_connection(bench: Bench) -> None:
    bench.outcome = answered
    await bench.work(carried(a_job(reply_to=ReplyTo(kind="results"), custom_id="line 1")), suspect=True)
    bench.outcome = answered_again
    await bench.work(carried(a_job()), suspect=True)
    assert not bench.asked
    assert len(bench.completions) == 2


async def test_the_end_of_a_copy_that_was_begun_before_may_be_told_already(bench: Bench) -> None:
    bench.told, bench.outcome = True, answered
    bench.records.at_router[(job := a_job(reply_to=ReplyTo(kind="results"), custom_id="line 1")).id] = [Ending("again")]
    await bench.work(carried(job), suspect=True)
    assert not bench.log.records("sluice.results.fraud")
    assert bench.records.ended == {job.id}


async def test_what_a_router_may_be_at_work_on_is_not_ended_before_that_is_known(bench: Bench) -> None:
    bench.outcome = answered
    bench.records.at_router[(job := a_job()).id] = [Ending("leased", left_ms=5), Ending("leased", left_ms=1)]
    await bench.work(carried(job), suspect=True)
    assert len(bench.completions) == 1


async def test_a_job_that_ended_elsewhere_meanwhile_is_not_put_aside(bench: Bench) -> None:
    bench.records.deliveries[(job := a_job()).id] = MAX_DELIVERIES
    bench.records.at_router[job.id] = [Ending("leased", left_ms=1), Ending("done")]
    await bench.work(carried(job), suspect=True)
    assert bench.nothing_sent


async def test_an_answer_that_a_dead_router_had_kept_is_left_to_the_router(bench: Bench) -> None:
    bench.outcome = answered
    bench.records.at_router[(job := a_job()).id] = [Ending("answered")]
    await bench.work(carried(job), suspect=True)
    assert not bench.completions
    (onward,) = bench.log.records("sluice.router.interactive")
    decoded = decode(onward, Job)
    assert isinstance(decoded, Job)
    assert decoded.slip == (Stage.ROUTER,)


async def test_a_job_that_kills_its_process_is_put_aside_at_its_fourth_delivery(bench: Bench) -> None:
    record = carried(a_job())
    for _ in range(3):
        await bench.work(record, suspect=True)
    assert len(bench.deliveries) == 3
    await bench.work(record, suspect=True)
    assert len(bench.deliveries) == 3
    (completion,), (dead,) = bench.completions, bench.dead
    assert completion.status is JobStatus.FAILED
    assert dict(dead.headers)["sluice_dead_reason"] == b"deliveries"
    assert dead.value == record.value
    await bench.work(record, suspect=True)
    assert len(bench.completions) == len(bench.dead) == 1


# What is away.


@pytest.mark.parametrize("away", range(1, 6))
async def test_redis_is_waited_for_and_nothing_is_done_twice(bench: Bench, away: int) -> None:
    bench.outcome = answered
    bench.records.away = away
    job = a_job()
    await bench.work(carried(job), suspect=True)
    assert len(bench.completions) == len(bench.replies) == len(bench.deliveries) == 1
    assert bench.records.ended == {job.id}


@pytest.mark.parametrize("away", range(1, 6))
async def test_the_end_of_a_job_is_not_lost_with_an_answer_of_redis(bench: Bench, away: int) -> None:
    failing = Failing(bench, away)
    bench.outcome = failing.outcome
    await bench.work(carried(job := a_job()))
    assert len(bench.completions) == len(bench.replies) == 1
    assert bench.records.ended == {job.id}


class Failing:
    """A handler after which Redis fails for a while: first when the job is to end."""

    def __init__(self, bench: Bench, away: int) -> None:
        self._bench, self._away = bench, away

    def outcome(self, job: Job) -> Outcome:
        self._bench.records.away = self._away
        return answered(job)


async def test_a_handler_that_misses_redis_is_asked_again_and_the_delivery_counts_once(bench: Bench) -> None:
    failures = iter(range(10))

    def missing(job: Job) -> Outcome:
        if next(failures, None) is not None:
            raise RedisUnavailable("away")
        return answered(job)

    bench.outcome = missing
    await bench.work(carried(job := a_job()), suspect=True)
    assert len(bench.deliveries) == 11
    assert bench.records.deliveries == {job.id: 1}
    assert bench.completions[0].status is JobStatus.COMPLETED


async def test_while_redis_is_away_the_job_can_be_cancelled(bench: Bench) -> None:
    bench.records.away = 10**9
    task = asyncio.create_task(bench.work(carried(a_job()), suspect=True))
    while bench.records.asked < 10:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.nothing_sent


async def test_a_log_that_refuses_leaves_the_record_unfinished(bench: Bench) -> None:
    async def refusing() -> None:
        raise ConnectionError("no acknowledgement")

    bench.log.pause = refusing
    for record in (carried(a_job()), Record(TOPIC, 0, 0)):
        with pytest.raises(ConnectionError):
            await bench.work(record)
    bench.outcome, job = answered, a_job()
    with pytest.raises(ConnectionError):
        await bench.work(carried(job))
    assert job.id not in bench.records.ended


def put_off(job: Job) -> Outcome:
    return PutOff(job.model_copy(update={"not_before_ms": NOW_MS + 30_000, "made": (CALL,)}))


async def test_a_job_that_is_put_off_waits_in_kafka_before_its_lease_is_given_back(leased: Bench) -> None:
    job, given_back_after = a_job(), list[int]()

    class Records(FakeRecords):
        async def put_off(self, job_id: str, made: int) -> None:
            given_back_after.append(len(leased.log.records("sluice.delay.5s")))
            await super().put_off(job_id, made)

    records = Records()
    leased.carriage = replace(leased.carriage, records=records)
    leased.outcome = put_off
    await leased.work(carried(job))
    [waiting] = leased.log.records("sluice.delay.5s")
    found = decode(waiting, Job)
    assert isinstance(found, Job)
    assert (found.id, found.not_before_ms, found.made) == (job.id, NOW_MS + 30_000, (CALL,))
    assert SIGNER.holds(found)
    assert (given_back_after, records.waiting) == ([1], {job.id: 1})
    assert leased.nothing_sent


async def test_a_job_that_fails_after_it_was_put_off_ends_with_what_it_cost(leased: Bench) -> None:
    def fails(job: Job) -> Outcome:
        raise ContentBlocked(job.id)

    leased.outcome = fails
    await leased.work(carried(a_job(made=(CALL,))))
    [completion] = leased.completions
    assert completion.status is JobStatus.FAILED
    assert completion.attempts == (CALL,)


@pytest.mark.parametrize(("content", "topics"), [("none", []), ("full", ["sluice.audit"]), ("redacted", ["sluice.audit_drafts"])])
async def test_what_is_kept_of_a_job_is_sent_with_its_end_only_where_its_policy_asks(
    tmp_path: Path, content: str, topics: list[str]
) -> None:
    bench = Bench(tmp_path)
    bench.outcome = answered
    policy = EffectivePolicy.model_validate({"version": "1", "audit": {"content": content}})
    await bench.work(carried(a_job(policy=policy)))
    assert [topic for topic in ("sluice.audit", "sluice.audit_drafts") if bench.log.records(topic)] == topics
