"""What was read and has no place yet: the teams take turns, whatever stands in front of whom in the log. Pure.

A partition is read in order, so that one team's 50,000 records stand before another's hundred. Who reads ahead, and gives
each team its turn, need not serve them in that order: fair queueing, and offsets may be finished in any order. Bounded in
records and bytes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from infra.kafka.log import Incoming, Partition
from schemas.topics import Lane


@dataclass(frozen=True, slots=True)
class Ahead:
    """How much may be read ahead."""

    records: int
    size: int


class Turns:
    """Records that wait, by lane and team."""

    def __init__(self, most: Ahead) -> None:
        self._most = most
        self._teams: dict[Lane, OrderedDict[bytes, deque[Incoming]]] = {lane: OrderedDict() for lane in Lane}
        self._by_partition: dict[Partition, int] = {}
        self._count: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._size: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def room(self, lane: Lane) -> int:
        """How many more records of a lane may be read ahead."""
        return max(0, self._most.records - self._count[lane]) if self._size[lane] < self._most.size else 0

    def waiting(self, lane: Lane) -> int:
        """How many records of a lane wait."""
        return self._count[lane]

    def waiting_in(self, partition: Partition) -> int:
        """How many records of a partition wait."""
        return self._by_partition.get(partition, 0)

    def put(self, lane: Lane, team: bytes, record: Incoming) -> None:
        """A record waits for the turn of its team."""
        self._teams[lane].setdefault(team, deque()).append(record)
        self._note(lane, record, 1)

    def take(self, lane: Lane, may: Callable[[bytes], bool]) -> tuple[bytes, Incoming] | None:
        """The first record of the team whose turn it is, of those that `may`; and its team."""
        teams = self._teams[lane]
        for _ in range(len(teams)):
            team, waiting = next(iter(teams.items()))
            teams.move_to_end(team)
            if may(team):
                record = waiting.popleft()
                if not waiting:
                    del teams[team]
                self._note(lane, record, -1)
                return team, record
        return None

    def drop(self, partitions: Collection[Partition]) -> list[Incoming]:
        """Takes out what waits of these partitions, and gives it."""
        gone = set(partitions)
        dropped: list[Incoming] = []
        for lane, teams in self._teams.items():
            for team, waiting in list(teams.items()):
                kept = deque(record for record in waiting if _place(record) not in gone)
                out = [record for record in waiting if _place(record) in gone]
                for record in out:
                    self._note(lane, record, -1)
                dropped += out
                if kept:
                    teams[team] = kept
                else:
                    del teams[team]
        return dropped

    def _note(self, lane: Lane, record: Incoming, sign: int) -> None:
        partition = _place(record)
        self._count[lane] += sign
        self._size[lane] += sign * len(record.value or b"")
        self._by_partition[partition] = self._by_partition.get(partition, 0) + sign


def _place(record: Incoming) -> Partition:
    return Partition(record.topic, record.partition)
