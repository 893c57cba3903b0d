"""How fast batch work may begin in this process, so that interactive work finds the loop free.

A stage that takes all it has places for keeps the event loop busy all the time, and each step of an interactive request waits
behind hundreds of steps of others: with 8,000 jobs queued its answer took over 2 s instead of 0.2 s. Places say how much may be
under way, which is mostly waiting; what must be shared is the loop. So batch begins at a rate that is found by trial: up while
the loop has time to spare, down as soon as it hasn't (additive increase, multiplicative decrease), and never below a minimum.
"""

import asyncio
import time

from infra.telemetry import metrics

_SAMPLE_S, _IDLE_SAMPLE_S = 0.025, 0.5
_SMOOTH = 0.3
_RECENT_S = 5.0
"""Work so long ago still counts as being there."""

_BUSY, _LAG_S = 0.65, 0.004
"""While there is interactive work: share of the time that the loop may be busy, and how late it may be."""

_LAG_ALONE_S = 0.012
"""Batch alone may fill the loop, as long as heartbeats, leases and commits keep their times."""

_LEAST, _FIRST, _MOST = 20.0, 200.0, 5_000.0
_BURST_S = 0.01
_LEAST_BURST, _MOST_BURST = 2.0, 64.0


class Pace:
    """A token bucket whose rate follows the loop's idle time. `begin` is called for each batch job that begins."""

    def __init__(self) -> None:
        self.rate = _FIRST
        self._tokens = _LEAST_BURST
        self._filled = time.monotonic()
        self._interactive = self._begun = -_RECENT_S
        self._short = False
        self._busy = self._lag = 0.0
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._sample())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def interactive(self) -> None:
        """Interactive work is there."""
        self._interactive = time.monotonic()

    def room(self) -> int:
        """How many batch jobs may begin now."""
        now = time.monotonic()
        burst = min(_MOST_BURST, max(_LEAST_BURST, self.rate * _BURST_S))
        self._tokens = min(burst, self._tokens + (now - self._filled) * self.rate)
        self._filled = now
        self._short |= self._tokens < 1
        return int(self._tokens)

    def begin(self) -> None:
        """A batch job begins."""
        self._tokens -= 1
        self._begun = time.monotonic()

    def adjust(self, busy: float, lag_s: float, now: float) -> None:
        """Takes in one sample: the share of the time that the loop was busy, and how late it was."""
        self._busy += _SMOOTH * (busy - self._busy)
        self._lag += _SMOOTH * (lag_s - self._lag)
        shared = now - self._interactive < _RECENT_S
        if (shared and self._busy > _BUSY) or self._lag > (_LAG_S if shared else _LAG_ALONE_S):
            self.rate = max(_LEAST, self.rate * 0.93)
        elif self._short:
            # A rate that nobody has used up says nothing about what the loop could bear.
            self.rate = min(_MOST, self.rate * 1.02 + 1)
        self._short = False
        metrics.PACE.set(self.rate)
        metrics.LOOP_BUSY.set(self._busy)
        metrics.LOOP_LAG.set(self._lag)

    async def _sample(self) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        while True:
            works = wall - max(self._interactive, self._begun) < _RECENT_S
            sample_s = _SAMPLE_S if works else _IDLE_SAMPLE_S
            await asyncio.sleep(sample_s)
            now, spent = time.monotonic(), time.thread_time()
            self.adjust((spent - cpu) / (now - wall), now - wall - sample_s, now)
            wall, cpu = now, spent
