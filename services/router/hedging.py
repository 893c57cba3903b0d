"""A second call beside a slow one (Dean and Barroso, "The Tail at Scale", 2013): who speaks first wins, the other is cancelled.

Only a share of a model's calls may have one, so that a provider that is slow for all is not asked twice as much.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from schemas.control import Deployment, Model
from services.router.calling import Flight
from services.router.providers.base import ProviderFailure

_MOST_CREDIT = 10.0
"""Hedges that may come in a row after a time without any."""

Outcome = ProviderFailure | Literal["won", "lost", "unmade"]
"""How a call of a race ended; `unmade`: it was not to be begun any more, for the other had won, or was refused for good."""


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

    A second one that is `beaten` already is not made. Raises what `fly` and `second` raise; no call is at work any more when this
    returns or raises.
    """
    return await _Race(fly).run(first, after_s, second)


class _Race:
    def __init__(self, fly: Callable[[Flight], Awaitable[ProviderFailure | None]]) -> None:
        self._fly = fly
        self._winner: asyncio.Future[Flight] = asyncio.get_running_loop().create_future()
        self._flying: dict[asyncio.Future[ProviderFailure | None], Flight] = {}
        self._asking: asyncio.Future[Flight | None] | None = None
        self._ended: list[tuple[Flight, Outcome]] = []

    async def run(
        self, first: Flight, after_s: float, second: Callable[[], Awaitable[Flight | None]]
    ) -> list[tuple[Flight, Outcome]]:
        self._begin(first)
        try:
            await asyncio.wait(self._awaited(), timeout=after_s, return_when=asyncio.FIRST_COMPLETED)
            await self._look()
            if self._flying and not self._winner.done():
                self._asking = asyncio.ensure_future(second())
            while self._flying or self._asking:
                await asyncio.wait(self._awaited(), return_when=asyncio.FIRST_COMPLETED)
                await self._look()
            return sorted(self._ended, key=self._weight)
        finally:
            await _cancelled(*self._flying, *([self._asking] if self._asking else ()))

    def _awaited(self) -> "list[asyncio.Future[Any]]":
        return [*self._flying, *([self._asking] if self._asking else ()), *(() if self._winner.done() else (self._winner,))]

    def _begin(self, flight: Flight) -> None:
        if (relay := flight.relay) is not None:
            opens = relay.opens
            relay.opens = lambda: self._wins(flight) and opens()
        self._flying[asyncio.ensure_future(self._fly(flight))] = flight

    def _wins(self, flight: Flight) -> bool:
        if not self._winner.done():
            self._winner.set_result(flight)
        return self._winner.result() is flight

    async def _look(self) -> None:
        """Takes in what has happened."""
        for task in [task for task in self._flying if task.done()]:
            flight, failure = self._flying.pop(task), task.result()
            won = failure is None and self._wins(flight)
            flight.beaten = failure is None and not won
            self._ended.append((flight, "won" if won else failure or "lost"))
        if self._winner.done():
            await self._end_losers()
        if self._asking is not None and self._asking.done():
            asking, self._asking = self._asking, None
            self._join(asking.result())

    async def _end_losers(self) -> None:
        """Who asks for a second call is heard out as long as another one may follow: that has to know its number."""
        winner = self._winner.result()
        losers = {task: flight for task, flight in self._flying.items() if flight is not winner}
        for flight in losers.values():
            flight.beaten = True
        await _cancelled(*losers)
        for task, flight in losers.items():
            del self._flying[task]
            self._ended.append((flight, "lost"))
        if self._asking is not None and not self._asking.done() and (winner, "won") in self._ended:
            asking, self._asking = self._asking, None
            await _cancelled(asking)

    def _join(self, flight: Flight | None) -> None:
        """The second call is begun, unless there is nothing to win any more."""
        if flight is None:
            return
        last = self._ended[-1][1] if self._ended else None
        if flight.beaten or self._winner.done() or (isinstance(last, ProviderFailure) and last.kind == "final"):
            flight.land()
            self._ended.append((flight, "unmade"))
        else:
            self._begin(flight)

    def _weight(self, ended: tuple[Flight, Outcome]) -> int:
        """The winner decides, or else who failed last."""
        flight, outcome = ended
        if self._winner.done() and flight is self._winner.result():
            return 2
        return 1 if isinstance(outcome, ProviderFailure) else 0


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
