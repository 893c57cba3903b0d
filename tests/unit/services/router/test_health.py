"""When a deployment is left alone, and how many calls it is given again."""

from schemas.control import Model
from schemas.topics import Lane
from services.router.health import FIRST_COOL_MS, FORGET_MS, IN_A_ROW, LONGEST_COOL_MS, PROBES, WELL_AT, Health


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
    health.worked("a", 0)
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
    health.worked("a", FIRST_COOL_MS - 1)
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
        health.worked("a", now)
    assert health.ramp("a", now) is None
    health.failed("a", now, now)
    assert health.cools_until("a", now) == 0, "it begins anew"


def test_a_single_failure_on_the_way_up_does_not_send_it_back() -> None:
    health, now = sick(), FIRST_COOL_MS
    assert health.ramp("a", now)
    health.worked("a", now)
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
        health.worked("a", at)
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
        health.worked("a", 1_000)
    assert health.ramp("a", 1_000) is None
    health.failed("a", 1_000, 1_000, model=model)
    assert health.cools_until("a", 1_000) == 0
