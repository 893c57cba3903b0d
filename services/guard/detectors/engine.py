"""The one place that touches google-re2, which ships no types: bytes in, offsets out, linear time.

Patterns run over Latin-1, one byte a character (see `fold`), so an offset in bytes is an offset in characters and
the binding's conversion of str offsets is never paid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import re2

# Upper bounds of what RE2 keeps as it meets new text. A set that outgrows its own gives up (see `occurring`); a single
# pattern goes on more slowly.
_SET_BYTES = 64 << 20
_PATTERN_BYTES = 1 << 20


class _Match(Protocol):
    def span(self, group: int = 0) -> tuple[int, int]: ...


class _Regexp(Protocol):
    groups: int

    def finditer(self, text: bytes) -> Iterator[_Match]: ...
    def search(self, text: bytes, pos: int, endpos: int) -> _Match | None: ...


class _Set(Protocol):
    def Add(self, pattern: bytes) -> int: ...
    def Compile(self) -> None: ...
    def Match(self, text: bytes) -> list[int] | None: ...


def _options(max_bytes: int) -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # pyright: ignore[reportUnknownMemberType]
    options.max_mem = max_bytes
    options.log_errors = False
    return options


class Pattern:
    """One compiled RE2 pattern. A pattern with a group stands for that group, else for the whole match."""

    def __init__(self, pattern: str) -> None:
        """Raises re2.error when the pattern is not RE2 syntax."""
        self._regexp = cast(_Regexp, re2.compile(pattern.encode("latin-1"), _options(_PATTERN_BYTES)))  # pyright: ignore[reportUnknownMemberType]
        self._group = min(self._regexp.groups, 1)

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """(start, end) of each match, left to right, without overlaps."""
        return (match.span(self._group) for match in self._regexp.finditer(data))

    def within(self, data: bytes, start: int, end: int) -> bool:
        """Whether the pattern matches somewhere in data[start:end]."""
        return self._regexp.search(data, start, end) is not None


class PatternSet:
    """Many patterns in one automaton: one pass over the text tells which of them occur."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises re2.error when a pattern is not RE2 syntax or the set does not fit into memory."""
        self._set = cast(_Set, re2.Set.SearchSet(_options(_SET_BYTES)))  # pyright: ignore[reportUnknownMemberType]
        for pattern in patterns:
            self._set.Add(pattern.encode("latin-1"))
        self._always = self._set.Add(rb"\z")
        self._set.Compile()

    def occurring(self, data: bytes) -> frozenset[int]:
        """Indices of the patterns that occur in data.

        `\\z` occurs in every text: when it is missing the automaton ran out of memory, and then every pattern counts
        as occurring, for a detector must not fail open.
        """
        hits = frozenset(self._set.Match(data) or ())
        return hits - {self._always} if self._always in hits else frozenset(range(self._always))
