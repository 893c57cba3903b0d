"""A stream on its way from the provider to the connection that waits: in order, each event once, acknowledged before the end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from pydantic_core import from_json, to_json

from infra.kafka.post import Post
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords
from infra.usage import canonical
from schemas.audit import Heard
from schemas.base import JsonObject
from schemas.job import Job
from schemas.reply import Delta, Event, Opened, Served
from schemas.usage import Usage
from services.router import policy
from services.router.answers import NoAnswer, read_event
from services.router.books import Call
from services.router.providers.base import DONE, ProviderFailure
from services.router.providers.failures import content_refused, unavailable

KEPT_BYTES = 64 * 1024
"""A longer stream is not kept for the cache."""
STORED_BYTES = 448 * 1024
"""A longer one is not kept for whoever asks for the job later either; its events stay on `sluice.replies` for an hour."""

_UNACKNOWLEDGED = 16
_RETRY_S = 0.25


class Relay:
    """A job's stream, from one call, or from several that go on where the one before broke off.

    Nothing goes out before the provider has said something: until then another attempt may take its place. Then the job's record
    is marked, so that nobody begins it again, and events go out as they come. What arrived together goes out together, and while
    the brokers are behind, more arrives together. Once nothing more is `wanted`, it is read for its usage alone. Of several calls
    at once only the first for which `opens` says so goes out; the others wait to be cancelled.

    `n`: the attempt in whose name all of it goes out. `speaks`: the present `call` has said something. `said`: the text that the
    reader has, where another call may go on behind it.
    """

    def __init__(
        self, post: Post, records: JobRecords, job: Job, call: Call, traceparent: str, wanted: Callable[[], bool]
    ) -> None:
        self._post, self._records, self._job, self._traceparent = post, records, job, traceparent
        self._wanted = wanted
        self.call = call
        self.n = call.n
        self.opens: Callable[[], bool] = lambda: True
        self._held: list[str] = []
        self._acks: deque[Awaitable[object]] = deque()
        self._finished = False
        self._refused = False
        self._before: Usage | None = None
        self._only_text = True
        self._kept: list[str] | None = [] if job.keep_s or (job.cache.write and job.cache.key) else None
        self._most = STORED_BYTES if job.keep_s else KEPT_BYTES
        self._kept_bytes = 0
        self.opened = False
        self.speaks = False
        self.seq = 0
        self.said: list[str] = []
        self._unsaid: list[str] = []
        self._earlier: list[str] = []
        self._first = ""
        self._remembers = job.policy.route.on_broken_stream == "continue"

    @property
    def kept(self) -> tuple[str, ...]:
        """The events as they went out, for the cache; empty if they are not to be kept, or too long."""
        return tuple(self._kept or ())

    @property
    def heard(self) -> Heard | None:
        """What was said in it, over all its calls, if that is to be audited."""
        if self._job.policy.audited == "none":
            return None
        return Heard(text="".join((*self._earlier, *self.call.text)), first=self._first)

    @property
    def continued(self) -> bool:
        """True if more than one call made it up."""
        return self._before is not None

    @property
    def can_go_on(self) -> bool:
        """True if another call may go on behind what went out: text that hasn't come to its end, and nothing else."""
        return self.opened and self._only_text and not self._finished and self._wanted()

    def go_on(self, call: Call, before: Usage) -> None:
        """Another call goes on behind what went out, which the reader is told. `before`: what the last call has used."""
        self._earlier += self.call.text
        self.call, self._before = call, (self._before or Usage()) + before
        self._finished = self._refused = self.speaks = False
        self._held, self._unsaid = [_marker(call)], []

    async def take(self, batch: Sequence[str]) -> None:
        """Passes on what arrived. Raises ProviderFailure if it is no stream of chat chunks."""
        for data in batch:
            self.speaks |= self._read(data)
        if self._refused and self.call.refusable and not self.opened:
            raise content_refused(self.call.deployment.id)
        if not self._wanted():
            self._held, self._unsaid = [], []
        if self._held and self.speaks:
            await self._pass_on()

    async def end(self) -> None:
        """Returns when everything is acknowledged. Raises ProviderFailure if the stream broke off."""
        if not self._finished:
            raise self._broken("ended its stream before the answer was complete")
        if self._wanted() and (self._held or not self.opened):
            await self._pass_on()
        await self.settle()

    async def settle(self) -> None:
        """Returns when what went out is acknowledged."""
        while self._acks:
            await self._acks.popleft()

    def _read(self, data: str) -> bool:
        """Takes in one event; true if the provider says something with it."""
        if data.startswith(DONE):
            self._finished = True
            return False
        try:
            reading = read_event(data)
        except NoAnswer as error:
            raise self._broken(f"broke off its stream ({error})") from None
        call = self.call
        call.usage = reading.usage or call.usage
        call.service_tier = reading.service_tier or call.service_tier
        self._finished |= reading.finished
        if reading.reasons:
            call.facts.hear(reading.id, reading.model, reading.reasons)
        self._refused |= reading.refused
        self._only_text &= reading.only_text
        if self._remembers and reading.content:
            self._unsaid.append(reading.content)
        if reading.text:
            call.text.append(reading.text)
        if self._before and reading.usage:
            data = _added(data, self._before)
        # Where a stream goes on, its role is known already, and thoughts about how to go on belong to no answer.
        if self._job.include_usage if reading.usage_only else reading.answers or not self._before:
            self._held.append(data)
        return reading.says_something

    async def _pass_on(self) -> None:
        if not self.opened:
            if not self.opens():
                # Another call was first; this one is about to be cancelled.
                await asyncio.get_running_loop().create_future()
            # Set before the marking: once that is asked for, it may have happened.
            self.opened = True
        if self.call.ttft_ms is None:
            self.call.ttft_ms = self.call.elapsed_ms()
        if not self.seq:
            # Whoever goes on may find that the call before was cut short at this.
            await _until_redis(lambda: self._records.streamed(self._job.id), once=policy.goes_on_without_redis(self._job))
            await self._send(Opened(served=self._served()))
        if self._held:
            events = tuple(self._held)
            self._first = self._first or events[0]
            await self._send(Delta(data=events))
            self._keep(events)
            self.said += self._unsaid
            self._held, self._unsaid = [], []

    async def _send(self, event: Event) -> None:
        """Cut short while the event isn't handed over yet, it never was, and the next one has its number."""
        if len(self._acks) >= _UNACKNOWLEDGED:
            await self._acks.popleft()
        self._acks.append(await self._post.begin_reply(self._job, event, self.n, self.seq, self._traceparent))
        self.seq += 1

    def _keep(self, events: Sequence[str]) -> None:
        if self._kept is None:
            return
        self._kept_bytes += sum(map(len, events))
        if self._kept_bytes > self._most:
            self._kept = None
        else:
            self._kept += events

    def _served(self) -> Served:
        job, call = self._job, self.call
        return Served(
            model=call.model,
            deployment=call.deployment.id,
            cache=job.cache.status,
            verdict=job.verdict,
            provider_ms=call.ttft_ms or 0,
        )

    def _broken(self, what: str) -> ProviderFailure:
        return unavailable(self.call.deployment.id, what, http_status=200, billable=True)


def _marker(call: Call) -> str:
    """A chunk that says nothing, but tells that another call goes on from here."""
    continued = {"model": call.model, "deployment": call.deployment.id}
    choice: JsonObject = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
    chunk = {"id": f"chatcmpl-{call.n}", "object": "chat.completion.chunk", "created": call.started_ms // 1000}
    return to_json(chunk | {"model": call.model, "choices": [choice], "usage": None, "sluice": {"continued": continued}}).decode()


def _added(data: str, before: Usage) -> str:
    """The chunk with the usage of the last call, with that of the calls before it added."""
    chunk = cast("JsonObject", from_json(data))
    total = before + (canonical(cast("JsonObject", chunk["usage"])) or Usage())
    chunk["usage"] = {
        "prompt_tokens": total.input_tokens,
        "completion_tokens": total.output_tokens,
        "total_tokens": total.input_tokens + total.output_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning_tokens},
    }
    return to_json(chunk).decode()


async def _until_redis(ask: Callable[[], Awaitable[None]], *, once: bool) -> None:
    """Asks until Redis answers, or `once`: a token that goes out unmarked could come twice."""
    while True:
        try:
            return await ask()
        except RedisUnavailable:
            if once:
                return None
            await asyncio.sleep(_RETRY_S)
