"""The ledger's own scripts, run by Lua in this process: nothing is ever overshot, and nothing that was held stays held."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.redis import ledger
from infra.redis.admission import Admitted, Allowance, Charge, Closed, Limits, NoRoom, OverBudget, OverRate, Rate, Room, admit
from infra.redis.ledger import OutOfOrder, Settled, Settlement, Spent
from tests.fakes.clock import FakeClock
from tests.fakes.redis import LuaRedis

T = TypeVar("T")
DOLLAR = 1_000_000_000
LEASE_MS = 10_000


def now(asking: Coroutine[Any, Any, T]) -> T:
    """What a call gives that never waits: the Redis in this process answers at once."""
    try:
        asking.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class Bench:
    """A ledger at a time that the test chooses."""

    def __init__(self, *, opened: bool = True) -> None:
        self.clock = FakeClock()
        self.redis = LuaRedis(self.clock)
        self.offset = -1
        if opened:
            assert now(ledger.open_ledger(self.redis, "first", {}, {}))

    def admit(self, charge: Charge, job_id: str) -> object:
        return now(admit(self.redis, charge, job_id=job_id))

    def settle(self, job_id: str, spent: dict[str, int], tokens: int = 0) -> object:
        settlement = Settlement(
            settled={0: (self.offset, self.offset + 1)},
            jobs=[(job_id, tokens)],
            spent={key: Spent(0, usd_nano, tokens) for key, usd_nano in spent.items()},
        )
        self.offset += 1
        return now(ledger.settle(self.redis, settlement))

    def at(self, *counters: str) -> dict[str, ledger.Counted]:
        return now(ledger.counted(self.redis, counters))


def allowance(key: str, usd_nano: int | None = None, tokens: int | None = None) -> Allowance:
    return Allowance(key, usd_nano, tokens, 0)


def charge(
    *allowances: Allowance,
    usd_nano: int = 0,
    tokens: int = 0,
    rates: tuple[Rate, ...] = (),
    rooms: tuple[Room, ...] = (),
    holds: bool = True,
) -> Charge:
    return Charge(Limits(rates, rooms, allowances), tokens, usd_nano, LEASE_MS, holds)


def test_all_levels_or_none() -> None:
    bench = Bench()
    wide, narrow = allowance("spend:team/a:total", 100), allowance("spend:key/1:total", 10)
    assert isinstance(bench.admit(charge(wide, narrow, usd_nano=8), "job_1"), Admitted)
    refused = bench.admit(charge(wide, narrow, usd_nano=8), "job_2")
    assert refused == OverBudget(narrow, "usd", 0, 8)
    assert bench.at(wide.key)[wide.key].held_usd_nano == 8


def test_what_fits_exactly_is_admitted_and_a_nano_dollar_more_is_not() -> None:
    bench, limit = Bench(), 9_000_000 * DOLLAR
    place = allowance("spend:team/a:total", limit)
    assert isinstance(bench.admit(charge(place, usd_nano=limit - 1), "job_1"), Admitted)
    assert isinstance(bench.admit(charge(place, usd_nano=2), "job_2"), OverBudget)
    assert isinstance(bench.admit(charge(place, usd_nano=1), "job_3"), Admitted)


def test_settled_is_spent_and_the_rest_is_given_back() -> None:
    bench, place = Bench(), allowance("spend:team/a:total", 10 * DOLLAR)
    bench.admit(charge(place, usd_nano=4 * DOLLAR, tokens=100), "job_1")
    done = bench.settle("job_1", {place.key: 123_456_789_012}, tokens=7)
    assert done == Settled({place.key: (123_456_789_012, 7)})
    assert bench.at(place.key)[place.key] == ledger.Counted(123_456_789_012, 0, 7, 0)


def test_the_same_settlement_twice_counts_once() -> None:
    bench, key = Bench(), "spend:team/a:total"
    settlement = Settlement(settled={0: (-1, 4)}, jobs=[("job_1", 3)], spent={key: Spent(0, 5, 3)})
    assert now(ledger.settle(bench.redis, settlement)) == Settled({key: (5, 3)})
    assert now(ledger.settle(bench.redis, settlement)) == Settled({})
    assert bench.at(key)[key].usd_nano == 5


def test_who_lost_the_partition_settles_nothing() -> None:
    bench, key = Bench(), "spend:team/a:total"
    now(ledger.settle(bench.redis, Settlement(settled={0: (-1, 4)}, spent={key: Spent(0, 5, 3)})))
    stale = Settlement(settled={0: (2, 9)}, spent={key: Spent(0, 100, 3)})
    assert now(ledger.settle(bench.redis, stale)) == OutOfOrder({0: 4})
    assert bench.at(key)[key].usd_nano == 5


def test_what_dead_jobs_hold_is_given_back_when_somebody_needs_it() -> None:
    bench, place = Bench(), allowance("spend:team/a:total", 10)
    bench.admit(charge(place, usd_nano=10), "job_1")
    assert isinstance(bench.admit(charge(place, usd_nano=1), "job_2"), OverBudget)
    bench.clock.move(LEASE_MS + 1)
    assert isinstance(bench.admit(charge(place, usd_nano=10), "job_3"), Admitted)


def test_a_late_settlement_still_counts() -> None:
    bench, place = Bench(), allowance("spend:team/a:total", 10)
    bench.admit(charge(place, usd_nano=10), "job_1")
    bench.clock.move(LEASE_MS + 1)
    assert now(ledger.sweep(bench.redis)) == (1, True)
    bench.settle("job_1", {place.key: 9})
    assert bench.at(place.key)[place.key] == ledger.Counted(9, 0, 0, 0)


def test_a_ledger_that_was_lost_refuses_everybody_with_a_budget() -> None:
    bench = Bench(opened=False)
    assert bench.admit(charge(allowance("spend:team/a:total", 10)), "job_1") == Closed()
    assert isinstance(bench.admit(charge(rates=(Rate("team/a", 60),)), "job_1"), Admitted)
    assert now(ledger.settle(bench.redis, Settlement(settled={0: (-1, 1)}))) == ledger.LedgerClosed()


def test_it_is_opened_once_with_what_was_counted() -> None:
    bench, key = Bench(opened=False), "spend:team/a:total"
    assert now(ledger.open_ledger(bench.redis, "a", {0: 7}, {key: Spent(0, 11, 5)}))
    assert not now(ledger.open_ledger(bench.redis, "b", {0: 0}, {key: Spent(0, 99, 5)}))
    assert bench.at(key)[key].usd_nano == 11
    assert now(ledger.settle(bench.redis, Settlement(settled={0: (6, 9)}))) == OutOfOrder({0: 7})


def test_batch_only_looks_whether_anything_is_left() -> None:
    bench, place = Bench(), allowance("spend:team/a:total", 10)
    look = charge(place, usd_nano=1_000, holds=False)
    assert isinstance(bench.admit(look, "job_1"), Admitted)
    assert bench.at(place.key)[place.key].held_usd_nano == 0
    bench.settle("job_1", {place.key: 10})
    assert bench.admit(look, "job_2") == OverBudget(place, "usd", 10, 0)


def test_tokens_of_a_rate_are_corrected_to_what_was_used() -> None:
    bench, rate = Bench(), Rate("team/a", 1000, "tokens")
    first = bench.admit(charge(rates=(rate,), tokens=900), "job_1")
    assert isinstance(first, Admitted)
    assert first.rates[0].remaining == 100
    assert isinstance(bench.admit(charge(rates=(rate,), tokens=200), "job_2"), OverRate)
    bench.settle("job_1", {}, tokens=100)
    second = bench.admit(charge(rates=(rate,), tokens=200), "job_3")
    assert isinstance(second, Admitted)
    assert second.rates[0].remaining == 700


def test_places_are_taken_and_given_back() -> None:
    bench, room = Bench(), Room("team/a", 2)
    asked = charge(rooms=(room,))
    assert [type(bench.admit(asked, f"job_{n}")) for n in range(3)] == [Admitted, Admitted, NoRoom]
    bench.settle("job_0", {})
    assert isinstance(bench.admit(asked, "job_3"), Admitted)
    bench.clock.move(LEASE_MS + 1)
    assert [type(bench.admit(asked, f"job_{n}")) for n in range(4, 7)] == [Admitted, Admitted, NoRoom]


def test_a_job_that_needs_more_gets_it_if_it_fits() -> None:
    bench, place = Bench(), allowance("spend:team/a:total", 10)
    bench.admit(charge(place, usd_nano=6), "job_1")
    assert now(ledger.extend(bench.redis, "job_1", [place], 0, 4))
    assert not now(ledger.extend(bench.redis, "job_1", [place], 0, 1))
    assert not now(ledger.extend(bench.redis, "job_9", [place], 0, 0))
    bench.settle("job_1", {place.key: 9})
    assert bench.at(place.key)[place.key] == ledger.Counted(9, 0, 0, 0)


def test_what_is_delivered_again_is_held_once() -> None:
    bench, place, room = Bench(), allowance("spend:team/a:total", 10), Room("team/a", 1)
    asked = charge(place, usd_nano=6, rooms=(room,))
    assert isinstance(bench.admit(asked, "job_1"), Admitted)
    assert isinstance(bench.admit(asked, "job_1"), Admitted)
    assert bench.at(place.key)[place.key].held_usd_nano == 6
    assert isinstance(bench.admit(asked, "job_2"), NoRoom)


def test_what_is_held_can_be_seen_by_job() -> None:
    bench, place = Bench(), allowance("spend:project/a/two words:total", 10)
    bench.admit(charge(place, usd_nano=6, tokens=4), "job_1")
    assert now(ledger.open_holds(bench.redis)) == [
        ledger.OpenHold("job_1", bench.clock() + LEASE_MS, 6, 4, (place.key,)),
    ]


COUNTERS: tuple[str, ...] = (
    "spend:organization/o:total",
    "spend:team/a:2026-11",
    "spend:team/b:2026-11",
    "spend:key/1:2026-11-21",
)
LIMITS: dict[str, int] = dict(zip(COUNTERS, (1_000, 400, 300, 150), strict=True))


class Ledger(RuleBasedStateMachine):
    """Jobs are admitted, need more, end, end twice, die, and time passes; against a ledger kept by hand."""

    @initialize()
    def begin(self) -> None:
        self.bench = Bench()
        self.jobs = 0
        self.open: dict[str, tuple[tuple[str, ...], int, int]] = {}
        self.dead: set[str] = set()
        self.spent = dict.fromkeys(COUNTERS, 0)
        self.late = dict.fromkeys(COUNTERS, 0)

    @rule(at=st.sets(st.sampled_from(COUNTERS), min_size=1), amount=st.integers(0, 200))
    def arrive(self, at: set[str], amount: int) -> None:
        counters, job_id = tuple(sorted(at)), f"job_{self.jobs}"
        self.jobs += 1
        asked = charge(*(allowance(key, LIMITS[key]) for key in counters), usd_nano=amount)
        decision = self.bench.admit(asked, job_id)
        self._expire()
        fits = all(self._in_use(key) + amount <= LIMITS[key] for key in counters)
        assert isinstance(decision, Admitted) == fits
        if fits:
            self.open[job_id] = (counters, amount, self.bench.clock() + LEASE_MS)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.integers(0, 100))
    def need_more(self, data: st.DataObject, more: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.open)))
        counters, amount, ends = self.open[job_id]
        granted = now(ledger.extend(self.bench.redis, job_id, [allowance(key, LIMITS[key]) for key in counters], 0, more))
        self._expire()
        assert not granted or job_id in self.open
        if granted:
            self.open[job_id] = (counters, amount + more, ends)

    @precondition(lambda self: self.open.keys() - self.dead)
    @rule(data=st.data(), share=st.floats(0, 1), twice=st.booleans())
    def end(self, data: st.DataObject, share: float, twice: bool) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.open.keys() - self.dead)))
        counters, amount, ends = self.open.pop(job_id)
        cost = int(amount * share)
        self.bench.settle(job_id, dict.fromkeys(counters, cost))
        if twice:
            self.bench.settle(job_id, {})
        for key in counters:
            self.spent[key] += cost
            self.late[key] += cost if ends <= self.bench.clock() else 0

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Nobody tells of its end: it stays held until its lease is over."""
        self.dead.add(data.draw(st.sampled_from(sorted(self.open))))

    @rule(ms=st.integers(0, 2 * LEASE_MS))
    def wait(self, ms: int) -> None:
        self.bench.clock.move(ms)

    @rule()
    def sweep(self) -> None:
        now(ledger.sweep(self.bench.redis))
        self._expire()

    @invariant()
    def nothing_leaks(self) -> None:
        for key, counted in self.bench.at(*COUNTERS).items():
            assert counted.usd_nano == self.spent[key]
            assert counted.held_usd_nano == self._in_use(key) - self.spent[key]
            # What came after its lease was over may exceed the limit: it was known to nobody.
            assert counted.usd_nano + counted.held_usd_nano <= LIMITS[key] + self.late[key]

    def teardown(self) -> None:
        for job_id in self.open.keys() - self.dead:
            counters, amount, _ = self.open[job_id]
            self.bench.settle(job_id, dict.fromkeys(counters, amount))
        self.bench.clock.move(2 * LEASE_MS)
        now(ledger.sweep(self.bench.redis))
        assert all(c.held_usd_nano == 0 and c.held_tokens == 0 for c in self.bench.at(*COUNTERS).values())
        assert now(ledger.open_holds(self.bench.redis)) == []

    def _in_use(self, key: str) -> int:
        held = sum(amount for counters, amount, _ in self.open.values() if key in counters)
        return self.spent[key] + held

    def _expire(self) -> None:
        """Drops what was swept: nothing but what has outlived its lease."""
        there = {hold.job_id for hold in now(ledger.open_holds(self.bench.redis))}
        for job_id in self.open.keys() - there:
            assert self.open[job_id][2] <= self.bench.clock()
            del self.open[job_id]


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
