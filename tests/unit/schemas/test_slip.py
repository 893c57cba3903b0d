"""The way of a job."""

from itertools import permutations

import pytest

from schemas.slip import CANONICAL, RoutingSlip, Stage, is_canonical, next_topic, without_front
from schemas.topics import Lane
from tests.fakes.jobs import a_job

G, C, R = Stage.GUARD, Stage.CACHE, Stage.ROUTER


def test_the_canonical_slips_are_those_in_order_that_end_where_jobs_are_sent_out() -> None:
    every = [slip for length in range(4) for slip in permutations(CANONICAL, length)]
    assert {slip for slip in every if is_canonical(slip)} == {(G, C, R), (G, R), (C, R), (R,)}
    assert not is_canonical((C, C, R))
    assert not is_canonical((R, R))


@pytest.mark.parametrize(
    ("slip", "lane", "topic"),
    [
        ((G, C, R), Lane.INTERACTIVE, "sluice.guard.interactive"),
        ((C, R), Lane.BATCH, "sluice.cache.batch"),
        ((R,), Lane.INTERACTIVE, "sluice.router.interactive"),
    ],
)
def test_the_front_of_the_slip_says_where_to(slip: RoutingSlip, lane: Lane, topic: str) -> None:
    assert next_topic(slip, lane) == topic
    assert a_job(slip=slip, lane=lane).next_topic() == topic


def test_a_stage_takes_itself_off_the_front_and_nobody_else() -> None:
    assert without_front((G, C, R), G) == (C, R)
    assert without_front((R,), R) == ()
    for slip, stage in (((G, C, R), C), ((C, R), R), ((), G)):
        with pytest.raises(ValueError, match="is not at the front"):
            without_front(slip, stage)


def test_there_is_nowhere_to_go_after_the_end() -> None:
    with pytest.raises(ValueError, match="no stage left"):
        next_topic((), Lane.BATCH)


def test_a_job_on_its_way_forgets_no_more_than_its_front() -> None:
    job = a_job()
    past = job.past(G)
    assert past.slip == (C, R)
    assert past == job.model_copy(update={"slip": (C, R)})
    assert job.slip == (G, C, R)
