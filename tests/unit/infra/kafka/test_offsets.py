"""Offsets of one partition. Tests are named after what is feared."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infra.kafka.offsets import MAX_METADATA, MAX_SPAN, Offsets, decode, encode


def begun(*offsets: int) -> Offsets:
    """A partition of which these were delivered, all running."""
    partition = Offsets()
    for offset in offsets:
        assert partition.deliver(offset)
    return partition


def after_crash(partition: Offsets) -> Offsets:
    """What another process knows when it takes over at what was committed."""
    successor = Offsets()
    successor.assign(partition.commit_point, partition.metadata())
    return successor


def test_nothing_is_committed_before_anything_is_known() -> None:
    assert not Offsets().started


def test_a_slow_head_does_not_hold_the_memory_of_what_is_finished_behind_it() -> None:
    partition = begun(*range(10))
    for offset in range(1, 10):
        partition.finish(offset)
    assert partition.commit_point == 0
    successor = after_crash(partition)
    assert [offset for offset in range(12) if successor.deliver(offset)] == [0, 10, 11]


def test_the_commit_point_is_past_everything_when_all_is_finished() -> None:
    partition = begun(5, 6, 9)
    for offset in (9, 5, 6):
        partition.finish(offset)
    assert (partition.commit_point, partition.metadata()) == (10, "")


def test_gaps_are_not_waited_for() -> None:
    partition = begun(0, 7, 1000)
    partition.finish(7)
    partition.finish(0)
    assert partition.commit_point == 1000
    partition.finish(1000)
    assert partition.commit_point == 1001


def test_an_unfinished_offset_that_was_compacted_away_does_not_stop_the_partition() -> None:
    partition = begun(0, 1, 2, 3)
    partition.finish(1)
    successor = after_crash(partition)
    assert [offset for offset in (2, 3, 4) if successor.deliver(offset)] == [2, 3, 4]
    assert successor.commit_point == 2


def test_work_that_stopped_without_an_end_is_not_committed_past() -> None:
    partition = begun(0, 1)
    partition.forget(0)
    partition.finish(1)
    assert partition.deliver(2)
    partition.finish(2)
    assert partition.commit_point == 0
    partition.assign(0, partition.metadata())
    assert [offset for offset in range(3) if partition.deliver(offset)] == [0]


def test_work_that_runs_on_over_a_rebalance_is_adopted() -> None:
    partition = begun(0, 1, 2)
    partition.finish(1)
    partition.assign(partition.commit_point, partition.metadata())
    assert [offset for offset in range(4) if partition.deliver(offset)] == [3]
    assert partition.running == 3
    for offset in (0, 2, 3):
        partition.finish(offset)
    assert partition.commit_point == 4


def test_work_that_ended_while_the_partition_was_nobodys_is_not_repeated() -> None:
    partition = begun(0, 1, 2)
    committed = partition.commit_point, partition.metadata()
    partition.finish(0)
    partition.finish(2)
    partition.assign(*committed)
    assert not any(partition.deliver(offset) for offset in range(3))
    partition.finish(1)
    assert partition.commit_point == 3


def test_what_another_member_finished_meanwhile_is_finished() -> None:
    partition = begun(0, 1, 2, 3)
    other = after_crash(partition)
    for offset in range(6):
        assert other.deliver(offset)
    for offset in (0, 1, 4):
        other.finish(offset)
    partition.finish(3)
    partition.assign(other.commit_point, other.metadata())
    assert partition.commit_point == 2
    assert [offset for offset in range(2, 7) if partition.deliver(offset)] == [5, 6]
    partition.finish(0)
    partition.finish(2)
    assert partition.commit_point == 5


def test_metadata_of_strangers_means_that_nothing_is_known() -> None:
    for metadata in ("", "hello", "1:%%%", "1:gA==", "2:AQE="):
        assert decode(7, metadata) == (set(), 7)


def test_one_long_job_fills_its_partition_and_its_end_frees_it() -> None:
    partition, offset = begun(0), 0
    while not partition.full:
        offset += 1
        assert partition.deliver(offset)
        partition.finish(offset)
    assert partition.running == 1
    partition.finish(0)
    assert not partition.full


@st.composite
def unfinished_and_following(draw: st.DrawFn) -> tuple[set[int], int]:
    unfinished = draw(st.sets(st.integers(0, 3000), min_size=0, max_size=200))
    return unfinished, max(unfinished, default=0) + 1 + draw(st.integers(0, 300))


@given(unfinished_and_following(), st.integers(0, 2**50))
def test_metadata_says_exactly_what_is_unfinished(case: tuple[set[int], int], base: int) -> None:
    unfinished, following = {base + offset for offset in case[0]}, base + case[1]
    commit_point = min(unfinished, default=following)
    known, next_new = decode(commit_point, encode(sorted(unfinished), following))
    # An unbroken run at the end needs no words: those come again in any case.
    said = known | set(range(next_new, following))
    assert said == unfinished
    assert next_new <= following


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_no_metadata_makes_it_fail(metadata: bytes, offset: int) -> None:
    unfinished, following = decode(offset, "1:" + metadata.decode("latin-1"))
    assert following >= offset
    assert all(offset <= o for o in unfinished)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3]), st.floats(0, 1))
def test_metadata_fits_when_no_more_is_taken_of_a_full_partition(seed: int, stride: int, share: float) -> None:
    partition, offset, chance = Offsets(), 0, Random(seed)
    while not partition.full:
        batch: list[int] = []
        for _ in range(256):
            partition.deliver(offset)
            batch.append(offset)
            offset += 1 + chance.randrange(stride)
        for taken in batch:
            if taken and chance.random() < share:
                partition.finish(taken)
        assert len(partition.metadata()) <= MAX_METADATA
    assert offset - partition.commit_point <= MAX_SPAN + 256 * stride


class TwoMembers(RuleBasedStateMachine):
    """A partition that goes to and fro between two members, of whom any may die; against sets that know everything."""

    def __init__(self) -> None:
        super().__init__()
        self.members = [Offsets(), Offsets()]
        self.running: list[set[int]] = [set(), set()]
        self.ended: set[int] = set()
        self.known: list[set[int]] = [set(), set()]
        self.log: list[int] = []
        self.owner = 0
        self.position = 0
        self.committed = (0, "")
        self.told: set[int] = set()
        self.floor = 0
        self.top = 0

    @rule(gap=st.integers(0, 2))
    def write(self, gap: int) -> None:
        self.top += gap
        self.log.append(self.top)
        self.top += 1

    @precondition(lambda self: self.unread())
    @rule(count=st.integers(1, 5))
    def poll(self, count: int) -> None:
        owner = self.owner
        for offset in self.unread()[:count]:
            self.position = offset + 1
            begins = self.members[owner].deliver(offset)
            assert not (begins and offset in self.running[owner]), "a running offset was begun again"
            assert not (begins and offset in self.known[owner]), "what this process finished was begun again"
            assert not (begins and offset in self.told), "what the commit said is finished was begun again"
            assert begins or offset in self.running[owner] | self.known[owner] | self.told, "a record was skipped"
            if begins:
                self.running[owner].add(offset)

    @precondition(lambda self: self.running[0] | self.running[1])
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        member = data.draw(st.sampled_from([m for m in (0, 1) if self.running[m]]))
        offset = data.draw(st.sampled_from(sorted(self.running[member])))
        self.running[member].discard(offset)
        if well:
            self.members[member].finish(offset)
            self.ended.add(offset)
            self.known[member].add(offset)
        else:
            self.members[member].forget(offset)

    @precondition(lambda self: self.members[self.owner].started)
    @rule()
    def commit(self) -> None:
        owner = self.members[self.owner]
        self.committed = owner.commit_point, owner.metadata()
        unfinished, following = decode(*self.committed)
        self.told = {o for o in self.log if o < following and o not in unfinished}
        assert self.told <= self.ended, "something unfinished was committed"

    @rule(to=st.sampled_from([0, 1]), last_commit=st.booleans())
    def rebalance(self, to: int, last_commit: bool) -> None:
        if last_commit and self.members[self.owner].started:
            self.commit()
        self.owner = to
        self.members[to].assign(*self.committed)
        self.position = self.floor = self.committed[0]

    @rule()
    def crash(self) -> None:
        owner = self.owner
        self.members[owner], self.running[owner], self.known[owner] = Offsets(), set(), set()
        self.rebalance(1 - owner, last_commit=False)

    @invariant()
    def the_commit_point_moves_on_and_never_past_what_is_unfinished(self) -> None:
        owner = self.members[self.owner]
        if owner.started:
            assert owner.commit_point >= self.floor, "the commit point moved back"
            assert all(offset in self.ended for offset in self.log if offset < owner.commit_point)
            self.floor = owner.commit_point

    def unread(self) -> list[int]:
        return [offset for offset in self.log if offset >= self.position]


TestTwoMembers = TwoMembers.TestCase
TestTwoMembers.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("finished", [(), (1,), (1, 3), (0, 2), (0, 1, 2, 3)])
def test_after_a_crash_exactly_the_unfinished_come_again(finished: Iterable[int]) -> None:
    partition = begun(0, 1, 2, 3)
    for offset in finished:
        partition.finish(offset)
    successor = after_crash(partition)
    repeated = {offset for offset in range(4) if offset >= partition.commit_point and successor.deliver(offset)}
    assert repeated == {0, 1, 2, 3} - set(finished)
