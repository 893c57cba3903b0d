"""The way of one job through the router: leased, sent out, kept, answered. What a lease says decides what a delivery means."""

import asyncio
import logging
from dataclasses import replace

from pydantic import ValidationError

from infra.clock import Clock
from infra.kafka.carriage import Booked, Delivery, Finish, Nothing, Outcome, PutOff
from infra.kafka.table import ControlTable
from infra.reachable import chain
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from infra.telemetry import metrics
from infra.telemetry.spans import trace_id
from schemas.attempt import Attempt
from schemas.completion import Completion, completion_of
from schemas.errors import BudgetExceeded, Fault, InternalError, SluiceError
from schemas.job import Job, JobStatus
from schemas.kept import Kept
from schemas.reply import Answer, Closed, Event, Failed, Served
from schemas.slip import Stage
from services.router import parking, policy
from services.router.books import Books
from services.router.chooser import Chooser
from services.router.dispatch import Dispatcher, Found
from services.router.errand import Errand
from services.router.leases import Running
from services.router.parking import Later
from services.router.places import Place
from services.router.purse import Purse
from services.router.route import Route
from services.router.sending import Sender, Sent
from services.router.shadow import Shadows

log = logging.getLogger(__name__)

KEPT_BYTES = 512 * 1024
"""A longer answer is not kept before it is published: a death in between then costs a second call."""

_LOOK_AGAIN_S = 0.5


class Router:
    """Sends jobs out, each by one router at a time and `Route.most_calls` times at most before it ends, or is put off."""

    def __init__(
        self,
        table: ControlTable,
        records: JobRecords,
        dispatcher: Dispatcher,
        sender: Sender,
        running: Running,
        books: Books,
        purse: Purse,
        clock: Clock,
        chooser: Chooser,
        shadows: Shadows,
    ) -> None:
        self._table = table
        self._records = records
        self._dispatcher = dispatcher
        self._sender = sender
        self._running = running
        self._books = books
        self._purse = purse
        self._clock = clock
        self._chooser = chooser
        self._shadows = shadows

    async def handle(self, job: Job, delivery: Delivery) -> Outcome:
        """Ends the job, puts it off, or finds that somebody else has."""
        waits = False
        while True:
            route, why = await self._route(job)
            # While somebody else is at work on the job, nobody is kept from a place for its sake.
            found, held = (None, False) if waits or not route else await self._find(job, route)
            sent = False
            try:
                lease = await self._lease(job, route, found)
                match lease.state:
                    case "leased":
                        # What is held is held for whoever is at work on it, who may have found it held already.
                        waits, held = True, False
                    case "exhausted" if waits:
                        # Whoever was at work on it is not any more.
                        await self._give_back(job)
                        waits = False
                        continue
                    case "granted" if route and isinstance(found, Place):
                        sent = True
                        return await self._send(Errand(job, route, delivery.traceparent, found, lease.n, list(why)), lease)
                    case _:
                        return await self._without_call(job, route, found, lease, delivery)
            finally:
                if isinstance(found, Place):
                    found.give_back()
                if held and not sent:
                    await self._purse.give_back(job, job.made)
            # Wait for the end, or for the lapse.
            await asyncio.sleep(min(lease.left_ms / 1000, _LOOK_AGAIN_S) + 0.01)

    async def _route(self, job: Job) -> tuple[Route | None, tuple[str, ...]]:
        """Where the job goes, and why; None if its model is not there, or has nobody to ask."""
        asked = self._table.models.get(job.model)
        if asked is None:
            return None, ()
        model, why = await self._chooser.choose(job, asked)
        return (await self._dispatcher.route(job, self._table.models, model), why) if model.deployments else (None, why)

    async def _find(self, job: Job, route: Route) -> tuple[Found | None, bool]:
        """A place, and whether money is held for the job from now on; nobody if it is too late to ask anybody."""
        if policy.too_late(job, self._clock()):
            return None, False
        found = await self._dispatcher.find(job, route)
        if not isinstance(found, Place):
            return found, False
        may_go = False
        try:
            held = await self._purse.hold(job, self._dispatcher.moment())
            may_go = isinstance(held, bool)
        finally:
            if not may_go:
                found.give_back()
        return (found, held) if isinstance(held, bool) else (held, False)

    async def _lease(self, job: Job, route: Route | None, found: Found | None) -> Lease:
        """Asks for the right to call whoever was found, or for nothing but what became of the job."""
        if route and isinstance(found, Place):
            return await self._sender.lease(job, found.deployment, route.most_calls)
        return await self._sender.lease(job, None)

    async def _without_call(
        self, job: Job, route: Route | None, found: Found | None, lease: Lease, delivery: Delivery
    ) -> Outcome:
        """What becomes of a job for which nobody is called, now or ever."""
        match lease.state:
            case "stale":
                return Nothing()
            case "done":
                return self._ended_elsewhere(job, delivery)
            case "ending":
                # By a copy of this job; if that is this one before its process died, the carriage knows.
                raise _Ended(policy.no_attempt_left(job, route is not None, self._clock()))
            case "answered":
                return self._again(job, lease)
            case "exhausted" if isinstance(found, Later):
                return _put_off(job, await self._made(job, lease), found)
            case "abandoned":
                fault = policy.cancelled()
            case "interrupted":
                fault = policy.interrupted()
            case _:
                fault = found if isinstance(found, Fault) else policy.no_attempt_left(job, route is not None, self._clock())
        return await self._refuse(job, fault, lease, delivery)

    def _ended_elsewhere(self, job: Job, delivery: Delivery) -> Booked | Nothing:
        """Calls made before the job was put off are on no bill yet, if a router that had stood still has ended it all the same.

        The first completion in the log is how the job ended; money is the sum of all calls.
        """
        if not job.made:
            return Nothing()
        fault = policy.no_attempt_left(job, False, self._clock())
        trace = trace_id(delivery.traceparent)
        status = policy.status_of(fault)
        return Booked(
            completion_of(job, status, Stage.ROUTER.value, self._clock(), fault=fault, attempts=job.made, trace_id=trace)
        )

    async def _send(self, errand: Errand, lease: Lease) -> Outcome:
        job = errand.job
        try:
            with self._running.hold(job.id) as run:
                errand.attempts = await self._made(job, lease)
                outcome = await self._end(errand, await self._sender.send(errand, run))
                again = isinstance(outcome, Finish) and _died(job, lease)
                return replace(outcome, again=True) if again else outcome
        except asyncio.CancelledError:
            # The process drains: whoever gets the job next need not wait until the lease lapses.
            await self._give_back(job)
            raise

    async def _end(self, errand: Errand, sent: Sent) -> Outcome:
        match sent:
            case "lost":
                # Whoever holds the lease now tells of these attempts too.
                return Nothing()
            case "served":
                self._shadows.follow(errand.job, errand.route.asked, errand.traceparent)
                return await self._served(errand)
            case Later():
                await self._purse.give_back(errand.job, errand.attempts)
                return _put_off(errand.job, errand.attempts, sent)
            case Fault():
                return await self._failed(errand, sent)

    async def _served(self, errand: Errand) -> Finish | Booked:
        """The answer is kept before it is published."""
        job, relay = errand.job, errand.relay
        completion = self._completion(errand, JobStatus.COMPLETED)
        last = Closed() if relay else Answer(body=errand.body, served=self._told(errand, completion))
        seq = relay.seq if relay else 0
        kept = Kept(
            completion=completion,
            answer=last if isinstance(last, Answer) else None,
            stream=relay.kept if relay else (),
            seq=seq,
            attempt=errand.told_as,
            heard=relay.heard if relay else None,
        )
        if (relay and (relay.continued or not kept.stream)) or self._is_anothers(errand):
            completion = completion.model_copy(update={"cache_key": None})
            kept = kept.model_copy(update={"completion": completion})
        data = _written(kept)
        if len(data) > KEPT_BYTES:
            completion = completion.model_copy(update={"cache_key": None})
        elif not await self._keep(job, data):
            return Booked(completion)
        return Finish(completion, last, attempt=errand.told_as, seq=seq, stream=kept.stream, heard=kept.heard)

    def _is_anothers(self, errand: Errand) -> bool:
        """True if another model would not have said the same: a fallback answered, or one arm of a split."""
        asked = self._table.models.get(errand.job.model)
        return errand.model.name != errand.route.asked.name or bool(asked and asked.split)

    async def _keep(self, job: Job, data: bytes) -> bool:
        """False if somebody else has answered the job meanwhile."""
        try:
            return await self._records.answered(job.id, self._rest_ms(job), data)
        except RedisUnavailable as error:
            log.warning("the answer of %s is published without being kept: %s", job.id, error)
            return True

    async def _failed(self, errand: Errand, fault: Fault) -> Finish | Booked:
        """A failure is kept too: the next life would end the job in another way, after somebody was told of this one."""
        cut = errand.streaming and fault.code == BudgetExceeded.code
        completion = self._completion(errand, JobStatus.INCOMPLETE if cut else policy.status_of(fault), fault)
        last = Failed(fault=fault, served=self._told(errand, completion))
        seq = errand.relay.seq if errand.relay else 0
        heard = errand.relay.heard if errand.relay else None
        kept = Kept(completion=completion, failed=last, seq=seq, attempt=errand.told_as, heard=heard)
        if not await self._keep(errand.job, _written(kept)):
            return Booked(completion)
        return Finish(completion, last, attempt=errand.told_as, seq=seq, heard=heard)

    async def _refuse(self, job: Job, fault: Fault, lease: Lease, delivery: Delivery) -> Finish:
        """Ends a job for which nobody may be called any more; what was called before is booked."""
        completion = completion_of(
            job,
            policy.status_of(fault),
            Stage.ROUTER.value,
            self._clock(),
            fault=fault,
            attempts=tuple(await self._made(job, lease)),
            trace_id=trace_id(delivery.traceparent),
        )
        served = Served(model=job.model, cache=job.cache.status, verdict=job.verdict)
        return Finish(completion, Failed(fault=fault, served=served), attempt=lease.n, again=_died(job, lease))

    def _again(self, job: Job, lease: Lease) -> Outcome:
        """Publishes the end that a dead life had kept. Of a stream everything but the last event had gone out."""
        try:
            kept = Kept.model_validate_json(lease.answer)
        except ValidationError:
            log.error("the kept answer of %s is not understood", job.id)
            raise InternalError(f"The answer was lost; the request is on record as {job.id}.") from None
        last: Event = kept.answer or kept.failed or Closed()
        # Older ones don't tell it.
        attempt = kept.attempt or (kept.completion.attempts[-1].n if kept.completion.attempts else 0)
        return Finish(kept.completion, last, attempt=attempt, seq=kept.seq, again=True, stream=kept.stream, heard=kept.heard)

    async def _made(self, job: Job, lease: Lease) -> list[Attempt]:
        """What was called for the job before: as it tells itself, and what lives that are over have left behind."""
        if not _died(job, lease):
            return list(job.made)
        # Policy, table and choices may have changed since: whatever its model may lead to.
        asked = self._table.models.get(job.model)
        deployments = {d.id: d for model in chain(self._table.models, asked) for d in model.deployments} if asked else {}
        unknown = policy.unknown_attempts(job, deployments, lease.notes, self._clock())
        return [*job.made, *await self._books.unknown(job, deployments, unknown)]

    async def _give_back(self, job: Job) -> None:
        try:
            await self._records.release(job.id)
        except RedisUnavailable as error:
            log.warning("the lease of %s stays until it lapses: %s", job.id, error)

    def _completion(self, errand: Errand, status: JobStatus, fault: Fault | None = None) -> Completion:
        return completion_of(
            errand.job,
            status,
            Stage.ROUTER.value,
            self._clock(),
            fault=fault,
            attempts=tuple(errand.attempts),
            trace_id=trace_id(errand.traceparent),
            route=tuple(errand.why),
        )

    def _told(self, errand: Errand, completion: Completion) -> Served:
        job = errand.job
        return Served(
            model=errand.model.name,
            deployment=errand.deployment.id,
            cache=job.cache.status,
            verdict=job.verdict,
            cost_usd=completion.cost_usd,
            provider_ms=policy.provider_ms(completion.attempts),
        )

    def _rest_ms(self, job: Job) -> int:
        return job.deadline_ms - self._clock()


def _written(kept: Kept) -> bytes:
    return kept.__pydantic_serializer__.to_json(kept, exclude_defaults=True)


def _died(job: Job, lease: Lease) -> bool:
    """True if somebody began a call of which the job doesn't tell."""
    return len(lease.notes) > len(job.made)


def _put_off(job: Job, attempts: list[Attempt], later: Later) -> PutOff:
    metrics.PUT_OFF.labels(later.why).inc()
    return PutOff(parking.put_off(job, attempts, later))


class _Ended(SluiceError):
    """A fault as an exception."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self._fault = fault

    def fault(self) -> Fault:
        return self._fault
