"""How fast batch may begin."""

import asyncio
from collections.abc import Callable

import pytest

from infra.pace import Pace
from tests.fakes.clock import in_virtual_time


def settled(pace: Pace, *, busy: float, lag_s: float, now: float = 1e9, samples: int = 400) -> float:
    """The rate after some seconds in which everything that may begin does."""
    for _ in range(samples):
        while pace.room():
            pace.begin()
        pace.adjust(busy, lag_s, now)
    return pace.rate


def test_an_idle_loop_lets_batch_go_faster_up_to_a_limit() -> None:
    assert settled(Pace(), busy=0.3, lag_s=0.0) == 5_000


def test_a_rate_that_nobody_uses_up_does_not_grow() -> None:
    pace = Pace()
    before = pace.rate
    for _ in range(400):
        pace.adjust(0.1, 0.0, 1e9)
    assert pace.rate == before


@pytest.mark.parametrize(("busy", "lag_s"), [(0.9, 0.0), (0.1, 0.02)])
def test_beside_interactive_work_a_busy_or_late_loop_slows_batch_down_to_its_minimum(busy: float, lag_s: float) -> None:
    pace = Pace()
    pace.interactive()
    assert settled(pace, busy=busy, lag_s=lag_s, now=0) == 20


def test_alone_batch_may_fill_the_loop_unless_it_is_late() -> None:
    assert settled(Pace(), busy=0.99, lag_s=0.005) == 5_000
    assert settled(Pace(), busy=0.99, lag_s=0.1) == 20


def test_what_begins_is_counted() -> None:
    pace = Pace()
    room = pace.room()
    assert room >= 1
    for _ in range(room):
        pace.begin()
    assert pace.room() <= 1


class Looking(Pace):
    """Counts how often it looks at the loop."""

    looks = 0

    def adjust(self, busy: float, lag_s: float, now: float) -> None:
        self.looks += 1


@pytest.mark.parametrize(("work", "looks"), [(None, 10), (Pace.interactive, 200), (Pace.begin, 200)])
@in_virtual_time
async def test_a_loop_that_has_work_is_looked_at_often_and_any_other_seldom(
    work: Callable[[Pace], None] | None, looks: int
) -> None:
    pace = Looking()
    if work:
        work(pace)
    pace.start()
    await asyncio.sleep(5.001)
    await pace.stop()
    assert pace.looks == pytest.approx(looks, abs=1)
