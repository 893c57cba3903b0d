"""Webhooks: what is read and written, and what it takes; nothing else."""

import asyncio

from infra.kafka.delay import Delays
from infra.kafka.stage import Stage
from infra.platform import Platform
from infra.webhooks.courier import Courier
from schemas.policy import WebhookPolicy
from schemas.topics import WEBHOOKS, webhook_topic
from services.ingress.webhooks.handler import AT_ONCE, Deliveries
from services.ingress.webhooks.setup import SetUp
from services.ingress.webhooks.waiting import waiting


class Webhooks:
    """The stage that delivers, the three in which events wait, and the check of endpoints before."""

    def __init__(self, platform: Platform, courier: Courier | None = None) -> None:
        post, clock = platform.post("ingress"), platform.clock
        deliveries = Deliveries(platform.control.table, courier or Courier(), post, platform.signer, clock)
        self._set_up = SetUp(clock)
        self._drain_s = platform.settings.drain_s
        self._sending = Stage("webhooks", platform.source("webhooks", WEBHOOKS.name), deliveries.work, AT_ONCE)
        self._waiting = Delays("webhooks", webhook_topic, platform.source, lambda delay: waiting(delay, post, clock))

    async def check_target(self, url: str, policy: WebhookPolicy) -> None:
        """For admission: returns if a webhook may be sent to `url` under this policy. Raises InvalidRequest, Unavailable."""
        await self._set_up.check_target(url, policy)

    async def start(self) -> None:
        await asyncio.gather(self._sending.start(), self._waiting.start())

    def not_ready(self) -> str | None:
        return self._sending.not_ready() or self._waiting.not_ready()

    async def drain(self) -> None:
        """Tries under way may end."""
        await asyncio.gather(self._sending.drain(self._drain_s), self._waiting.drain())

    async def stop(self) -> None:
        await asyncio.gather(self._sending.stop(), self._waiting.stop())
