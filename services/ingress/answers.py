"""What becomes of a job after its admission, as the connection that waits sees it: sent, followed, or left behind."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field

from infra.kafka.inbox import Inbox
from infra.kafka.post import Post
from infra.kafka.waiter import Waiter
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from schemas.errors import DeadlineExceeded, InternalError, Overloaded, Unavailable
from schemas.job import Job, ReplyTo
from schemas.reply import Delta, Event, Opened, Served
from schemas.ticket import Ended
from services.ingress.handler import CallerGone
from services.ingress.idempotency import LINGER_S, Repeatable, gave_up_waiting

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
_SUBMIT_S = 2.0
_GRACE_S = 0.5
_MOST_LINGERING = 10_000


@dataclass(slots=True)
class Client:
    """A connection that waits for a job. `gone` is done when it has closed.

    `stays`: the job goes on without it. `again`: how it would come back, and `number` how many had come back before it.
    """

    gone: "asyncio.Future[None]"
    stays: bool = False
    again: Repeatable | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the events of a job stand, and until when they may come."""

    job_id: str
    partition: int
    accepted_ms: int
    deadline_ms: int


@dataclass(slots=True)
class _Silence:
    """Since when nothing was said to the client."""

    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def broken(self) -> None:
        self.since = asyncio.get_running_loop().time()

    @property
    def seconds(self) -> float:
        return asyncio.get_running_loop().time() - self.since


class Answers:
    """Sends jobs on their way and gives their events to the connections that wait."""

    def __init__(self, platform: Platform, inbox: Inbox, post: Post, records: JobRecords) -> None:
        self._platform = platform
        self._inbox = inbox
        self._post = post
        self._records = records
        self._tickets = platform.tickets
        self._lingering: set[asyncio.Task[None]] = set()

    def reply_to(self) -> ReplyTo:
        """Our address. Raises Overloaded if too many wait here already."""
        if self._inbox.full:
            raise Overloaded("Too many requests are waiting. Try again.", retry_after_s=1)
        return ReplyTo(kind="inbox", partition=self._inbox.partition)

    async def submit(self, job: Job, traceparent: str, again: Repeatable | None = None) -> None:
        """Returns when the job is on its way, whatever becomes of its caller. Raises Unavailable: it may be so all the same.

        Then the job is abandoned, unless its caller can come back to it.
        """
        try:
            await self._forward(job, traceparent, again)
        except Unavailable:
            if again is None:
                await asyncio.shield(self._abandon(job.id, job.deadline_ms, ""))
            raise

    def insist(self, job: Job, traceparent: str, again: Repeatable, after_s: float) -> None:
        """Sends a job after a while, if whoever was about to send it hasn't by then: he may have died, or got no answer."""
        if len(self._lingering) < _MOST_LINGERING:
            self._in_background(self._insist(job, traceparent, again, after_s))

    async def _insist(self, job: Job, traceparent: str, again: Repeatable, after_s: float) -> None:
        while self._platform.clock() < job.deadline_ms:
            await asyncio.sleep(after_s)
            try:
                if await self._tickets.is_sent(again.key):
                    return
                await self._forward(job, traceparent, again)
                return
            except (RedisUnavailable, Unavailable) as error:
                log.info("%s is still to be sent: %s", job.id, error)
                after_s = 1.0

    async def events(self, job: Job, traceparent: str, client: Client) -> AsyncGenerator[Event | None]:
        """Sends the job, and gives its events to its last, and None whenever nothing came for `KEEP_ALIVE_S`.

        Raises SluiceError if the job can't be sent or its deadline passes, CallerGone once the client has closed its connection.
        If this ends before the job does, and nobody can come back to it, no provider is called for it any more: it is abandoned,
        and cancelled where it is at work.
        """
        silence, ended = _Silence(), False
        with self._inbox.expect(job.id) as waiter:
            try:
                await self._forward(job, traceparent, client.again)
                async for event in self._listen(whereabouts(job), waiter, client.gone):
                    ended = is_last(event)
                    silence.broken()
                    yield event
            finally:
                if not ended:
                    await asyncio.shield(self._leave(job.id, job.deadline_ms, client, silence.seconds))

    async def events_of_detached(self, job: Job, traceparent: str, client: Client) -> AsyncGenerator[Event | None]:
        """As `events` of a job that goes on without its client; the first, None, says that it is on its way."""
        with self._inbox.expect(job.id) as waiter:
            await self.submit(job, traceparent, client.again)
            yield None
            async for event in self._listen(whereabouts(job), waiter, client.gone):
                yield event

    async def follow(self, place: Whereabouts, client: Client) -> AsyncGenerator[Event | None]:
        """The events of a job that was sent before, from its first; otherwise as `events`."""
        silence, ended = _Silence(), False
        try:
            async with self._inbox.follow(place.job_id, place.partition, place.accepted_ms) as waiter:
                async for event in self._listen(place, waiter, client.gone):
                    ended = is_last(event)
                    silence.broken()
                    yield event
        finally:
            if not ended:
                await asyncio.shield(self._leave(place.job_id, place.deadline_ms, client, silence.seconds))

    async def cancel(self, job_id: str, deadline_ms: int) -> None:
        """No provider is called for the job any more, and a call that runs is closed. Raises RedisUnavailable."""
        await self._records.abandon(job_id, deadline_ms - self._platform.clock())
        await self._post.cancel(job_id, "its caller cancelled it")

    async def stop(self) -> None:
        """Jobs whose clients may still come back go on: who comes back finds another instance."""
        for task in self._lingering:
            task.cancel()
        await asyncio.gather(*self._lingering, return_exceptions=True)

    async def _forward(self, job: Job, traceparent: str, again: Repeatable | None) -> None:
        try:
            async with asyncio.timeout(_SUBMIT_S):
                await self._post.forward(job, traceparent)
        except TimeoutError:
            # The record may still be written when the broker wakes; the router refuses abandoned jobs.
            raise Unavailable("The queue does not answer. Try again.", code="queue_unavailable", retry_after_s=2) from None
        if again is not None:
            try:
                await self._tickets.sent(again.key)
            except RedisUnavailable:
                # Who comes back sends it once more: the same job.
                log.info("%s is on its way, which could not be noted", job.id)

    async def _listen(self, place: Whereabouts, waiter: Waiter, gone: "asyncio.Future[None]") -> AsyncGenerator[Event | None]:
        event = None
        while event is None or not is_last(event):
            event = await self._next(place, waiter, gone)
            yield event

    async def _next(self, place: Whereabouts, waiter: Waiter, gone: "asyncio.Future[None]") -> Event | None:
        rest_s = (place.deadline_ms - self._platform.clock()) / 1000 + _GRACE_S
        match await waiter.next(min(rest_s, KEEP_ALIVE_S), gone):
            case "gone":
                raise CallerGone
            case "late" if rest_s > KEEP_ALIVE_S:
                return None
            case "late":
                seconds = (place.deadline_ms - place.accepted_ms) / 1000
                raise DeadlineExceeded(f"No answer came within {seconds:g} s. Raise x-sluice-timeout or use the batch lane.")
            case "lost":
                raise InternalError("Some of the answer was lost on its way. Try again.")
            case event:
                return event

    async def _leave(self, job_id: str, deadline_ms: int, client: Client, quiet_s: float) -> None:
        if client.stays:
            return
        again = client.again
        if again is None or not gave_up_waiting(again.patience_s, quiet_s) or len(self._lingering) >= _MOST_LINGERING:
            await self._abandon(job_id, deadline_ms, again.key if again else "")
            return
        self._in_background(self._linger(job_id, deadline_ms, again, client.number))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self, job_id: str, deadline_ms: int, again: Repeatable, number: int) -> None:
        """Leaves the job to whoever has come back meanwhile, or abandons it."""
        await asyncio.sleep(LINGER_S)
        try:
            if await self._tickets.attached(again.key) > number:
                return
        except RedisUnavailable as error:
            log.warning("%s goes on, though perhaps nobody waits for it: %s", job_id, error)
            return
        await self._abandon(job_id, deadline_ms, again.key)

    async def _abandon(self, job_id: str, deadline_ms: int, claim_key: str) -> None:
        rest_ms = deadline_ms - self._platform.clock()
        try:
            if claim_key:
                await self._tickets.forget(claim_key)
            await self._records.abandon(job_id, rest_ms)
            async with asyncio.timeout(_SUBMIT_S):
                await self._post.cancel(job_id, "nobody waits for the answer")
        except (RedisUnavailable, TimeoutError) as error:
            log.warning("%s could not be abandoned cleanly: %s", job_id, error)


def whereabouts(job: Job) -> Whereabouts:
    return Whereabouts(job.id, job.reply_to.partition, job.accepted_ms, job.deadline_ms)


def is_last(event: Event | None) -> bool:
    """True if nothing more of the job comes."""
    return event is not None and event.kind in ("answer", "closed", "failed")


async def retold(ended: Ended) -> AsyncGenerator[Event | None]:
    """The events of a job that has ended, as they are kept."""
    if ended.stream:
        yield Opened(served=Served())
        yield Delta(data=ended.stream)
    yield ended.last
