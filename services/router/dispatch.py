"""Whether a job may be sent out now, and to which deployment: gates, health, quotas, in this order."""

import asyncio
import math
from collections.abc import Collection, Sequence

from infra.clock import Clock
from schemas.control import Deployment, Model
from schemas.errors import Fault, RateLimited, Unavailable
from schemas.job import Job
from schemas.topics import Lane
from services.router import parking, policy
from services.router.gates.composite import Gates
from services.router.health import Health
from services.router.parking import Later, Moment
from services.router.places import Place, Places
from services.router.quota import Quotas
from services.router.strategies.base import Chance, Strategy

Found = Place | Later | Fault
"""A place at a deployment; until when the job is put off (batch); or the fault with which it ends (interactive, or too late)."""

_APART_S = 0.05
"""Those who wait for the same moment come up to so far apart."""


class Dispatcher:
    """Finds a place for each call of each job. Interactive goes first, and never waits long; batch waits."""

    def __init__(
        self, health: Health, places: Places, quotas: Quotas, gates: Gates, clock: Clock, chance: Chance, strategy: Strategy
    ) -> None:
        self.health = health
        self._places = places
        self._quotas = quotas
        self.gates = gates
        self._clock = clock
        self._chance = chance
        self._strategy = strategy

    async def find(self, job: Job, model: Model, tried: Collection[str] = ()) -> Found:
        """A place for the next call, at a deployment that is not among those `tried` in vain, if there is one."""
        if job.lane is Lane.BATCH and (later := self._behind_gate(job, model)):
            return later
        loop = asyncio.get_running_loop()
        ends = loop.time() + parking.wait_s(job.lane, policy.rest_s(job.deadline_ms, self._clock()))
        while True:
            up = [d for d in model.deployments if not self.health.cools_until(d.id, self._clock())]
            if not up:
                return self._down(job, model)
            best = [d for d in up if d.id not in tried] or up
            found = await self._take(best, job.lane)
            if isinstance(found, Place):
                return found
            left_s = ends - loop.time()
            if left_s <= 0 or found / 1000 > left_s:
                return self._over_quota(job, best, found)
            if found:
                await asyncio.sleep(min(left_s, found / 1000 + self._chance() * _APART_S))
            elif place := await self._freed(best, job.lane, left_s):
                return place

    def other(self, model: Model, tried: Collection[str]) -> bool:
        """True if a deployment is up that was not tried yet."""
        now_ms = self._clock()
        return any(d.id not in tried and not self.health.cools_until(d.id, now_ms) for d in model.deployments)

    def moment(self) -> Moment:
        return Moment(self._clock(), self._chance())

    def _behind_gate(self, job: Job, model: Model) -> Later | None:
        opens_ms = self.gates.closed_until(model, self._clock()) if model.gates else 0
        return parking.behind_gate(job, opens_ms, self.moment()) if opens_ms else None

    async def _take(self, deployments: Sequence[Deployment], lane: Lane) -> Place | int:
        """A place that is charged; or the milliseconds to wait for a provider's minute, 0 for a place to get free."""
        waits: list[int] = []
        left = [d for d in deployments if self._places.room(d, lane)]
        while left:
            chosen = self._strategy.choose(left, self._chance)
            charged = await self._charge(self._places.take(chosen, lane))
            if isinstance(charged, Place):
                return charged
            waits.append(charged)
            left = [d for d in left if d.id != chosen.id and self._places.room(d, lane)]
        return min(waits, default=0)

    async def _freed(self, deployments: Sequence[Deployment], lane: Lane, most_s: float) -> Place | None:
        place = await self._places.wait(deployments, lane, most_s)
        charged = await self._charge(place) if place else None
        return charged if isinstance(charged, Place) else None

    async def _charge(self, place: Place) -> Place | int:
        """The place, once its call is charged to the quota; or how long to wait for that."""
        wait_ms = 1
        try:
            wait_ms = await self._quotas.charge(place.deployment, place.lane)
        finally:
            if wait_ms:
                place.give_back()
        return wait_ms or place

    def _down(self, job: Job, model: Model) -> Later | Fault:
        now = self.moment()
        until_ms = min(self.health.cools_until(d.id, now.now_ms) for d in model.deployments)
        if job.lane is Lane.BATCH and (later := parking.while_down(job, until_ms, now)):
            return later
        return _unavailable(job, (until_ms - now.now_ms) / 1000)

    def _over_quota(self, job: Job, deployments: Sequence[Deployment], wait_ms: int) -> Later | Fault:
        now = self.moment()
        if job.lane is Lane.BATCH:
            return parking.over_quota(job, wait_ms, now) or policy.past_deadline(job)
        if not wait_ms and any(self.health.ramp(d.id, now.now_ms) for d in deployments):
            return _unavailable(job, 1)
        return RateLimited(
            f"The providers of `{job.model}` take no more requests for now: their quota is in use.",
            retry_after_s=max(1, math.ceil(wait_ms / 1000)),
        ).fault()


def _unavailable(job: Job, after_s: float) -> Fault:
    error = Unavailable(
        f"The providers of `{job.model}` are failing, and are not asked for a while.",
        code="provider_unavailable",
        retry_after_s=max(1, math.ceil(after_s)),
    )
    return error.fault().model_copy(update={"owner": "provider"})
