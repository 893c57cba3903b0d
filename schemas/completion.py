"""The one fact about a finished job. Accounting, cache fill, job store and audit all read it."""

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import Field

from schemas.attempt import Attempt
from schemas.base import Message
from schemas.errors import Fault
from schemas.job import Api, Caller, Job, JobStatus, Labels, Step, Verdict
from schemas.topics import Lane
from schemas.usage import Usage

CacheStatus = Literal["hit", "semantic", "miss", "bypass"]


class Completion(Message):
    """How a job ended. The first one in the log is the job's status; money is the sum over distinct attempts."""

    TYPE: ClassVar[str] = "io.sluice.completion.v1"

    job_id: str
    status: JobStatus
    api: Api
    lane: Lane
    model: str
    caller: Caller
    labels: Labels = Labels()
    policy_version: str
    accepted_ms: int
    ended_ms: int
    ended_by: str = Field(description="the stage that ended the job")
    fault: Fault | None = None
    attempts: tuple[Attempt, ...] = ()
    cache: CacheStatus = "bypass"
    cache_key: str | None = Field(default=None, description="under which the answer may be kept")
    cache_ttl_s: int = 0
    saved_usd: Decimal = Decimal(0)
    verdict: Verdict | None = None
    custom_id: str = ""
    queue_ms: float = Field(default=0, description="from acceptance to the first provider call, or to the end")
    trace_id: str = ""
    steps: tuple[Step, ...] = Field(default=(), description="when each stage took the job")
    fingerprint: str = Field(default="", description="short hash of the request: equal requests have equal ones")
    route: tuple[str, ...] = Field(default=(), description="why it went where it went, a sentence for each decision")
    shadow_of: str = Field(default="", description="the job of which this one was a copy")

    @property
    def usage(self) -> Usage:
        """Tokens over all attempts. One attempt is the usual, and its sum needs no adding up (9 µs)."""
        if len(self.attempts) == 1:
            return self.attempts[0].usage
        total = Usage()
        for attempt in self.attempts:
            total += attempt.usage
        return total

    @property
    def cost_usd(self) -> Decimal:
        """What the job cost: every attempt counts."""
        if len(self.attempts) == 1:
            return self.attempts[0].cost_usd
        return sum((attempt.cost_usd for attempt in self.attempts), Decimal(0))


def completion_of(
    job: Job,
    status: JobStatus,
    ended_by: str,
    now_ms: int,
    *,
    fault: Fault | None = None,
    attempts: tuple[Attempt, ...] = (),
    cache: CacheStatus | None = None,
    saved_usd: Decimal = Decimal(0),
    verdict: Verdict | None = None,
    trace_id: str = "",
    route: tuple[str, ...] = (),
) -> Completion:
    """The completion of `job`, with everything the job itself knows filled in."""
    first_call_ms = attempts[0].started_ms if attempts else now_ms
    return Completion(
        job_id=job.id,
        status=status,
        api=job.api,
        lane=job.lane,
        model=job.model,
        caller=job.caller,
        labels=job.labels,
        policy_version=job.policy.version,
        accepted_ms=job.accepted_ms,
        ended_ms=now_ms,
        ended_by=ended_by,
        fault=fault,
        attempts=attempts,
        cache=cache or job.cache.status,
        cache_key=job.cache.key if job.cache.write else None,
        cache_ttl_s=job.cache.ttl_s or job.policy.cache.ttl_s,
        saved_usd=saved_usd,
        verdict=verdict or job.verdict,
        custom_id=job.custom_id,
        queue_ms=max(0, first_call_ms - job.accepted_ms),
        trace_id=trace_id,
        steps=job.steps,
        fingerprint=job.fingerprint,
        route=route,
        shadow_of=job.shadow_of,
    )
