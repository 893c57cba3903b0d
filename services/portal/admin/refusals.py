"""Tries that are refused are told, so that somebody sees them; not each of a thousand."""

import logging
from collections import OrderedDict

from infra.clock import Clock
from infra.events import Acts

log = logging.getLogger(__name__)

_ONCE_MS = 60_000
_MOST_KNOWN = 10_000


class Refusals:
    """Tells of refused tries: the same one of the same actor once a minute."""

    def __init__(self, acts: Acts, clock: Clock) -> None:
        self._acts = acts
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def tell(self, actor: str, operation: str, path: str, why: str) -> None:
        """Tells of a try. `operation`: what was tried, whatever it was tried on. Where that can't be told, the log has it."""
        now_ms, key = self._clock(), (actor, operation)
        if now_ms - self._told.get(key, -_ONCE_MS) < _ONCE_MS:
            return
        self._told[key] = now_ms
        self._told.move_to_end(key)
        while len(self._told) > _MOST_KNOWN:
            self._told.popitem(last=False)
        try:
            await self._acts.tell(actor, "refused", path[:512], reason=f"{operation}: {why}")
        except Exception as error:
            log.warning("portal: %s was refused %s, which can't be told (%s)", actor, operation, type(error).__name__)
