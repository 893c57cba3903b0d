"""The dead letters: read from the youngest on, in bounded pages, and published again where they came from."""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from infra.kafka.broker import Kafka, Reader
from infra.kafka.envelope import H_DATAREF, H_TYPE, header
from infra.kafka.log import Headers, Incoming, Outgoing, Partition
from schemas.topics import DEAD

_PARTITION = Partition(DEAD.name, 0)
_AT_ONCE = 100
_MOST_READ = 5_000
_POLL_S = 1.0

_ABOUT = "sluice_dead_"
_ORIGIN = re.compile(r"([\w.-]+)/(\d{1,9})@(\d{1,18})")
_ID = re.compile(r"0@(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that was put aside. `origin`: where it stood before, `topic/partition@offset`; `stage`: who put it aside."""

    record: Incoming = field(repr=False)
    reason: str
    detail: str
    origin: str
    stage: str
    type: str

    @property
    def id(self) -> str:
        """Where the letter stands, `partition@offset`."""
        return f"{self.record.partition}@{self.record.offset}"

    @property
    def home(self) -> Partition | None:
        """The partition it came from; None if it doesn't say."""
        found = _ORIGIN.fullmatch(self.origin)
        return Partition(found[1], int(found[2])) if found else None

    @property
    def headers(self) -> Headers:
        """The headers that the record came with. A token is none of them, whoever wrote it there."""
        return tuple(
            (name, value)
            for name, value in self.record.headers
            if value is not None and not name.startswith(_ABOUT) and name.lower() != "authorization"
        )

    def renewed(self) -> Outgoing:
        """The record for the partition it came from, as it was there. Raises ValueError for a letter that doesn't say which."""
        if self.home is None:
            raise ValueError(f"the dead letter {self.id} doesn't say where it came from")
        key = None if self.record.key == self.origin.encode() else self.record.key
        return Outgoing(self.home.topic, key, self.record.value, self.headers, self.home.partition)

    def moved(self, value: bytes, topic: str, key: str, *more: tuple[str, bytes]) -> Outgoing:
        """The record with its body, wherever that lay, for another place; `more` are headers besides its own."""
        kept = tuple(pair for pair in self.headers if pair[0] != H_DATAREF)
        return Outgoing(topic, key.encode(), value, (*kept, *more))


@dataclass(frozen=True, slots=True)
class Page:
    """Letters, the youngest first. `after`: the id to go on from, or None where nothing older is left."""

    letters: Sequence[Letter]
    after: str | None


class DeadLetters:
    """Reads `sluice.dead`."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def page(self, after: str | None, wanted: Callable[[Letter], bool], limit: int) -> Page:
        """Up to `limit` wanted letters older than `after`. Looks at a bounded number of letters, so there may be fewer, or none.

        Raises ValueError if `after` is no id, and what the connection raises.
        """
        found: list[Letter] = []
        read, last = 0, None
        async with aclosing(self._older(None if after is None else offset_of(after))) as letters:
            async for letter in letters:
                if len(found) == limit or read == _MOST_READ:
                    return Page(found, last)
                read, last = read + 1, letter.id
                if wanted(letter):
                    found.append(letter)
        return Page(found, None)

    async def find(self, name: str) -> Letter | None:
        """The letter with this id, or else the youngest with this origin, as far back as a page looks."""
        if _ID.fullmatch(name):
            page = await self.page(f"0@{offset_of(name) + 1}", lambda letter: True, 1)
            return next((letter for letter in page.letters if letter.id == name), None)
        if not _ORIGIN.fullmatch(name):
            return None
        page = await self.page(None, lambda letter: letter.origin == name, 1)
        return next(iter(page.letters), None)

    async def _older(self, offset: int | None) -> AsyncGenerator[Letter]:
        """All letters below an offset, the youngest first."""
        reader = await self._kafka.reader([_PARTITION])
        try:
            first, stop = (await reader.starts())[_PARTITION], (await reader.ends())[_PARTITION]
            stop = stop if offset is None else min(stop, offset)
            while stop > first:
                start = max(first, stop - _AT_ONCE)
                for record in reversed(await _between(reader, start, stop)):
                    yield read_letter(record)
                stop = start
        finally:
            await reader.stop()


async def _between(reader: Reader, start: int, stop: int) -> list[Incoming]:
    """The records of [start, stop), as far as retention has left them."""
    reader.seek(_PARTITION, start)
    found: list[Incoming] = []
    async for records in reader.up_to({_PARTITION: stop}, _POLL_S):
        found += [record for record in records if start <= record.offset < stop]
    return found


def read_letter(record: Incoming) -> Letter:
    """The letter in a record of `sluice.dead`; what it doesn't say of itself is empty.

    What stands last was put there by who put it aside: a header of the same name before it came with the record.
    """
    youngest = tuple(reversed(record.headers))
    about = (header(youngest, f"{_ABOUT}{what}") for what in ("reason", "detail", "origin", "stage"))
    return Letter(record, *about, type=header(record.headers, H_TYPE))


def offset_of(letter_id: str) -> int:
    """The offset in a letter's id. Raises ValueError."""
    found = _ID.fullmatch(letter_id)
    if found is None:
        raise ValueError(f"not the id of a dead letter: {letter_id[:40]!r}")
    return int(found[1])
