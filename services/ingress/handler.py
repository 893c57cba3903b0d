"""admit(request) -> Job: the same admission for every door."""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from infra import charging
from infra.clock import new_id
from infra.estimates import Estimator
from infra.kafka.shards import partitions_of
from infra.platform import Platform
from infra.redis import admission
from infra.redis.admission import Attached, Charge, Keeping, NoRoom, admit
from infra.redis.client import RedisUnavailable
from infra.redis.listing import list_key
from infra.telemetry import meters, metrics
from schemas.base import JsonObject
from schemas.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    RateLimited,
    SluiceError,
    Unavailable,
)
from schemas.job import Api, CacheRequest, Caller, Estimate, Job, Labels, ReplyTo
from schemas.openai.requests import ChatRequest, EmbeddingRequest, ModerationRequest
from schemas.policy import EffectivePolicy, WebhookPolicy
from schemas.ticket import ticket_of
from schemas.topics import ROUTER, Lane
from services.ingress import policy
from services.ingress.degraded import Degraded
from services.ingress.idempotency import Claim, Repeatable, the_same
from services.ingress.identities import Credentials, Identities, Identity, Verifier

_RESUME_MS = 60_000
"""How long after its deadline a stream can still be read again."""

_TAGS = ("list[", "constrained-")
"""How pydantic names the alternatives of a union among the members of a path."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.1
"""Between two looks for a free place: a completion frees one within 10 ms."""

_MOST_IN_LINE = 4096

B = TypeVar("B", bound=BaseModel)
Decision = admission.Admitted | admission.Refused | Attached
Checked = ChatRequest | EmbeddingRequest | ModerationRequest


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
    detached: bool = False
    kept: bool = False
    deadline_ms: int | None = None
    not_before_ms: int = 0
    webhook: str = ""
    known_as: Literal["job", "response"] = "job"
    endpoint: str = ""
    repeatable: Repeatable | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admitted job, and how its rates stand."""

    job: Job
    rates: Sequence[admission.Standing] = ()


@dataclass(frozen=True, slots=True)
class Repeated:
    """The request was made before, and `job` is what it became then. `sent`: that job is known to be on its way.

    `number`: how many requests have attached to it so far, with this one.
    """

    job: Job
    sent: bool
    number: int


class CallerGone(Exception):
    """The client closed its connection; there is nobody to answer."""


CheckWebhook = Callable[[str, WebhookPolicy], Awaitable[None]]
"""Raises InvalidRequest for a URL to which nothing may be sent, Unavailable if that can't be told now."""


class Admissions:
    """Decides about requests, and makes jobs of them."""

    def __init__(self, platform: Platform, check_webhook: CheckWebhook, tokens: Verifier, estimator: Estimator) -> None:
        self._platform = platform
        self._check_webhook = check_webhook
        self._table = platform.control.table
        self._identities = Identities(self._table, tokens, platform.clock, platform.settings.trusted_proxies)
        self._estimator = estimator
        self._degraded = Degraded(platform.clock)
        self._in_line = 0
        platform.control.watch(self._identities.forget)

    async def identify(self, given: Credentials) -> Identity:
        """Who asks. Raises InvalidKey, NotAllowed."""
        return await self._identities.find(given)

    def identify_by_id(self, key_id: str) -> Identity:
        """Who holds the key with this id. Raises InvalidKey, NotAllowed."""
        return self._identities.of_key_id(key_id)

    def identify_again(self, caller: Caller, groups: Sequence[str]) -> Identity:
        """Who asked for what was accepted before. Raises InvalidKey, NotAllowed."""
        return self._identities.again(caller, groups)

    async def admit(self, identity: Identity, request: Request, reply_to: ReplyTo, job_id: str = "") -> Admitted:
        """Checks a request that can't be a repetition, charges the caller's limits, and makes the signed job. Raises SluiceError.

        What is over a limit and has time, in the batch lane or from a queue, gets the moment at which its turn comes.
        """
        admitted = await self.admit_once(identity, request, reply_to, job_id)
        assert isinstance(admitted, Admitted), "only who asks for it can be bound to an earlier request"
        return admitted

    async def admit_once(
        self, identity: Identity, request: Request, reply_to: ReplyTo, job_id: str = ""
    ) -> "Admitted | Repeated":
        """As `admit`; or finds the job that the same request has become before."""
        now_ms = self._platform.clock()
        effective = identity.policy
        checked = check_body(request.api, request.body)
        if "model" not in request.body:
            policy.check_default(checked.model, self._table.models)
        policy.check_model(checked.model, effective, self._table.models, now_ms)
        policy.check_rights(request.lane, request.labels, effective)
        deadline_ms = self._deadline_ms(request, effective, now_ms)
        job = self._job(identity, request, checked, effective, reply_to)
        job = job.model_copy(
            update={"id": job_id or new_id("job", now_ms), "accepted_ms": now_ms, "deadline_ms": deadline_ms},
        )
        self._refuse_if_late(job)
        if estimate := await self._estimate(identity, job):
            job = job.model_copy(update={"estimate": estimate})
        if request.webhook:
            await self._check_webhook(request.webhook, effective.webhooks)
        if job.lane is Lane.INTERACTIVE:
            self._platform.pace.interactive()
        decision = await self._charge(identity, request, job)
        if isinstance(decision, Attached):
            return self._repeated(request, job, decision)
        if decision.wait_ms:
            job = job.model_copy(update={"not_before_ms": max(job.not_before_ms, now_ms + decision.wait_ms)})
        return Admitted(self._platform.signer.sign(job), decision.rates)

    async def _estimate(self, identity: Identity, job: Job) -> Estimate | None:
        """What the job needs at most, if anything depends on that. Raises Unpriced."""
        account, model = identity.account, self._table.models[job.model]
        if not account.needs_tokens(job.lane, job.accepted_ms) and all(d.tpm is None for d in model.deployments):
            return None
        money = account.needs_money(job.accepted_ms)
        return await self._estimator.estimate(job.api, job.body, model, job.policy, job.accepted_ms, money=money)

    def _repeated(self, request: Request, job: Job, decision: Attached) -> "Repeated":
        assert request.repeatable is not None
        claim = the_same(decision.claim, request.repeatable)
        same = {
            "id": claim.job_id,
            "accepted_ms": claim.accepted_ms,
            "deadline_ms": claim.deadline_ms,
            "reply_to": ReplyTo(kind="inbox", partition=claim.partition),
        }
        return Repeated(self._platform.signer.sign(job.model_copy(update=same)), decision.sent, decision.attached)

    def _refuse_if_late(self, job: Job) -> None:
        """Load is shed by what waits already: early, and only where nobody else can wait. Raises Overloaded."""
        own = partitions_of(job.caller.team, ROUTER.partitions)
        wait_ms = self._platform.loads.wait_ms(job.lane, own)
        rest_ms = job.deadline_ms - max(job.accepted_ms, job.not_before_ms)
        if policy.is_too_late(job.lane, wait_ms, rest_ms):
            retry_s = max(1, math.ceil(wait_ms / 1000))
            raise Overloaded(policy.overload(job.lane, wait_ms), retry_after_s=retry_s)

    def _deadline_ms(self, request: Request, effective: EffectivePolicy, now_ms: int) -> int:
        settings = self._platform.settings
        patient = request.lane is Lane.BATCH or request.detached
        default_s = settings.batch_timeout_s if patient else settings.interactive_timeout_s
        deadline_ms = now_ms + int(policy.timeout_s(request.timeout_header, effective, default_s) * 1000)
        if request.deadline_ms is not None:
            deadline_ms = policy.check_deadline(request.deadline_ms, now_ms)
        if request.not_before_ms >= deadline_ms:
            raise InvalidRequest("x-sluice-not-before must lie before the deadline of the request", param="x-sluice-not-before")
        return deadline_ms

    def _job(
        self,
        identity: Identity,
        request: Request,
        checked: Checked,
        effective: EffectivePolicy,
        reply_to: ReplyTo,
    ) -> Job:
        """The job that a request becomes, without its id and its times."""
        slip = policy.slip(effective, request.cache)
        options = checked.stream_options if isinstance(checked, ChatRequest) else None
        kept = request.detached or request.kept or (request.repeatable is not None and request.repeatable.by_key)
        return Job(
            id="",
            api=request.api,
            lane=request.lane,
            model=checked.model,
            body=request.body,
            stream=isinstance(checked, ChatRequest) and bool(checked.stream),
            include_usage=bool(options and options.include_usage),
            caller=identity.caller,
            labels=request.labels,
            policy=effective,
            slip=slip,
            way=slip,
            accepted_ms=0,
            deadline_ms=0,
            reply_to=reply_to,
            custom_id=request.custom_id,
            cache=request.cache,
            detached=request.detached,
            keep_s=effective.keep_results_s if kept else 0,
            not_before_ms=request.not_before_ms,
            webhook=request.webhook,
            known_as=request.known_as,
            fingerprint=_fingerprint(request.body),
        )

    async def _charge(self, identity: Identity, request: Request, job: Job) -> admission.Admitted | Attached:
        account = identity.account
        charge = charging.charge(account, job.lane, job.estimate, job.accepted_ms, job.deadline_ms)
        charging.check_size(charge)
        patient = job.lane is Lane.BATCH or job.reply_to.kind != "inbox"
        longest_wait_ms = job.deadline_ms - job.accepted_ms if patient else 0
        decision = await self._ask(charge, request, job, longest_wait_ms)
        if isinstance(decision, NoRoom):
            patience_s = longest_wait_ms / 1000 if patient else identity.policy.concurrency_wait_s
            decision = await self._wait_for_room(decision, charge, request, job, patience_s, patient=patient)
        if isinstance(decision, admission.Admitted | Attached):
            return decision
        refused = charging.refusal(decision, charge, account, job.accepted_ms)
        if patient and isinstance(refused, RateLimited):
            raise DeadlineExceeded(f"{refused.message} That is after the deadline of this request.")
        raise refused

    async def _wait_for_room(
        self, refused: NoRoom, charge: Charge, request: Request, job: Job, patience_s: float, *, patient: bool
    ) -> Decision:
        """Asks again until somebody has left, less and less often; the last answer, if nobody has."""
        loop = asyncio.get_running_loop()
        ends, pause_s = loop.time() + patience_s, _FIRST_PAUSE_S
        while True:
            left_s = ends - loop.time()
            if left_s <= 0 or self._in_line >= _MOST_IN_LINE:
                return refused
            self._in_line += 1
            try:
                await asyncio.sleep(min(left_s, pause_s))
            finally:
                self._in_line -= 1
            decision = await self._ask(charge, request, job, int(left_s * 1000) if patient else 0)
            if not isinstance(decision, NoRoom):
                return decision
            refused = decision
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _ask(self, charge: Charge, request: Request, job: Job, longest_wait_ms: int) -> Decision:
        """One round trip. While Redis is away, who has no limits is admitted, and who has some as his policy says."""
        try:
            decision = await admit(self._platform.redis, charge, _keeping(request, job), longest_wait_ms, job.id)
        except RedisUnavailable:
            if not charge.limits and not job.keep_s:
                # What was to be kept is a convenience: a stream that can't be resumed is better than none.
                return admission.Admitted()
            if job.policy.when_redis_is_away == "open" and not job.keep_s:
                return self._degraded.admit(charge)
            raise Unavailable(
                "The limits can't be checked at the moment. Try again.", code="budget_unavailable", retry_after_s=1
            ) from None
        self._degraded.heard(decision, charge)
        return decision


def _keeping(request: Request, job: Job) -> Keeping | None:
    """What is noted of a job: its ticket if its events or its end may be asked for, its claim if it may be sent again."""
    again = request.repeatable
    ticketed = job.keep_s or (job.stream and job.reply_to.kind == "inbox")
    if not ticketed and again is None:
        return None
    rest_ms = job.deadline_ms - job.accepted_ms
    claim = Claim(
        job_id=job.id,
        sha=again.sha if again else "",
        partition=job.reply_to.partition,
        accepted_ms=job.accepted_ms,
        deadline_ms=job.deadline_ms,
    )
    return Keeping(
        job_id=job.id,
        accepted_ms=job.accepted_ms,
        claim_key=again.key if again else "",
        claim=claim.model_dump_json().encode() if again else b"",
        claim_ms=again.kept_ms(rest_ms) if again else 0,
        attaches=again.attaches if again else False,
        ticket=ticket_of(job, request.endpoint).model_dump_json(exclude_defaults=True).encode() if ticketed else b"",
        ticket_ms=rest_ms + max(job.keep_s * 1000, _RESUME_MS),
        list_key=list_key(job.caller.team) if job.keep_s else "",
    )


def _fingerprint(body: JsonObject) -> str:
    """A short hash of a body: equal requests have equal ones, by whatever door they come."""
    return hashlib.blake2b(to_json(body), digest_size=8).hexdigest()


def check_body(api: Api, body: JsonObject) -> Checked:
    """What we act upon in a body. Raises InvalidRequest that names the member."""
    match api:
        case Api.CHAT:
            return checked(ChatRequest, body)
        case Api.EMBEDDINGS:
            return checked(EmbeddingRequest, body)
        case Api.MODERATIONS:
            return checked(ModerationRequest, body)


def checked(model: type[B], body: JsonObject) -> B:
    """The body as one of this kind. Raises InvalidRequest that names the member."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"] if part != "str" and not str(part).startswith(_TAGS))
        raise InvalidRequest(f"Invalid value for `{param}`: {first['msg']}", param=param or None) from None


def refused(error: SluiceError) -> SluiceError:
    """Counts a refusal."""
    fault = error.fault()
    metrics.REFUSED.labels(fault.code or fault.type).inc()
    meters.failed(fault)
    return error
