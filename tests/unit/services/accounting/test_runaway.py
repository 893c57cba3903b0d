"""Keys that run away: what is found, what isn't, and what is done about it. Time is the test's."""

import random
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.alerts import QUIET_MS, Alerts
from infra.kafka.envelope import decode
from infra.kafka.log import Outgoing, Partition
from infra.kafka.table import ControlTable
from schemas.alert import Alert, RunawayFacts
from schemas.control import Hold, Organization, Team, VirtualKey
from schemas.job import Caller
from schemas.policy import Policy, RunawayPolicy
from schemas.topics import ALERTS, Lane
from services.accounting.runaway import LEAST_MINUTES, MOST_PROMPTS, Detector, Finding, Watch
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog

MINUTE_MS = 60_000
CENT = 10_000_000
POLICY = RunawayPolicy()
SHARP = RunawayPolicy(least_requests=1, least_usd=Decimal(0))
"""The default z-score, and nothing too small to be looked at."""


class Key:
    """Sends requests of one key to a detector, minute after minute; no two are equal unless told so."""

    def __init__(self, detector: Detector, policy: RunawayPolicy = POLICY, name: str = "key/key_1") -> None:
        self.detector, self.policy, self.name = detector, policy, name
        self.minute = 100
        self._prompts = count()

    def ask(self, requests: int, usd_nano: int = CENT, prompt: str = "", lane: Lane = Lane.INTERACTIVE) -> list[Finding]:
        """So many requests in the running minute."""
        found: list[Finding | None] = []
        for n in range(requests):
            at_ms = self.minute * MINUTE_MS + n * MINUTE_MS // max(1, requests)
            told = prompt or f"prompt {next(self._prompts)}"
            found.append(self.detector.saw(self.name, lane, at_ms, usd_nano, told, self.policy))
        return [finding for finding in found if finding]

    def live(self, minutes: int, requests: int, usd_nano: int = CENT, lane: Lane = Lane.INTERACTIVE) -> list[Finding]:
        """So many minutes, each over when this returns."""
        found: list[Finding] = []
        for _ in range(minutes):
            found += self.ask(requests, usd_nano, lane=lane)
            self.minute += 1
        return found


def arrivals(chance: random.Random, a_minute: float) -> int:
    """How many come in a minute, by chance (Poisson)."""
    arrived, at = 0, chance.expovariate(a_minute)
    while at < 1:
        arrived, at = arrived + 1, at + chance.expovariate(a_minute)
    return arrived


@pytest.mark.parametrize("seed", range(2))
def test_a_steady_key_is_never_found_in_ten_thousand_minutes(seed: int) -> None:
    chance, key = random.Random(seed), Key(Detector(), SHARP)
    found: list[Finding] = []
    for _ in range(10_000):
        found += key.ask(arrivals(chance, 25), chance.randrange(2 * CENT))
        key.minute += 1
    assert found == []


def test_a_key_whose_costs_have_a_long_tail_is_not_found_for_one_dear_request() -> None:
    chance, key = random.Random(3), Key(Detector(), SHARP)
    found: list[Finding] = []
    for _ in range(2_000):
        for _ in range(arrivals(chance, 25)):
            found += key.ask(1, int(CENT * chance.lognormvariate(0, 1.5)))
        key.minute += 1
    assert found == []


def test_what_runs_every_hour_or_begins_every_morning_is_found_on_its_first_day_only() -> None:
    chance, key = random.Random(4), Key(Detector())
    days: list[list[Finding]] = []
    for day in range(2):
        days.append([])
        for minute in range(1440):
            hourly = 500 if minute % 60 == 0 else 0
            days[day] += key.ask(hourly + arrivals(chance, 200 if minute >= 960 else 2))
            key.minute += 1
    assert days[0]
    assert days[1] == []


def test_ten_times_the_requests_are_found_within_the_minute() -> None:
    chance, key = random.Random(5), Key(Detector())
    for _ in range(60):
        key.ask(arrivals(chance, 40))
        key.minute += 1
    (found,) = key.ask(400, 0)
    assert found.pattern == "requests"
    assert found.reason.startswith("120 requests a minute are ")
    assert " standard deviations above this key's usual " in found.reason
    assert 36 < found.usual_requests < 44


def test_ten_times_the_spend_is_found_though_the_requests_are_as_ever() -> None:
    key = Key(Detector())
    assert key.live(30, 40) == []
    (found,) = key.ask(40, 10 * CENT)
    assert found.pattern == "spend"
    assert found.reason.startswith("spend of ")
    assert found.reason.endswith("standard deviations above this key's usual 0.40")


def test_a_jump_is_found_once_a_minute_and_becomes_usual_with_time() -> None:
    key = Key(Detector())
    key.live(60, 40)
    jumps = [bool(key.live(1, 400)) for _ in range(60)]
    assert jumps[0]
    assert not any(jumps[-40:])
    assert len(key.live(1, 40_000)) == 1


@pytest.mark.parametrize("minutes", [0, 1, LEAST_MINUTES - 1])
def test_a_key_with_little_history_is_found_for_equal_requests_only(minutes: int) -> None:
    key = Key(Detector())
    key.live(minutes, 1)
    assert key.ask(3_000, 100 * CENT) == []
    found = key.ask(POLICY.same_prompt, prompt="again")
    assert [finding.reason for finding in found] == ["200 equal requests within a minute"]
    assert found[0].usual_requests == 0


def test_what_is_small_is_not_looked_at() -> None:
    key = Key(Detector())
    key.live(30, 1, 1_000)
    assert key.ask(POLICY.least_requests - 1, 1_000) == []
    assert [found.pattern for found in key.ask(1, 1_000)] == ["requests"]
    key = Key(Detector())
    key.live(30, 1, 1_000)
    assert key.ask(99, CENT) == []
    assert [found.pattern for found in key.ask(1, CENT)] == ["spend"]


@pytest.mark.parametrize("lane", Lane)
def test_equal_requests_are_found_in_both_lanes_each_time_there_are_enough(lane: Lane) -> None:
    key = Key(Detector(), RunawayPolicy(same_prompt=20))
    assert key.ask(19, prompt="again", lane=lane) == []
    assert len(key.ask(1, prompt="again", lane=lane)) == 1
    assert key.ask(19, prompt="again", lane=lane) == []
    assert len(key.ask(1, prompt="again", lane=lane)) == 1


def test_equal_requests_of_two_minutes_or_of_two_keys_or_without_fingerprint_are_none() -> None:
    detector, policy = Detector(), RunawayPolicy(same_prompt=20)
    key, other = Key(detector, policy), Key(detector, policy, "key/key_2")
    assert key.ask(19, prompt="again") + other.ask(19, prompt="again") == []
    key.minute += 1
    assert key.ask(19, prompt="again") == []
    assert not any(detector.saw("k", Lane.INTERACTIVE, n, 0, "", policy) for n in range(100))


def test_equal_requests_are_found_among_any_number_of_others() -> None:
    key = Key(Detector(), RunawayPolicy(same_prompt=200, least_requests=10**9))
    found: list[Finding] = []
    for _ in range(300):
        found += key.ask(1, 0, prompt="again") + key.ask(20, 0)
    assert [finding.pattern for finding in found] == ["same_prompt"]


def test_batches_come_in_bursts() -> None:
    key = Key(Detector())
    key.live(30, 40)
    assert key.ask(5_000, CENT, lane=Lane.BATCH) == []
    key.minute += 1
    assert [found.usual_requests for found in key.ask(400)] == [40.0]


def test_what_comes_late_is_left_out() -> None:
    key = Key(Detector())
    key.live(30, 40)
    key.ask(1)
    key.minute -= 1
    assert key.ask(4_000, 100 * CENT) + key.ask(4_000, prompt="again") == []


def test_a_key_that_was_forgotten_begins_anew() -> None:
    key = Key(Detector())
    key.live(30, 40)
    key.detector.forget(key.name)
    key.detector.forget("nobody")
    assert key.ask(400) == []


def test_memory_is_bounded() -> None:
    detector = Detector(most_keys=100)
    for n in range(1_000):
        Key(detector, name=f"key/{n}").ask(MOST_PROMPTS + 50)
    assert len(detector) == 100
    assert detector.prompts() <= 100 * MOST_PROMPTS
    detector.saw("key/999", Lane.INTERACTIVE, 200 * MINUTE_MS, 0, "a", POLICY)
    assert detector.prompts() == 1
    kept = Key(detector, name="key/999")
    kept.minute = 200
    kept.ask(1)
    for n in range(99):
        Key(detector, name=f"key/new{n}").ask(1)
    detector.saw("key/999", Lane.INTERACTIVE, 200 * MINUTE_MS, 0, "a", POLICY)
    assert detector.prompts() == 99 + 2


requests = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(Lane),
    st.integers(0, 20 * MINUTE_MS) | st.integers(0, 10_413_792_000_000),
    st.integers(0, 10**12) | st.integers(0, 10**18),
    st.sampled_from(["", "x", "y"]) | st.text(max_size=3),
)
policies = st.builds(
    RunawayPolicy,
    same_prompt=st.integers(2, 20),
    z_score=st.floats(0.01, 100),
    least_requests=st.integers(1, 20),
    least_usd=st.decimals(0, 1000, places=2),
)


@given(st.lists(requests, max_size=200), policies)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_whenever_is_taken(seen: list[tuple[str, Lane, int, int, str]], policy: RunawayPolicy) -> None:
    detector = Detector(most_keys=2)
    for key_id, lane, at_ms, usd_nano, fingerprint in seen:
        found = detector.saw(key_id, lane, at_ms, usd_nano, fingerprint, policy)
        assert len(detector) <= 2
        if found is None:
            continue
        assert found.pattern == "same_prompt" or lane is Lane.INTERACTIVE
        assert found.pattern != "same_prompt" or fingerprint
        assert found.usual_requests >= 0
        assert "inf" not in found.reason
        assert "nan" not in found.reason


@given(st.lists(st.integers(1, 200), min_size=LEAST_MINUTES, max_size=30), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_a_pace_that_was_there_before_is_no_jump(minutes: list[int], again: int) -> None:
    key = Key(Detector(), SHARP)
    for requests in minutes:
        key.live(1, requests)
    assert key.ask(min(again, max(minutes[:LEAST_MINUTES]))) == []


# What is done about it.

CALLER = Caller(organization="acme", team="fraud", key_id="key_1")
AGAIN = RunawayPolicy(action="pause", same_prompt=20)


class Desk:
    """Completions come in, alerts go out."""

    def __init__(self, policy: RunawayPolicy | None = AGAIN) -> None:
        self.log, self.clock, self.table = MemoryLog(), FakeClock(), ControlTable()
        self.watch = Watch(self.table, Alerts(self.log, self.clock, "accounting"))
        self.table.put(Organization(id="org_1", name="acme"))
        self.put_team(policy)
        self.put_key()

    def put_team(self, policy: RunawayPolicy | None) -> None:
        self.table.put(Team(id="team_1", name="fraud", organization="acme", policy=Policy(runaway=policy)))
        self.table.version += 1

    def put_key(self, version: int = 1, held: Hold | None = None) -> None:
        self.table.put(VirtualKey(id="key_1", sha256="aa", last4="9f3c", team="fraud", version=version, held=held))
        self.table.version += 1

    async def see(self, requests: int, prompt: str = "again", caller: Caller = CALLER, ago_ms: int = 0) -> None:
        for _ in range(requests):
            await self.watch.saw(caller, Lane.INTERACTIVE, self.clock() - ago_ms, CENT, prompt)

    @property
    def alerts(self) -> list[Alert]:
        found = [decode(record, Alert) for record in self.log.records(ALERTS.name)]
        return [alert for alert in found if isinstance(alert, Alert)]

    @property
    def facts(self) -> list[RunawayFacts]:
        return [RunawayFacts.model_validate(alert.facts) for alert in self.alerts]


async def test_a_key_that_runs_away_is_told_of_with_what_is_to_be_done() -> None:
    desk = Desk()
    await desk.see(20)
    (alert,) = desk.alerts
    assert (alert.what, alert.scope, alert.team, alert.severity) == ("runaway", "key/key_1", "fraud", "critical")
    assert alert.message == (
        "Key key_1 of team fraud runs away: 20 equal requests within a minute. "
        "It is paused; `sluice keys resume key_1` lets it go on."
    )
    (facts,) = desk.facts
    assert (facts.action, facts.pattern, facts.key_id, facts.key_version) == ("pause", "same_prompt", "key_1", 1)
    (record,) = desk.log.records(ALERTS.name)
    assert (record.key, record.partition) == (b"fraud", 0)


@pytest.mark.parametrize(("action", "severity"), [("alert", "warning"), ("throttle", "warning"), ("pause", "critical")])
async def test_the_policy_says_how_bad_it_is(action: str, severity: str) -> None:
    desk = Desk(RunawayPolicy.model_validate({"action": action, "same_prompt": 20}))
    await desk.see(20)
    assert [alert.severity for alert in desk.alerts] == [severity]
    assert [facts.action for facts in desk.facts] == [action]
    assert ("sluice keys resume key_1" in desk.alerts[0].message) == (action != "alert")


async def test_by_default_it_is_told_and_nothing_is_done() -> None:
    desk = Desk(None)
    await desk.see(200)
    assert [facts.action for facts in desk.facts] == ["alert"]


async def test_a_policy_that_switches_it_off_does_so_at_once() -> None:
    desk = Desk()
    await desk.see(19)
    desk.put_team(RunawayPolicy(action="off"))
    await desk.see(100)
    assert desk.alerts == []


async def test_it_is_told_once_as_long_as_the_key_stands_so_and_again_after_an_hour() -> None:
    desk = Desk()
    await desk.see(200)
    assert len(desk.alerts) == 1
    desk.clock.move(QUIET_MS)
    await desk.see(20)
    assert len(desk.alerts) == 2


async def test_a_key_that_is_held_is_not_looked_at_and_a_resumed_one_has_a_new_beginning() -> None:
    desk = Desk()
    await desk.see(35)
    desk.put_key(2, Hold(reason="…", since_ms=desk.clock()))
    await desk.see(100)
    desk.put_key(3)
    await desk.see(19)
    assert len(desk.alerts) == 1
    await desk.see(1)
    assert [facts.key_version for facts in desk.facts] == [1, 3]


async def test_what_accounting_catches_up_with_is_history() -> None:
    desk = Desk()
    await desk.see(100, ago_ms=QUIET_MS)
    assert desk.alerts == []


async def test_a_clock_that_is_ahead_blinds_nobody() -> None:
    desk = Desk()
    await desk.see(1, ago_ms=-(10**9))
    await desk.see(19)
    assert len(desk.alerts) == 1


async def test_who_has_no_key_can_only_be_told_of() -> None:
    desk = Desk()
    await desk.see(20, caller=Caller(organization="acme", team="fraud", key_id="", user="ada"))
    await desk.see(20, caller=Caller(organization="acme", team="fraud", key_id="key_gone"))
    assert [alert.scope for alert in desk.alerts] == ["user/ada", "key/key_gone"]
    assert [facts.action for facts in desk.facts] == ["alert", "alert"]
    assert desk.alerts[0].message.startswith("User ada of team fraud runs away")


async def test_without_kafka_billing_goes_on_and_the_key_is_found_again() -> None:
    desk = Desk()
    send = desk.log.send

    async def away(_: Outgoing) -> object:
        raise ConnectionError

    desk.log.send = away  # pyright: ignore[reportAttributeAccessIssue]
    await desk.see(20)
    desk.log.send = send
    await desk.see(20)
    assert len(desk.alerts) == 1
    assert desk.log.end(Partition(ALERTS.name, 0)) == 1
