"""admit(request) -> Job; answer(job) -> events. The same admission for every door."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from infra.clock import new_id
from infra.credentials import key_hash, well_formed
from infra.kafka.inbox import Inbox, Waiter
from infra.kafka.post import Post
from infra.platform import Platform
from infra.redis.admission import Admission, Limit, admit
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from infra.telemetry import metrics
from schemas.base import JsonObject
from schemas.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidKey,
    InvalidRequest,
    Overloaded,
    RateLimited,
    SluiceError,
    Unavailable,
)
from schemas.job import Api, CacheRequest, Job, Labels, ReplyTo
from schemas.openai.requests import ChatRequest, EmbeddingRequest
from schemas.policy import EffectivePolicy
from schemas.reply import Event
from schemas.topics import Lane
from services.ingress import policy
from services.ingress.policy import Identity

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
_SUBMIT_S = 2.0
_GRACE_S = 0.5
_TAGS = ("list[", "constrained-")
"""How pydantic names the alternatives of a union among the members of a path."""

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Request:
    """A request of any door, its headers read, its body parsed from JSON but not yet checked."""

    api: Api
    body: JsonObject
    lane: Lane
    timeout_header: str | None = None
    cache: CacheRequest = field(default_factory=CacheRequest)
    labels: Labels = field(default_factory=Labels)
    custom_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admitted job, and what the rate limiter said if there is a limit."""

    job: Job
    rate: Admission | None


class CallerGone(Exception):
    """The client closed its connection; there is nobody to answer."""


class Admissions:
    """Decides about requests, and makes jobs of them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._table = platform.control.table
        self._identities: dict[str, tuple[Identity, EffectivePolicy]] = {}
        platform.control.watch(self._identities.clear)

    def identify(self, secret: str) -> Identity:
        """Who holds this virtual key. Raises InvalidKey."""
        key = self._table.keys_by_hash.get(key_hash(secret)) if well_formed(secret) else None
        return self.identify_by_id(key.id if key else "")

    def identify_by_id(self, key_id: str) -> Identity:
        """Who holds the key with this id. Raises InvalidKey."""
        known = self._identities.get(key_id)
        if known is not None:
            return known[0]
        key = self._table.keys.get(key_id)
        team = self._table.teams.get(key.team) if key and not key.revoked else None
        organization = self._table.organizations.get(team.organization) if team else None
        if key is None or team is None or organization is None:
            raise InvalidKey("Incorrect API key provided. Ask your platform team for a virtual key (it begins with sk-sl-).")
        identity = Identity(organization, team, key)
        # Bounded by the control table, and forgotten whenever that changes.
        self._identities[key_id] = (identity, identity.policy())
        return identity

    async def admit(self, identity: Identity, request: Request, reply_to: ReplyTo, job_id: str = "") -> Admitted:
        """Checks a request, charges the caller's limits, and makes the signed job. Raises SluiceError."""
        now_ms = self._platform.clock()
        effective = self._policy_of(identity)
        checked = check_body(request.api, request.body)
        policy.check_model(checked.model, effective, self._table.models)
        settings = self._platform.settings
        default_s = settings.interactive_timeout_s if request.lane is Lane.INTERACTIVE else settings.batch_timeout_s
        timeout_s = policy.timeout_s(request.timeout_header, effective, default_s)
        rate = await self._charge(identity)
        slip = policy.slip(effective, request.cache)
        stream = isinstance(checked, ChatRequest) and bool(checked.stream)
        options = checked.stream_options if isinstance(checked, ChatRequest) else None
        job = Job(
            id=job_id or new_id("job", now_ms),
            api=request.api,
            lane=request.lane,
            model=checked.model,
            body=request.body,
            stream=stream,
            include_usage=bool(options and options.include_usage),
            caller=identity.caller(),
            labels=request.labels,
            policy=effective,
            slip=slip,
            way=slip,
            accepted_ms=now_ms,
            deadline_ms=now_ms + int(timeout_s * 1000),
            reply_to=reply_to,
            custom_id=request.custom_id,
            cache=request.cache,
        )
        return Admitted(self._platform.signer.sign(job), rate)

    def _policy_of(self, identity: Identity) -> EffectivePolicy:
        known = self._identities.get(identity.key.id)
        if known is None or known[0] is not identity:
            return identity.policy()
        return known[1]

    async def _charge(self, identity: Identity) -> Admission | None:
        limits = [Limit(scope, limit) for scope, limit in identity.rates()]
        try:
            rate = await admit(self._platform.redis, limits)
        except RedisUnavailable:
            raise Unavailable(
                "The rate limits can't be checked at the moment. Try again.", code="budget_unavailable", retry_after_s=1
            ) from None
        if rate is not None and not rate.allowed:
            retry_s = max(1, math.ceil(rate.wait_ms / 1000))
            text = policy.refusal(rate.limit.scope, rate.limit.requests_per_minute, retry_s)
            raise RateLimited(text, retry_after_s=retry_s)
        return rate


def check_body(api: Api, body: JsonObject) -> ChatRequest | EmbeddingRequest:
    """What we act upon in a body. Raises InvalidRequest that names the member."""
    return _checked(ChatRequest if api is Api.CHAT else EmbeddingRequest, body)


def _checked(model: type[B], body: JsonObject) -> B:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"] if part != "str" and not str(part).startswith(_TAGS))
        raise InvalidRequest(f"Invalid value for `{param}`: {first['msg']}", param=param or None) from None


class Answers:
    """Sends a job on its way and gives its events to the connection that waits."""

    def __init__(self, platform: Platform, inbox: Inbox, post: Post, records: JobRecords) -> None:
        self._platform = platform
        self._inbox = inbox
        self._post = post
        self._records = records

    def reply_to(self) -> ReplyTo:
        """Our address. Raises Overloaded if too many wait here already."""
        if self._inbox.full:
            raise Overloaded("Too many requests are waiting. Try again.", retry_after_s=1)
        return ReplyTo(kind="inbox", partition=self._inbox.partition)

    async def events(self, job: Job, traceparent: str, gone: "asyncio.Future[None]") -> AsyncGenerator[Event | None]:
        """The events of a job to its last, and None whenever nothing came for `KEEP_ALIVE_S`.

        Raises SluiceError if the job can't be sent or its deadline passes, CallerGone once `gone` is done: the client has closed
        its connection. However this ends before the job does, nobody is called for it any more: it is abandoned, and cancelled
        where it is at work.
        """
        ended = False
        with self._inbox.expect(job.id) as waiter:
            try:
                await self._submit(job, traceparent)
                while not ended:
                    event = await self._next(job, waiter, gone)
                    ended = event is not None and event.kind in ("answer", "closed", "failed")
                    yield event
            finally:
                if not ended:
                    await asyncio.shield(self._abandon(job))

    async def _submit(self, job: Job, traceparent: str) -> None:
        try:
            async with asyncio.timeout(_SUBMIT_S):
                await self._post.forward(job, traceparent)
        except TimeoutError:
            # The record may still be written when the broker wakes; the router refuses abandoned jobs.
            raise Unavailable("The queue does not answer. Try again.", code="queue_unavailable", retry_after_s=2) from None

    async def _next(self, job: Job, waiter: Waiter, gone: "asyncio.Future[None]") -> Event | None:
        rest_s = (job.deadline_ms - self._platform.clock()) / 1000 + _GRACE_S
        match await waiter.next(min(rest_s, KEEP_ALIVE_S), gone):
            case "gone":
                raise CallerGone
            case "late" if rest_s > KEEP_ALIVE_S:
                return None
            case "late":
                seconds = (job.deadline_ms - job.accepted_ms) / 1000
                raise DeadlineExceeded(f"No answer came within {seconds:g} s. Raise x-sluice-timeout or use the batch lane.")
            case "lost":
                raise InternalError("Some of the answer was lost on its way. Try again.")
            case event:
                return event

    async def _abandon(self, job: Job) -> None:
        rest_ms = job.deadline_ms - self._platform.clock()
        try:
            await self._records.abandon(job.id, rest_ms)
            async with asyncio.timeout(_SUBMIT_S):
                await self._post.cancel(job.id, "nobody waits for the answer")
        except (RedisUnavailable, TimeoutError) as error:
            log.warning("%s could not be abandoned cleanly: %s", job.id, error)


def refused(error: SluiceError) -> SluiceError:
    """Counts a refusal."""
    metrics.REFUSED.labels(error.fault().code or error.type).inc()
    return error
