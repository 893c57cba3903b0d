"""The way of a job as a timeline: what happened when, in milliseconds from its acceptance. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel

from schemas.job import JobStatus

_ORDER: Final = ("accepted", "stage", "attempt", "end")
_BAR: Final = 32


class JobRow(BaseModel):
    """A job in the books (`sluice.usage`). Times are unix milliseconds; `steps`: stages and when they took the job; `route`: why
    it went where it went."""

    job_id: str
    status: str
    error_type: str
    team: str
    key_id: str = ""
    user: str = ""
    identity: str = ""
    model: str
    api: str
    lane: str
    cache: str
    cost_usd: Decimal
    trace_id: str
    metadata: dict[str, str]
    accepted_ms: int
    ended_ms: int
    ended_by: str
    steps: list[tuple[str, int]]
    route: list[str] = []
    shadow_of: str = ""


class AttemptRow(BaseModel):
    """A provider call in the books (`sluice.attempts`)."""

    attempt_id: str
    n: int
    deployment: str
    provider: str
    status: str
    http_status: int | None
    error_type: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal
    started_ms: int
    latency_ms: float
    ttft_ms: float | None
    hedge: bool = False


class Call(BaseModel):
    """What is known of a provider call."""

    id: str
    n: int
    deployment: str
    provider: str
    http_status: int | None = None
    error: str | None = None
    ttft_ms: float | None = None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal
    hedge: bool = False


class Event(BaseModel):
    """Something that happened. `ms`: how long it took; of a stage, until the next thing began."""

    kind: Literal["accepted", "stage", "attempt", "end"]
    name: str
    offset_ms: float
    ms: float | None = None
    status: str | None = None
    call: Call | None = None


class Timeline(BaseModel):
    """A job and its events, in order. `source`: the books (ClickHouse), which know all of an ended job, or the job store.

    `key_id` says who pays, `identity` who asked, if an identity token said so.
    """

    job_id: str
    source: Literal["books", "store"]
    status: str
    error: str | None = None
    team: str
    key_id: str | None = None
    user: str | None = None
    identity: str | None = None
    model: str
    api: str
    lane: str
    cache: str | None = None
    attempts: int
    cost_usd: Decimal | None = None
    trace_id: str | None = None
    replay_of: str | None = None
    shadow_of: str | None = None
    route: list[str] = []
    accepted_ms: int
    ended_ms: int | None = None
    events: list[Event]

    @property
    def is_open(self) -> bool:
        """True if the job goes on, as far as is known."""
        return self.status in (JobStatus.QUEUED, JobStatus.IN_PROGRESS, JobStatus.CANCELLED) and self.ended_ms is None


class StoredCaller(BaseModel):
    """Who asked."""

    team: str
    key_id: str = ""
    user: str = ""
    identity: str = ""


class StoredLabels(BaseModel):
    """What the caller said about the job."""

    metadata: dict[str, str] = {}


class StoredError(BaseModel):
    """Why it failed."""

    code: str | None = None
    type: str


class StoredJob(BaseModel):
    """A job as the admin API shows it."""

    id: str
    status: JobStatus | None
    api: str
    lane: str
    model: str
    caller: StoredCaller
    labels: StoredLabels
    accepted_ms: int
    ended_ms: int | None
    attempts: int
    cost_usd: Decimal | None
    error: StoredError | None


def from_books(job: JobRow, attempts: Sequence[AttemptRow]) -> Timeline:
    """The whole timeline of a job that has ended."""
    return Timeline(
        job_id=job.job_id,
        source="books",
        status=job.status,
        error=job.error_type or None,
        team=job.team,
        key_id=job.key_id or None,
        user=job.user or None,
        identity=job.identity or None,
        model=job.model,
        api=job.api,
        lane=job.lane,
        cache=job.cache,
        attempts=len(attempts),
        cost_usd=job.cost_usd,
        trace_id=job.trace_id or None,
        replay_of=job.metadata.get("replay_of"),
        shadow_of=job.shadow_of or None,
        route=job.route,
        accepted_ms=job.accepted_ms,
        ended_ms=job.ended_ms,
        events=_events(job, attempts),
    )


def from_store(job: StoredJob) -> Timeline:
    """What is known of a job that has not ended, or not long ago: its beginning, and its end if there is one."""
    events = [Event(kind="accepted", name="accepted", offset_ms=0)]
    if job.ended_ms is not None:
        events.append(Event(kind="end", name="end", offset_ms=job.ended_ms - job.accepted_ms, status=job.status))
    return Timeline(
        job_id=job.id,
        source="store",
        status=job.status or "ended",
        error=(job.error.code or job.error.type) if job.error else None,
        team=job.caller.team,
        key_id=job.caller.key_id or None,
        user=job.caller.user or None,
        identity=job.caller.identity or None,
        model=job.model,
        api=job.api,
        lane=job.lane,
        attempts=job.attempts,
        cost_usd=job.cost_usd,
        replay_of=job.labels.metadata.get("replay_of"),
        accepted_ms=job.accepted_ms,
        ended_ms=job.ended_ms,
        events=events,
    )


def _events(job: JobRow, attempts: Sequence[AttemptRow]) -> list[Event]:
    """In the order of time; at one time in the order of a job's way. A stage lasts until the next one, or the end."""
    zero = job.accepted_ms
    bounds = [at_ms for _, at_ms in job.steps[1:]] + [job.ended_ms]
    events = [
        Event(kind="accepted", name="accepted", offset_ms=0),
        *(
            Event(kind="stage", name=stage, offset_ms=at_ms - zero, ms=max(0, until - at_ms))
            for (stage, at_ms), until in zip(job.steps, bounds, strict=False)
        ),
        *(_called(attempt, zero) for attempt in attempts),
        Event(kind="end", name=f"by {job.ended_by}" if job.ended_by else "end", offset_ms=job.ended_ms - zero, status=job.status),
    ]
    return sorted(events, key=lambda event: (event.offset_ms, _ORDER.index(event.kind)))


def _called(attempt: AttemptRow, zero_ms: int) -> Event:
    call = Call(
        id=attempt.attempt_id,
        n=attempt.n,
        deployment=attempt.deployment,
        provider=attempt.provider,
        http_status=attempt.http_status,
        error=attempt.error_type or None,
        ttft_ms=attempt.ttft_ms,
        prompt_tokens=attempt.prompt_tokens,
        completion_tokens=attempt.completion_tokens,
        cost_usd=attempt.cost_usd,
        hedge=attempt.hedge,
    )
    name = f"attempt {attempt.n}"
    return Event(
        kind="attempt", name=name, offset_ms=attempt.started_ms - zero_ms, ms=attempt.latency_ms, status=attempt.status, call=call
    )


@dataclass(frozen=True, slots=True)
class Line:
    """An event for a person."""

    offset: str
    bar: str
    name: str
    took: str
    told: str


def lines(timeline: Timeline) -> Iterator[Line]:
    """The events with bars, which show where in the life of the job each was."""
    whole_ms = max((event.offset_ms + (event.ms or 0) for event in timeline.events), default=0)
    for event in timeline.events:
        name = f"  {event.name}" if event.kind == "attempt" else event.name
        took = "" if event.ms is None else f"{event.ms:,.1f} ms"
        yield Line(f"{event.offset_ms:+,.0f} ms", bar(event.offset_ms, event.ms, whole_ms), name, took, _told(event))


def bar(offset_ms: float, ms: float | None, whole_ms: float) -> str:
    """A bar in a field of 32 characters that stands for `whole_ms`; a point for what takes no time."""
    if ms is None or whole_ms <= 0:
        place = min(_BAR - 1, max(0, round(offset_ms / whole_ms * _BAR))) if whole_ms > 0 else 0
        return f"{' ' * place}·".ljust(_BAR)
    begin = min(_BAR - 1, max(0, int(offset_ms / whole_ms * _BAR)))
    end = min(_BAR, max(begin + 1, round((offset_ms + ms) / whole_ms * _BAR)))
    return f"{' ' * begin}{'━' * (end - begin)}".ljust(_BAR)


def _told(event: Event) -> str:
    call = event.call
    if call is None:
        return event.status or ""
    http = f" {call.http_status}" if call.http_status else ""
    error = f" {call.error}" if call.error else ""
    tokens = f"{call.prompt_tokens} + {call.completion_tokens} tokens"
    hedge = " (hedge)" if call.hedge else ""
    return f"{call.deployment}{hedge}: {event.status}{http}{error}, {tokens}, {call.cost_usd:f} USD"
