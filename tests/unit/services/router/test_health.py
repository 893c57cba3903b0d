"""When a deployment is left alone, and how many calls it is given again."""

import random

import pytest

from schemas.control import Model
from schemas.topics import Lane
from services.router.health import FIRST_COOL_MS, FORGET_MS, IN_A_ROW, LEAST_CALLS, LONGEST_COOL_MS, PROBES, WELL_AT, Health
from tests.unit.services.router.doubles import deployment


def sick(times: int = IN_A_ROW, retry_after_s: float | None = None) -> Health:
    health = Health()
    for _ in range(times):
        health.failed("a", 0, 0, retry_after_s)
    return health


def test_a_deployment_cools_after_failures_in_a_row() -> None:
    assert sick(IN_A_ROW - 1).cools_until("a", 0) == 0
    assert sick().cools_until("a", 0) == FIRST_COOL_MS
    assert sick().cools_until("a", FIRST_COOL_MS) == 0
    assert sick().cools_until("b", 0) == 0


def test_one_success_in_between_and_it_is_well() -> None:
    health = sick(IN_A_ROW - 1)
    health.worked("a", 0, 0)
    health.failed("a", 0, 0)
    assert health.cools_until("a", 0) == 0


def test_failures_that_lie_far_apart_are_no_row() -> None:
    health = Health()
    for n in range(2 * IN_A_ROW):
        health.failed("a", n * FORGET_MS, n * FORGET_MS)
    assert health.cools_until("a", 2 * IN_A_ROW * FORGET_MS) == 0


def test_a_provider_that_says_when_to_come_again_is_obeyed_up_to_a_minute() -> None:
    assert sick(retry_after_s=20).cools_until("a", 0) == 20_000
    assert sick(retry_after_s=3600).cools_until("a", 0) == LONGEST_COOL_MS


def test_what_began_before_it_cooled_says_nothing_of_how_it_is_now() -> None:
    health = sick()
    health.failed("a", FIRST_COOL_MS - 1, FIRST_COOL_MS + 10)
    health.worked("a", FIRST_COOL_MS - 1, FIRST_COOL_MS + 10)
    assert health.cools_until("a", FIRST_COOL_MS + 10) == 0
    ramp = health.ramp("a", FIRST_COOL_MS + 10)
    assert ramp is not None
    assert ramp.total == PROBES


def test_each_failed_recovery_makes_it_cool_longer_up_to_a_minute() -> None:
    health, now, cooled = sick(), 0, list[int]()
    for _ in range(7):
        until = health.cools_until("a", now)
        cooled.append(until - now)
        now = until
        assert health.ramp("a", now)
        health.failed("a", now, now)
    assert cooled == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]


def test_each_success_gives_one_call_more_and_enough_of_them_make_it_well() -> None:
    health, now = sick(), FIRST_COOL_MS
    assert health.ramp("a", now - 1) is None
    for expected in range(PROBES, WELL_AT):
        ramp = health.ramp("a", now)
        assert ramp is not None
        assert ramp.total == expected
        health.worked("a", now, now)
    assert health.ramp("a", now) is None
    health.failed("a", now, now)
    assert health.cools_until("a", now) == 0, "it begins anew"


def test_a_single_failure_on_the_way_up_does_not_send_it_back() -> None:
    health, now = sick(), FIRST_COOL_MS
    assert health.ramp("a", now)
    health.worked("a", now, now)
    for _ in range(IN_A_ROW - 1):
        health.failed("a", now, now)
    assert health.cools_until("a", now) == 0
    health.failed("a", now, now)
    assert health.cools_until("a", now) == now + 2 * FIRST_COOL_MS


def test_of_the_first_probes_one_is_for_interactive() -> None:
    health, now = sick(), FIRST_COOL_MS
    ramp = health.ramp("a", now)
    assert ramp is not None
    ramp.take(Lane.BATCH)
    assert (ramp.room(Lane.BATCH), ramp.room(Lane.INTERACTIVE)) == (0, 1)


# As a model says for its deployments


def rules(allowed_fails: int | None = None, cooldown_s: float | None = None) -> Model:
    return Model(name="m", deployments=(), allowed_fails=allowed_fails, cooldown_s=cooldown_s)


def test_so_many_failures_a_minute_are_allowed_in_a_row_or_not() -> None:
    health, model = Health(), rules(allowed_fails=2)
    for at in (0, 20_000):
        health.failed("a", at, at, model=model)
        health.worked("a", at, at)
    assert health.cools_until("a", 20_000) == 0
    health.failed("a", 59_999, 59_999, model=model)
    assert health.cools_until("a", 59_999) == 59_999 + FIRST_COOL_MS


def test_those_of_more_than_a_minute_ago_do_not_count() -> None:
    health, model = Health(), rules(allowed_fails=2)
    for at in range(0, 600_000, 30_000):
        health.failed("a", at, at, model=model)
        assert health.cools_until("a", at) == 0


def test_none_allowed_is_at_the_first() -> None:
    health = Health()
    health.failed("a", 0, 0, model=rules(allowed_fails=0, cooldown_s=0.5))
    assert health.cools_until("a", 0) == 500


def test_more_allowed_than_a_row_usually_has() -> None:
    health, model = Health(), rules(allowed_fails=IN_A_ROW + 5)
    for _ in range(IN_A_ROW + 5):
        health.failed("a", 0, 0, model=model)
    assert health.cools_until("a", 0) == 0
    health.failed("a", 0, 0, model=model)
    assert health.cools_until("a", 0) == FIRST_COOL_MS


def test_it_cools_as_long_as_its_model_says_each_time_and_longer_only_if_its_provider_asks() -> None:
    health, now, model = Health(), 0, rules(allowed_fails=0, cooldown_s=90)
    for _ in range(3):
        health.failed("a", now, now, model=model)
        assert health.cools_until("a", now) == now + 90_000
        now += 90_000
        assert health.ramp("a", now)
    assert Health().cools_until("a", 0) == 0
    obeyed = Health()
    obeyed.failed("a", 0, 0, retry_after_s=20, model=rules(allowed_fails=0, cooldown_s=1))
    assert obeyed.cools_until("a", 0) == 20_000


def test_a_cooldown_alone_changes_only_how_long() -> None:
    health = Health()
    for n in range(IN_A_ROW):
        assert health.cools_until("a", 0) == 0, n
        health.failed("a", 0, 0, model=rules(cooldown_s=7))
    assert health.cools_until("a", 0) == 7_000


def test_after_it_has_recovered_what_failed_before_is_forgotten() -> None:
    health, model = Health(), rules(allowed_fails=1, cooldown_s=1)
    for _ in range(2):
        health.failed("a", 0, 0, model=model)
    assert health.cools_until("a", 0) == 1_000
    assert health.ramp("a", 1_000)
    for _ in range(WELL_AT):
        health.worked("a", 1_000, 1_000)
    assert health.ramp("a", 1_000) is None
    health.failed("a", 1_000, 1_000, model=model)
    assert health.cools_until("a", 1_000) == 0


# Half of the calls fail


def two() -> Model:
    return Model(name="m", deployments=(deployment("a"), deployment("b")))


def half_failing(health: Health, model: Model, calls: int) -> int:
    """Every other call to `a` fails, 100 a second; how many it took until it was left alone, or all of them."""
    for n in range(calls):
        now = n * 10
        if n % 2:
            health.worked("a", now, now)
        else:
            health.failed("a", now, now, model=model)
        if health.cools_until("a", now):
            return n + 1
    return calls


def test_half_of_the_calls_failing_soon_leaves_it_alone() -> None:
    assert half_failing(Health(), two(), 1_000) <= 2 * LEAST_CALLS


def test_the_last_one_that_is_up_is_asked_though_half_of_its_calls_fail() -> None:
    alone = Model(name="m", deployments=(deployment("a"),))
    assert half_failing(Health(), alone, 1_000) == 1_000
    health = Health()
    for _ in range(IN_A_ROW):
        health.failed("b", 0, 0)
    assert half_failing(health, two(), 400) == 400, "the other one cools"
    drained = Health()
    drained.drained = {"b"}
    assert half_failing(drained, two(), 1_000) == 1_000


def test_the_last_one_that_is_up_is_left_alone_if_hardly_any_call_goes_well() -> None:
    health, model = Health(), Model(name="m", deployments=(deployment("a"),))
    for _ in range(IN_A_ROW):
        health.failed("a", 0, 0, model=model)
    assert health.cools_until("a", 0) == FIRST_COOL_MS


def test_a_few_failures_among_many_calls_are_nothing() -> None:
    health, chance = Health(), random.Random(5)
    for now in range(0, 600_000, 10):
        if chance.random() < 0.05:
            health.failed("a", now, now, model=two())
        else:
            health.worked("a", now, now)
        assert not health.cools_until("a", now)


def test_a_model_with_rules_of_its_own_minds_no_share() -> None:
    model = two().model_copy(update={"allowed_fails": 10_000})
    assert half_failing(Health(), model, 1_000) == 1_000


@pytest.mark.parametrize("seed", range(10))
def test_half_of_one_deployments_calls_failing_is_no_storm(seed: int) -> None:
    """At most 1.2 calls for each of 2,000 requests, each of which is asked of whoever is up until somebody answers."""
    health, chance, calls, model = Health(), random.Random(seed), 0, two()
    for n in range(2_000):
        now, tried = n * 5, set[str]()
        while True:
            up = [name for name in "ab" if not health.cools_until(name, now)]
            ramps = {name: health.ramp(name, now) for name in up}
            name = chance.choice([one for one in up if one not in tried] or up)
            calls += 1
            if name == "a" and chance.random() < 0.5:
                health.failed(name, now, now, model=model)
                tried.add(name)
                continue
            health.worked(name, now, now)
            assert len(ramps) == len(up)
            break
    assert calls <= 1.2 * 2_000


# A refused credential


def refused(health: Health, now: int, started: int | None = None) -> int:
    """For how long it is left alone after a call with a credential that is refused."""
    health.failed("a", now if started is None else started, now, kind="denied")
    return health.cools_until("a", now) - now


def test_a_refused_credential_takes_it_out_at_once_and_longer_each_time() -> None:
    health, now, out = Health(), 0, list[int]()
    for _ in range(6):
        out.append(refused(health, now))
        now += out[-1]
        assert health.ramp("a", now)
    assert out == [60_000, 120_000, 240_000, 480_000, 900_000, 900_000]
    assert health.state("a", 0)[0] == "quarantined"


def test_what_it_failed_with_before_makes_no_longer_quarantine() -> None:
    health = sick()
    assert health.state("a", 0) == ("open", "failures", FIRST_COOL_MS)
    assert refused(health, 100, started=0) == 60_000, "a call from before it cooled tells of the credential all the same"
    assert health.state("a", 100) == ("quarantined", "credential", 60_100)


def test_another_credential_puts_it_back_and_late_refusals_of_the_one_before_mean_nothing() -> None:
    health = Health()
    refused(health, 1_000)
    health.credential_changed("a", 2_000)
    assert health.cools_until("a", 2_000) == 0
    assert refused(health, 3_000, started=1_500) == -3_000
    assert refused(health, 3_000, started=2_500) == 120_000


def test_refusals_of_a_credential_that_was_changed_while_all_was_well_mean_nothing() -> None:
    health = Health()
    health.credential_changed("a", 2_000)
    assert (health.cools_until("a", 2_000), health.ramp("a", 2_000)) == (0, None)
    assert refused(health, 3_000, started=1_500) == -3_000
    health.worked("a", 2_500, 2_600)
    assert refused(health, 3_000) == 60_000


def test_another_credential_changes_nothing_for_one_that_fails() -> None:
    health = sick()
    health.credential_changed("a", 0)
    assert health.cools_until("a", 0) == FIRST_COOL_MS


def test_a_drained_one_is_left_alone() -> None:
    health = Health()
    health.drained = {"a"}
    assert health.cools_until("a", 5) > 5
    assert health.state("a", 5) == ("drained", "operator", 0)
    health.drained = ()
    assert health.cools_until("a", 5) == 0


def test_it_is_half_open_until_a_call_went_well() -> None:
    health, now = sick(), FIRST_COOL_MS
    assert health.state("a", now) == ("half_open", "failures", 0)
    assert health.ramp("a", now)
    health.worked("a", now, now)
    assert health.state("a", now) == ("closed", "", 0)
