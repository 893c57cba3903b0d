"""How many calls at once a deployment bears, found out by how they go. Pure: the time is passed in.

There is no limit until something speaks against more calls. That is, looked at once a round trip: calls that are refused for
their number or hang (the limit falls by their share, as DCTCP's window does: Alizadeh et al., 2010), or calls that take far
longer than usual (the gradient of Netflix' concurrency-limits and of Envoy's adaptive concurrency). But what takes longer may be
asked for more: a cut is a trial, and if fewer calls at once are no faster, what is usual was wrong, and the cut is undone.

A limit that is in use and does no harm grows, the longer the faster; one that nobody has needed for a minute is forgotten.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

SAMPLES = 30
"""What a median is made of: a slow answer, or some, are no slow deployment."""
ROUNDS = 5
"""What is known of what is usual before anything is held against it."""
SLOW, FINE, AIM = 1.8, 1.4, 1.25
"""Times as long as usual: with so much the limit falls, with less it grows, and so much it is meant to become."""
LEAST_SHARE = 0.05
"""A smaller share of refused calls says nothing: it happens to providers that are well."""
FORGET_MS = 60_000

_MOST_CUT = 0.5
_HOLD = 5
"""Rounds for which a limit stays after calls were refused: what is refused is found out by calls that fail."""
_IN_USE = 0.7
"""Of the places: a lane alone can't have those that are kept for the other."""
_FASTER, _SLOWER = 0.1, 0.01


@dataclass(slots=True)
class _Round:
    """Calls begun since it began, that have ended: what they took until their first token, or, whole answers, for each token.

    `lost_ms`: what those took that were too many.
    """

    began_ms: int
    busiest: int = 0
    overloaded: int = 0
    lost_ms: int = 0
    first_ms: list[float] = field(default_factory=list[float])
    each_ms: list[float] = field(default_factory=list[float])

    def ended(self) -> int:
        return self.overloaded + len(self.first_ms) + len(self.each_ms)

    def too_many(self, now_ms: int) -> float:
        """The share of calls at once that were too many. Those that hang are few and hold many places, those that are refused
        soon are many and hold few: by Little's law what they took in all, for each moment.
        """
        held = self.lost_ms / max(1, now_ms - self.began_ms)
        return min(self.overloaded / self.ended(), held / self.busiest)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A cut: what the limit was, how many calls there were at once, and what they took, by one of the signals."""

    signal: str
    limit: int | None
    busiest: int
    took_ms: float


class Limit:
    """The limit of one deployment."""

    def __init__(self) -> None:
        self._calls: int | None = None
        self._round: _Round | None = None
        self._usual_ms: dict[str, float] = {}
        self._known: Counter[str] = Counter()
        self._slow_rounds = 0
        self._trial: _Trial | None = None
        self._step = 1
        self._hold = 0
        self._needed_ms = 0

    def calls(self, now_ms: int) -> int | None:
        """How many calls at once it may have; None: any number."""
        if self._calls is not None and now_ms - self._needed_ms > FORGET_MS:
            self._calls, self._trial, self._round, self._step = None, None, None, 1
        return self._calls

    def ended(
        self, started_ms: int, now_ms: int, busy: int, *, first_ms: float | None, each_ms: float | None, overloaded: bool
    ) -> None:
        """A call is over, one of `busy` at once; without a time and not `overloaded` it says nothing."""
        now = self._round
        if now is None or now_ms - now.began_ms > FORGET_MS + (now_ms - started_ms):
            now = self._round = _Round(started_ms)
        if started_ms < now.began_ms:
            return
        now.busiest = max(now.busiest, busy)
        if overloaded:
            now.overloaded += 1
            now.lost_ms += now_ms - started_ms
        elif first_ms is not None:
            now.first_ms.append(first_ms)
        elif each_ms is not None:
            now.each_ms.append(each_ms)
        if now.ended() >= self._enough(now.busiest):
            self._learn(now, now_ms)
            self._round = _Round(now_ms)

    def _enough(self, busiest: int) -> int:
        """A cut needs proof; but where few calls may be made at once, so many would take for ever."""
        return max(busiest, SAMPLES if self._calls is None else min(SAMPLES, 3 * busiest))

    def _learn(self, now: _Round, now_ms: int) -> None:
        in_use = self._calls is not None and (now.busiest >= self._calls * _IN_USE or now.busiest >= self._calls - 1)
        if in_use:
            self._needed_ms = now_ms
        if now.overloaded / now.ended() >= LEAST_SHARE:
            self._trial, self._hold = None, _HOLD
            self._cut(now, 1 - now.too_many(now_ms), now_ms)
            return
        name, times = max(("first", now.first_ms), ("each", now.each_ms), key=lambda signal: len(signal[1]))
        took_ms = max(median(times), 0.01)
        self._judge(name, took_ms)
        ratio = took_ms / self._usual_ms.setdefault(name, took_ms)
        self._slow_rounds = self._slow_rounds + 1 if ratio > SLOW and self._known[name] >= ROUNDS else 0
        if self._slow_rounds > (self._calls is None):
            trial = _Trial(name, self._calls, now.busiest, took_ms)
            self._cut(now, AIM / ratio, now_ms)
            self._trial = trial
        elif ratio <= FINE and in_use:
            self._grow()
        if ratio <= SLOW or self._known[name] < ROUNDS:
            self._remember(name, took_ms, in_use=in_use)

    def _judge(self, name: str, took_ms: float) -> None:
        """Whether the last cut has made calls faster; at least half as much as it would have if it was for their number."""
        trial, self._trial = self._trial, None
        if trial is None or trial.signal != name or self._calls is None:
            return
        hoped_ms = trial.took_ms * self._calls / trial.busiest
        if took_ms > (trial.took_ms + hoped_ms) / 2:
            # Halfway, as a ratio: two trials have to say so.
            self._usual_ms[name], self._calls = math.sqrt(self._usual_ms.get(name, took_ms) * took_ms), trial.limit

    def _cut(self, now: _Round, share: float, now_ms: int) -> None:
        calls = max(1, min(now.busiest - 1, int(now.busiest * max(_MOST_CUT, share))))
        self._calls = calls if self._calls is None else min(self._calls, calls)
        self._step, self._slow_rounds, self._needed_ms = 1, 0, now_ms

    def _grow(self) -> None:
        if self._hold:
            self._hold -= 1
        elif self._calls is not None:
            self._calls += min(self._step, max(1, self._calls // 4))
            self._step *= 2

    def _remember(self, name: str, took_ms: float, *, in_use: bool) -> None:
        """What is usual: the mean of the first rounds; then soon what is faster, and slowly what is slower, unless the limit may
        be why.
        """
        usual_ms, known = self._usual_ms[name], self._known[name]
        rate = _FASTER if took_ms < usual_ms else 0.0 if in_use else _SLOWER
        self._usual_ms[name] = usual_ms + max(rate, 1 / (known + 1) if known < ROUNDS else 0) * (took_ms - usual_ms)
        self._known[name] = known + 1
