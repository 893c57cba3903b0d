"""A router whose Redis, Kafka and providers are scripts. Time is virtual where the test says so."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from pydantic_core import to_json

from infra.clock import Clock
from infra.estimates import Estimator
from infra.kafka.carriage import Delivery, Outcome, PutOff
from infra.kafka.post import Post
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import JobRecords, Lease
from infra.redis.quota import Taken, Wish
from infra.signing import Signer
from infra.telemetry.spans import Tracing
from schemas.base import JsonObject
from schemas.control import Deployment, Model, Price
from schemas.errors import Fault
from schemas.job import Api, CacheRequest, Caller, Job, ReplyTo
from schemas.policy import EffectivePolicy
from schemas.reply import Event
from schemas.slip import Stage
from schemas.topics import Lane
from services.router.auto.base import Judged
from services.router.books import Books
from services.router.calling import Calls
from services.router.chooser import Chooser
from services.router.dispatch import Dispatcher
from services.router.gates.composite import Gates
from services.router.gates.prometheus import Reading
from services.router.handler import Router
from services.router.health import Health
from services.router.hedging import Hedges
from services.router.leases import Running
from services.router.places import Places
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.purse import Purse
from services.router.quota import Quotas
from services.router.sending import Sender
from services.router.shadow import Shadows
from services.router.strategies.base import Chance
from services.router.strategies.composite import Strategies
from services.router.tally import Tally
from tests.fakes.redis import LuaRedis

START_MS = 1_800_000_000_000
GRANTED = Lease("granted", n=1)


def deployment(name: str = "d1", **changes: Any) -> Deployment:
    """A deployment with a price of 1 USD per thousand tokens in, 2 USD out."""
    price = Price(input_usd=Decimal("0.001"), output_usd=Decimal("0.002"))
    given: dict[str, Any] = {"id": name, "provider": "openai", "model": "real-model", "price": price}
    return Deployment(**(given | changes))


def model(*deployments: Deployment) -> Model:
    return Model(name="alias", deployments=deployments or (deployment(),))


def job(**changes: Any) -> Job:
    """A chat with a deadline of 60 s."""
    given: dict[str, Any] = {
        "id": "job_018f00000000700080000000000000aa",
        "api": Api.CHAT,
        "lane": Lane.INTERACTIVE,
        "model": "alias",
        "body": {"model": "alias", "messages": [{"role": "user", "content": "hello there"}]},
        "caller": Caller(organization="org", team="team", key_id="key_1"),
        "policy": EffectivePolicy(version="1"),
        "slip": (Stage.ROUTER,),
        "way": (Stage.ROUTER,),
        "accepted_ms": START_MS,
        "deadline_ms": START_MS + 60_000,
        "reply_to": ReplyTo(kind="inbox"),
        "cache": CacheRequest(key="k", status="miss"),
    }
    return Job(**(given | changes))


def answer(text: str = "hi", usage: JsonObject | None = None) -> str:
    """A whole chat answer, with usage 5 in and 2 out unless another is given ({}: none)."""
    body: JsonObject = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7} if usage is None else usage,
    }
    return to_json(body).decode()


def chunk(text: str | None = None, finish: str | None = None, role: str | None = None) -> str:
    """An event of a chat stream."""
    delta = {name: value for name, value in (("role", role), ("content", text)) if value is not None}
    return to_json({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}).decode()


def usage_chunk(given: int = 5, made: int = 2) -> str:
    return to_json({"id": "c", "choices": [], "usage": {"prompt_tokens": given, "completion_tokens": made}}).decode()


STREAM = ([chunk("", role="assistant"), chunk("one")], [chunk(" two")], [chunk(finish="stop"), usage_chunk(), DONE])


def failure(kind: str = "unavailable", status: int = 500, **changes: Any) -> ProviderFailure:
    fault = Fault(status=502, type="api_error", code="provider_error", message="it broke", owner="provider")
    return ProviderFailure(cast("Any", kind), fault, http_status=status, **changes)


class Hangs:
    """In a script: nothing more comes."""


@dataclass
class ScriptedProvider:
    """Answers each call by the next step: a body, batches of a stream, an exception, or a silence."""

    script: deque[object] = field(default_factory=deque[object])
    asked: list[ProviderRequest] = field(default_factory=list[ProviderRequest])
    closed: int = 0

    async def call(self, request: ProviderRequest) -> str:
        self.asked.append(request)
        try:
            return cast("str", await _done(self.script.popleft()))
        finally:
            self.closed += 1

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        self.asked.append(request)
        steps = self.script.popleft()
        try:
            for step in cast("Sequence[object]", steps if isinstance(steps, list | tuple) else [steps]):
                yield cast("Sequence[str]", await _done(step))
        finally:
            self.closed += 1


async def _done(step: object) -> object:
    if isinstance(step, Hangs):
        await asyncio.Event().wait()
    if isinstance(step, Exception):
        raise step
    if callable(step):
        return await cast("Callable[[], Awaitable[object]]", step)()
    return step


@dataclass
class FakeRecords:
    """Leases by script, then granted with the next number; everything else is written down."""

    leases: deque[Lease | RedisUnavailable] = field(default_factory=deque[Lease | RedisUnavailable])
    calls: list[str] = field(default_factory=list[str])
    asks: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    kept: bytes = b""
    late: bool = False
    down: deque[RedisUnavailable] = field(default_factory=deque[RedisUnavailable])
    notes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    async def lease(self, job_id: str, rest_ms: int, **asked: object) -> Lease:
        self.asks.append(asked)
        lease = self.leases.popleft() if self.leases else self._grant(job_id, asked)
        if isinstance(lease, RedisUnavailable):
            raise lease
        return lease

    def _grant(self, job_id: str, asked: dict[str, object]) -> Lease:
        notes = self.notes.setdefault(job_id, [])
        before = tuple(notes)
        if len(before) >= cast("int", asked["attempts"]):
            return Lease("exhausted", n=len(before), notes=before)
        notes.append(cast("str", asked["note"]))
        return Lease("granted", n=len(notes), notes=before)

    async def streamed(self, job_id: str) -> None:
        self.calls.append("streamed")
        if self.down:
            raise self.down.popleft()

    async def answered(self, job_id: str, rest_ms: int, answer: bytes) -> bool:
        self.calls.append("answered")
        if self.down:
            raise self.down.popleft()
        self.kept = answer
        return not self.late

    async def release(self, job_id: str) -> None:
        self.calls.append("release")

    async def renew(self, job_ids: Sequence[str], lease_ms: int) -> None:
        self.calls.append(f"renew {len(job_ids)}")


@dataclass
class FakePost:
    """What was handed over, in order; `log` is shared with the records, so that their order is seen."""

    log: list[str]
    sent: list[tuple[Event, int, int]] = field(default_factory=list[tuple[Event, int, int]])
    acknowledged: int = 0
    broken: bool = False

    async def begin_reply(self, job: Job, event: Event, attempt: int, seq: int, traceparent: str) -> Awaitable[object]:
        self.sent.append((event, attempt, seq))
        self.log.append(event.kind)
        return asyncio.ensure_future(self._ack())

    async def _ack(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("no broker")
        self.acknowledged += 1


class Bench:
    """A router on the bench. `chance` is 0 unless said otherwise: the first deployment, and no backoff.

    `redis`: of the real scripts for its leases too, which else go by script.
    """

    def __init__(
        self,
        *script: object,
        table: Model | None = None,
        clock: Clock | None = None,
        chance: Chance = lambda: 0.0,
        redis: LuaRedis | None = None,
    ) -> None:
        self.provider = ScriptedProvider(deque(script))
        self.records = FakeRecords()
        self.post = FakePost(self.records.calls)
        self.now_ms = START_MS
        records = JobRecords(redis, "slot", "life") if redis else cast("JobRecords", self.records)
        self.running = Running(records)
        self.control = ControlTable()
        self.control.put(table or model())
        books = Books(PriceBook())
        self.clock = clock or (lambda: self.now_ms)
        self.renewed: list[str] = []
        self.quota_waits: deque[int] = deque()
        self.wishes: list[Wish] = []
        self.charged: Counter[tuple[str, Lane]] = Counter()
        self.corrected: list[tuple[str, int, int]] = []
        self.reading: Reading | None = None
        self.health = Health()
        self.places = Places(self.health, self.clock)
        quotas = Quotas(self._charge, self._correct, self.places, self.clock)
        gates = Gates(lambda _: self.reading, quotas.share, books.input_usd_per_mtok)
        self.strategies = Strategies(self.places.busy, books.usd_of_the_same, self.clock)
        self.dispatcher = Dispatcher(
            self.health, self.places, quotas, gates, self.clock, chance, self.strategies, Tally(self.clock)
        )
        self.redis = redis or LuaRedis(self.clock)
        purse = self.purse = Purse(self.control, self.redis, Estimator(self.control, PriceBook()), self.clock)
        calls = Calls(lambda _: self.provider, cast("Post", self.post), records, Tracing(None))
        hedges = Hedges(lambda d, stream: self.strategies.p95_ms(d, stream))
        self.sender = Sender(calls, records, self.running, books, self.clock, self.dispatcher, purse, hedges, self._renew)
        chooser = Chooser(self.control, self._judge)
        self.shadows = Shadows(self.control, cast("Post", self.post), Signer(b"0" * 32), self.clock)
        self.router = Router(
            self.control, records, self.dispatcher, self.sender, self.running, books, purse, self.clock, chooser, self.shadows
        )

    async def handle(self, given: Job | None = None) -> Outcome:
        return await self.router.handle(given or job(), Delivery("00-" + "1" * 32 + "-" + "2" * 16 + "-00", suspect=False))

    async def carry(self, given: Job) -> Outcome:
        """Handles a job as the carriage and the delay topics would: what is put off comes back when its time has come."""
        while isinstance(outcome := await self.handle(given), PutOff):
            given = outcome.job
            await asyncio.sleep(max(0, given.not_before_ms - self.clock()) / 1000)
        return outcome

    async def _judge(self, text: str) -> Judged:
        raise AssertionError("nobody asks how hard it is")

    async def _renew(self, deployment: Deployment, _: float) -> bool:
        """A credential that was refused is another one now if `renewed` says so, once."""
        if deployment.id not in self.renewed:
            return False
        self.renewed.remove(deployment.id)
        return True

    async def _charge(self, deployment: Deployment, wish: Wish) -> Taken:
        self.wishes.append(wish)
        wait_ms = self.quota_waits.popleft() if self.quota_waits else 0
        self.charged[deployment.id, wish.lane] += not wait_ms
        return Taken(wait_ms, full_ms=0)

    async def _correct(self, deployment: Deployment, wish: Wish, tokens: int) -> None:
        self.corrected.append((deployment.id, wish.tokens, tokens))


def virtual_clock() -> int:
    """The time of the loop, in which a test's hours pass at once."""
    return START_MS + round(asyncio.get_running_loop().time() * 1000)


def seeded(seed: int) -> Chance:
    return random.Random(seed).random
