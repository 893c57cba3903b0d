"""The mock provider's own books: every request it saw and what became of it; bounded, or also in a file."""

import json
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Outcome = Literal["running", "finished", "cut", "client_gone"]
CAPACITY = 200_000


@dataclass(slots=True)
class Entry:
    """One request.

    Tokens are what a provider would bill: nothing for an error or before the first byte of an answer, the
    words already sent for a stream that ended early. `marker` is the body's `user`, else `x-request-id`;
    `request_id` that header alone; `key_tail` the last four characters of the credential; `at` unix seconds.
    """

    seq: int
    id: str
    at: float
    endpoint: str
    model: str
    stream: bool = False
    marker: str | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    key_tail: str | None = None
    status: int = 0
    outcome: Outcome = "running"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    duration_ms: float = 0.0


class Ledger:
    """Entries (the last `capacity`) and totals (all since the reset). One event loop owns it."""

    def __init__(self, capacity: int = CAPACITY, file: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self._file = file.open("a", buffering=1, encoding="utf-8") if file else None
        self._seq = 0
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget entries and totals; numbers go on, and what runs now is counted when it ends."""
        self._entries.clear()
        self._opened = 0
        self._max_in_flight = self.in_flight
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._by_status: Counter[int] = Counter()
        self._by_outcome: Counter[Outcome] = Counter()
        self._by_model: Counter[str] = Counter()

    def open(self, endpoint: str, model: str) -> Entry:
        """A request arrived."""
        self._seq += 1
        self._opened += 1
        self.in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self.in_flight)
        entry = Entry(self._seq, "", time.time(), endpoint, model)
        self._entries.append(entry)
        return entry

    def close(self, entry: Entry, outcome: Outcome) -> None:
        """Its answer is over; the entry's status and tokens are final."""
        entry.outcome = outcome
        entry.duration_ms = (time.time() - entry.at) * 1000
        self.in_flight -= 1
        self._prompt_tokens += entry.prompt_tokens
        self._completion_tokens += entry.completion_tokens
        self._by_status[entry.status] += 1
        self._by_outcome[outcome] += 1
        self._by_model[entry.model] += 1
        if self._file:
            self._file.write(json.dumps(asdict(entry)) + "\n")

    def entries(self, after: int = 0, limit: int = CAPACITY) -> list[Entry]:
        """Entries with a number above `after`, oldest first, at most `limit`."""
        return [entry for entry in self._entries if entry.seq > after][:limit]

    def summary(self) -> dict[str, int | dict[str, int]]:
        """Totals since the last reset; `dropped` entries are counted but no longer listed."""
        return {
            "requests": self._opened,
            "in_flight": self.in_flight,
            "max_in_flight": self._max_in_flight,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "dropped": self._opened - len(self._entries),
            "by_status": {str(status): count for status, count in self._by_status.items()},
            "by_outcome": {str(outcome): count for outcome, count in self._by_outcome.items()},
            "by_model": dict(self._by_model),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()
