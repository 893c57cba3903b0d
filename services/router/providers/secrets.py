"""Credentials, resolved when they are needed and remembered for a second: a rotated one is used at once, a file not read a
thousand times."""

import time
from collections.abc import Callable

_REMEMBER_S = 1.0


class Secrets:
    """`look_up` resolves a reference (`os.environ/NAME`, `file/NAME`); it may read a file."""

    def __init__(self, look_up: Callable[[str], str | None], now_s: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._now_s = now_s
        self._known: dict[str, tuple[float, str | None]] = {}

    async def of(self, reference: str) -> str | None:
        """The secret, or None if there is none."""
        now_s = self._now_s()
        known = self._known.get(reference)
        if known is None or now_s - known[0] > _REMEMBER_S:
            known = self._known[reference] = (now_s, (self._look_up(reference) or "").strip() or None)
        return known[1]
