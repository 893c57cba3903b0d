"""What a detector is: a pattern that is cheap and linear, and a check that is sure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Span = tuple[int, int]
Confirm = Callable[[str, int, int], bool]
Candidates = Callable[[str, int, int], Iterable[Span]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: its kind ("card", "email", ...) and its character offsets in the scanned text, end exclusive."""

    kind: str
    start: int
    end: int


def whole(text: str, start: int, end: int) -> Iterable[Span]:
    """The match itself is the only candidate."""
    return ((start, end),)


@dataclass(frozen=True, slots=True)
class Detector:
    """How one kind is found in folded text (see `fold`).

    pattern: RE2; part of the prefilter, and run alone when the prefilter says that it occurs. Its group, if it has one,
        is the match. Nothing in it may look ahead without bound after a possible match, or scanning is no longer linear.
    confirm: (text, start, end) -> is it really one? Boundaries, checksums, placeholders. Must not raise.
    candidates: from a match to the spans worth confirming, best first where they overlap.
    context: RE2; when given, it must match near the candidate (for numbers whose checksum one in ten passes by chance).
    """

    kind: str
    pattern: str
    confirm: Confirm
    candidates: Candidates = whole
    context: str | None = None


def word(char: str) -> bool:
    """Whether a character would continue a word or a number."""
    return char.isalnum() or char == "_"


def isolated(text: str, start: int, end: int, joiners: str = "-.") -> bool:
    """Whether text[start:end] stands alone: not inside a word, nor one part of a longer joined number such as a UUID."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before and (word(before[-1]) or (before[-1] in joiners and len(before) == 2 and word(before[0]))):
        return False
    return not (after and (word(after[0]) or (after[0] in joiners and len(after) == 2 and word(after[1]))))


def in_row(text: str, start: int, end: int) -> bool:
    """Whether spaced groups go on before or after: "4111 1111 1111" of "4111 1111 1111 1111"."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[1:] == " " and before[0].isdigit()) or (after[:1] == " " and after[1:].isdigit())


_SEPARATORS = str.maketrans("", "", " -.()/+")


def digits(text: str, start: int, end: int) -> str:
    """A number without its separators."""
    return text[start:end].translate(_SEPARATORS)


def compact(text: str, start: int, end: int) -> str:
    """Letters and digits of a span in capitals, separators left out."""
    return "".join(filter(str.isalnum, text[start:end])).upper()
