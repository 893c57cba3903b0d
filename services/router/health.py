"""Which deployments have failed lately. Pure: the time is passed in.

A deployment that failed some times in a row cools for a while: it is then asked only when the others of its model cool too, so
that never all of them are out. One success and it is well again.
"""

from collections.abc import Collection
from dataclasses import dataclass

IN_A_ROW = 3
COOL_MS = 5_000


@dataclass(slots=True)
class _Record:
    failures: int = 0
    until_ms: int = 0


class Health:
    """Of all deployments that have failed since their last success."""

    def __init__(self) -> None:
        self._sick: dict[str, _Record] = {}

    def failed(self, deployment: str, now_ms: int) -> None:
        """It could not be reached, or did not answer as it should."""
        record = self._sick.setdefault(deployment, _Record())
        record.failures += 1
        if record.failures >= IN_A_ROW:
            record.until_ms = now_ms + COOL_MS

    def worked(self, deployment: str) -> None:
        if self._sick:
            self._sick.pop(deployment, None)

    def cooling(self, now_ms: int) -> Collection[str]:
        """Those that should be left alone for now."""
        if not self._sick:
            return ()
        return {deployment for deployment, record in self._sick.items() if record.until_ms > now_ms}
