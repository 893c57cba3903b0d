"""A log of completions, a Redis that fails, and whoever settles between them, in virtual time."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from infra.alerts import Alerts
from infra.clock import Clock
from infra.files import FileStore
from infra.kafka.envelope import decode, encode
from infra.kafka.log import Partition
from infra.kafka.table import ControlTable
from infra.redis import ledger
from infra.redis.admission import Allowance, Charge, Limits, admit
from infra.redis.client import Argument, RedisUnavailable, Script, Value
from infra.redis.ledger import Counted, Spent
from infra.redis.once import Once
from schemas.alert import Alert
from schemas.attempt import Attempt
from schemas.budget import NANO
from schemas.completion import Completion
from schemas.control import Organization, Team
from schemas.job import Caller
from schemas.topics import ALERTS, COMPLETIONS, Lane
from schemas.usage import Usage
from services.accounting.runaway import Watch
from services.accounting.settlement import SettlementStage
from services.accounting.shutdowns import Shutdowns
from services.accounting.signals import Signals
from services.accounting.sums import Sums
from tests.fakes.log import MemoryLog, MemorySource
from tests.fakes.redis import LuaRedis
from tests.unit.services.accounting.examples import attempt, completion

GROUP = "sluice-settlement"
START_MS = 1_800_000_000_000
CALLER = Caller(organization="acme", team="fraud", key_id="key_1")
TOTAL = "spend:team/fraud:total"

Fault = Literal["before", "after"]
"""Redis fails before it has done what was asked, or after it."""


class FlakyRedis(LuaRedis):
    """Fails as `faults` say, one call of a script named in `failing` after the other; `hangs` are waited for by settlements."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.faults: deque[Fault] = deque()
        self.failing = {"settle"}
        self.hangs: asyncio.Event | None = None
        self.asked = 0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        await asyncio.sleep(0)
        if script.name == "settle":
            self.asked += 1
            if self.hangs is not None:
                hangs, self.hangs = self.hangs, None
                await hangs.wait()
        fault = self.faults.popleft() if self.faults and script.name in self.failing else None
        if fault == "before":
            raise RedisUnavailable("Redis is gone")
        answer = self.now(script, keys, args)
        if fault == "after":
            raise RedisUnavailable("the answer got lost")
        return answer

    def lose_everything(self) -> None:
        self.keys._entries.clear()  # pyright: ignore[reportPrivateUsage]


def clock() -> int:
    return START_MS + round(asyncio.get_running_loop().time() * 1000)


@dataclass
class Member:
    """A process of accounting."""

    stage: SettlementStage
    source: MemorySource


@dataclass
class House:
    """A log of completions, a Redis, and whoever settles."""

    clock: Clock = clock
    table: ControlTable = field(default_factory=ControlTable)
    files: Any = field(default_factory=lambda: FileStore(Path("/nowhere")))
    members: list[Member] = field(default_factory=list[Member])
    calls: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    opened: int = 0

    def __post_init__(self) -> None:
        self.log, self.redis = MemoryLog(2, clock=self.clock), FlakyRedis(self.clock)
        self.table.put(Organization(id="o", name="acme"))
        self.table.put(Team(id="t", name="fraud", organization="acme"))

    async def open(self) -> None:
        assert await ledger.open_ledger(self.redis, "first", {}, {})

    async def join(self) -> Member:
        source = self.log.source(GROUP, [COMPLETIONS.name])
        alerts = Alerts(self.log, self.clock, "accounting")
        signals = Signals(self.table, alerts, self.redis)
        watch, shutdowns = Watch(self.table, alerts), Shutdowns(self.table, alerts, Once(self.redis))
        stage = SettlementStage(
            source, self.redis, self.files, Sums(self.table), watch, shutdowns, signals, alerts, self._rebuild
        )
        member = Member(stage, source)
        self.members.append(member)
        await stage.start()
        return member

    async def _rebuild(self) -> None:
        """From the books, which have everything that is in the log."""
        ends = {n: self.log.end(Partition(COMPLETIONS.name, n)) - 1 for n in range(2)}
        spent = sum((int(usd * NANO) for usd in self.calls.values()), 0)
        self.opened += 1
        await ledger.open_ledger(self.redis, f"epoch {self.opened}", ends, {TOTAL: Spent(0, spent)})

    def ended(self, n: int, *costs: str, **members: Any) -> Completion:
        """A completion of job `n`, whose calls cost so much, on its way."""
        made: tuple[Attempt, ...] = tuple(
            attempt(k, id=f"att_{n}_{k}", cost_usd=Decimal(usd), usage=Usage(input_tokens=9, output_tokens=1))
            for k, usd in enumerate(costs)
        )
        self.calls |= {call.id: call.cost_usd for call in made}
        told: dict[str, Any] = {"job_id": f"job_{n}", "caller": CALLER, "lane": Lane.INTERACTIVE, "accepted_ms": self.clock()}
        fact = completion(attempts=made, ended_ms=self.clock(), steps=(), **(told | members))
        self.log.append(encode(fact, topic=COMPLETIONS.name, key=fact.job_id, event_id="e", source="router", now_ms=0))
        return fact

    async def hold(self, n: int, usd: str = "1") -> None:
        limits = Limits(allowances=(Allowance(TOTAL, None, None, 0),))
        await admit(self.redis, Charge(limits, 10, int(Decimal(usd) * NANO), 60_000), job_id=f"job_{n}")

    async def at(self, counter: str = TOTAL) -> Counted:
        return (await ledger.counted(self.redis, [counter]))[counter]

    @property
    def behind(self) -> bool:
        """Whether Redis has still to settle something."""
        settled = [int(self.redis.keys.hget(b"ledger:settled", b"%d" % n) or b"-1") for n in range(2)]
        return any(self.log.end(Partition(COMPLETIONS.name, n)) - 1 > settled[n] for n in range(2))

    async def settled(self) -> None:
        await until(lambda: not self.behind)

    async def crash(self) -> None:
        """All of them die at once, and have committed nothing of late."""
        for member in self.members:
            tasks = member.stage._tasks  # pyright: ignore[reportPrivateUsage]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await member.source.crash()
        self.members.clear()

    async def close(self) -> None:
        for member in self.members:
            await member.stage.drain()

    def alerts(self) -> list[Alert]:
        return [found for record in self.log.records(ALERTS.name) if isinstance(found := decode(record, Alert), Alert)]


async def until(true: Callable[[], bool], patience_s: float = 600) -> None:
    """Waits, in virtual time, until it is true."""
    async with asyncio.timeout(patience_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
