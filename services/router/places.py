"""Calls at once at each deployment: as many as its provider allows this router, as it has been seen to bear, or as it bears while
it recovers.

A place that is given back goes to whoever waits for it: interactive first, but for the tenth that is batch's, as in
infra/kafka/capacity.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from infra.clock import Clock
from infra.kafka.capacity import Capacity
from schemas.control import Deployment
from schemas.topics import Lane
from services.router.adaptive import Limit
from services.router.health import Health, capacity, resize

_NO_LIMIT = 1_000_000


@dataclass(slots=True)
class Place:
    """The right to call a deployment once, until it is given back."""

    deployment: Deployment
    lane: Lane
    _places: "Places"
    _taken: tuple[Capacity, ...]
    _held: bool = True

    def give_back(self) -> None:
        """May be called any number of times."""
        if self._held:
            self._held = False
            for places in self._taken:
                places.give_back(self.lane)
            self._places.freed(self.deployment)


@dataclass(slots=True)
class _Queue:
    """Who waits for a place at one deployment, by lane."""

    lanes: dict[Lane, deque["asyncio.Future[Place]"]] = field(default_factory=lambda: {lane: deque() for lane in Lane})


class Places:
    """The places of this process."""

    def __init__(self, health: Health, clock: Clock) -> None:
        self._health, self._clock = health, clock
        self._allowed: dict[str, Capacity] = {}
        self._limits: dict[str, Limit] = {}
        self._queues: dict[str, _Queue] = {}
        self._busy: Counter[str] = Counter()

    def room(self, deployment: Deployment, lane: Lane) -> int:
        """How many more calls of this lane it may have now."""
        if self._health.cools_until(deployment.id, self._clock()):
            return 0
        return min(places.room(lane) for places in self._capacities(deployment))

    def take(self, deployment: Deployment, lane: Lane) -> Place:
        """Takes a place; there has to be room."""
        taken = self._capacities(deployment)
        for places in taken:
            places.take(lane)
        self._busy[deployment.id] += 1
        return Place(deployment, lane, self, taken)

    async def wait(self, deployments: Sequence[Deployment], lane: Lane, most_s: float) -> Place | None:
        """A place at one of these as soon as one is free; None if none was within `most_s`."""
        waiter: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        for deployment in deployments:
            self._queues.setdefault(deployment.id, _Queue()).lanes[lane].append(waiter)
        try:
            async with asyncio.timeout(most_s):
                return await waiter
        except TimeoutError:
            # It may have been handed over in the very moment.
            return waiter.result() if waiter.done() and not waiter.cancelled() else None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                waiter.result().give_back()
            raise
        finally:
            self._forget(deployments, lane, waiter)

    def freed(self, deployment: Deployment) -> None:
        """Hands a place that was given back to those who wait."""
        self._busy[deployment.id] -= 1
        if not self._busy[deployment.id]:
            del self._busy[deployment.id]
        self._hand_over(deployment)

    def ended(
        self, deployment: Deployment, latency_ms: float, first_ms: float | None, *, ok: bool, overloaded: bool, tokens: int = 0
    ) -> None:
        """A call is over, its place given back. `ok`: it went well; `overloaded`: it was refused for its number, or it hung.

        `first_ms`: until the first token of a stream; `tokens` of the answer.
        """
        if not (ok or overloaded):
            return
        now_ms, limit = self._clock(), self._limits.setdefault(deployment.id, Limit())
        before = limit.calls(now_ms)
        limit.ended(
            now_ms - int(latency_ms),
            now_ms,
            self._busy[deployment.id] + 1,
            first_ms=first_ms if ok else None,
            each_ms=latency_ms / max(1, tokens) if ok else None,
            overloaded=overloaded,
        )
        if limit.calls(now_ms) != before:
            self._hand_over(deployment)

    def limit(self, deployment: Deployment) -> int | None:
        """How many calls at once it may have from this router; None: any number."""
        limit = self._limits.get(deployment.id)
        learned, allowed = limit.calls(self._clock()) if limit else None, deployment.max_parallel_requests
        return allowed if learned is None else learned if allowed is None else min(learned, allowed)

    def forget(self, deployments: Iterable[str]) -> None:
        """They are there no more."""
        for deployment in deployments:
            self._limits.pop(deployment, None)
            if not self._busy[deployment]:
                self._allowed.pop(deployment, None)

    def busy(self, deployment: Deployment) -> int:
        """How many calls of it are at work here, or about to be."""
        return self._busy[deployment.id]

    def share(self, deployment: Deployment) -> float:
        """How much of what its provider allows this router is in use, from 0 to 1."""
        places, allowed = self._allowed.get(deployment.id), deployment.max_parallel_requests
        return min(1.0, places.busy / allowed) if places and allowed else 0.0

    def _capacities(self, deployment: Deployment) -> tuple[Capacity, ...]:
        total = self.limit(deployment) or _NO_LIMIT
        allowed = self._allowed.get(deployment.id)
        if allowed is None:
            allowed = self._allowed[deployment.id] = capacity(total)
        resize(allowed, total)
        ramp = self._health.ramp(deployment.id, self._clock())
        return (allowed, ramp) if ramp else (allowed,)

    def _hand_over(self, deployment: Deployment) -> None:
        queue = self._queues.get(deployment.id)
        if queue is None:
            return
        for lane in Lane:
            waiting = queue.lanes[lane]
            while waiting and self.room(deployment, lane):
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(self.take(deployment, lane))

    def _forget(self, deployments: Sequence[Deployment], lane: Lane, waiter: "asyncio.Future[Place]") -> None:
        for deployment in deployments:
            queue = self._queues.get(deployment.id)
            if queue is None:
                continue
            if waiter in queue.lanes[lane]:
                queue.lanes[lane].remove(waiter)
            if not any(queue.lanes.values()):
                del self._queues[deployment.id]
