"""Until when a batch job is put off that can't be served now: it waits in Kafka, and nothing of it here. Pure.

Every wait has full jitter, so that jobs which were put off together come back one by one; and each job is looked at once more
shortly before its deadline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.attempt import Attempt
from schemas.job import Job
from schemas.slip import Stage
from schemas.topics import Lane
from services.router.providers.base import Kind

MOST_MADE = 50
"""Calls made for one job. After so many it fails with what the last one said: what it has to carry must not grow without end."""

LAST_LOOK_MS = 2_000
_FIRST_MS, _LONGEST_MS = 1_000, 60_000
_QUOTA_MS = 10_000
_SLACK_SHARE, _MOST_SLACK_MS = 0.1, 600_000
_WAIT_S = {Lane.INTERACTIVE: 2.0, Lane.BATCH: 4.0}

Why = Literal["budget", "down", "failed", "gate", "quota"]


@dataclass(frozen=True, slots=True)
class Later:
    """The job is put off until `at_ms`."""

    at_ms: int
    why: Why


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is decided. `jitter`: from 0 up to 1."""

    now_ms: int
    jitter: float


def while_down(job: Job, until_ms: int, now: Moment) -> Later | None:
    """All deployments cool, one of them `until_ms`. The longer a job has waited, the less often it looks."""
    return _later(job, until_ms, _patience_ms(job, now.now_ms), now, "down")


def over_quota(job: Job, wait_ms: int, now: Moment) -> Later | None:
    """The quota of all deployments is in use, at least for `wait_ms`."""
    return _later(job, now.now_ms + max(wait_ms, _FIRST_MS), _QUOTA_MS, now, "quota")


def after_failure(job: Job, kind: Kind, made: int, retry_after_s: float | None, now: Moment) -> Later | None:
    """The last of `made` calls failed, and none may follow at once. A provider that says when to come again is obeyed."""
    if job.lane is not Lane.BATCH or kind == "final" or made >= MOST_MADE:
        return None
    backoff_ms = min(_LONGEST_MS, _FIRST_MS * 2 ** min(made, 10))
    return _later(job, now.now_ms + int((retry_after_s or 0) * 1000), backoff_ms, now, "failed")


def behind_gate(job: Job, opens_ms: int, now: Moment) -> Later | None:
    """A gate is closed until `opens_ms` at least. None: the job has waited so long that it goes all the same.

    That is when a tenth of its time is left, ten minutes at most: enough to be served before its deadline.
    """
    slack_ms = int(min(_MOST_SLACK_MS, _SLACK_SHARE * (job.deadline_ms - job.accepted_ms)))
    if now.now_ms >= job.deadline_ms - slack_ms:
        return None
    at_ms = opens_ms + int(now.jitter * _patience_ms(job, now.now_ms))
    # Spread over the first half of what is left then.
    last_ms = job.deadline_ms - slack_ms + int(now.jitter * slack_ms / 2)
    return Later(min(at_ms, last_ms), "gate")


def without_budget(job: Job, until_ms: int | None, now: Moment) -> Later | None:
    """A budget has no room, until then at least. None if the job's deadline comes first, or there never will be any."""
    if until_ms is None or until_ms >= job.deadline_ms - LAST_LOOK_MS:
        return None
    return _later(job, until_ms, _QUOTA_MS, now, "budget")


def put_off(job: Job, attempts: Sequence[Attempt], later: Later) -> Job:
    """The job as it waits: with what was called for it, and one step on its timeline for all its visits here but the last."""
    before = [step for step in job.steps if step.stage != Stage.ROUTER.value]
    first = next((step for step in job.steps if step.stage == Stage.ROUTER.value), None)
    steps = (*before, first) if first else tuple(before)
    return job.model_copy(update={"not_before_ms": later.at_ms, "made": tuple(attempts), "steps": steps})


def wait_s(lane: Lane, rest_s: float) -> float:
    """How long a job may wait in its place for a provider's quota: seconds, and half its rest at most."""
    return min(_WAIT_S[lane], rest_s / 2)


def _later(job: Job, earliest_ms: int, spread_ms: int, now: Moment, why: Why) -> Later | None:
    """None if its deadline is so near that this was the last look."""
    last_ms = job.deadline_ms - LAST_LOOK_MS
    if now.now_ms >= last_ms:
        return None
    return Later(min(earliest_ms + int(now.jitter * spread_ms), last_ms), why)


def _patience_ms(job: Job, now_ms: int) -> int:
    return min(_LONGEST_MS, max(5 * _FIRST_MS, (now_ms - job.accepted_ms) // 4))
