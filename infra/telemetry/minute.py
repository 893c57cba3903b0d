"""What happened within a minute, in numbers small enough to be told, that add up over processes.

How long something took is counted in buckets, each a fifth wider than the one before, so a quantile is off by a tenth at most.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_SLOT_MS, _SLOTS = 5_000, 12
_GROWTH = math.log(1.2)


@dataclass(slots=True)
class _Slot:
    number: int
    calls: int = 0
    errors: int = 0
    took: Counter[int] = field(default_factory=Counter[int])


class Minute:
    """Calls of about the last minute."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque(maxlen=_SLOTS)

    def add(self, now_ms: int, took_ms: float | None = None, *, error: bool = False) -> None:
        """A call has ended; `took_ms`: of one that went well."""
        number = now_ms // _SLOT_MS
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(_Slot(number))
        slot = self._slots[-1]
        slot.calls += 1
        slot.errors += error
        if took_ms is not None:
            slot.took[bucket(took_ms)] += 1

    def total(self, now_ms: int) -> tuple[int, int, Mapping[int, int]]:
        """Calls, errors, and how many took how long."""
        oldest = now_ms // _SLOT_MS - _SLOTS
        while self._slots and self._slots[0].number <= oldest:
            self._slots.popleft()
        took: Counter[int] = Counter()
        for slot in self._slots:
            took.update(slot.took)
        return sum(slot.calls for slot in self._slots), sum(slot.errors for slot in self._slots), took


def bucket(ms: float) -> int:
    """The bucket of a time."""
    return max(0, math.ceil(math.log(max(ms, 1.0)) / _GROWTH))


def quantile_ms(took: Mapping[int, int], share: float) -> float | None:
    """What this share of all took at most; None if there are none."""
    left = math.ceil(sum(took.values()) * share)
    for number in sorted(took):
        left -= took[number]
        if left <= 0:
            return round(math.exp((number - 0.5) * _GROWTH), 1)
    return None
