"""Which offsets of one partition are delivered, running and finished. Pure: no I/O, no clock.

Jobs of a partition run at once and end out of order. The commit point is the lowest unfinished offset, else the highest
delivered plus one; what is finished above it is remembered in the commit's metadata, as confluentinc/parallel-consumer does,
so that after a crash only unfinished jobs run again. Only offsets that were received are tracked, never a synthetic
range: compaction and transaction markers leave gaps, and a gap is the same as done.

The metadata is `1:` and the run lengths from the commit point up to the highest delivered offset, unfinished and
finished in turn, as base-128 varints in base64. Kafka allows 4,096 bytes of it a partition.
"""

import base64
from collections import deque
from collections.abc import Collection, Iterable

import numpy as np

MAX_METADATA = 4096
FULL_METADATA = MAX_METADATA * 3 // 4
MAX_SPAN = 2000
_LONGEST_RUN = 1_000_000
"""Metadata of strangers may say anything."""

_LOOK_EVERY = 64
"""So many deliveries and ends may pass before it is looked again whether a partition is full: looking costs, with much in it."""


class Offsets:
    """The offsets of one partition, kept over rebalances so that work which still runs here is adopted, not repeated."""

    def __init__(self, span: int = MAX_SPAN) -> None:
        self._span = span
        # Ascending: what is new is above all that was delivered before.
        self._pending: dict[int, None] = {}
        self._running: set[int] = set()
        self._awaited: deque[int] = deque()
        self._next = 0
        self._started = False
        self._low = 0
        self._said = 0
        self._since = _LOOK_EVERY

    def assign(self, offset: int, metadata: str) -> None:
        """Takes over the partition at what the group has committed; records come again from there.

        Finished is what the commit or this process knows to be finished: work that ended here while nobody's commit could
        say so is not repeated, and what still runs here stays known as running.
        """
        theirs, following = decode(offset, metadata)
        ours = set(self._pending)
        pending = ours & theirs | {o for o in ours if o >= following} | {o for o in theirs if o >= self._next}
        self._pending = dict.fromkeys(sorted(pending))
        self._awaited = deque(self._pending)
        self._since = _LOOK_EVERY
        self._next = max(self._next, following)
        self._started = True

    def deliver(self, offset: int) -> bool:
        """Notes a delivered record. True if it is to be worked on; False if it is finished, or runs here already.

        Records come in ascending order from the last assignment on, so one that was awaited below this one, and that nobody
        runs, was removed from the log and is dropped.
        """
        self._started = True
        self._since += 1
        while self._awaited and self._awaited[0] <= offset:
            awaited = self._awaited.popleft()
            if awaited != offset and awaited not in self._running:
                self._pending.pop(awaited, None)
        if offset >= self._next:
            self._next = offset + 1
            self._pending[offset] = None
        elif offset not in self._pending or offset in self._running:
            return False
        self._running.add(offset)
        return True

    def finish(self, offset: int) -> None:
        """Notes that the work on an offset is done, and everything it caused acknowledged."""
        self._running.discard(offset)
        self._pending.pop(offset, None)
        self._since += 1

    def forget(self, offset: int) -> None:
        """Notes that the work on an offset stopped without an end: it stays unfinished until it is delivered again."""
        self._running.discard(offset)

    @property
    def started(self) -> bool:
        """True if anything is known that could be committed."""
        return self._started

    @property
    def following(self) -> int:
        """The next offset that was never delivered."""
        return self._next

    @property
    def running(self) -> int:
        """How many offsets are being worked on here."""
        return len(self._running)

    @property
    def commit_point(self) -> int:
        """The offset to commit."""
        return next(iter(self._pending), self._next)

    def metadata(self) -> str:
        """What is finished above the commit point; empty if nothing is."""
        return encode(self._pending, self._next)

    @property
    def full(self) -> bool:
        """True if nothing more may be taken of this partition until its oldest work ends."""
        if not self._pending:
            return False
        if self._since >= _LOOK_EVERY:
            self._since = 0
            self._low = self.commit_point
            self._said = len(self.metadata()) if len(self._pending) > FULL_METADATA // 4 else 0
        return self._next - self._low >= self._span or self._said > FULL_METADATA


def encode(unfinished: Collection[int], following: int) -> str:
    """The metadata for these unfinished offsets, ascending and all below `following`, the next offset to be delivered."""
    if not unfinished:
        return ""
    # A loop over 20,000 that were read ahead would stop everything else for milliseconds, five times a second.
    offsets = np.fromiter(unfinished, np.int64, len(unfinished))
    breaks = np.flatnonzero(np.diff(offsets) != 1)
    starts = offsets[np.concatenate(([0], breaks + 1))]
    ends = offsets[np.concatenate((breaks, [len(offsets) - 1]))] + 1
    if len(starts) == 1 and ends[0] == following:
        return ""
    gaps = np.append(starts[1:], following) - ends
    runs = np.stack((ends - starts, gaps), axis=1).ravel()
    return "1:" + base64.b64encode(b"".join(map(_varint, runs.tolist()))).decode()


def decode(offset: int, metadata: str) -> tuple[set[int], int]:
    """The unfinished offsets that were delivered, and the next offset never delivered yet.

    Metadata that isn't ours means nothing is known above the commit point.
    """
    if not metadata.startswith("1:"):
        return set(), offset
    try:
        runs = list(_varints(base64.b64decode(metadata[2:], validate=True)))
    except ValueError:
        return set(), offset
    unfinished: set[int] = set()
    at = offset
    for index, run in enumerate(runs):
        if index % 2 == 0:
            unfinished.update(range(at, at + min(run, _LONGEST_RUN)))
        at += run
    return unfinished, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varints(data: bytes) -> Iterable[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
    if shift:
        raise ValueError("a varint is cut")
