"""Whether a job may be sent out now, and to which deployment: gates, health, order, quotas."""

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence

from infra import tokens
from infra.clock import Clock
from infra.reachable import chain
from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from schemas.errors import Fault, RateLimited, Unavailable
from schemas.job import Job
from schemas.topics import Lane
from services.router import parking, policy
from services.router.gates.composite import Gates
from services.router.health import Health
from services.router.needs import Needs, may_exceed
from services.router.parking import Later, Moment
from services.router.places import Place, Places
from services.router.quota import AT_ONCE, Patience, Quotas
from services.router.route import Route
from services.router.strategies.base import Chance, Strategy
from services.router.strategies.composite import Strategies
from services.router.tally import Outcome, Tally

Found = Place | Later | Fault
"""A place at a deployment; until when the job is put off (batch); or the fault with which it ends (interactive, or too late)."""

_APART_S = 0.05
"""Those who wait for the same moment come up to so far apart."""

_DRAINED_MS = 5_000
"""Who finds everybody drained comes again after so long: nobody knows when a drain is over."""

_THREAD_FROM = 50_000
_OVERLOADED = frozenset({429, 503, 529})


class Dispatcher:
    """Finds a place for each call of each job. Interactive goes first, and never waits long; batch waits."""

    def __init__(
        self,
        health: Health,
        places: Places,
        quotas: Quotas,
        gates: Gates,
        clock: Clock,
        chance: Chance,
        strategies: Strategies,
        tally: Tally,
    ) -> None:
        self.health = health
        self._places = places
        self.quotas = quotas
        self.gates = gates
        self._clock = clock
        self._chance = chance
        self.strategies = strategies
        self.tally = tally

    async def route(self, job: Job, models: Mapping[str, Model], asked: Model) -> Route:
        """The way of a job that asks for this one of the `models`. A long prompt is counted on a thread, and only if need be."""
        counted = 0
        if may_exceed(job, chain(models, asked)):
            if tokens.length(job.body) < _THREAD_FROM:
                counted = tokens.prompt_tokens(job.api, job.body)
            else:
                counted = await asyncio.to_thread(tokens.prompt_tokens, job.api, job.body)
        return Route(models, asked, job.policy, Needs(job, self._clock(), counted))

    async def find(self, job: Job, route: Route, tried: Collection[str] = ()) -> Found:
        """A place for the next call, at the model where the route is, or else at those that follow: then the route is there.

        A batch job waits for a gate or a quota of its model; only if all that may serve it is down it goes on, as interactive
        does in any case.
        """
        if not route.model.deployments:
            return route.refusal()
        ends: list[Later | Fault] = []
        while True:
            found = await self._find_at(route.model, job, tried)
            if isinstance(found, Place):
                return found
            ends.append(found)
            waits = isinstance(found, Later) and found.why != "down"
            if waits or not route.move("failed"):
                return _soonest(ends)

    async def find_now(self, job: Job, route: Route, tried: Collection[str] = ()) -> Place | None:
        """A place at the model where the route is, at a deployment that is not among those `tried`; at once, or not at all."""
        model = route.model
        left = [d for d in self._up(model) if d.id not in tried]
        if not left or (job.lane is Lane.BATCH and self._behind_gate(job, model)):
            return None
        found = await self._take(left, job, self.strategies.of(model, job.lane, job.stream), AT_ONCE)
        return found if isinstance(found, Place) else None

    async def _find_at(self, model: Model, job: Job, tried: Collection[str]) -> Found:
        """A place at a deployment of this model that is not among those `tried` in vain, if there is one."""
        if job.lane is Lane.BATCH and (later := self._behind_gate(job, model)):
            return later
        loop = asyncio.get_running_loop()
        ends = loop.time() + parking.wait_s(job.lane, policy.rest_s(job.deadline_ms, self._clock()))
        again = False
        while True:
            up = self._up(model)
            if not up:
                return self._down(job, model)
            best = [d for d in up if d.id not in tried] or up
            patience = Patience(ends - loop.time(), again)
            found = await self._take(best, job, self.strategies.of(model, job.lane, job.stream), patience)
            if isinstance(found, Place):
                return found
            left_s = ends - loop.time()
            if left_s <= 0 or found / 1000 > left_s:
                return self._over_quota(job, model, best, found)
            if found:
                await asyncio.sleep(min(left_s, found / 1000 + self._chance() * _APART_S))
                again = True
            elif place := await self._freed(best, job, left_s):
                return place

    def ended(self, job: Job, call: Deployment, attempt: Attempt, outcome: Outcome, *, hung: bool = False) -> None:
        """A call of the job is over: tells those who learn from it. `hung`: it took all the time it had."""
        self.strategies.ended(call, attempt, hung=hung, stream=job.stream)
        self.quotas.took(call, job, attempt)
        overloaded = attempt.status == "failed" and (hung or attempt.http_status in _OVERLOADED)
        tokens_ = attempt.usage.output_tokens
        self._places.ended(call, attempt.latency_ms, attempt.ttft_ms, ok=outcome == "ok", overloaded=overloaded, tokens=tokens_)
        self.tally.ended(call.id, outcome, attempt.latency_ms, attempt.ttft_ms)

    def other(self, model: Model, tried: Collection[str] = ()) -> bool:
        """True if a deployment is up that was not tried yet."""
        return any(d.id not in tried for d in self._up(model))

    def moment(self) -> Moment:
        return Moment(self._clock(), self._chance())

    def _up(self, model: Model) -> list[Deployment]:
        """Those that may be asked now: they don't cool down, nor are they drained."""
        now_ms = self._clock()
        return [d for d in model.deployments if not self.health.cools_until(d.id, now_ms)]

    def _behind_gate(self, job: Job, model: Model) -> Later | None:
        opens_ms = self.gates.closed_until(model, self._clock()) if model.gates else 0
        return parking.behind_gate(job, opens_ms, self.moment()) if opens_ms else None

    async def _take(self, deployments: Sequence[Deployment], job: Job, strategy: Strategy, patience: Patience) -> Place | int:
        """A place that is charged; or the milliseconds to wait for a provider's minute, 0 for a place to get free."""
        waits: list[int] = []
        lane = job.lane
        left = [d for d in deployments if self._places.room(d, lane)]
        while left:
            chosen = strategy.choose(_first_in_order(left), self._chance)
            charged = await self._charge(self._places.take(chosen, lane), job, patience)
            if isinstance(charged, Place):
                return charged
            waits.append(charged)
            left = [d for d in left if d.id != chosen.id and self._places.room(d, lane)]
        return min(waits, default=0)

    async def _freed(self, deployments: Sequence[Deployment], job: Job, most_s: float) -> Place | None:
        place = await self._places.wait(deployments, job.lane, most_s)
        charged = await self._charge(place, job, AT_ONCE) if place else None
        return charged if isinstance(charged, Place) else None

    async def _charge(self, place: Place, job: Job, patience: Patience) -> Place | int:
        """The place, once its call is charged to the quota; or how long to wait for that."""
        wait_ms = 1
        try:
            wait_ms = await self.quotas.charge(place.deployment, job, patience)
        finally:
            if wait_ms:
                place.give_back()
        if not wait_ms:
            self.strategies.begun(place.deployment)
        return wait_ms or place

    def _down(self, job: Job, model: Model) -> Later | Fault:
        now = self.moment()
        cooling = [self.health.cools_until(d.id, now.now_ms) for d in model.deployments if d.id not in self.health.drained]
        until_ms = min(cooling, default=now.now_ms + _DRAINED_MS)
        if job.lane is Lane.BATCH and (later := parking.while_down(job, until_ms, now)):
            return later
        return _unavailable(model, (until_ms - now.now_ms) / 1000) if cooling else _all_drained(model)

    def _over_quota(self, job: Job, model: Model, deployments: Sequence[Deployment], wait_ms: int) -> Later | Fault:
        now = self.moment()
        if job.lane is Lane.BATCH:
            return parking.over_quota(job, wait_ms, now) or policy.past_deadline(job)
        if not wait_ms and any(self.health.ramp(d.id, now.now_ms) for d in deployments):
            return _unavailable(model, 1)
        return RateLimited(
            f"The providers of `{model.name}` take no more requests for now: their quota is in use.",
            retry_after_s=max(1, math.ceil(wait_ms / 1000)),
        ).fault()


def _first_in_order(deployments: Sequence[Deployment]) -> Sequence[Deployment]:
    if len(deployments) == 1:
        return deployments
    least = min(d.order for d in deployments)
    return [d for d in deployments if d.order == least]


def _soonest(ends: Sequence[Later | Fault]) -> Later | Fault:
    """The earliest time at which one of several models may serve a batch job; else what the first of them says."""
    laters = [end for end in ends if isinstance(end, Later)]
    return min(laters, key=lambda later: later.at_ms) if laters else ends[0]


def _unavailable(model: Model, after_s: float) -> Fault:
    error = Unavailable(
        f"The providers of `{model.name}` are failing, and are not asked for a while.",
        code="provider_unavailable",
        retry_after_s=max(1, math.ceil(after_s)),
    )
    return error.fault().model_copy(update={"owner": "provider"})


def _all_drained(model: Model) -> Fault:
    return Unavailable(
        f"All deployments of `{model.name}` are drained: its operators have stopped new calls for now.",
        code="deployments_drained",
        retry_after_s=_DRAINED_MS // 1000,
    ).fault()
