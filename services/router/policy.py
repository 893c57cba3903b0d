"""What the router decides: whether to try again, how long a call may take, and what a job is told that can't be served. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.control import Deployment, Model
from schemas.errors import Cancelled, DeadlineExceeded, Fault, InternalError, ModelNotFound, ProviderError
from schemas.ids import attempt_id
from schemas.job import Api, Job, JobStatus
from schemas.policy import RoutePolicy
from schemas.topics import Lane
from services.router.providers.base import Kind

MAX_ATTEMPTS = 3
"""Provider calls of one job, over all its deliveries and models; a batch job that was put off has as many again."""

SILENCE_S = 30.0
"""A stream that has begun and says nothing for so long is taken for dead."""

LEAST_REST_S = 0.1
"""A job with less time left is not sent out: no provider answers so soon."""

_CALL_S = 600.0
_FIRST_BACKOFF_S = 0.2
_LONGEST_WAIT_S = 2.0
_TO_ANSWER_MS = 50
_LEAST_RETRYING = 3
_RETRYING_SHARE = 0.2


def rest_s(deadline_ms: int, now_ms: int) -> float:
    """How long a job may still be worked on: its deadline less the time its answer takes to travel."""
    return max(0.0, (deadline_ms - _TO_ANSWER_MS - now_ms) / 1000)


def too_late(job: Job, now_ms: int) -> bool:
    """True if no call may begin any more."""
    return rest_s(job.deadline_ms, now_ms) < LEAST_REST_S


def patience_s(deployment: Deployment, stream: bool) -> tuple[float, float | None]:
    """How long one call may take, if the job's deadline allows it: to its first token, or whole answer, and in all.

    A stream has the whole time of a call for its first token, unless that has a time of its own; then the whole time is for all.
    """
    whole_s = deployment.timeout_s or _CALL_S
    first_s = deployment.first_token_timeout_s if stream else None
    return (whole_s, None) if first_s is None else (min(first_s, whole_s), whole_s)


def most_calls(model: Model, route: RoutePolicy) -> int:
    """Provider calls of one job of `model`, with those of its fallbacks: as the caller's policy says, or the model's own retries.

    Retries that somebody asked for are made, and leave one call for a fallback.
    """
    if route.max_attempts is not None:
        return route.max_attempts
    led_on = bool(model.fallbacks or model.context_window_fallbacks or model.content_policy_fallbacks)
    return max(MAX_ATTEMPTS, 1 + (model.num_retries or 0) + led_on)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a failed call leaves behind. `attempts`: made since the job came here, of `most`; `jitter`: from 0 up to 1.

    `other`: a deployment is up that was not tried yet. `retrying` of the `running` jobs here are at a further try of a
    deployment that has failed them. `retries`: further calls that this model may have, if somebody has said so; `fallback`: a
    model is up that may be asked instead.
    """

    kind: Kind
    attempts: int
    rest_s: float
    other: bool
    retry_after_s: float | None
    jitter: float
    retrying: int
    running: int
    most: int = MAX_ATTEMPTS
    retries: int | None = None
    fallback: bool = False


def wait_s(now: Situation) -> float | None:
    """How long to wait before the next try of this model, or None if there shall be none.

    Another deployment is asked at once. The same one is asked again after a backoff with full jitter, and only by a fifth of the
    jobs at a time: when a provider is down, retries must not multiply its load. What a provider refuses for good is not repeated;
    a throttled call only if the provider wants it soon enough. Where there is a fallback the last call is left for it, and nobody
    waits for a deployment that has failed, unless the model's own retries say so.
    """
    if now.kind == "final" or now.attempts >= now.most - now.fallback or now.retries == 0:
        return None
    if now.other:
        return 0.0
    if now.kind == "denied":
        return None
    if now.fallback and now.retries is None:
        return None
    if now.retrying >= max(_LEAST_RETRYING, _RETRYING_SHARE * now.running):
        return None
    if now.kind == "throttled":
        if now.retry_after_s is None or now.retry_after_s > _LONGEST_WAIT_S:
            return None
        wait = now.retry_after_s + now.jitter * _FIRST_BACKOFF_S
    else:
        wait = now.jitter * min(_LONGEST_WAIT_S, _FIRST_BACKOFF_S * 2 ** (now.attempts - 1))
    return wait if wait < now.rest_s else None


def note(deployment: Deployment, started_ms: int) -> str:
    """What the lease remembers of a call, for whoever has to tell of it after our death."""
    return f"{started_ms} {deployment.id}"


def unknown_attempts(job: Job, deployments: Mapping[str, Deployment], notes: Sequence[str], now_ms: int) -> list[Attempt]:
    """The attempts of a life that is over: called, and nobody knows what became of them. Usage and cost are not in them yet.

    What the job itself tells of, since it was put off, is known. `deployments` that it may have called, by id.
    """
    attempts: list[Attempt] = []
    for n, text in enumerate(notes[len(job.made) :], len(job.made) + 1):
        started, _, name = text.partition(" ")
        deployment = deployments.get(name)
        attempts.append(
            Attempt(
                id=attempt_id(job.id, n),
                n=n,
                deployment=name,
                provider=deployment.provider if deployment else "",
                provider_model=deployment.model if deployment else "",
                started_ms=int(started) if started.isdigit() else now_ms,
                latency_ms=0,
                status="unknown",
                error="the router died during the call",
            )
        )
    return attempts


def provider_ms(attempts: Sequence[Attempt]) -> float:
    """How long a job was at providers: where two calls went on at once, that counts once."""
    total = until = 0.0
    for attempt in sorted(attempts, key=lambda one: one.started_ms):
        ends = attempt.started_ms + attempt.latency_ms
        total += max(0.0, ends - max(until, attempt.started_ms))
        until = max(until, ends)
    return round(total, 3)


def status_of(fault: Fault) -> JobStatus:
    """How a job ends that ends with this fault."""
    match fault.code:
        case DeadlineExceeded.code:
            return JobStatus.EXPIRED
        case Cancelled.code:
            return JobStatus.CANCELLED
        case _:
            return JobStatus.FAILED


def past_deadline(job: Job) -> Fault:
    """The deadline passed while the provider worked, or while the job waited for it."""
    seconds = (job.deadline_ms - job.accepted_ms) / 1000
    return DeadlineExceeded(
        f"No answer came from the provider within the deadline of {seconds:g} s; send it again with a longer x-sluice-timeout."
    ).fault()


def cancelled() -> Fault:
    return Cancelled("The request was cancelled: nobody waits for its answer.").fault()


def interrupted() -> Fault:
    """A stream whose router died: its text can't be gone on with, and must not come twice."""
    return ProviderError("The stream was interrupted and can't be continued. Send it again.", code="stream_interrupted").fault()


def no_attempt_left(job: Job, has_model: bool, now_ms: int) -> Fault:
    """Why no further provider call may be made for this job. `has_model`: its model is there, with a deployment."""
    if too_late(job, now_ms):
        return past_deadline(job)
    if not has_model:
        return no_model(job)
    return InternalError(f"The request was begun too often without an end and was put aside as {job.id}.").fault()


def no_model(job: Job) -> Fault:
    return ModelNotFound(f"The model `{job.model}` does not exist or has no deployment.", param="model").fault()


def goes_on_without_redis(job: Job) -> bool:
    """True for a job that somebody waits for, and whose policy is fail-open."""
    return job.policy.when_redis_is_away == "open" and job.lane is Lane.INTERACTIVE and not job.detached


def capped(job: Job, body: JsonObject) -> JsonObject:
    """The body as a provider gets it: with the policy's cap of the answer, where the request names none itself."""
    cap = job.policy.max_output_tokens
    if cap is None or job.api is not Api.CHAT or body.get("max_completion_tokens") or body.get("max_tokens"):
        return body
    # Whoever knows only the older name gets that from its provider's file.
    return body | {"max_completion_tokens": cap}


def may_go_on(job: Job) -> bool:
    """Whether another call may go on with the job's stream: its policy wants that, and it is one text, in no form of its own."""
    form = job.body.get("response_format")
    is_text = form is None or (isinstance(form, dict) and form.get("type") == "text")
    return job.policy.route.on_broken_stream == "continue" and is_text and job.body.get("n") in (None, 1)


def gone_on_with(body: JsonObject, said: str, tokens: int) -> JsonObject:
    """The body that asks for the rest of an answer of which `said`, of so many tokens, is known.

    The rest may be as long as what is left of what the caller allowed.
    """
    if not said:
        return body
    messages = body.get("messages")
    said_before: list[JsonValue] = [{"role": "assistant", "content": said}, {"role": "user", "content": _GO_ON}]
    most: JsonObject = {name: max(1, limit - tokens) for name in _LIMITS if isinstance(limit := body.get(name), int)}
    asked: JsonObject = {"messages": [*(messages if isinstance(messages, list) else ()), *said_before]}
    return body | most | asked


_GO_ON = (
    "Your answer was cut off by a technical failure. Go on exactly where it stopped, in the middle of a word if need be. "
    "Repeat nothing of it and say nothing about the interruption."
)
_LIMITS = ("max_tokens", "max_completion_tokens")
