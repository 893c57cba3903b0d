"""Guard: a job is looked at."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.platform import Platform
from schemas.policy import DEFAULT_GUARD
from schemas.slip import Stage as StageName
from services.guard.handler import Guard, scanner_for


class GuardService:
    """The guard stage."""

    name = StageName.GUARD.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        self._drain_s = platform.settings.drain_s
        self._stage = platform.job_stage(StageName.GUARD, Guard(platform.clock).handle)

    async def start(self) -> None:
        scanner_for(frozenset(DEFAULT_GUARD.actions))
        await self._stage.start()

    def not_ready(self) -> str | None:
        return self._stage.not_ready()

    async def drain(self) -> None:
        await self._stage.drain(self._drain_s)

    async def stop(self) -> None:
        await self._stage.stop()


def build(platform: Platform) -> GuardService:
    return GuardService(platform)
