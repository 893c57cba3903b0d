"""What was read ahead: the teams take turns."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.log import Partition
from infra.kafka.turns import Ahead, Turns
from schemas.topics import Lane
from tests.fakes.log import Record

MUCH = Ahead(records=1_000, size=1_000_000)


def anybody(_: bytes) -> bool:
    return True


def filled(teams: list[bytes], most: Ahead = MUCH) -> Turns:
    turns = Turns(most)
    for offset, team in enumerate(teams):
        turns.put(Lane.BATCH, team, Record("t.batch", offset % 3, offset, value=b"x"))
    return turns


def taken(turns: Turns) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    while one := turns.take(Lane.BATCH, anybody):
        found.append((one[0], one[1].offset))
    return found


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=60))
def test_each_record_is_taken_once_in_the_order_of_its_team(teams: list[bytes]) -> None:
    order = taken(turns := filled(teams))
    assert sorted(offset for _, offset in order) == list(range(len(teams)))
    for team in set(teams):
        own = [offset for of, offset in order if of == team]
        assert own == sorted(own)
    assert turns.waiting(Lane.BATCH) == 0
    assert all(turns.waiting_in(Partition("t.batch", n)) == 0 for n in range(3))


@given(st.integers(1, 200), st.integers(1, 20))
def test_g19_a_long_queue_in_front_costs_another_team_one_place_a_turn(long: int, short: int) -> None:
    order = [team for team, _ in taken(filled([b"long"] * long + [b"short"] * short))]
    last = max(place for place, team in enumerate(order) if team == b"short")
    assert last <= 2 * short


def test_who_may_not_is_passed_over() -> None:
    turns = filled([b"a", b"a", b"b"])
    assert [turns.take(Lane.BATCH, lambda team: team == b"b") for _ in range(2)][1] is None
    assert turns.waiting(Lane.BATCH) == 2
    assert turns.take(Lane.INTERACTIVE, anybody) is None


def test_room_is_bounded_in_records_and_in_bytes() -> None:
    assert filled([b"a"] * 3, Ahead(records=5, size=100)).room(Lane.BATCH) == 2
    assert filled([b"a"] * 3, Ahead(records=5, size=3)).room(Lane.BATCH) == 0
    assert filled([b"a"] * 3, Ahead(records=5, size=3)).room(Lane.INTERACTIVE) == 5


@given(st.lists(st.sampled_from([b"a", b"b"]), max_size=40), st.sets(st.integers(0, 2)))
def test_what_is_dropped_is_gone_and_the_rest_stays(teams: list[bytes], gone: set[int]) -> None:
    turns = filled(teams)
    dropped = turns.drop([Partition("t.batch", n) for n in gone])
    assert {record.partition for record in dropped} <= gone
    left = taken(turns)
    assert Counter([r.offset for r in dropped] + [offset for _, offset in left]) == Counter(range(len(teams)))
    assert not any(offset % 3 in gone for _, offset in left)
