"""Requests and decisions: who may, what comes of it, and that each thing happens once."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from pydantic import ValidationError

from infra.alerts import Alerts
from infra.credentials import key_hash
from schemas.alert import AlertKind
from schemas.control import Approval, Team, User, VirtualKey
from schemas.errors import Conflict, InvalidRequest, NotAllowed, NotFound, SluiceError
from services.portal import approval_policy
from services.portal.access import ADMIN, Actor
from services.portal.approval_wanted import AskFor, Grant
from services.portal.approvals import Approvals, ApprovalsAsked, KeyCollected
from tests.fakes.clock import FakeClock
from tests.fakes.control import FakeControl, Topic
from tests.fakes.redis import LuaRedis
from tests.unit.services.portal import approving
from tests.unit.services.portal.approving import (
    APPROVER,
    AUDITOR,
    COLLEAGUE,
    DAY_MS,
    FINANCE,
    HOUSE,
    MEMBER,
    OUTSIDER,
    SECOND,
    TEAM_ADMIN,
)

T = TypeVar("T")
YES = Grant(reason="fine")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.redis = LuaRedis(self.clock)
        self.control = FakeControl()
        self.control.put(*HOUSE)
        self.approvals = approving.approvals(self.control, self.redis, self.clock)

    def team(self) -> Team:
        return self.control.table.teams["fraud"]

    def usd(self) -> list[Decimal | None]:
        """What the team's budgets are worth now."""
        return [budget.usd_at(self.clock()) for budget in self.team().policy.budgets]

    async def granted_key(self) -> Approval:
        asked = await self.approvals.ask(MEMBER, approving.key())
        return await self.approvals.grant(APPROVER, asked.id, YES)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def refusal(tried: Coroutine[Any, Any, object]) -> tuple[int, str | None]:
    """Status and code of what is refused."""
    with pytest.raises(SluiceError) as raised:
        await tried
    fault = raised.value.fault()
    return fault.status, fault.code


# A key


async def test_a_key_is_asked_for_granted_and_collected_by_who_asked(bench: Bench) -> None:
    wanted = {"project": "scores", "environment": "prod", "user": "ada", "models": ["dear"], "budget": {"usd": "5"}}
    asked = await bench.approvals.ask(MEMBER, approving.key(wanted=wanted, for_s=3600))
    assert (asked.status, asked.requester, asked.expires_ms) == ("pending", MEMBER.name, bench.clock() + 7 * DAY_MS)
    granted = await bench.approvals.grant(APPROVER, asked.id, Grant(reason="fine"))
    assert (granted.status, granted.decided_by, granted.reason) == ("granted", APPROVER.name, "fine")
    before = bench.control.table.keys[granted.result.removeprefix("key/")]
    assert (before.last4, before.expires_ms) == ("", bench.clock() + 3_600_000)
    collected = await bench.approvals.collect(MEMBER, asked.id)
    key = bench.control.table.keys_by_hash[key_hash(collected.key)]
    assert (key.id, key.team, key.project, key.environment, key.user) == (collected.id, "fraud", "scores", "prod", "ada")
    assert (key.policy.models, key.policy.budgets[0].usd, key.last4) == (("dear",), Decimal(5), collected.key[-4:])
    assert before.sha256 not in bench.control.table.keys_by_hash
    assert bench.approvals.show(MEMBER, asked.id).status == "collected"


async def test_all_of_it_is_in_the_events_with_who_and_why(bench: Bench) -> None:
    granted = await bench.granted_key()
    await bench.approvals.collect(MEMBER, granted.id)
    told = [
        (change.author.actor, change.author.action, change.author.reason) for change in bench.control.topic.changes[len(HOUSE) :]
    ]
    assert told == [
        (MEMBER.name, "approval.asked", "a proof"),
        (APPROVER.name, "key.granted", f"{granted.id}: fine"),
        (APPROVER.name, "approval.granted", "fine"),
        (MEMBER.name, "key.collected", granted.id),
        (MEMBER.name, "approval.collected", ""),
    ]


async def test_a_secret_is_nowhere_but_in_the_answer(bench: Bench) -> None:
    granted = await bench.granted_key()
    collected = await bench.approvals.collect(MEMBER, granted.id)
    assert not any(collected.key.encode() in (change.after or b"") for change in bench.control.topic.changes)


@pytest.mark.parametrize("actor", [COLLEAGUE, TEAM_ADMIN, APPROVER, ADMIN, AUDITOR], ids=lambda actor: actor.name)
async def test_nobody_else_collects(bench: Bench, actor: Actor) -> None:
    granted = await bench.granted_key()
    assert await refusal(bench.approvals.collect(actor, granted.id)) == (403, "not_requester")
    assert (await bench.approvals.collect(MEMBER, granted.id)).team == "fraud"


async def test_a_key_is_collected_once(bench: Bench) -> None:
    granted = await bench.granted_key()
    said = await asyncio.gather(*(bench.approvals.collect(MEMBER, granted.id) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in said].count(KeyCollected) == 1
    assert {one.fault().status for one in said if isinstance(one, SluiceError)} == {409}


async def test_what_is_not_granted_or_no_key_is_not_collected(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.key())
    assert await refusal(bench.approvals.collect(MEMBER, asked.id)) == (409, "approval_pending")
    other = await bench.approvals.ask(MEMBER, approving.model())
    await bench.approvals.grant(APPROVER, other.id, YES)
    assert await refusal(bench.approvals.collect(MEMBER, other.id)) == (409, "nothing_to_collect")


@pytest.mark.parametrize("change", [{"revoked": True}, {"rotated_ms": 5}, {"expires_ms": 5}])
async def test_a_key_that_is_gone_or_has_another_secret_is_not_collected(bench: Bench, change: dict[str, object]) -> None:
    granted = await bench.granted_key()
    key = bench.control.table.keys[granted.result.removeprefix("key/")]
    await bench.control.write(key.model_copy(update=change))
    assert await refusal(bench.approvals.collect(MEMBER, granted.id)) == (409, "key_gone")


# A budget, a model


async def test_an_increase_raises_what_it_is_for_and_ends_by_itself(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.budget(usd="50", for_s=None))
    await bench.approvals.grant(FINANCE, asked.id, Grant(reason="launch", for_s=86_400))
    assert bench.usd() == [Decimal(150), None, Decimal(10)]
    assert bench.team().version == 2
    bench.clock.move(DAY_MS)
    assert bench.usd() == [Decimal(100), None, Decimal(10)]


async def test_usd_and_tokens_go_to_the_budgets_that_count_them(bench: Bench) -> None:
    wanted = {"usd": "1.5", "tokens": 7}
    asked = await bench.approvals.ask(MEMBER, approving.budget(wanted=wanted))
    assert asked.wanted["level"] == "team/fraud"
    await bench.approvals.grant(FINANCE, asked.id, YES)
    budgets = bench.team().policy.budgets
    assert [(b.usd_at(bench.clock()), b.tokens_at(bench.clock())) for b in budgets] == [
        (Decimal("101.5"), None),
        (None, 1_000_007),
        (Decimal(10), None),
    ]


async def test_a_model_is_granted_for_a_time(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.model("environment/fraud/scores/prod", for_s=60))
    await bench.approvals.grant(APPROVER, asked.id, YES)
    (grant,) = bench.control.table.environments["fraud/scores/prod"].policy.granted_models
    assert (grant.model, grant.until_ms, grant.approval) == ("dear", bench.clock() + 60_000, asked.id)


async def test_what_ended_is_cleared_away_by_the_next_grant(bench: Bench) -> None:
    for _ in range(3):
        for ask in (approving.budget(), approving.model()):
            asked = await bench.approvals.ask(MEMBER, ask)
            await bench.approvals.grant(APPROVER, asked.id, Grant(reason="again", for_s=60))
        bench.clock.move(60_000)
    policy = bench.team().policy
    assert (len(policy.granted_models), len(policy.budgets[0].increases)) == (1, 1)


async def test_grants_on_one_budget_are_bounded(bench: Bench) -> None:
    for _ in range(approval_policy.MOST_AT_ONCE):
        asked = await bench.approvals.ask(MEMBER, approving.budget(usd="1"))
        await bench.approvals.grant(FINANCE, asked.id, YES)
    asked = await bench.approvals.ask(MEMBER, approving.budget(usd="1"))
    assert await refusal(bench.approvals.grant(FINANCE, asked.id, YES)) == (409, "too_many_grants")


@pytest.mark.parametrize("what", ["budget", "model"])
async def test_what_changes_a_policy_needs_an_end_that_is_to_come(bench: Bench, what: str) -> None:
    ask = {"budget": approving.budget, "model": approving.model}[what]
    asked = await bench.approvals.ask(MEMBER, ask(for_s=None))
    assert await refusal(bench.approvals.grant(APPROVER, asked.id, YES)) == (400, None)
    assert await refusal(bench.approvals.grant(APPROVER, asked.id, Grant(reason="x", until_ms=5))) == (400, None)
    late = await bench.approvals.ask(MEMBER, ask(for_s=60))
    bench.clock.move(60_000)
    assert await refusal(bench.approvals.grant(APPROVER, late.id, YES)) == (400, None)
    assert (await bench.approvals.grant(APPROVER, late.id, Grant(reason="x", for_s=60))).status == "granted"


# Who may


NOT_FOUND, FORBIDDEN = (404, "not_found"), (403, "not_admin")


@pytest.mark.parametrize(
    ("actor", "expected"), [(OUTSIDER, NOT_FOUND), (AUDITOR, FORBIDDEN), (FINANCE, FORBIDDEN)], ids=lambda one: str(one)[:30]
)
async def test_who_may_not_ask(bench: Bench, actor: Actor, expected: tuple[int, str]) -> None:
    assert await refusal(bench.approvals.ask(actor, approving.key())) == expected


@pytest.mark.parametrize(
    ("ask", "actor", "expected"),
    [
        (approving.key(), COLLEAGUE, FORBIDDEN),
        (approving.key(), TEAM_ADMIN, FORBIDDEN),
        (approving.key(), FINANCE, FORBIDDEN),
        (approving.key(), AUDITOR, FORBIDDEN),
        (approving.key(), OUTSIDER, NOT_FOUND),
        (approving.key(), MEMBER, FORBIDDEN),
        (approving.model(), FINANCE, FORBIDDEN),
        (approving.budget(), TEAM_ADMIN, FORBIDDEN),
    ],
    ids=lambda one: getattr(one, "what", None) or getattr(one, "name", None) or "",
)
async def test_who_may_not_decide(bench: Bench, ask: AskFor, actor: Actor, expected: tuple[int, str]) -> None:
    asked = await bench.approvals.ask(MEMBER, ask)
    assert await refusal(bench.approvals.grant(actor, asked.id, YES)) == expected
    assert await refusal(bench.approvals.refuse(actor, asked.id, "no")) == expected
    assert bench.approvals.show(MEMBER, asked.id).status == "pending"


async def test_nobody_decides_about_his_own_request(bench: Bench) -> None:
    asked = await bench.approvals.ask(APPROVER, approving.key())
    assert await refusal(bench.approvals.grant(APPROVER, asked.id, YES)) == (403, "four_eyes")
    assert await refusal(bench.approvals.refuse(APPROVER, asked.id, "no")) == (403, "four_eyes")
    assert (await bench.approvals.grant(SECOND, asked.id, YES)).decided_by == SECOND.name


async def test_nobody_decides_about_his_own_request_through_another_door(bench: Bench) -> None:
    asked = await bench.approvals.ask(COLLEAGUE, approving.key())
    itsm = Actor("itsm/Ada@corp.example", APPROVER.roles)
    assert await refusal(bench.approvals.grant(itsm, asked.id, YES)) == (403, "four_eyes")


async def test_the_holder_of_the_admin_key_may_decide_alone(bench: Bench) -> None:
    asked = await bench.approvals.ask(ADMIN, approving.key())
    await bench.approvals.grant(ADMIN, asked.id, YES)
    assert (await bench.approvals.collect(ADMIN, asked.id)).team == "fraud"


async def test_a_right_in_one_team_is_not_enough_above_teams(bench: Bench) -> None:
    of_the_team = Actor("operator/op_of", tuple((role, "fraud") for role, _ in APPROVER.roles))
    assert await refusal(bench.approvals.ask(MEMBER, approving.budget("organization/default"))) == FORBIDDEN
    assert await refusal(bench.approvals.ask(MEMBER, approving.budget("user/bob@corp.example"))) == FORBIDDEN
    asked = await bench.approvals.ask(APPROVER, approving.budget("organization/default"))
    assert await refusal(bench.approvals.grant(of_the_team, asked.id, YES)) == FORBIDDEN
    own = await bench.approvals.ask(COLLEAGUE, approving.budget(COLLEAGUE.name))
    assert await refusal(bench.approvals.grant(of_the_team, own.id, YES)) == FORBIDDEN
    for one in (asked, own):
        await bench.approvals.grant(FINANCE, one.id, YES)
    assert isinstance(bench.control.table.get(COLLEAGUE.name), User)


async def test_another_team_has_no_request(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.key())
    with pytest.raises(NotFound):
        bench.approvals.show(OUTSIDER, asked.id)
    assert bench.approvals.page(OUTSIDER, ApprovalsAsked()) == ([], None)
    with pytest.raises(NotFound):
        bench.approvals.page(OUTSIDER, ApprovalsAsked(team="fraud"))
    assert await refusal(bench.approvals.grant(APPROVER, "apr_none", YES)) == NOT_FOUND


# What can't be


WRONG: dict[str, tuple[AskFor, str | None, int]] = {
    "nobody's team": (approving.key(team="nobody"), "team", 404),
    "a member that is misspelt": (approving.key(wanted={"projct": "x"}), "wanted.projct", 400),
    "an unknown model for a key": (approving.key(wanted={"models": ["cheap"]}), "wanted.models", 404),
    "no model for a key": (approving.key(wanted={"models": []}), "wanted.models", 400),
    "a project with a slash": (approving.key(wanted={"project": "a/b"}), "wanted.project", 400),
    "a budget of nothing for a key": (approving.key(wanted={"budget": {"usd": 0}}), "wanted.budget", 400),
    "a budget that brings increases": (
        approving.key(wanted={"budget": {"usd": 1, "increases": [{"usd": 9, "until_ms": 9}]}}),
        "wanted.budget",
        400,
    ),
    "nothing more": (approving.budget(usd="0"), "wanted", 400),
    "less": (approving.budget(usd="-1"), "wanted.usd", 400),
    "no number": (approving.budget(usd="NaN"), "wanted.usd", 400),
    "a level that isn't there": (approving.budget("project/fraud/none"), "wanted.level", 404),
    "another team's level": (approving.budget("team/search"), "wanted.level", 404),
    "another team's key": (approving.budget("key/key_2"), "wanted.level", 404),
    "no level": (approving.model("model/dear"), "wanted.level", 404),
    "a level without a budget": (approving.budget("project/fraud/scores"), "wanted.level", 400),
    "a period without a budget": (approving.budget(wanted={"usd": 1, "period": "week"}), "wanted.level", 400),
    "tokens where USD are counted": (approving.budget(wanted={"tokens": 1, "period": "day"}), "wanted.level", 400),
    "an unknown model": (approving.model(wanted={"model": "cheap"}), "wanted.model", 404),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_cannot_be_granted_is_not_asked_for(bench: Bench, what: str) -> None:
    asked, param, status = WRONG[what]
    with pytest.raises(InvalidRequest) as raised:
        await bench.approvals.ask(ADMIN, asked)
    assert (raised.value.status, raised.value.param) == (status, param)
    assert not bench.control.table.approvals


@pytest.mark.parametrize(
    "body", [{"reason": "x", "for": "30d"}, {"reason": " "}, {}, {"reason": "x", "for_s": 60, "until_ms": 9}]
)
def test_a_decision_that_is_misspelt_is_none(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Grant.model_validate(body)


@pytest.mark.parametrize("level", ["team/fraud", "environment/fraud/scores/prod", "key/key_1"])
async def test_each_level_of_a_team_can_have_more(bench: Bench, level: str) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.budget(level))
    granted = await bench.approvals.grant(FINANCE, asked.id, YES)
    assert granted.result == level
    found = bench.control.table.get(level)
    assert isinstance(found, VirtualKey | Team) or found is not None
    assert found.policy.budgets[0].usd_at(bench.clock()) == 150  # type: ignore[union-attr]


async def test_what_has_gone_since_it_was_asked_for_is_not_granted(bench: Bench) -> None:
    model = await bench.approvals.ask(MEMBER, approving.model())
    budget = await bench.approvals.ask(MEMBER, approving.budget())
    key = await bench.approvals.ask(MEMBER, approving.key())
    await bench.control.delete("model/dear")
    assert await refusal(bench.approvals.grant(APPROVER, model.id, YES)) == (404, "model_not_found")
    await bench.control.write(bench.team().model_copy(update={"policy": HOUSE[3].policy}))  # type: ignore[union-attr]
    assert await refusal(bench.approvals.grant(APPROVER, budget.id, YES)) == (400, "no_such_budget")
    await bench.control.write(bench.team().model_copy(update={"created_ms": bench.clock() + 1}))
    assert await refusal(bench.approvals.grant(APPROVER, key.id, YES)) == (409, "another_team")
    await bench.control.delete("team/fraud")
    assert await refusal(bench.approvals.grant(APPROVER, key.id, YES)) == (404, "not_found")
    assert (await bench.approvals.refuse(APPROVER, key.id, "gone")).status == "refused"


# Time, races, troubles


async def test_a_request_that_waited_too_long_has_expired(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.key(expires_in=3600))
    bench.clock.move(3_600_000)
    assert bench.approvals.show(MEMBER, asked.id).status == "expired"
    assert await refusal(bench.approvals.grant(APPROVER, asked.id, YES)) == (409, "approval_expired")
    assert bench.approvals.page(MEMBER, ApprovalsAsked(status="pending")) == ([], None)


async def test_of_two_approvers_at_once_the_second_is_told_how_it_stands(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.budget())
    first, second = await asyncio.gather(
        bench.approvals.grant(APPROVER, asked.id, YES),
        bench.approvals.refuse(SECOND, asked.id, "no"),
        return_exceptions=True,
    )
    assert isinstance(first, Approval)
    assert isinstance(second, Conflict)
    assert (second.fault().status, second.fault().code) == (409, "approval_granted")
    assert APPROVER.name in second.message
    assert bench.usd()[0] == 150


async def test_of_two_processes_at_once_one_decides(bench: Bench) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.budget())
    elsewhere = FakeControl(bench.control.topic)
    elsewhere.read()
    there = approving.approvals(elsewhere, bench.redis, bench.clock)
    await bench.approvals.grant(APPROVER, asked.id, YES)
    assert there.show(MEMBER, asked.id).status == "pending", "its table lags"
    assert await refusal(there.refuse(SECOND, asked.id, "no")) == (409, "approval_granted")


@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize("moment", ["fail_before", "fail_after"])
async def test_a_grant_that_was_cut_off_can_be_tried_again_and_counts_once(bench: Bench, writes: int, moment: str) -> None:
    asked = await bench.approvals.ask(MEMBER, approving.budget())
    topic, before = bench.control.topic, len(bench.control.topic.changes)

    class Cut(FakeControl):
        async def _append(self, change: Any) -> None:
            if len(topic.changes) - before == writes - 1:
                setattr(topic, moment, 1)
            await super()._append(change)

    cut = Cut(topic)
    cut.read()
    with pytest.raises(ConnectionError):
        await approving.approvals(cut, bench.redis, bench.clock).grant(APPROVER, asked.id, YES)
    bench.control.read()
    bench.clock.move(10_000)
    said = await asyncio.gather(bench.approvals.grant(APPROVER, asked.id, YES), return_exceptions=True)
    assert isinstance(said[0], Approval | Conflict)
    assert bench.approvals.show(MEMBER, asked.id).status == "granted"
    assert bench.usd()[0] == 150


async def test_too_many_that_wait_are_refused_and_what_is_over_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval_policy, "MOST_PENDING", 5)
    monkeypatch.setattr(approval_policy, "MOST_KEPT", 8)
    kept = await bench.granted_key()
    for _ in range(20):
        for _ in range(5):
            await bench.approvals.ask(MEMBER, approving.key(expires_in=3600))
        assert await refusal(bench.approvals.ask(MEMBER, approving.key())) == (409, "too_many_pending")
        assert len(bench.control.table.approvals) <= 8
        bench.clock.move(3_600_000)
    assert bench.approvals.show(MEMBER, kept.id).status == "granted", "a key that waits to be collected stays"


async def test_a_list_is_paged_from_the_youngest_on(bench: Bench) -> None:
    made: list[str] = []
    for _ in range(7):
        made.append((await bench.approvals.ask(MEMBER, approving.key())).id)
        bench.clock.move(1)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = bench.approvals.page(MEMBER, ApprovalsAsked(limit=3, after=after))
        seen += [one.id for one in page]
    assert seen == made[::-1]


class Heard(Alerts):
    """Remembers what is raised; `broken`: raises nothing but its own error."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.raised: list[tuple[str, str, str]] = []

    async def raise_(self, what: AlertKind, scope: str, team: str, message: str, *_: Any, **__: Any) -> bool:
        if self.broken:
            raise ConnectionError("no broker answers")
        self.raised.append((what, scope, team))
        return True


@pytest.mark.parametrize("broken", [False, True])
async def test_those_who_may_decide_are_told_and_if_not_it_stands_all_the_same(bench: Bench, broken: bool) -> None:
    heard = Heard(broken=broken)
    asked = await replace(bench.approvals, alerts=heard).ask(MEMBER, approving.key())
    assert heard.raised == ([] if broken else [("approval", f"approval/{asked.id}", "fraud")])
    assert bench.approvals.show(MEMBER, asked.id).status == "pending"


# Whatever is done in whatever order


ACTORS = (MEMBER, COLLEAGUE, TEAM_ADMIN, APPROVER, SECOND, FINANCE, AUDITOR, OUTSIDER, ADMIN)
ASKS = (approving.key(), approving.key(for_s=3600, expires_in=3600), approving.budget(), approving.model())


class House(RuleBasedStateMachine):
    """Two processes, whose tables lag by less than a claim lasts; writes fail before and after they are there."""

    approvals = Bundle("approvals")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.topic = Topic()
        redis = LuaRedis(self.clock)
        self.controls = FakeControl(self.topic), FakeControl(self.topic)
        self.controls[0].put(*HOUSE)
        self.portals = [approving.approvals(control, redis, self.clock) for control in self.controls]
        self.shown: dict[str, list[KeyCollected]] = {}
        self.requesters: dict[str, str] = {}
        self.catch_up()

    def teardown(self) -> None:
        self.loop.close()

    def catch_up(self) -> None:
        for control in self.controls:
            control.read()

    def run(self, tried: Coroutine[Any, Any, T]) -> T | None:
        try:
            return self.loop.run_until_complete(tried)
        except (SluiceError, ConnectionError):
            return None

    @rule(target=approvals, actor=st.sampled_from(ACTORS), ask=st.sampled_from(ASKS), portal=st.integers(0, 1))
    def ask(self, actor: Actor, ask: AskFor, portal: int) -> Any:
        asked = self.run(self.portals[portal].ask(actor, ask))
        if asked is None:
            return multiple()  # pyright: ignore[reportUnknownVariableType]  # nothing, whatever its type
        self.requesters[asked.id] = actor.name
        return asked.id

    @rule(approval=approvals, actor=st.sampled_from(ACTORS), yes=st.booleans(), portal=st.integers(0, 1))
    def decide(self, approval: str, actor: Actor, yes: bool, portal: int) -> None:
        self.run(self._decision(portal, actor, approval, yes=yes))

    @rule(approval=approvals, actors=st.lists(st.sampled_from((APPROVER, SECOND, ADMIN)), min_size=2, max_size=4))
    def decide_at_once(self, approval: str, actors: list[Actor]) -> None:
        async def all_of_them() -> None:
            decisions = [self._decision(n % 2, actor, approval, yes=n % 3 != 0) for n, actor in enumerate(actors)]
            await asyncio.gather(*decisions, return_exceptions=True)

        self.run(all_of_them())

    @rule(approval=approvals, actor=st.sampled_from(ACTORS), times=st.integers(1, 3))
    def collect(self, approval: str, actor: Actor, times: int) -> None:
        async def all_of_them() -> list[KeyCollected | BaseException]:
            tries = [self.portals[n % 2].collect(actor, approval) for n in range(times)]
            return await asyncio.gather(*tries, return_exceptions=True)

        said = self.run(all_of_them()) or []
        self.shown.setdefault(approval, []).extend(one for one in said if isinstance(one, KeyCollected))

    @rule(before=st.integers(0, 2), after=st.integers(0, 2))
    def trouble(self, before: int, after: int) -> None:
        self.topic.fail_before, self.topic.fail_after = before, after

    @rule(seconds=st.sampled_from((1, 9, 10, 3600, 86_400)))
    def time_passes(self, seconds: int) -> None:
        self.catch_up()
        self.clock.move(seconds * 1000)

    @rule()
    def read(self) -> None:
        self.catch_up()

    @rule(approval=consumes(approvals))
    def forget(self, approval: str) -> None:
        """So that others come to be acted on."""

    @invariant()
    def nothing_is_decided_twice(self) -> None:
        for approval, requester in self.requesters.items():
            decisions = [
                change
                for action in ("approval.granted", "approval.refused")
                for change in self.topic.by(action)
                if change.key == f"approval/{approval}"
            ]
            assert len(decisions) <= 1
            for change in decisions:
                assert change.author.actor in {APPROVER.name, SECOND.name, FINANCE.name, ADMIN.name}
                assert change.author.actor != requester or requester == ADMIN.name
                assert change.resource.decided_ms < change.resource.expires_ms

    @invariant()
    def a_secret_is_shown_once_to_who_asked_and_works(self) -> None:
        for approval, shown in self.shown.items():
            assert len(shown) <= 1
            for key in shown:
                self.catch_up()
                table = self.controls[0].table
                assert table.keys_by_hash[key_hash(key.key)].id == key.id
                (collected,) = [one for one in self.topic.by("approval.collected") if one.key == f"approval/{approval}"]
                assert collected.author.actor == self.requesters[approval]

    @invariant()
    def nothing_comes_of_what_nobody_granted(self) -> None:
        """A grant that was cut off may have made its thing already: then it was tried by somebody who may."""
        for action in ("key.granted", "budget.increased", "model.granted"):
            assert all(
                change.author.actor not in {MEMBER.name, COLLEAGUE.name, OUTSIDER.name} for change in self.topic.by(action)
            )
        for budget in self.controls[0].table.teams["fraud"].policy.budgets:
            given = [increase.approval for increase in budget.increases]
            assert len(given) == len(set(given)), "no increase counts twice"

    async def _decision(self, portal: int, actor: Actor, approval: str, *, yes: bool) -> Approval:
        acting: Approvals = self.portals[portal]
        if yes:
            return await acting.grant(actor, approval, YES)
        return await acting.refuse(actor, approval, "no")


TestHouse = House.TestCase
TestHouse.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


async def test_who_has_no_right_to_see_is_not_told_that_it_is_there(bench: Bench) -> None:
    granted = await bench.granted_key()
    for tried in (
        bench.approvals.collect(OUTSIDER, granted.id),
        bench.approvals.grant(OUTSIDER, granted.id, YES),
        bench.approvals.refuse(OUTSIDER, granted.id, "x"),
    ):
        assert await refusal(tried) == NOT_FOUND


async def test_a_member_who_left_does_not_collect(bench: Bench) -> None:
    granted = await bench.granted_key()
    with pytest.raises(NotFound):
        await bench.approvals.collect(Actor(MEMBER.name, ()), granted.id)
    with pytest.raises(NotAllowed):
        await bench.approvals.collect(COLLEAGUE, granted.id)
