"""A log as the stage sees it: the only interface of Kafka to learn. `tests/fakes` has one in memory, held to the same suite."""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Mark(NamedTuple):
    """What a group has committed for a partition: the next offset to read, and what is finished above it."""

    offset: int
    metadata: str = ""


class Incoming(Protocol):
    """A record as it was read (aiokafka's ConsumerRecord has this shape). Nothing about it can be trusted."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be written. `partition` None: by the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


class Listener(Protocol):
    """Told of a rebalance. Must return within milliseconds: the whole group waits for it."""

    async def revoked(self, partitions: Collection[Partition]) -> None: ...
    async def assigned(self, partitions: Collection[Partition]) -> None: ...


class Source(Protocol):
    """A member of a group that reads topics."""

    async def start(self, listener: Listener) -> None:
        """Joins the group. May raise what the connection raises."""
        ...

    async def poll(self, partitions: Collection[Partition], limit: int, timeout_s: float) -> list[Incoming]:
        """At most `limit` records of these partitions, in order within each; empty after `timeout_s` (0: at once).

        May be cancelled at any time without losing a record. Over a rebalance it holds back what it reads until the
        listener's `assigned` has returned.
        """
        ...

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """Raises CommitRefused when the partitions are no longer ours."""
        ...

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, Mark]:
        """What the group has committed; a partition without a commit is missing."""
        ...

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The next offset to be written in each."""
        ...

    def high_water(self, partition: Partition) -> int | None:
        """The next offset to be written, as far as is known without asking; None: nothing was read of it yet."""
        ...

    async def stop(self) -> None:
        """Leaves. Does not commit and does not call the listener."""
        ...


class Sink(Protocol):
    """Writes records."""

    async def send(self, record: Outgoing) -> Awaitable[object]:
        """Hands a record over, in order, and gives what becomes done when the brokers have acknowledged it.

        A failure means *unknown*, not *not written*: the record may still appear (RELIABILITY.md 5.3).
        """
        ...


class CommitRefused(Exception):
    """The group has moved on without us; somebody else has the partition now."""
