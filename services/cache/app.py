"""Cache: a job is answered from before."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.kafka.stage import Stage
from infra.platform import Platform
from schemas.slip import Stage as StageName
from schemas.topics import COMPLETIONS
from services.cache.handler import Cache


class CacheService:
    """The cache stage, and the reader of completions that fills it."""

    name = StageName.CACHE.value
    routes: Sequence[BaseRoute] = ()

    def __init__(self, platform: Platform) -> None:
        cache = Cache(platform.redis, platform.post(self.name), platform.clock)
        self._drain_s = platform.settings.drain_s
        filling = Stage("cache-fill", platform.source("cache-fill", COMPLETIONS.name), cache.keep, platform.settings.concurrency)
        self._stages = (platform.job_stage(StageName.CACHE, cache.handle), filling)

    async def start(self) -> None:
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


def build(platform: Platform) -> CacheService:
    return CacheService(platform)
