"""Plans of blocks: whatever crashes, each record is in ClickHouse once, under a model of its token deduplication."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clickhouse.blocks import Blocks, Commit, Insert, Plan, parse_metadata, version

TOPIC = "sluice.completions"


class Kafka:
    """One partition and the group's commit."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets
        self.end = offsets[-1] + 1 if offsets else 0
        self.committed = 0
        self.metadata = ""

    def read(self, position: int, limit: int) -> tuple[list[int], int]:
        """Up to `limit` records from `position` on, and the position after them."""
        found = [offset for offset in self.offsets if offset >= position][:limit]
        return found, found[-1] + 1 if len(found) == limit else self.end


class ClickHouse:
    """A table that drops a block whose token it has seen, whatever its rows."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.rows: Counter[int] = Counter()

    def insert(self, step: Insert[int]) -> None:
        if step.plan.token not in self.tokens:
            self.tokens.add(step.plan.token)
            self.rows.update(step.rows)


class Life:
    """A driver from its start until it crashes."""

    def __init__(self, kafka: Kafka, clickhouse: ClickHouse) -> None:
        self.kafka = kafka
        self.clickhouse = clickhouse
        self.blocks: Blocks[int] = Blocks(TOPIC, 0, kafka.committed, kafka.metadata)
        self.position = kafka.committed

    def poll(self, limit: int) -> None:
        found, self.position = self.kafka.read(self.position, limit)
        for offset in found:
            self.blocks.arrive(offset, offset)
        self.blocks.reached(self.position)

    def work(self, *, acknowledged: bool = True) -> bool:
        """Do one step; without `acknowledged` it is done but the driver does not learn of it. False: nothing to do."""
        match self.blocks.step():
            case Commit(offset, metadata):
                self.kafka.committed, self.kafka.metadata = offset, metadata
            case Insert() as insert:
                self.clickhouse.insert(insert)
            case None:
                return False
        if acknowledged:
            self.blocks.done()
        return True

    def finish(self, limit: int) -> None:
        while self.position < self.kafka.end:
            self.poll(limit)
        self.blocks.cut(limit)
        while self.work():
            if self.blocks.step() is None:
                self.blocks.cut(limit)


ACTIONS = st.one_of(
    st.tuples(st.just("poll"), st.integers(1, 7)),
    st.tuples(st.just("cut"), st.integers(1, 5)),
    st.tuples(st.just("work"), st.just(0)),
    st.tuples(st.just("unknown"), st.just(0)),
    st.tuples(st.just("crash"), st.just(0)),
)
LOGS = st.lists(st.integers(0, 60), unique=True, max_size=25).map(sorted)


@settings(max_examples=500, deadline=None)
@given(offsets=LOGS, actions=st.lists(ACTIONS, max_size=60), last_limit=st.integers(1, 9))
def test_each_record_is_inserted_exactly_once(offsets: list[int], actions: list[tuple[str, int]], last_limit: int) -> None:
    kafka, clickhouse = Kafka(offsets), ClickHouse()
    life = Life(kafka, clickhouse)
    for name, size in actions:
        match name:
            case "poll":
                life.poll(size)
            case "cut":
                life.blocks.cut(size)
            case "crash":
                life = Life(kafka, clickhouse)
            case _:
                life.work(acknowledged=name == "work")
        assert all(count == 1 for count in clickhouse.rows.values())
        assert all(clickhouse.rows[offset] for offset in offsets if offset < kafka.committed)
    life.finish(last_limit)
    assert clickhouse.rows == Counter(offsets)
    assert kafka.committed == kafka.end
    assert kafka.metadata == ""
    assert life.blocks.pending == 0


def test_the_three_steps_of_a_block() -> None:
    blocks: Blocks[str] = Blocks(TOPIC, 3, 10)
    assert blocks.step() is None
    for offset in (10, 11, 14):
        blocks.arrive(offset, f"row {offset}")
    assert blocks.step() is None
    blocks.cut(2)
    plan = Plan(TOPIC, 3, 10, 11)
    assert blocks.step() == Commit(10, "until=11")
    blocks.done()
    assert blocks.step() == Insert(plan, ["row 10", "row 11"])
    blocks.done()
    assert blocks.step() == Commit(12, "")
    blocks.done()
    assert blocks.step() is None
    assert blocks.pending == 1
    blocks.cut(100)
    assert blocks.step() == Commit(12, "until=14")


def test_a_plan_that_was_found_waits_for_all_its_records() -> None:
    blocks: Blocks[str] = Blocks(TOPIC, 0, 5, "until=7")
    blocks.arrive(5, "a")
    blocks.arrive(6, "b")
    blocks.cut(1)
    assert blocks.step() is None
    with pytest.raises(RuntimeError):
        blocks.done()
    blocks.arrive(9, "c")
    assert blocks.step() == Insert(Plan(TOPIC, 0, 5, 7), ["a", "b"])


def test_a_plan_whose_records_are_gone_still_ends() -> None:
    blocks: Blocks[str] = Blocks(TOPIC, 0, 5, "until=7")
    blocks.reached(8)
    assert blocks.step() == Insert(Plan(TOPIC, 0, 5, 7), [])
    blocks.done()
    assert blocks.step() == Commit(8, "")


def test_a_repeated_record_is_ignored() -> None:
    blocks: Blocks[str] = Blocks(TOPIC, 0, 0)
    for offset in (0, 1, 0, 1, 2):
        blocks.arrive(offset, "row")
    assert blocks.pending == 3


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_plan_survives_its_metadata(first: int, length: int) -> None:
    plan = Plan(TOPIC, 0, first, first + length)
    assert parse_metadata(plan.metadata()) == plan.until
    assert plan.token == f"{TOPIC}:0:{first}-{first + length}"


@pytest.mark.parametrize("text", ["until=", "until=-1", "until=3 ", "v1:AAEC", "UNTIL=3", "until=3,4"])
def test_foreign_metadata_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_metadata(text)


def test_a_plan_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError):
        Blocks(TOPIC, 0, 8, "until=7")


@pytest.mark.parametrize("text", [None, ""])
def test_no_metadata_is_no_plan(text: str | None) -> None:
    assert parse_metadata(text) is None


def test_the_earliest_offset_has_the_highest_version() -> None:
    assert version(7) > version(8)
    assert 0 < version(2**63 - 1) < version(0) < 2**64
