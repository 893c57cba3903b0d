"""The whole way of a job, simulated: what is accepted ends, what is called is booked, whatever goes wrong.

A seed that fails is in the test's name and in its message: `pytest tests/simulator -k "[17]"` runs it again, alike.
"""

import pytest

from tests.simulator.chaos import Weather
from tests.simulator.run import run


@pytest.mark.parametrize("seed", range(20))
def test_no_job_is_lost_and_no_call_is_off_the_books(seed: int) -> None:
    report = run(seed)
    assert report.accepted


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_when_nothing_goes_wrong_everything_happens_once(seed: int) -> None:
    report = run(seed, Weather())
    assert report.accepted == 40
    assert (report.called_again, report.ended_twice) == (0, 0)


# Found by the simulator, and mended.


@pytest.mark.parametrize("seed", [406, 23, 19, 9, 409, 412])
def test_what_went_wrong_once_stays_right(seed: int) -> None:
    run(seed)


def test_a_seed_means_the_same_each_time() -> None:
    assert run(1) == run(1)
