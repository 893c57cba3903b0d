"""How many jobs of which lane may be taken."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.kafka.capacity import Capacity
from schemas.topics import Lane

INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH


def filled(total: int, lane: Lane) -> Capacity:
    """All that one lane may take is taken."""
    capacity = Capacity.of(total)
    while capacity.room(lane):
        capacity.take(lane)
    return capacity


@pytest.mark.parametrize(("total", "reserved", "guaranteed"), [(2, 1, 1), (3, 1, 1), (8, 2, 1), (40, 10, 4), (1024, 256, 102)])
def test_shares(total: int, reserved: int, guaranteed: int) -> None:
    assert filled(total, BATCH).room(INTERACTIVE) == reserved
    assert filled(total, INTERACTIVE).room(BATCH) == guaranteed


def test_a_stage_without_a_place_for_each_lane_is_refused() -> None:
    with pytest.raises(ValueError, match="one for each lane"):
        Capacity.of(1)


def test_each_lane_alone_gets_all_but_the_others_share() -> None:
    assert filled(100, BATCH).busy == 75
    assert filled(100, INTERACTIVE).busy == 90


class Lanes(RuleBasedStateMachine):
    """Jobs of both lanes come and go; only what there is room for is taken."""

    @initialize(total=st.integers(2, 60))
    def open(self, total: int) -> None:
        self.capacity = Capacity.of(total)
        self.total = total
        self.busy = {INTERACTIVE: 0, BATCH: 0}

    @precondition(lambda self: any(self.capacity.room(lane) for lane in Lane))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in Lane if self.capacity.room(lane)]))
        for _ in range(data.draw(st.integers(1, self.capacity.room(lane)))):
            self.capacity.take(lane)
            self.busy[lane] += 1

    @precondition(lambda self: self.capacity.busy)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in Lane if self.busy[lane]]))
        self.capacity.give_back(lane)
        self.busy[lane] -= 1

    @invariant()
    def never_more_than_there_are_and_nobody_starves(self) -> None:
        assert self.capacity.busy == sum(self.busy.values()) <= self.total
        for lane, share in ((INTERACTIVE, self.capacity.reserved), (BATCH, self.capacity.guaranteed)):
            assert self.busy[lane] + self.capacity.room(lane) >= share
            assert self.capacity.room(lane) <= self.total - self.capacity.busy


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_team_that_is_alone_may_hold_a_whole_lane() -> None:
    capacity = Capacity.of(100)
    for _ in range(75):
        assert capacity.has_share(BATCH, b"a")
        capacity.take(BATCH, b"a")
    assert capacity.room(BATCH) == 0


@pytest.mark.parametrize(("lane", "most"), [(BATCH, 56), (INTERACTIVE, 81)])
def test_beside_another_team_it_may_not(lane: Lane, most: int) -> None:
    capacity = Capacity.of(100)
    capacity.take(lane, b"b")
    while capacity.has_share(lane, b"a"):
        capacity.take(lane, b"a")
    assert capacity.room(lane) > 0
    assert capacity.busy == most + 1
    assert capacity.has_share(lane, b"c")
    capacity.give_back(lane, b"b")
    assert capacity.has_share(lane, b"a"), "alone again"
