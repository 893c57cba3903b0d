"""A second call beside a slow one (Dean and Barroso, "The Tail at Scale", 2013): who speaks first wins, the other is cancelled.

Only a share of a model's calls may have one, so that a provider that is slow for all is not asked twice as much.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from schemas.control import Deployment, Model
from services.router.calling import Flight
from services.router.providers.base import ProviderFailure

_MOST_CREDIT = 10.0
"""Hedges that may come in a row after a time without any."""

Outcome = ProviderFailure | Literal["won", "lost", "unmade"]
"""How a call of a race ended; `unmade`: the other had won before it was begun."""


class Hedges:
    """Says when a call is slow, and how many may be hedged. `p95_ms`: what 19 of 20 calls of a deployment take, if known."""

    def __init__(self, p95_ms: Callable[[Deployment, bool], float | None]) -> None:
        self._p95_ms = p95_ms
        self._credit: dict[str, float] = {}

    def after_s(self, model: Model, deployment: Deployment, stream: bool) -> float | None:
        """When a call that begins now gets a second one; None: never. Each call earns its share of one."""
        hedge = model.hedge
        if hedge is None:
            return None
        self._credit[model.name] = min(_MOST_CREDIT, self._credit.get(model.name, 0.0) + hedge.most_share)
        if hedge.after_s is not None:
            return hedge.after_s
        p95_ms = self._p95_ms(deployment, stream)
        return None if p95_ms is None else p95_ms / 1000

    def take(self, model: Model) -> bool:
        """Whether one more call of this model may be hedged, which it then is."""
        left = self._credit.get(model.name, 0.0)
        if left < 1:
            return False
        self._credit[model.name] = left - 1
        return True

    def give_back(self, model: Model) -> None:
        """A hedge was not made after all."""
        self._credit[model.name] = self._credit.get(model.name, 0.0) + 1


async def race(
    fly: Callable[[Flight], Awaitable[ProviderFailure | None]],
    first: Flight,
    after_s: float,
    second: Callable[[], Awaitable[Flight | None]],
) -> list[tuple[Flight, Outcome]]:
    """What became of the call and, if it was slow, of the `second` one; the last of the list decides.

    Raises what `fly` raises; no call is at work any more when this returns or raises.
    """
    return await _Race(fly).run(first, after_s, second)


class _Race:
    def __init__(self, fly: Callable[[Flight], Awaitable[ProviderFailure | None]]) -> None:
        self._fly = fly
        self._winner: asyncio.Future[Flight] = asyncio.get_running_loop().create_future()
        self._flying: dict[asyncio.Future[ProviderFailure | None], Flight] = {}
        self._ended: list[tuple[Flight, Outcome]] = []

    async def run(
        self, first: Flight, after_s: float, second: Callable[[], Awaitable[Flight | None]]
    ) -> list[tuple[Flight, Outcome]]:
        self._begin(first)
        asking: asyncio.Future[Flight | None] | None = None
        try:
            await asyncio.wait((*self._flying, self._winner), timeout=after_s, return_when=asyncio.FIRST_COMPLETED)
            if self._decided():
                return await self._finished()
            asking = asyncio.ensure_future(second())
            await asyncio.wait((*self._flying, self._winner, asking), return_when=asyncio.FIRST_COMPLETED)
            if not self._decided() and (flight := await asking):
                self._begin(flight)
            while not self._decided():
                await asyncio.wait((*self._flying, self._winner), return_when=asyncio.FIRST_COMPLETED)
            return await self._finished(asking)
        finally:
            await _cancelled(*self._flying, *([asking] if asking else ()))

    def _begin(self, flight: Flight) -> None:
        if (relay := flight.relay) is not None:
            opens = relay.opens
            relay.opens = lambda: self._wins(flight) and opens()
        self._flying[asyncio.ensure_future(self._fly(flight))] = flight

    def _wins(self, flight: Flight) -> bool:
        if not self._winner.done():
            self._winner.set_result(flight)
        return self._winner.result() is flight

    def _decided(self) -> bool:
        """Takes in what has ended; true if somebody has won, or nobody is left."""
        for task in [task for task in self._flying if task.done()]:
            flight, failure = self._flying.pop(task), task.result()
            won = failure is None and self._wins(flight)
            self._ended.append((flight, "won" if won else failure or "lost"))
        return self._winner.done() or not self._flying

    async def _finished(self, asking: "asyncio.Future[Flight | None] | None" = None) -> list[tuple[Flight, Outcome]]:
        """Ends the loser, then waits for the winner. Who asks for a second call is heard out, unless nothing follows any more."""
        winner = self._winner.result() if self._winner.done() else None
        losers = {task: flight for task, flight in self._flying.items() if flight is not winner}
        await _cancelled(*losers)
        self._ended += [(flight, "lost") for flight in losers.values()]
        for task, flight in self._flying.items():
            if task not in losers:
                self._ended.append((flight, await task or "won"))
        # The winner decides, though it may have ended before the loser.
        self._ended.sort(key=lambda ended: ended[0] is winner)
        if asking is not None and (asking.done() or self._ended[-1][1] != "won"):
            known = {id(flight) for flight, _ in self._ended}
            if (flight := await asking) and id(flight) not in known:
                self._ended.insert(0, (flight, "unmade"))
        return self._ended


async def _cancelled(*tasks: "asyncio.Future[ProviderFailure | None] | asyncio.Future[Flight | None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
