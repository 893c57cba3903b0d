"""Whether a failed call is tried again, and after how long."""

import pytest

from services.router import policy
from services.router.policy import Situation, wait_s
from services.router.providers.base import Kind
from tests.unit.services.router.doubles import START_MS, deployment, job


def situation(
    kind: Kind = "unavailable",
    attempts: int = 1,
    rest_s: float = 60.0,
    other: bool = False,
    retry_after_s: float | None = None,
    retrying: int = 0,
    running: int = 1,
    most: int = 3,
    retries: int | None = None,
    fallback: bool = False,
) -> Situation:
    return Situation(kind, attempts, rest_s, other, retry_after_s, 0.5, retrying, running, most, retries, fallback)


CASES: list[tuple[str, Situation, float | None]] = [
    ("another deployment at once", situation(other=True), 0.0),
    ("the same one after a backoff", situation(), 0.1),
    ("a longer one", situation(attempts=2), 0.2),
    ("no fourth attempt", situation(attempts=3, other=True), None),
    ("refused for good", situation("final", other=True), None),
    ("no time left", situation(rest_s=0.05), None),
    ("throttled: another", situation("throttled", other=True, retry_after_s=60), 0.0),
    ("throttled: wait as told", situation("throttled", retry_after_s=1.0), 1.1),
    ("throttled: too long", situation("throttled", retry_after_s=2.5), None),
    ("throttled: past the deadline", situation("throttled", retry_after_s=1.0, rest_s=0.9), None),
    ("throttled: nobody knows how long", situation("throttled"), None),
    ("three may always retry", situation(retrying=2, running=3), 0.1),
    ("no more than three of few", situation(retrying=3, running=10), None),
    ("a fifth of many", situation(retrying=19, running=100), 0.1),
    ("no more than a fifth of many", situation(retrying=20, running=100), None),
    ("another deployment is no retry", situation(retrying=20, running=100, other=True), 0.0),
    ("with a fallback: another deployment first", situation(other=True, fallback=True), 0.0),
    ("with a fallback: not the same one", situation(fallback=True), None),
    ("with a fallback: the last call is its", situation(attempts=2, other=True, fallback=True), None),
    ("with a fallback: but if the model says so", situation(retries=1, fallback=True), 0.1),
    ("no retry left", situation(retries=0, other=True), None),
    ("as many as the model says", situation(attempts=5, retries=1, most=7), 2.0 * 0.5),
    ("as few as the caller may", situation(attempts=1, most=1, retries=4, other=True), None),
]


@pytest.mark.parametrize(("now", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_wait(now: Situation, expected: float | None) -> None:
    assert wait_s(now) == pytest.approx(expected) if expected is not None else wait_s(now) is None


def test_rest_leaves_time_for_the_answer() -> None:
    assert policy.rest_s(START_MS + 1000, START_MS) == 0.95
    assert policy.rest_s(START_MS, START_MS + 1) == 0


def test_a_note_is_understood_again() -> None:
    target = deployment("eu west/1")
    notes = (policy.note(target, START_MS), "", "x y")
    first, second, third = policy.unknown_attempts(job(), {target.id: target}, notes, START_MS + 9)
    assert (first.deployment, first.provider, first.provider_model, first.started_ms) == (
        "eu west/1",
        "openai",
        "real-model",
        START_MS,
    )
    assert (second.deployment, second.started_ms, third.deployment) == ("", START_MS + 9, "y")
    assert [first.n, second.n, third.n] == [1, 2, 3]
