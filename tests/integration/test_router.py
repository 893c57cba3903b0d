"""The router with real Kafka, real Redis and a provider that keeps books of its own."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.mock_answers import answer_text
from benchmarks.mock_provider import MockProvider
from infra.clock import new_id, now_ms
from infra.embedded.stack import Stack
from infra.kafka.broker import Reader
from infra.kafka.envelope import decode
from infra.kafka.log import Partition
from infra.platform import Platform, open_platform
from infra.settings import Settings
from schemas.base import JsonObject
from schemas.completion import Completion
from schemas.control import Deployment, Model
from schemas.job import Api, Caller, Job, JobStatus, ReplyTo
from schemas.policy import EffectivePolicy
from schemas.reply import Answer, Closed, Delta, Event, Failed, Opened, Reply
from schemas.slip import Stage
from schemas.topics import COMPLETIONS, REPLIES, Lane
from services.router.app import RouterService, build

ADDRESS = 7


class Door:
    """Sends jobs to the router as the stage before it would, and reads what comes back."""

    def __init__(self, platform: Platform, replies: Reader, completions: Reader, alias: str) -> None:
        self._platform, self._replies, self._completions, self._alias = platform, replies, completions, alias
        self.replies: list[Reply] = []
        self.completions: list[Completion] = []

    async def send(self, stream: bool = False, copies: int = 1, timeout_s: float = 60) -> Job:
        now = now_ms()
        body: JsonObject = {"model": self._alias, "messages": [{"role": "user", "content": "what is it"}]}
        job = Job(
            id=new_id("job", now),
            api=Api.CHAT,
            lane=Lane.INTERACTIVE,
            model=self._alias,
            body=body | ({"stream": True} if stream else {}),
            stream=stream,
            caller=Caller(organization="o", team="t", key_id="k"),
            policy=EffectivePolicy(version="1"),
            slip=(Stage.ROUTER,),
            way=(Stage.ROUTER,),
            accepted_ms=now,
            deadline_ms=now + int(timeout_s * 1000),
            reply_to=ReplyTo(kind="inbox", partition=ADDRESS),
        )
        signed = self._platform.signer.sign(job)
        for _ in range(copies):
            await self._platform.post("cache").forward(signed, "")
        return signed

    async def completion(self, job: Job) -> Completion:
        """How the job ended; what came for others is remembered."""
        while True:
            for completion in self.completions:
                if completion.job_id == job.id:
                    return completion
            for record in await self._completions.poll(1):
                decoded = decode(record, Completion)
                assert isinstance(decoded, Completion)
                self.completions.append(decoded)

    async def events(self, job: Job, last: bool = True) -> list[Event]:
        """The events of a job, in order, to the last one, or as far as there are any."""
        while True:
            own = [reply for reply in self.replies if reply.job_id == job.id]
            if own and (own[-1].is_last or not last):
                # A failure may be told by a router that doesn't know how far the stream had come.
                in_order = [reply.seq for reply in own if reply.event.kind != "failed"]
                assert in_order == list(range(len(in_order)))
                return [reply.event for reply in own]
            for record in await self._replies.poll(1):
                decoded = decode(record, Reply)
                assert isinstance(decoded, Reply)
                self.replies.append(decoded)


@pytest.fixture
async def provider() -> AsyncGenerator[MockProvider]:
    async with MockProvider() as started:
        yield started


@pytest.fixture
def settings(stack: Stack, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, kafka=stack.kafka, redis=stack.redis, slot="0", drain_s=0.2, redis_timeout_s=2)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Platform]:
    platform = await open_platform(settings, "test")
    yield platform
    await platform.close()


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[RouterService]:
    """A router in a life of its own, until the block ends: then it drains."""
    async with opened(settings) as platform:
        service = build(platform)
        await service.start()
        while service.not_ready():  # noqa: ASYNC110 - a service has no event for that
            await asyncio.sleep(0.01)
        yield service
        await service.drain()
        await service.stop()


@asynccontextmanager
async def door(settings: Settings, provider: MockProvider, model: str = "mock") -> AsyncGenerator[Door]:
    async with opened(settings) as platform:
        alias = f"alias-{secrets.token_hex(4)}"
        target = Deployment(id=f"{alias}-1", provider="openai", model=model, api_base=provider.base_url)
        await platform.control.write(Model(name=alias, deployments=(target,)))
        replies = await platform.kafka.reader([Partition(REPLIES.name, ADDRESS)])
        completions = await platform.kafka.reader([Partition(COMPLETIONS.name, n) for n in range(COMPLETIONS.partitions)])
        await replies.seek_to_end()
        await completions.seek_to_end()
        yield Door(platform, replies, completions, alias)
        await replies.stop()
        await completions.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


async def test_a_job_is_answered_and_told_of(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider) as caller, running(settings):
        job = await caller.send()
        [event] = await caller.events(job)
        assert isinstance(event, Answer)
        assert answer_text("what is it") in event.body
        completion = await caller.completion(job)
        [attempt] = completion.attempts
        assert (completion.status, attempt.status) == (JobStatus.COMPLETED, "completed")
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (3, 12)
        assert provider.ledger.entries()[0].marker == attempt.id


async def test_a_stream_comes_in_order(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider, "mock-chunkms-5") as caller, running(settings):
        job = await caller.send(stream=True)
        opening, *deltas, closing = await caller.events(job)
        assert isinstance(opening, Opened)
        assert closing == Closed()
        data = "".join(data for delta in deltas if isinstance(delta, Delta) for data in delta.data)
        assert data.count('"content"') == 13
        assert (await caller.completion(job)).usage.source == "provider"


async def test_a_copy_of_a_job_calls_nobody(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider, "mock-latency-200") as caller, running(settings):
        job = await caller.send(copies=3)
        later = await caller.send()
        await caller.completion(job)
        await caller.completion(later)
    async with running(settings), opened(settings) as platform:
        assert (await platform.records("router").lease(job.id, 1000, lease_ms=1, attempts=3)).state == "done"
    assert len(provider.ledger.entries()) == 2
    assert [completion.job_id for completion in caller.completions].count(job.id) == 1


async def test_a_cancel_reaches_the_provider(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider, "mock-words-2000-chunkms-5") as caller, running(settings), opened(settings) as platform:
        job = await caller.send(stream=True)
        assert isinstance((await caller.events(job, last=False))[0], Opened)
        await platform.records("ingress").abandon(job.id, 60_000)
        await platform.post("ingress").cancel(job.id, "test")
        completion = await caller.completion(job)
        await until(lambda: provider.ledger.in_flight == 0)
    assert completion.status is JobStatus.CANCELLED
    assert completion.usage.source == "estimated"
    assert provider.ledger.entries()[0].outcome == "client_gone"


async def test_who_comes_after_a_drain_calls_again_and_tells_of_both(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider) as caller:
        provider.script("mock", ["hang"])
        async with running(settings):
            job = await caller.send()
            await until(lambda: provider.ledger.in_flight == 1)
        async with running(settings):
            [event] = await caller.events(job)
            completion = await caller.completion(job)
    assert isinstance(event, Answer)
    assert [(attempt.n, attempt.status) for attempt in completion.attempts] == [(1, "unknown"), (2, "completed")]
    assert completion.attempts[0].deployment == completion.attempts[1].deployment


async def test_who_comes_after_a_drain_ends_a_stream_that_had_begun(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider, "mock-words-2000-chunkms-5") as caller:
        async with running(settings):
            job = await caller.send(stream=True)
            await caller.events(job, last=False)
        async with running(settings):
            completion = await caller.completion(job)
        last = (await caller.events(job))[-1]
    assert isinstance(last, Failed)
    assert last.fault.code == "stream_interrupted"
    assert [attempt.status for attempt in completion.attempts] == ["unknown"]
    assert len(provider.ledger.entries()) == 1


async def test_the_deadline_ends_the_call(settings: Settings, provider: MockProvider) -> None:
    async with door(settings, provider, "mock-hang") as caller, running(settings):
        job = await caller.send(timeout_s=1)
        [event] = await caller.events(job)
        assert isinstance(event, Failed)
        assert event.fault.code == "deadline_exceeded"
        assert (await caller.completion(job)).status is JobStatus.EXPIRED
        await until(lambda: provider.ledger.in_flight == 0)
