"""Shadows: a share of jobs, copied for another model; nobody waits for them, and nothing goes where it may not."""

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.post import Post
from infra.kafka.table import ControlTable
from infra.reachable import may_ask
from infra.signing import Signer
from schemas.control import Model, Organization, Team
from schemas.ids import accepted_ms
from schemas.job import Job
from schemas.policy import DataPolicy, EffectivePolicy, Policy, RoutePolicy
from schemas.routing import Shadow
from schemas.slip import Stage
from schemas.topics import Lane
from services.router.shadow import LIFE_MS, MOST_ON_THEIR_WAY, Shadows, wanted
from tests.unit.services.router.doubles import START_MS, deployment, job

SIGNER = Signer(b"0" * 32)
ALL = Shadow(model="new", share=1, team="lab")
MODEL = Model(name="alias", deployments=(deployment(),), shadow=ALL)


class Sent:
    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.broken = False

    async def forward(self, job: Job, traceparent: str) -> None:
        await self.stuck.wait()
        if self.broken:
            raise OSError("no broker")
        self.jobs.append(job)


def bench(policy: Policy | None = None) -> tuple[Shadows, Sent]:
    table, sent = ControlTable(), Sent()
    table.put(Organization(id="org_1", name="org"))
    table.put(Team(id="team_1", name="lab", organization="org", policy=policy or Policy()))
    return Shadows(table, cast("Post", sent), SIGNER, lambda: START_MS + 5_000), sent


async def shadow_of(given: Job, policy: Policy | None = None, model: Model = MODEL) -> list[Job]:
    shadows, sent = bench(policy)
    shadows.follow(given, model, "")
    await shadows.close()
    return sent.jobs


async def test_a_shadow_is_a_job_of_its_own_on_anothers_bill() -> None:
    given = job(stream=True, body={"model": "alias", "stream": True, "stream_options": {}, "messages": [], "temperature": 0})
    [shadow] = await shadow_of(given)
    assert shadow.id != given.id
    assert shadow.shadow_of == given.id
    assert shadow.body == {"model": "new", "messages": [], "temperature": 0}
    assert (shadow.model, shadow.lane, shadow.stream) == ("new", Lane.BATCH, False)
    assert (shadow.caller.team, shadow.caller.key_id, shadow.caller.user) == ("lab", "", "")
    assert shadow.reply_to.kind == "nowhere"
    assert (shadow.webhook, shadow.keep_s, shadow.cache.write) == ("", 0, False)
    assert shadow.slip == (Stage.ROUTER,)
    assert shadow.deadline_ms - shadow.accepted_ms == LIFE_MS
    assert accepted_ms(shadow.id) == given.accepted_ms
    assert SIGNER.holds(shadow)


async def test_a_job_that_comes_twice_has_one_shadow() -> None:
    [first], [second] = await shadow_of(job()), await shadow_of(job())
    assert first.id == second.id


async def test_where_the_data_of_a_job_may_go_binds_its_shadow() -> None:
    hers = EffectivePolicy(version="1", data=DataPolicy(regions=("eu",), hipaa=True), route=RoutePolicy(providers=("a", "b")))
    [shadow] = await shadow_of(
        job(policy=hers), Policy(data=DataPolicy(regions=("eu", "us")), route=RoutePolicy(providers=("b",)))
    )
    assert shadow.policy.data == DataPolicy(regions=("eu",), hipaa=True)
    assert shadow.policy.route.providers == ("b",)


async def test_what_may_not_be_kept_is_not_copied() -> None:
    assert not await shadow_of(job(policy=EffectivePolicy(version="1", data=DataPolicy(log=False))))


async def test_a_shadow_has_none() -> None:
    assert not await shadow_of(job(shadow_of="job_x"))
    assert not await shadow_of(job(), model=MODEL.model_copy(update={"shadow": None}))


async def test_nobody_waits_and_too_many_are_left_out() -> None:
    shadows, sent = bench()
    sent.stuck.clear()
    for n in range(MOST_ON_THEIR_WAY + 10):
        shadows.follow(job(id=f"job_{n:032x}"), MODEL, "")
    sent.stuck.set()
    await shadows.close()
    assert len(sent.jobs) == MOST_ON_THEIR_WAY


async def test_a_broker_that_is_away_harms_nobody() -> None:
    shadows, sent = bench()
    sent.broken = True
    shadows.follow(job(), MODEL, "")
    await shadows.close()
    assert not sent.jobs


MANY = [job(id=f"job_{n:032x}") for n in range(2000)]


@given(share=st.floats(0.05, 0.95))
def test_the_share_holds(share: float) -> None:
    rule = Shadow(model="new", share=share, team="lab")
    found = sum(wanted(one, rule) for one in MANY)
    # Five standard deviations.
    assert abs(found - 2000 * share) < 5 * (2000 * share * (1 - share)) ** 0.5 + 1


REGIONS = st.sampled_from(["eu", "us", "asia"])
POLICIES = st.builds(
    DataPolicy, regions=st.none() | st.lists(REGIONS, max_size=3, unique=True).map(tuple), hipaa=st.booleans(), log=st.just(True)
)


@given(hers=POLICIES, payers=POLICIES, region=st.none() | REGIONS, hipaa=st.booleans())
def test_no_shadow_goes_where_its_job_may_not(hers: DataPolicy, payers: DataPolicy, region: str | None, hipaa: bool) -> None:
    async def run() -> None:
        given = job(policy=EffectivePolicy(version="1", data=hers))
        [shadow] = await shadow_of(given, Policy(data=payers))
        target = deployment(region=region, hipaa=hipaa)
        if may_ask(target, shadow.policy.data, shadow.policy.route):
            assert may_ask(target, hers, given.policy.route)
            assert may_ask(target, payers, given.policy.route)

    asyncio.run(run())
