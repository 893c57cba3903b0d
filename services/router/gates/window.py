"""Open at some hours of the day, by the clock on the wall of some place. Pure."""

from dataclasses import dataclass
from datetime import datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.gates import WindowGate

_MINUTE_MS = 60_000
_MOST_MINUTES = 3 * 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """Knows to the minute when it opens, also on the days on which clocks are changed."""

    rule: WindowGate

    def closed_until(self, now_ms: int) -> int:
        minute = now_ms // _MINUTE_MS
        opens = _opens(self.rule.window, self.rule.tz, minute)
        return 0 if opens == minute else opens * _MINUTE_MS


@lru_cache(maxsize=256)
def _opens(window: str, tz: str, minute: int) -> int:
    """The first minute from `minute` on in which the window is open.

    Looked for minute by minute, once a minute and rule (a millisecond): so hours that a day has twice, or not at all, are no
    special case.
    """
    zone = ZoneInfo(tz)
    begins, ends = (time.fromisoformat(text) for text in window.split("-"))
    for candidate in range(minute, minute + _MOST_MINUTES):
        at = datetime.fromtimestamp(candidate * 60, zone).time()
        if begins <= at < ends if begins < ends else (at >= begins or at < ends):
            return candidate
    # A place whose clocks leave the whole window out, three days in a row: there is none.
    return minute
