"""The events of one job, on their way to one connection: in order, each once, and bounded. No I/O."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.reply import Answer, Delta, Event, Reply

_MAX_EVENTS = 10_000
_MAX_BYTES = 1024 * 1024


@dataclass(slots=True)
class Memory:
    """What all that wait for slow readers may take, in characters."""

    most: int
    used: int = 0


Interruption = Literal["gone", "late", "lost"]
"""Why no further event comes: the client is gone, the time is over, or events are missing."""


class Waiter:
    """The events of one job, in order, each once. Bounded: a reader that is too slow loses the stream, not the process.

    `held`: what comes is kept until `release` has put before it what came earlier.
    """

    def __init__(self, memory: Memory, *, held: bool = False) -> None:
        self._memory = memory
        self._held: list[Reply] | None = [] if held else None
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._awaited: asyncio.Future[None] | None = None
        self._attempt = -1
        self._seq = 0
        self._lost = False

    async def next(self, timeout_s: float, gone: "asyncio.Future[None]") -> Event | Interruption:
        """The next event, or why there is none: `gone` is done, `timeout_s` has passed, or an event was lost."""
        loop = asyncio.get_running_loop()
        while not self._events:
            if self._lost:
                return "lost"
            if gone.done():
                return "gone"
            self._awaited = awaited = loop.create_future()
            late = loop.call_later(max(0, timeout_s), _wake, awaited)
            gone.add_done_callback(self._wake)
            try:
                await awaited
            finally:
                gone.remove_done_callback(self._wake)
                late.cancel()
            if not self._events and not self._lost and not gone.done():
                return "late"
        event, size = self._events.popleft()
        self._take(-size)
        return event

    def put(self, reply: Reply) -> str | None:
        """Takes an event, or says why it is dropped: repeated, of another attempt, out of order, or too many."""
        if self._held is not None:
            self._held.append(reply)
            self._lost |= len(self._held) > _MAX_EVENTS
            return None
        why = self._refusal(reply)
        if why is None:
            size = _size(reply.event)
            self._seq += 1
            self._events.append((reply.event, size))
            self._take(size)
        if why is None or self._lost:
            # Not for what is dropped: who is woken and finds nothing takes it for the end of his patience.
            self._wake()
        return why

    def release(self, earlier: Sequence[Reply]) -> None:
        """Puts what came earlier before what was held; what stands in both is dropped the second time."""
        held, self._held = self._held or [], None
        for reply in (*earlier, *held):
            self.put(reply)

    def close(self) -> None:
        """Nobody reads any more."""
        self._take(-self._bytes)
        self._events.clear()

    def _refusal(self, reply: Reply) -> str | None:
        if self._attempt == -1:
            self._attempt = reply.attempt
        if reply.event.kind == "failed":
            return None
        if reply.attempt != self._attempt:
            return "other attempt"
        if reply.seq < self._seq:
            return "repeated"
        if reply.seq > self._seq or self._is_too_much():
            self._lost = True
            return "gap" if reply.seq > self._seq else "slow reader"
        return None

    def _is_too_much(self) -> bool:
        """A reader that keeps up is never cut off, however large a single event is."""
        return bool(self._events) and (
            len(self._events) >= _MAX_EVENTS or self._bytes > _MAX_BYTES or self._memory.used > self._memory.most
        )

    def _take(self, size: int) -> None:
        self._bytes += size
        self._memory.used += size

    def _wake(self, _: object = None) -> None:
        if self._awaited is not None:
            _wake(self._awaited)


def _size(event: Event) -> int:
    match event:
        case Delta(data=data):
            return sum(map(len, data))
        case Answer(body=body):
            return len(body)
        case _:
            return 0


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
