"""A job with a lease is sent out: tried at one deployment after another, until one has answered or no try is left.

Its own model comes first, then those it may fall back on. Once something has gone out, nobody else is asked, but to go on where
a stream broke off, for callers whose policy wants that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Literal

from infra import tokens
from infra.clock import Clock
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from schemas.attempt import Attempt
from schemas.control import Deployment
from schemas.errors import DeadlineExceeded, Fault, InternalError
from schemas.job import Api, Job
from schemas.topics import Lane
from schemas.usage import Usage
from services.router import parking, policy, tally
from services.router.answers import text_of
from services.router.books import AttemptStatus, Books, Call
from services.router.calling import Calls, Flight
from services.router.dispatch import Dispatcher, Found
from services.router.errand import Errand
from services.router.hedging import Hedges, race
from services.router.leases import LEASE_MS, Run, Running
from services.router.parking import Later
from services.router.places import Place
from services.router.providers.base import ProviderFailure
from services.router.providers.failures import Why, leads_to, unavailable
from services.router.purse import OutOfBudget, Purse
from services.router.stream import Relay
from services.router.tally import Outcome

log = logging.getLogger(__name__)


Sent = Fault | Later | Literal["served", "lost"]
"""What became of an errand: served, the fault with which it ends, put off, or that somebody else has taken the job over."""


class Sender:
    """Calls providers for jobs. Bounded by each job's deadline, and by a cancel.

    `renewed` looks whether a deployment whose credential, so many seconds old, was refused has another one by now.
    """

    def __init__(
        self,
        calls: Calls,
        records: JobRecords,
        running: Running,
        books: Books,
        clock: Clock,
        dispatcher: Dispatcher,
        purse: Purse,
        hedges: Hedges,
        renewed: Callable[[Deployment, float], Awaitable[bool]],
    ) -> None:
        self._calls = calls
        self._records = records
        self._running = running
        self._books = books
        self._clock = clock
        self._dispatcher = dispatcher
        self._purse = purse
        self._hedges = hedges
        self._renewed = renewed
        self._asks = count(1)

    async def lease(
        self, job: Job, deployment: Deployment | None, most: int = 0, held: int = 0, *, goes_on: bool = False
    ) -> Lease:
        """Asks for the right to call `deployment`, for one of `most` calls that may be made before the job ends or is put off.

        Without a deployment it asks for nothing but what became of the job. Waits until Redis answers. `held` and `goes_on`: as
        with `JobRecords.lease`.
        """
        now_ms = self._clock()
        made = len(job.made)
        attempts = made + most if deployment else 0
        note = policy.note(deployment, now_ms) if deployment else ""
        ask = str(next(self._asks))
        while True:
            try:
                rest_ms = job.deadline_ms - self._clock()
                return await self._records.lease(
                    job.id,
                    rest_ms,
                    lease_ms=LEASE_MS,
                    attempts=attempts,
                    ask=ask,
                    held=held,
                    note=note,
                    made=made,
                    goes_on=goes_on,
                )
            except RedisUnavailable as error:
                if deployment is not None and policy.goes_on_without_redis(job):
                    # Its policy would rather have it served than served once.
                    log.warning("%s; %s is sent out without a lease", error, job.id)
                    return Lease("granted", n=max(held, made) + 1)
                log.warning("%s; %s waits for its lease", error, job.id)
                await asyncio.sleep(0.25)

    async def send(self, errand: Errand, run: Run) -> Sent:
        """Sends the errand out. When this returns, its `attempts` tell what was called, and what went out is acknowledged."""
        try:
            sent, status = await self._within_deadline(errand, run)
        finally:
            errand.place.give_back()
            for flight in errand.open:
                flight.land()
        for flight in tuple(errand.open):
            if flight.beaten or not flight.begun:
                await self._lose(errand, flight)
                continue
            error = sent.code if isinstance(sent, Fault) else None
            flight.call.hung |= error == DeadlineExceeded.code
            await self._write(errand, flight, status, error=error)
        if errand.relay is not None and sent != "served":
            await self._settle(errand.job, errand.relay)
        return sent

    async def _within_deadline(self, errand: Errand, run: Run) -> tuple[Sent, AttemptStatus]:
        """What became of the errand, and of the call that was cut short, if one was."""
        job = errand.job
        try:
            async with run.until(policy.rest_s(job.deadline_ms, self._clock())):
                return await self._try_all(errand, run), "completed"
        except TimeoutError:
            return (policy.cancelled() if run.cancelled else policy.past_deadline(job)), "cancelled"
        except OutOfBudget as cut:
            return cut.fault, "cancelled"
        except Exception:
            log.exception("the router failed on %s", job.id)
            return InternalError(f"The router failed on this request; it is on record as {job.id}.").fault(), "failed"

    async def _try_all(self, errand: Errand, run: Run) -> Sent:
        same, relay = False, None
        while True:
            with self._running.retry(same):
                failure = await self._try(errand, run, relay)
            errand.place.give_back()
            if run.cancelled:
                # It was let end for its usage alone.
                return policy.cancelled()
            if failure is None:
                return "served"
            found = await self._next(errand, failure)
            if not isinstance(found, Place):
                return found
            relay = errand.relay if errand.streaming else None
            same = found.deployment.id in errand.tried
            before = errand.model
            errand.take(found)
            if errand.model is not before:
                tally.fell_back(before.name, errand.model.name)
            lease = await self.lease(errand.job, errand.deployment, errand.route.most_calls, held=errand.n, goes_on=bool(relay))
            if lease.state != "granted":
                return _not_granted(lease, failure)
            errand.n = lease.n

    async def _next(self, errand: Errand, failure: ProviderFailure) -> Found:
        """A place for the next call, at this model or at one it may fall back on; or what becomes of a job that has failed."""
        if errand.streaming:
            return await self._go_on(errand, failure)
        told = errand.failure = _to_tell(errand.failure, failure)
        after_s = self._wait_s(errand, failure)
        if after_s is None and not _moves(errand, failure):
            return self._given_up(errand, told)
        if not await self._purse.covers(errand.job, errand.attempts):
            return self._given_up(errand, told)
        await asyncio.sleep(after_s or 0)
        found = await self._dispatcher.find(errand.job, errand.route, errand.tried)
        if isinstance(found, Place):
            return found
        if told.kind != "final" and (isinstance(found, Fault) or errand.route.model is not errand.model):
            # Its own model may be well again before those are that it would have fallen back on.
            return self._given_up(errand, told)
        return told.fault if isinstance(found, Later) and len(errand.attempts) >= parking.MOST_MADE else found

    async def _go_on(self, errand: Errand, failure: ProviderFailure) -> Place | Fault:
        """A place for the call that goes on behind what went out, if the caller's policy wants that; or how the stream ends."""
        job, relay = errand.job, errand.relay
        may = policy.may_go_on(job) and errand.made < errand.route.most_calls
        if not (may and relay and relay.can_go_on) or failure.kind == "final":
            return failure.fault
        if not await self._purse.covers(job, errand.attempts):
            return failure.fault
        found = await self._dispatcher.find(job, errand.route, errand.tried)
        return found if isinstance(found, Place) else failure.fault

    def _given_up(self, errand: Errand, failure: ProviderFailure) -> Later | Fault:
        """What becomes of a job that has failed here: batch comes again, unless it never will do."""
        made, now = len(errand.attempts), self._dispatcher.moment()
        return parking.after_failure(errand.job, failure.kind, made, failure.retry_after_s, now) or failure.fault

    def _wait_s(self, errand: Errand, failure: ProviderFailure) -> float | None:
        model, route = errand.model, errand.route
        return policy.wait_s(
            policy.Situation(
                kind=failure.kind,
                attempts=errand.made,
                rest_s=policy.rest_s(errand.job.deadline_ms, self._clock()),
                other=self._dispatcher.other(model, errand.tried),
                retry_after_s=failure.retry_after_s,
                jitter=self._dispatcher.moment().jitter,
                retrying=self._running.retrying,
                running=len(self._running),
                most=route.most_calls,
                retries=None if model.num_retries is None else max(0, model.num_retries + 1 - errand.calls),
                fallback=any(map(self._dispatcher.other, route.ahead("failed"))),
            )
        )

    async def _try(self, errand: Errand, run: Run, relay: Relay | None) -> ProviderFailure | None:
        """One call, or two that race, in the books; the failure, if it is one. `relay`: of a stream that is gone on with."""
        call = Call(errand.n, errand.place.deployment, self._clock(), errand.model.name, _may_move(errand, "content"))
        flight = self._flight(errand, run, call, errand.place, relay)
        after_s = self._hedges.after_s(errand.model, call.deployment, errand.job.stream) if _may_hedge(errand, relay) else None
        if after_s is not None:
            return await self._race(errand, run, flight, after_s)
        failure = await self._fly(errand, run, flight)
        await self._book(errand, flight, failure)
        return failure

    async def _race(self, errand: Errand, run: Run, flight: Flight, after_s: float) -> ProviderFailure | None:
        async def fly(one: Flight) -> ProviderFailure | None:
            failure = await (self._fly(errand, run, one) if one is flight else self._fly_beside(errand, run, one))
            if failure is not None:
                await self._book(errand, one, failure)
            return failure

        async def second() -> Flight | None:
            return await self._second(errand, run, flight)

        *before, (last, end) = await race(fly, flight, after_s, second)
        errand.answered = last if end == "won" else errand.answered
        if any(one.begun for one, _ in (*before, (last, end)) if one.call.hedge):
            tally.hedged("won" if last.call.hedge and end == "won" else "lost")
        for one, outcome in before:
            if isinstance(outcome, ProviderFailure):
                errand.failure = _to_tell(errand.failure, outcome)
            elif one in errand.open:
                await self._lose(errand, one)
        if isinstance(end, ProviderFailure):
            return end
        await self._book(errand, last, None)
        return None

    async def _second(self, errand: Errand, run: Run, flight: Flight) -> Flight | None:
        """The call that hedges another one, if somebody else is there to be asked at once, and money for both.

        Whatever goes wrong here, the first call goes on.
        """
        job, model = errand.job, errand.model
        if run.cancelled or not self._hedges.take(model):
            return None
        place, hedge = None, None
        try:
            place = await self._dispatcher.find_now(job, errand.route, (*errand.tried, flight.deployment.id))
            if place and await self._purse.covers(job, errand.attempts, calls=2):
                # The first call's stream may have begun meanwhile: the number is taken all the same.
                lease = await self.lease(job, place.deployment, errand.route.most_calls, held=errand.n, goes_on=True)
                if lease.state == "granted":
                    errand.n = lease.n
                    call = Call(lease.n, place.deployment, self._clock(), model.name, flight.call.refusable, hedge=True)
                    hedge = self._flight(errand, run, call, place, None)
                    hedge.beaten = run.cancelled
        except Exception:
            log.exception("no second call can be made for %s", job.id)
        finally:
            if hedge is None:
                self._hedges.give_back(model)
                if place is not None:
                    place.give_back()
        return hedge

    def _flight(self, errand: Errand, run: Run, call: Call, place: Place, relay: Relay | None) -> Flight:
        body = policy.capped(errand.job, errand.job.body)
        if relay is not None:
            said = "".join(relay.said)
            body = policy.gone_on_with(body, said, tokens.count(said))
        flight = Flight(call, place, body, relay)
        if relay is not None:
            relay.go_on(call, _usage_of(errand.attempts, relay.call.n))
            errand.answered = flight
        elif errand.job.stream:
            flight.relay = self._calls.relay(errand.job, call, errand.traceparent, lambda: not run.cancelled)
            flight.relay.opens = lambda: _answers(errand, flight)
        errand.open.append(flight)
        return flight

    async def _fly(self, errand: Errand, run: Run, flight: Flight) -> ProviderFailure | None:
        flight.begun = True
        run.drains = errand.drains
        try:
            meter = self._purse.meter(errand.job) if errand.job.stream else None
            failure = await self._calls.make(errand.job, flight, errand.traceparent, meter)
        finally:
            flight.land()
            run.drains = errand.drains
        if failure is None:
            errand.answered = errand.answered or flight
        return failure

    async def _fly_beside(self, errand: Errand, run: Run, flight: Flight) -> ProviderFailure | None:
        """As a hedge does: until it has spoken, nothing that goes wrong with it ends the first call."""
        try:
            return await self._fly(errand, run, flight)
        except OutOfBudget:
            raise
        except Exception:
            if flight.streaming:
                raise
            log.exception("the second call for %s could not be made", errand.job.id)
            return unavailable(flight.deployment.id, "could not be asked")

    async def _book(self, errand: Errand, flight: Flight, failure: ProviderFailure | None) -> None:
        health, call = self._dispatcher.health, flight.call
        if failure is None:
            health.worked(call.deployment.id, call.started_ms, self._clock())
            await self._write(errand, flight, "completed", http_status=200, outcome="ok")
            return
        # First of all: what follows may be cut short.
        error = failure.fault.code or failure.fault.type
        await self._write(
            errand,
            flight,
            "failed",
            http_status=failure.http_status,
            error=error,
            billable=failure.billable,
            outcome=failure.kind,
        )
        if failure.kind == "denied" and await self._renewed(call.deployment, (self._clock() - call.started_ms) / 1000):
            # Another one is known now, with which it has not been tried.
            health.credential_changed(call.deployment.id, self._clock())
        else:
            errand.tried.append(call.deployment.id)
            if failure.kind != "final":
                now_ms, after_s = self._clock(), failure.retry_after_s
                health.failed(call.deployment.id, call.started_ms, now_ms, after_s, errand.model, failure.kind)

    async def _lose(self, errand: Errand, flight: Flight) -> None:
        """Writes a call down that another one has beaten, or that wasn't even made."""
        if errand.answered is not None and flight.deployment.on_disconnect == "drain":
            # Who bills a whole answer even if nobody waits for it (BerriAI/litellm#34147) bills about what the winner said.
            winner = errand.answered
            is_whole = winner.relay is None and errand.job.api is Api.CHAT
            # Of a whole answer whose tokens its provider has counted nobody has looked at the text yet.
            flight.call.text = [text_of(winner.answer)] if is_whole else winner.call.text
        await self._write(errand, flight, "cancelled", error="hedged", billable=flight.begun)

    async def _write(
        self,
        errand: Errand,
        flight: Flight,
        status: AttemptStatus,
        *,
        http_status: int | None = None,
        error: str | None = None,
        billable: bool = True,
        outcome: Outcome = "cancelled",
    ) -> None:
        """Writes a call that is over down as an attempt, and tells those who learn from it."""
        call = flight.call
        attempt = await self._books.attempt(errand.job, call, status, http_status=http_status, error=error, billable=billable)
        flight.tell(errand.job, attempt)
        if flight.begun:
            self._dispatcher.ended(errand.job, call.deployment, attempt, outcome, hung=call.hung)
        else:
            self._dispatcher.quotas.took(call.deployment, errand.job, attempt)
        errand.attempts.append(attempt)
        errand.attempts.sort(key=lambda one: one.n)
        if flight in errand.open:
            errand.open.remove(flight)

    async def _settle(self, job: Job, relay: Relay) -> None:
        try:
            await relay.settle()
        except Exception:
            log.exception("a part of the stream of %s was not acknowledged", job.id)


def _answers(errand: Errand, flight: Flight) -> bool:
    errand.answered = flight
    return True


def _usage_of(attempts: list[Attempt], n: int) -> Usage:
    return next((attempt.usage for attempt in attempts if attempt.n == n), Usage())


def _may_hedge(errand: Errand, relay: Relay | None) -> bool:
    job = errand.job
    return relay is None and job.lane is Lane.INTERACTIVE and errand.made < errand.route.most_calls


def _moves(errand: Errand, failure: ProviderFailure) -> bool:
    """Whether the route has gone on to a model that may be asked after this failure."""
    why = leads_to(failure)
    return why is not None and _may_move(errand, why) and errand.route.move(why)


def _may_move(errand: Errand, why: Why) -> bool:
    """Whether another model may be asked after this call, if it fails for this reason."""
    return errand.made < errand.route.most_calls and bool(errand.route.ahead(why))


def _to_tell(before: ProviderFailure | None, failure: ProviderFailure) -> ProviderFailure:
    """The last failure tells; but what another try may help stays so, whatever a fallback says for good."""
    return before if before and before.kind != "final" and failure.kind == "final" else failure


def _not_granted(lease: Lease, failure: ProviderFailure) -> Sent:
    match lease.state:
        case "exhausted":
            return failure.fault
        case "abandoned":
            return policy.cancelled()
        case "interrupted":
            # A dead life's stream had begun after all, which Redis heard late.
            return policy.interrupted()
        case _:
            return "lost"
