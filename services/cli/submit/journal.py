"""Where an interrupted run stands: from which offsets to read, and which lines the brokers have acknowledged.

A file of JSON lines beside the results: first the start of the run, then what was acknowledged, appended as it happens.
kill -9 may cut off its last line, which is then as if it had never been written: those lines are looked for on the topic,
after the last offset that is known.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError


class Start(BaseModel):
    """The head of the file. Offsets are by partition: results are read from there, ours on the door stand from there on."""

    version: Literal[1] = 1
    run: str
    sha256: str
    lines: int
    lane: str
    team: str
    results: dict[int, int]
    door: dict[int, int]


class Acked(BaseModel):
    """Lines `first` to `last` are in the log; the last of them at `offset` of `partition`."""

    first: int
    last: int
    partition: int
    offset: int


class Ack(NamedTuple):
    """One line is in the log."""

    line: int
    partition: int
    offset: int


@dataclass(slots=True)
class Progress:
    """What a journal says: which lines, `count` of them, are in the log. Any other may still be, at `unknown_from` or later."""

    start: Start
    count: int = 0
    _in_log: bytearray = field(init=False)
    _next: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        self._in_log = bytearray(self.start.lines)

    def add(self, acked: Acked) -> None:
        """Takes one more entry in."""
        first, last = max(acked.first, 0), min(acked.last, self.start.lines - 1)
        if last >= first:
            self.count += self._in_log.count(0, first, last + 1)
            self._in_log[first : last + 1] = b"\x01" * (last + 1 - first)
        self._next[acked.partition] = max(self._next.get(acked.partition, 0), acked.offset + 1)

    def __contains__(self, line: int) -> bool:
        return bool(self._in_log[line])

    @property
    def unknown_from(self) -> Mapping[int, int]:
        """By partition, the offset from which lines of ours may stand in the log unknown to us.

        One key, so one partition, and there in order: once one acknowledgement is known, the others need no look.
        """
        return self._next or self.start.door


def parse(data: bytes) -> Progress | None:
    """What a journal says; None if not even its head is whole."""
    whole = data[: data.rfind(b"\n") + 1].splitlines()
    try:
        progress = Progress(Start.model_validate_json(whole[0]))
        for entry in whole[1:]:
            progress.add(Acked.model_validate_json(entry))
    except (IndexError, ValidationError):
        return None
    return progress


def ranges(acks: Iterable[Ack]) -> Iterator[Acked]:
    """Acknowledgements that follow each other as one entry."""
    current: Acked | None = None
    for ack in acks:
        if current is not None and (ack.line, ack.partition) == (current.last + 1, current.partition):
            current = Acked(first=current.first, last=ack.line, partition=ack.partition, offset=max(current.offset, ack.offset))
            continue
        if current is not None:
            yield current
        current = Acked(first=ack.line, last=ack.line, partition=ack.partition, offset=ack.offset)
    if current is not None:
        yield current


class Journal:
    """The file. What is appended survives the death of this process, since it's handed to the system at once."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self.progress = progress
        # A torn last line would swallow the entry behind it.
        data = path.read_bytes()
        self._file = path.open("r+b", buffering=0)
        self._file.truncate(data.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)

    @classmethod
    def begin(cls, path: Path, start: Start) -> "Journal":
        """A new one, in place in one step."""
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(start.model_dump_json() + "\n")
        partial.rename(path)
        return cls(path, Progress(start))

    def add(self, acks: Sequence[Ack]) -> None:
        """Remembers that these lines are in the log."""
        entries = list(ranges(acks))
        self._file.write("".join(f"{entry.model_dump_json()}\n" for entry in entries).encode())
        for entry in entries:
            self.progress.add(entry)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """The run is finished."""
        self.close()
        self._path.unlink(missing_ok=True)
