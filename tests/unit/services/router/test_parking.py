"""Until when a batch job is put off, case by case."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.job import Step
from schemas.topics import Lane
from services.router import parking
from services.router.parking import LAST_LOOK_MS, MOST_MADE, Later, Moment
from tests.unit.services.router.doubles import START_MS, job

DAY_MS = 86_400_000
BATCH = job(lane=Lane.BATCH, deadline_ms=START_MS + DAY_MS)


def moment(after_ms: int = 0, jitter: float = 0.0) -> Moment:
    return Moment(START_MS + after_ms, jitter)


def test_while_all_are_down_it_looks_when_one_may_be_up_and_less_often_the_longer_it_waits() -> None:
    until = START_MS + 9_000
    assert parking.while_down(BATCH, until, moment()) == Later(until, "down")
    assert parking.while_down(BATCH, until, moment(jitter=0.5)) == Later(until + 2_500, "down")
    late = moment(DAY_MS // 2, 0.5)
    assert parking.while_down(BATCH, late.now_ms, late) == Later(late.now_ms + 30_000, "down")


def test_the_pause_between_tries_grows_to_a_minute() -> None:
    pauses = [parking.after_failure(BATCH, "unavailable", made, None, moment(jitter=0.5)) for made in range(1, 9)]
    assert [later.at_ms - START_MS for later in pauses if later] == [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]


def test_a_provider_that_says_when_is_obeyed() -> None:
    assert parking.after_failure(BATCH, "throttled", 1, 20.0, moment()) == Later(START_MS + 20_000, "failed")


def test_what_is_not_put_off_after_a_failure() -> None:
    assert parking.after_failure(BATCH, "final", 1, None, moment()) is None
    assert parking.after_failure(job(), "unavailable", 1, None, moment()) is None, "interactive fails at once"
    assert parking.after_failure(BATCH, "unavailable", MOST_MADE, None, moment()) is None
    assert parking.after_failure(BATCH, "unavailable", MOST_MADE - 1, None, moment())


def test_a_gate_is_waited_for_until_a_tenth_of_the_time_is_left_and_ten_minutes_at_most() -> None:
    opens = START_MS + 2 * DAY_MS
    later = parking.behind_gate(BATCH, opens, moment())
    assert later == Later(START_MS + DAY_MS - 600_000, "gate")
    assert parking.behind_gate(BATCH, opens, moment(DAY_MS - 600_000)) is None
    short = job(lane=Lane.BATCH, deadline_ms=START_MS + 60_000)
    assert parking.behind_gate(short, opens, moment()) == Later(START_MS + 54_000, "gate")
    assert parking.behind_gate(short, opens, moment(54_000)) is None
    assert parking.behind_gate(BATCH, START_MS + 1_000, moment()) == Later(START_MS + 1_000, "gate")


@given(st.integers(1, 3 * DAY_MS), st.integers(0, 3 * DAY_MS), st.integers(0, DAY_MS), st.floats(0, 1, exclude_max=True))
def test_nobody_is_put_off_past_his_deadline_and_everybody_is_looked_at_again(
    life: int, after: int, wait: int, jitter: float
) -> None:
    given_job, now = job(lane=Lane.BATCH, deadline_ms=START_MS + life), moment(after, jitter)
    for later in (
        parking.while_down(given_job, now.now_ms + wait, now),
        parking.over_quota(given_job, wait, now),
        parking.after_failure(given_job, "unavailable", 1, wait / 1000, now),
    ):
        assert (later is None) == (after >= life - LAST_LOOK_MS)
        assert later is None or now.now_ms < later.at_ms <= START_MS + life - LAST_LOOK_MS or wait == 0
    gated = parking.behind_gate(given_job, now.now_ms + wait, now)
    assert gated is None or now.now_ms <= gated.at_ms <= START_MS + life


def test_a_job_that_is_put_off_often_does_not_grow_by_it() -> None:
    waiting = BATCH
    for visit in range(5):
        taken = waiting.model_copy(update={"steps": (*waiting.steps, Step(stage="router", at_ms=START_MS + visit))})
        waiting = parking.put_off(taken, (), Later(START_MS + 9, "down"))
    assert waiting.not_before_ms == START_MS + 9
    assert [step.at_ms for step in waiting.steps] == [START_MS]
