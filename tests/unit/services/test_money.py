"""Money from end to end, over the real scripts: admitted, held, sent out, tried again, put off, settled; whatever dies meanwhile.

Jobs of two keys of one team, in both lanes, against hard budgets by day, by month and in all. Routers die, completions come
twice, answers of Redis get lost, members of accounting come and go, and the day ends. Kept beside it: what every completion
that is in the log has cost, by the counter at which it must stand.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra import hierarchy
from infra.charging import Account, charge
from infra.estimates import Estimator
from infra.kafka.envelope import encode
from infra.prices import PriceBook
from infra.redis import ledger
from infra.redis.admission import Admitted, OverBudget, admit
from schemas.attempt import Attempt
from schemas.budget import NANO, Budget, Period, span_of
from schemas.completion import completion_of
from schemas.control import Team, VirtualKey
from schemas.errors import Fault
from schemas.job import Caller, Estimate, Job, JobStatus
from schemas.policy import Policy
from schemas.slip import Stage
from schemas.topics import COMPLETIONS, Lane
from schemas.usage import Usage
from services.router import parking
from services.router.parking import Later, Moment
from services.router.purse import Purse
from tests.fakes.clock import VirtualLoop
from tests.unit.services.accounting.examples import attempt
from tests.unit.services.accounting.settling import START_MS, House
from tests.unit.services.router.doubles import job

T = TypeVar("T")
CENT = NANO // 100
DAY_MS = 86_400_000
BUDGETS = {
    "team/fraud": (Budget(usd=Decimal(2), period=Period.DAY), Budget(usd=Decimal(8), period=Period.TOTAL)),
    "key/key_0": (Budget(usd=Decimal("1.2"), period=Period.DAY), Budget(tokens=2_000, period=Period.MONTH)),
}
"""By level. The tokens are never the limit, but counted with the rest."""
LEAST = int(Decimal("1.2") * NANO)

cents = st.sampled_from((5, 40, 80))
shares = st.sampled_from((0.0, 0.3, 1.0))


@dataclass
class Work:
    """A job, the calls that were made for it, and whether a router is at it."""

    job: Job
    running: bool = False
    calls: int = 0
    made: list[Attempt] = field(default_factory=list[Attempt])

    @property
    def cost(self) -> int:
        assert self.job.estimate is not None
        return self.job.estimate.usd_nano


class Money(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.skipped_ms, self.count = DAY_MS * 2 // 3 - 60_000, 0
        self.runner.run(self._begin())
        self.work: dict[str, Work] = {}
        self.told: list[bytes] = []
        self.spent: Counter[str] = Counter()
        self.seen: set[str] = set()

    async def _begin(self) -> None:
        self.house = House(clock=self.now)
        table = self.house.table
        table.put(Team(id="t", name="fraud", organization="acme", policy=Policy(budgets=BUDGETS["team/fraud"])))
        for n in range(2):
            policy = Policy(budgets=BUDGETS.get(f"key/key_{n}", ()))
            table.put(VirtualKey(id=f"key_{n}", sha256=f"{n}", last4="0000", team="fraud", policy=policy))
        self.purse = Purse(table, self.house.redis, Estimator(table, PriceBook()), self.now)
        await self.house.open()
        await self.house.join()

    def now(self) -> int:
        """A minute before midnight, when it begins."""
        return START_MS + self.skipped_ms + round(self.runner.get_loop().time() * 1000)

    def run_(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asked)

    # Jobs come.

    def _new(self, lane: Lane, key: int, amount: int) -> Job:
        self.count += 1
        now_ms = self.now()
        return job(
            id=f"job_{self.count:032x}",
            lane=lane,
            caller=Caller(organization="acme", team="fraud", key_id=f"key_{key}"),
            estimate=Estimate(input_tokens=1, output_tokens=1, usd_nano=amount * CENT),
            accepted_ms=now_ms,
            deadline_ms=now_ms + (600_000 if lane is Lane.INTERACTIVE else 20 * DAY_MS),
        )

    @rule(key=st.integers(0, 1), amount=cents)
    def chat(self, key: int, amount: int) -> None:
        """An interactive job is admitted, and sent out at once."""
        made = self._new(Lane.INTERACTIVE, key, amount)
        account = Account(hierarchy.levels(self.house.table, made.caller), "UTC")
        asked = charge(account, made.lane, made.estimate, made.accepted_ms, made.deadline_ms)
        decision = self.run_(admit(self.house.redis, asked, job_id=made.id))
        if isinstance(decision, Admitted):
            self.work[made.id] = Work(made, running=True)
        else:
            assert isinstance(decision, OverBudget)
            assert decision.spent + decision.held + asked.usd_nano > decision.limit, "nothing that fits is refused"

    @rule(key=st.integers(0, 1), amount=cents)
    def line(self, key: int, amount: int) -> None:
        """A batch job is accepted, and waits."""
        made = self._new(Lane.BATCH, key, amount)
        self.work[made.id] = Work(made)

    # The router.

    @precondition(lambda self: self._waiting)
    @rule()
    def send_out(self) -> None:
        """The router takes what waits, as far as there is money for it."""
        for work in self._waiting:
            self._send_out(work)

    def _send_out(self, work: Work) -> None:
        taken = work.job.taken(Stage.ROUTER, self.now())
        held = self.run_(self.purse.hold(taken, Moment(self.now(), 0.0)))
        if isinstance(held, bool):
            work.job, work.running, work.made = taken, True, list(taken.made)
        elif isinstance(held, Later):
            work.job = parking.put_off(taken, taken.made, held)
        else:
            assert isinstance(held, Fault)
            assert not taken.made
            self._complete(taken, (), fault=held)

    @precondition(lambda self: self._running)
    @rule(data=st.data(), share=shares)
    def fail_and_try_again(self, data: st.DataObject, share: float) -> None:
        """A call has failed that must be paid. Without money for another one the job ends with that."""
        work = self._one(data, self._running)
        self._call(work, share)
        if not self.run_(self.purse.covers(work.job, work.made)):
            self._complete(work.job, work.made)

    @precondition(lambda self: any(work.job.lane is Lane.BATCH for work in self._running))
    @rule(data=st.data(), share=shares, paid=st.booleans())
    def fail_and_come_again(self, data: st.DataObject, share: float, paid: bool) -> None:
        """A batch job is put off after a call that may have cost something.

        But not so much that it never fits any more: it would fail when it comes again, and be counted on that day, though what
        it has cost is held on the day before. That is a gap which is known.
        """
        work = self._one(data, [work for work in self._running if work.job.lane is Lane.BATCH])
        if paid and self._cost_of(work.made) + 2 * work.cost <= LEAST:
            self._call(work, share)
        if self._cost_of(work.made) + work.cost > LEAST:
            return
        self.run_(self.purse.give_back(work.job, work.made))
        work.job, work.running = parking.put_off(work.job, work.made, Later(self.now() + 1_000, "failed")), False

    @precondition(lambda self: any(work.job.lane is Lane.BATCH for work in self._running))
    @rule(data=st.data())
    def router_dies(self, data: st.DataObject) -> None:
        """Before it called anybody: the job is delivered again, as it was."""
        work = self._one(data, [work for work in self._running if work.job.lane is Lane.BATCH])
        work.running, work.made = False, list(work.job.made)
        work.job = work.job.model_copy(update={"steps": work.job.steps[:-1]})

    @precondition(lambda self: any(work.job.lane is Lane.INTERACTIVE for work in self._running))
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """An interactive job of which nobody ever hears again."""
        del self.work[self._one(data, [work for work in self._running if work.job.lane is Lane.INTERACTIVE]).job.id]

    @precondition(lambda self: self._running)
    @rule(data=st.data(), share=shares, twice=st.booleans())
    def end(self, data: st.DataObject, share: float, twice: bool) -> None:
        work = self._one(data, self._running)
        self._call(work, share)
        self._complete(work.job, work.made, twice=twice)

    # Accounting, and time.

    @rule(seconds=st.sampled_from((0, 2, 20)))
    def wait(self, seconds: int) -> None:
        self.run_(asyncio.sleep(seconds))
        self._bury()

    @rule()
    def midnight(self) -> None:
        """The next day begins."""
        rest_ms = DAY_MS - self.now() % DAY_MS
        self.skipped_ms += max(0, rest_ms - 1_000)
        self._bury()
        self.nothing_is_overshot()
        self.wait(2)

    @rule(what=st.sampled_from(("lost", "gone", "rebalance", "restart", "sweep")))
    def trouble(self, what: str) -> None:
        match what:
            case "lost" | "gone":
                self.house.redis.faults.append("after" if what == "lost" else "before")
            case "rebalance":
                self.run_(self.house.log.rebalance("sluice-settlement"))
            case "restart":
                self.run_(self._restart())
            case _:
                self.run_(ledger.sweep(self.house.redis))

    async def _restart(self) -> None:
        """What accounting has settled is remembered by Redis; what it has paid for, in case it comes again, by nobody."""
        await self.house.settled()
        await self.house.crash()
        await self.house.join()

    # What holds at any time.

    @invariant()
    def nothing_is_overshot(self) -> None:
        counters = self._counters(self.now()) | self.seen
        self.seen = counters
        for counter, counted in self.run_(ledger.counted(self.house.redis, sorted(counters))).items():
            limit = self._limit(counter)
            assert counted.held_usd_nano >= 0, counter
            assert counted.held_tokens >= 0, counter
            assert counted.usd_nano <= self.spent[counter] <= limit, counter
            assert counted.usd_nano + counted.held_usd_nano <= limit, counter

    def teardown(self) -> None:
        try:
            for work in list(self.work.values()):
                if work.running:
                    self._call(work, 1.0)
                self._complete(work.job, work.made)
            self.skipped_ms += 30 * DAY_MS
            self.run_(self._end())
        finally:
            self.run_(self.house.close())
            self.runner.close()

    async def _end(self) -> None:
        await self.house.settled()
        await asyncio.sleep(30)
        assert await ledger.open_holds(self.house.redis) == []
        for counter, counted in (await ledger.counted(self.house.redis, sorted(self.seen))).items():
            assert (counted.held_usd_nano, counted.held_tokens) == (0, 0), counter
            if counter.endswith(":total"):
                assert counted.usd_nano == self.spent[counter], counter

    # How it is done.

    @property
    def _waiting(self) -> list[Work]:
        return [work for work in self.work.values() if not work.running and work.job.not_before_ms <= self.now()]

    @property
    def _running(self) -> list[Work]:
        return [work for work in self.work.values() if work.running]

    def _one(self, data: st.DataObject, among: list[Work]) -> Work:
        return among[data.draw(st.integers(0, len(among) - 1))]

    def _call(self, work: Work, share: float) -> None:
        """A call that costs a share of what it may."""
        cost = Decimal(int(work.cost * share)).scaleb(-9)
        made = attempt(
            work.calls, id=f"att_{work.job.id}_{work.calls}", cost_usd=cost, usage=Usage(input_tokens=1, output_tokens=1)
        )
        work.calls += 1
        work.made.append(made)

    @staticmethod
    def _cost_of(made: Sequence[Attempt]) -> int:
        return sum(int(one.cost_usd * NANO) for one in made)

    def _complete(self, given: Job, made: Any, *, fault: Fault | None = None, twice: bool = False) -> None:
        """Its completion is in the log. `twice`: whoever published it died before he noted that, and did it again."""
        self.work.pop(given.id, None)
        status = JobStatus.FAILED if fault else JobStatus.COMPLETED
        fact = completion_of(given, status, "router", self.now(), fault=fault, attempts=tuple(made))
        record = encode(fact, topic=COMPLETIONS.name, key=given.id, event_id="e", source="router", now_ms=0)
        for _ in range(1 + twice):
            self.house.log.append(record)
        taken = [step.at_ms for step in given.steps if step.stage == "router"]
        at_ms = taken[-1] if given.lane is Lane.BATCH and taken else given.accepted_ms
        for counter in self._counters(at_ms):
            if not counter.startswith("spend:key/") or counter.startswith(f"spend:key/{given.caller.key_id}:"):
                self.spent[counter] += self._cost_of(made)

    def _bury(self) -> None:
        """Interactive jobs whose deadline has passed have ended, and nobody has told of it."""
        for work in self._running:
            if work.job.lane is Lane.INTERACTIVE and work.job.deadline_ms <= self.now():
                del self.work[work.job.id]

    def _counters(self, at_ms: int) -> set[str]:
        return {f"spend:{scope}:{span_of(budget.period, at_ms).id}" for scope, budgets in BUDGETS.items() for budget in budgets}

    def _limit(self, counter: str) -> int:
        scope, name = counter.removeprefix("spend:").rsplit(":", 1)
        kind = {5: Period.TOTAL, 7: Period.MONTH, 10: Period.DAY}[len(name)]
        usd = next(budget.usd for budget in BUDGETS[scope] if budget.period is kind)
        return 9_000_000 * NANO if usd is None else int(usd * NANO)


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
