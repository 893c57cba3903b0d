"""Scan a text for personal data and secrets, and write it again without them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from services.guard.detectors import bank, cards, contacts, national_ids, secrets
from services.guard.detectors.base import Detector, Finding, Span
from services.guard.detectors.engine import Pattern, PatternSet
from services.guard.detectors.fold import Folded, fold

# In order of how specific they are: of two findings of one length the earlier detector names it.
DETECTORS: tuple[Detector, ...] = (
    *secrets.DETECTORS,
    *bank.DETECTORS,
    *cards.DETECTORS,
    *national_ids.DETECTORS,
    *contacts.DETECTORS,
)
KINDS: frozenset[str] = frozenset(detector.kind for detector in DETECTORS)

# Characters before and after a number in which a word may name it.
_NEAR_BEFORE, _NEAR_AFTER = 64, 64


@dataclass(frozen=True, slots=True)
class _Hit:
    start: int
    end: int
    rank: int


class Scanner:
    """Looks for the given kinds. Immutable after construction, so one may serve every thread."""

    def __init__(self, kinds: Collection[str] | None = None) -> None:
        """`kinds`: some of KINDS, None for all. Raises ValueError for a kind that does not exist."""
        wanted = KINDS if kinds is None else frozenset(kinds)
        if unknown := wanted - KINDS:
            raise ValueError(f"unknown kinds {sorted(unknown)}; there are {sorted(KINDS)}")
        self._detectors = [detector for detector in DETECTORS if detector.kind in wanted]
        # A pattern that several detectors share stands in the automaton once.
        sources = [d.pattern for d in self._detectors] + [d.context for d in self._detectors if d.context]
        numbers = {source: number for number, source in enumerate(dict.fromkeys(sources))}
        self._patterns = [Pattern(source) for source in numbers]
        self._set = PatternSet(list(numbers))
        self._rules = [
            (rank, d, numbers[d.pattern], None if d.context is None else numbers[d.context])
            for rank, d in enumerate(self._detectors)
        ]

    def scan(self, text: str) -> list[Finding]:
        """Findings in `text`, sorted by start, none overlapping. Linear in the text; never raises, whatever the text."""
        folded = fold(text)
        occurring = self._set.occurring(folded.data)
        if not occurring:
            return []
        hits = sorted(self._hits(folded, occurring), key=lambda hit: (hit.start, hit.end))
        return [self._finding(folded, hit) for hit in _merged(hits)]

    def _hits(self, folded: Folded, occurring: frozenset[int]) -> Iterator[_Hit]:
        text = folded.data.decode("latin-1")
        for rank, detector, pattern, context in self._rules:
            if pattern in occurring and (context is None or context in occurring):
                near = None if context is None else self._patterns[context]
                for start, end in self._confirmed(detector, self._patterns[pattern], near, folded.data, text):
                    yield _Hit(start, end, rank)

    @staticmethod
    def _confirmed(detector: Detector, pattern: Pattern, near: Pattern | None, data: bytes, text: str) -> Iterator[Span]:
        done = 0
        for match in pattern.spans(data):
            for start, end in detector.candidates(text, *match):
                if start < done or start >= end or not detector.confirm(text, start, end):
                    continue
                if near and not near.within(data, max(0, start - _NEAR_BEFORE), min(len(data), end + _NEAR_AFTER)):
                    continue
                done = end
                yield start, end

    def _finding(self, folded: Folded, hit: _Hit) -> Finding:
        return Finding(self._detectors[hit.rank].kind, *folded.original(hit.start, hit.end))


def _merged(hits: Sequence[_Hit]) -> Iterator[_Hit]:
    """Overlapping hits become one, that covers both and is named by the longer, or by the more specific of equals.

    The loser's part is kept: dropping it would leave half a secret standing beside the other half's placeholder.
    """
    last: _Hit | None = None
    longest = 0
    for hit in hits:
        if last is None or hit.start >= last.end:
            if last is not None:
                yield last
            last, longest = hit, hit.end - hit.start
            continue
        length = hit.end - hit.start
        wins = (length, -hit.rank) > (longest, -last.rank)
        last = _Hit(last.start, max(last.end, hit.end), hit.rank if wins else last.rank)
        longest = max(longest, length)
    if last is not None:
        yield last


def redact(text: str, findings: Iterable[Finding]) -> str:
    """`text` with each finding replaced by its kind, `[CARD]`; the rest untouched. Findings must not overlap."""
    pieces: list[str] = []
    at = 0
    for finding in sorted(findings, key=lambda finding: finding.start):
        pieces += (text[at : finding.start], f"[{finding.kind.upper()}]")
        at = finding.end
    return "".join((*pieces, text[at:]))
