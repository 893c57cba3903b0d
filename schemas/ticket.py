"""What is kept of a job that may be asked for later: its ticket from admission on, and how it ended."""

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Message
from schemas.job import Api, Caller, Job, JobStatus, Labels
from schemas.reply import Event
from schemas.topics import Lane
from schemas.usage import Usage


class Ticket(Message):
    """Who asked for what, and on which partition of `sluice.replies` the job's events stand."""

    TYPE: ClassVar[str] = "io.sluice.ticket.v1"

    job_id: str
    api: Api
    lane: Lane
    model: str
    caller: Caller
    labels: Labels = Labels()
    known_as: Literal["job", "response"] = "job"
    stream: bool = False
    detached: bool = False
    partition: int
    accepted_ms: int
    deadline_ms: int
    not_before_ms: int = 0
    endpoint: str = Field(default="", description="where it was asked, if not where jobs of its kind always are")


class Ended(Message):
    """How a job ended. `last` is its last event; of a stream, `stream` holds the events before that, as they went out."""

    TYPE: ClassVar[str] = "io.sluice.ended.v1"

    status: JobStatus
    ended_ms: int
    last: Event
    stream: tuple[str, ...] = Field(default=(), description="empty also for a stream too long to be kept")
    usage: Usage = Usage()
    cost_usd: Decimal = Decimal(0)
    attempts: int = 0


def ticket_of(job: Job, endpoint: str = "") -> Ticket:
    """The ticket of a job, asked at this endpoint."""
    return Ticket(
        job_id=job.id,
        api=job.api,
        lane=job.lane,
        model=job.model,
        caller=job.caller,
        labels=job.labels,
        known_as=job.known_as,
        stream=job.stream,
        detached=job.detached,
        partition=job.reply_to.partition,
        accepted_ms=job.accepted_ms,
        deadline_ms=job.deadline_ms,
        not_before_ms=job.not_before_ms,
        endpoint=endpoint,
    )
