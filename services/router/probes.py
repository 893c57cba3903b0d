"""Looks after deployments that are left alone, where that is wanted: nobody's request need find out that they are well again."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from infra.clock import Clock
from schemas.control import Deployment
from services.router.health import Health
from services.router.providers.base import ProviderFailure

log = logging.getLogger(__name__)

Probe = Callable[[Deployment], Awaitable[bool]]
"""Whether a deployment seems to be well. May raise anything."""

LOOK_S = 0.5
MOST_AT_ONCE = 8
_TIMEOUT_S = 5.0
_FIRST_MS, _LONGEST_MS = 2_000, 60_000


class Probes:
    """Asks each deployment that is left alone and has `health_check`, one router at a time; who seems well is tried at once."""

    def __init__(
        self,
        health: Health,
        deployments: Callable[[], Mapping[str, Deployment]],
        probe: Probe,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._health, self._deployments, self._probe = health, deployments, probe
        self._clock, self._chance = clock, chance
        self._due_ms: dict[str, int] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._often())

    async def stop(self) -> None:
        tasks = [*self._running.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Begins to ask those whose time has come."""
        now_ms, deployments = self._clock(), self._deployments()
        rounds = self._health.rounds(now_ms)
        self._due_ms = {name: due_ms for name, due_ms in self._due_ms.items() if name in rounds}
        for name, times in rounds.items():
            deployment = deployments.get(name)
            if deployment is None or not deployment.health_check or name in self._running:
                continue
            due_ms = self._due_ms.setdefault(name, now_ms + self._pause_ms(times))
            if now_ms >= due_ms and len(self._running) < MOST_AT_ONCE and self._health.may_check(name, now_ms):
                self._due_ms[name] = now_ms + self._pause_ms(times)
                self._running[name] = asyncio.create_task(self._ask(deployment))

    def _pause_ms(self, times: int) -> int:
        """Longer each time that it failed again, though it had seemed well; and not all routers at once."""
        return round(min(_FIRST_MS * 2 ** min(times, 10), _LONGEST_MS) * (0.5 + self._chance() / 2))

    async def _ask(self, deployment: Deployment) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if await self._probe(deployment):
                    self._health.eased(deployment.id, self._clock())
        except (ProviderFailure, TimeoutError):
            # Still down.
            pass
        except Exception:
            log.exception("%s could not be looked after", deployment.id)
        finally:
            self._running.pop(deployment.id, None)

    async def _often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.look()
            except Exception:
                log.exception("deployments could not be looked after, trying again")
