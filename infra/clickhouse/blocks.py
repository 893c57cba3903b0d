"""Pure: which offsets of a partition go into ClickHouse as one block, and what has to be written down before.

ClickHouse drops a block whose token it has seen, whatever the rows; so a block must be built again exactly as it was,
or rows are lost. Hence "write down the plan, then do it": commit the block's first offset with metadata `until=N`,
insert the rows of [first, N], commit N + 1. Whoever comes after a crash finds either no plan, and is free to choose, or
a plan, and builds that block. (HOUSE.md 3c; ClickHouse's own Kafka sink does the same with KeeperMap.)
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Generic, TypeVar

Row = TypeVar("Row")

_METADATA = re.compile(r"until=(\d+)")
_FIRST_WINS = 2**63


def version(offset: int) -> int:
    """Version of a row in a ReplacingMergeTree, which keeps the highest: the earliest offset survives."""
    return _FIRST_WINS - offset


@dataclass(frozen=True, slots=True)
class Plan:
    """A block: every record of [first, until], both inclusive. Some offsets may hold none (markers, compaction).

    `again`: somebody else may have begun to write it, and died.
    """

    topic: str
    partition: int
    first: int
    until: int
    again: bool = field(default=False, compare=False)

    @property
    def token(self) -> str:
        """What ClickHouse knows the block by (`insert_deduplication_token`)."""
        return f"{self.topic}:{self.partition}:{self.first}-{self.until}"

    def metadata(self) -> str:
        """Goes into the commit of `first`, before the insert."""
        return f"until={self.until}"


def parse_metadata(text: str | None) -> int | None:
    """The `until` of a plan that was written down; None when there is none. Raises ValueError for anything else.

    Foreign metadata is not taken for "no plan": a block with other bounds could lose rows.
    """
    if not text:
        return None
    found = _METADATA.fullmatch(text)
    if found is None:
        raise ValueError(f"the commit's metadata is not a plan of ours: {text!r}")
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit `offset` with `metadata` to Kafka."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class Insert(Generic[Row]):
    """Insert `rows` (in the order of their offsets, possibly none) under `plan.token`."""

    plan: Plan
    rows: Sequence[Row]


class Blocks(Generic[Row]):
    """One partition's way into ClickHouse: rows in, steps out.

    The driver feeds `arrive` and `reached`, calls `cut` when a block should be closed (a timer, enough rows), and does
    what `step` says, as often as it takes, calling `done` after each success. A failed or unknown step is simply done
    again. After a revoked partition the object is thrown away.
    """

    def __init__(self, topic: str, partition: int, committed: int, metadata: str | None = None) -> None:
        """From the group's commit: its offset (or where the partition begins) and metadata. Raises ValueError."""
        self._topic = topic
        self._partition = partition
        self._first = committed
        self._position = committed
        self._rows: list[tuple[int, Row]] = []
        until = parse_metadata(metadata)
        if until is not None and until < committed:
            raise ValueError(f"a plan can't end at {until}, before its first offset {committed}")
        self._plan = None if until is None else replace(self._planned(until), again=True)
        self._written_down = self._plan is not None
        self._inserted = False

    @property
    def pending(self) -> int:
        """Rows held here. The driver stops reading the partition when these are enough for it."""
        return len(self._rows)

    @property
    def waits(self) -> bool:
        """A plan was written down by whoever came before, and not all of its records have arrived: read on, however many."""
        return self._plan is not None and self._written_down and not self._is_complete(self._plan)

    def arrive(self, offset: int, row: Row) -> None:
        """A record was read. Offsets rise; one that has been here before is ignored."""
        if offset < self._position:
            return
        self._rows.append((offset, row))
        self._position = offset + 1

    def reached(self, position: int) -> None:
        """The consumer's position: no record below it is still to come. Ends a plan whose last offsets are empty."""
        self._position = max(self._position, position)

    def cut(self, max_rows: int) -> None:
        """Plan a block of what has arrived, at most `max_rows`; nothing happens while another is on its way."""
        if self._plan is not None or not self._rows:
            return
        last, _ = self._rows[min(max_rows, len(self._rows)) - 1]
        self._plan = self._planned(last)

    def step(self) -> Commit | Insert[Row] | None:
        """What has to be done now. None: more records, or a `cut`, are needed."""
        plan = self._plan
        if plan is None:
            return None
        if not self._written_down:
            return Commit(plan.first, plan.metadata())
        if self._inserted:
            return Commit(plan.until + 1, "")
        if not self._is_complete(plan):
            return None
        return Insert(plan, [row for _, row in self._rows[: self._count_until(plan)]])

    def done(self) -> None:
        """The step has been done, and is known to have been."""
        plan = self._plan
        if plan is None or (self._written_down and not self._is_complete(plan)):
            raise RuntimeError("there was no step to do")
        if not self._written_down:
            self._written_down = True
        elif not self._inserted:
            self._inserted = True
        else:
            self._move_past(plan)

    def _is_complete(self, plan: Plan) -> bool:
        return self._position > plan.until

    def _move_past(self, plan: Plan) -> None:
        del self._rows[: self._count_until(plan)]
        self._first = plan.until + 1
        self._plan = None
        self._written_down = self._inserted = False

    def _count_until(self, plan: Plan) -> int:
        return bisect_right(self._rows, plan.until, key=itemgetter(0))

    def _planned(self, until: int) -> Plan:
        return Plan(self._topic, self._partition, self._first, until)
