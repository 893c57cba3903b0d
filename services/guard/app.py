"""Guard: a job is looked at."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.kafka.stage import Stage
from infra.platform import Platform
from schemas.policy import DEFAULT_GUARD
from schemas.slip import Stage as StageName
from schemas.topics import AUDIT_DRAFTS
from services.guard.audit import Redaction
from services.guard.handler import Guard, scanner_for


class GuardService:
    """The guard stage, and what makes audit records redacted ones."""

    name = StageName.GUARD.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        self._drain_s = platform.settings.drain_s
        redaction = Redaction(platform.post(self.name), platform.files)
        source = platform.source("audit-redaction", AUDIT_DRAFTS.name)
        redacting = Stage("audit-redaction", source, redaction.work, platform.settings.concurrency)
        self._stages = (platform.job_stage(StageName.GUARD, Guard(platform.clock).handle), redacting)

    async def start(self) -> None:
        scanner_for(frozenset(DEFAULT_GUARD.actions))
        for stage in self._stages:
            await stage.start()

    def not_ready(self) -> str | None:
        return next((reason for stage in self._stages if (reason := stage.not_ready())), None)

    async def drain(self) -> None:
        for stage in self._stages:
            await stage.drain(self._drain_s)

    async def stop(self) -> None:
        for stage in self._stages:
            await stage.stop()


def build(platform: Platform) -> GuardService:
    return GuardService(platform)
