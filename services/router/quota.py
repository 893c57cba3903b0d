"""Providers' quotas of requests per minute, which all routers share; and how much of all quotas is in use."""

import logging
from collections.abc import Awaitable, Callable

from infra.clock import Clock
from infra.redis.client import RedisUnavailable
from infra.redis.quota import MINUTE_MS, Taken
from schemas.control import Deployment, Model
from schemas.topics import Lane
from services.router.places import Places

log = logging.getLogger(__name__)

Ask = Callable[[str, int, Lane], Awaitable[Taken]]
"""Charges one call: deployment, requests per minute, lane. Raises RedisUnavailable."""


class Quotas:
    """Asks for each call of a deployment that has such a quota, and remembers what it heard."""

    def __init__(self, ask: Ask, places: Places, clock: Clock) -> None:
        self._ask, self._places, self._clock = ask, places, clock
        self._empty_ms: dict[str, int] = {}

    async def charge(self, deployment: Deployment, lane: Lane) -> int:
        """0 if the call may be made, which is then charged; else milliseconds to wait.

        While Redis is away every call may be made: the provider knows its quota itself.
        """
        if deployment.rpm is None:
            return 0
        try:
            taken = await self._ask(deployment.id, deployment.rpm, lane)
        except RedisUnavailable as error:
            log.warning("the quota of %s is not known: %s", deployment.id, error)
            return 0
        self._empty_ms[deployment.id] = self._clock() + taken.full_ms
        return taken.wait_ms

    def share(self, model: Model, now_ms: int) -> float:
        """How much of the quota is in use at the least used deployment of a model, from 0 to 1, as far as it is known here."""
        return min((self._share(deployment, now_ms) for deployment in model.deployments), default=0.0)

    def _share(self, deployment: Deployment, now_ms: int) -> float:
        minute = (self._empty_ms.get(deployment.id, 0) - now_ms) / MINUTE_MS if deployment.rpm else 0.0
        return max(0.0, minute, self._places.share(deployment))
