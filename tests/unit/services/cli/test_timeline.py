"""The timeline of a job: order, offsets, bars."""

from decimal import Decimal

import pytest

from services.cli.timeline import AttemptRow, JobRow, StoredJob, bar, from_books, from_store, lines

ZERO = 1_800_000_000_000
CALL = AttemptRow(
    attempt_id="att_1",
    n=1,
    deployment="small-eu",
    provider="openai",
    status="failed",
    http_status=429,
    error_type="rate_limit_exceeded",
    prompt_tokens=10,
    completion_tokens=0,
    cost_usd=Decimal(0),
    started_ms=ZERO + 10,
    latency_ms=20,
    ttft_ms=None,
)
SECOND = CALL.model_copy(
    update={"attempt_id": "att_2", "n": 2, "status": "completed", "http_status": 200, "started_ms": ZERO + 40, "latency_ms": 55.5}
)
JOB = JobRow(
    job_id="job_1",
    status="completed",
    error_type="",
    team="fraud",
    model="small",
    api="chat.completions",
    lane="interactive",
    cache="miss",
    cost_usd=Decimal("0.0000010"),
    trace_id="",
    metadata={"replay_of": "job_0"},
    accepted_ms=ZERO,
    ended_ms=ZERO + 100,
    ended_by="router",
    steps=[("guard", ZERO + 2), ("cache", ZERO + 5), ("router", ZERO + 10)],
)


def test_everything_stands_in_the_order_of_time_and_of_the_jobs_way() -> None:
    timeline = from_books(JOB, [CALL, SECOND])
    found = [(event.name, event.offset_ms, event.ms) for event in timeline.events]
    assert found == [
        ("accepted", 0, None),
        ("guard", 2, 3),
        ("cache", 5, 5),
        ("router", 10, 90),
        ("attempt 1", 10, 20),
        ("attempt 2", 40, 55.5),
        ("by router", 100, None),
    ]
    assert (timeline.attempts, timeline.replay_of, timeline.error, timeline.trace_id) == (2, "job_0", None, None)


def test_a_job_of_before_there_were_steps_has_its_calls_all_the_same() -> None:
    timeline = from_books(JOB.model_copy(update={"steps": [], "ended_by": ""}), [CALL])
    assert [event.name for event in timeline.events] == ["accepted", "attempt 1", "end"]


def test_a_job_that_was_over_at_once_is_still_in_order() -> None:
    job = JOB.model_copy(update={"ended_ms": ZERO, "steps": [("guard", ZERO)]})
    assert [event.name for event in from_books(job, []).events] == ["accepted", "guard", "by router"]
    assert [line.offset for line in lines(from_books(job, []))] == ["+0 ms"] * 3


def test_a_call_that_ends_after_the_job_does_not_break_the_picture() -> None:
    """A job that another copy has ended, or whose caller cancelled it."""
    late = CALL.model_copy(update={"started_ms": ZERO + 150})
    shown = [*lines(from_books(JOB, [late]))]
    assert shown[-1].name == "  attempt 1"
    assert {len(line.bar) for line in shown} == {32}


def test_people_read_what_a_call_came_to() -> None:
    told = [line.told for line in lines(from_books(JOB, [CALL, SECOND]))]
    assert told[4] == "small-eu: failed 429 rate_limit_exceeded, 10 + 0 tokens, 0 USD"
    assert told[-1] == "completed"


@pytest.mark.parametrize(
    ("offset_ms", "ms", "whole_ms", "shown"),
    [
        (0, None, 100, "·"),
        (100, None, 100, " " * 31 + "·"),
        (0, 100, 100, "━" * 32),
        (50, 50, 100, " " * 16 + "━" * 16),
        (99.9, 0, 100, " " * 31 + "━"),
        (0, 0, 100, "━"),
        (0, None, 0, "·"),
        (0, 0, 0, "·"),
        (-50, None, 100, "·"),
        (-50, 10, 100, "━"),
    ],
)
def test_bars_stay_in_their_field(offset_ms: float, ms: float | None, whole_ms: float, shown: str) -> None:
    assert bar(offset_ms, ms, whole_ms) == shown.ljust(32)


STORED = StoredJob.model_validate(
    {
        "id": "job_1",
        "status": "in_progress",
        "api": "chat.completions",
        "lane": "batch",
        "model": "small",
        "caller": {"team": "fraud", "key_id": "key_1"},
        "labels": {},
        "accepted_ms": ZERO,
        "ended_ms": None,
        "attempts": 1,
        "cost_usd": None,
        "error": None,
    }
)


def test_of_a_job_that_runs_the_beginning_is_known() -> None:
    timeline = from_store(STORED)
    assert (timeline.source, timeline.is_open, timeline.attempts) == ("store", True, 1)
    assert [event.name for event in timeline.events] == ["accepted"]


def test_of_a_job_that_is_not_in_the_books_yet_the_end_is_known() -> None:
    ended = StoredJob.model_validate(
        STORED.model_dump() | {"status": "failed", "ended_ms": ZERO + 7, "error": {"type": "api_error"}}
    )
    timeline = from_store(ended)
    assert (timeline.is_open, timeline.error) == (False, "api_error")
    assert [(event.name, event.offset_ms, event.status) for event in timeline.events][-1] == ("end", 7, "failed")


def test_a_job_whose_end_nobody_kept_is_not_open() -> None:
    timeline = from_store(StoredJob.model_validate(STORED.model_dump() | {"status": None}))
    assert (timeline.is_open, timeline.status) == (False, "ended")
