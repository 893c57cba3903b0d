"""How many jobs of which lane may be taken now. Pure.

Interactive goes first; batch uses what is left but never starves: each lane has a share of the places that the other can't
take, and what is left between the shares goes to whoever comes. No team may hold all of a lane: what one has queued must not
keep another waiting for a place.
"""

from collections import Counter
from dataclasses import dataclass, field

from schemas.topics import Lane


@dataclass(slots=True)
class Capacity:
    """`total` places; `reserved` of them kept for interactive, `guaranteed` for batch."""

    total: int
    reserved: int
    guaranteed: int
    _busy: Counter[Lane] = field(default_factory=Counter[Lane])
    _by_team: Counter[tuple[Lane, bytes]] = field(default_factory=Counter[tuple[Lane, bytes]])
    _teams: Counter[Lane] = field(default_factory=Counter[Lane])

    @classmethod
    def of(cls, total: int) -> "Capacity":
        """A quarter of the places is kept for interactive work, a tenth for batch; always at least one for each."""
        if total < 2:
            raise ValueError("a stage needs at least 2 places: one for each lane")
        return cls(total, reserved=max(1, total // 4), guaranteed=max(1, total // 10))

    def room(self, lane: Lane) -> int:
        """How many more jobs of this lane may be taken."""
        other = Lane.BATCH if lane is Lane.INTERACTIVE else Lane.INTERACTIVE
        kept = self.guaranteed if lane is Lane.INTERACTIVE else self.reserved
        held_for_other = max(0, kept - self._busy[other])
        return max(0, self.total - self._busy.total() - held_for_other)

    def has_share(self, lane: Lane, team: bytes) -> bool:
        """True if this team may hold one more place of the lane: all of them as long as nobody else has any.

        Otherwise three quarters of batch's places at most, and nine tenths of interactive's.
        """
        own = self._by_team[lane, team]
        if self._teams[lane] <= (1 if own else 0):
            return True
        if lane is Lane.BATCH:
            return own < max(1, (self.total - self.reserved) * 3 // 4)
        return own < max(1, (self.total - self.guaranteed) * 9 // 10)

    def take(self, lane: Lane, team: bytes = b"") -> None:
        self._busy[lane] += 1
        self._by_team[lane, team] += 1
        self._teams[lane] += self._by_team[lane, team] == 1

    def give_back(self, lane: Lane, team: bytes = b"") -> None:
        self._busy[lane] -= 1
        self._by_team[lane, team] -= 1
        if not self._by_team[lane, team]:
            del self._by_team[lane, team]
            self._teams[lane] -= 1

    @property
    def busy(self) -> int:
        return self._busy.total()
