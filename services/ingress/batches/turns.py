"""Whose batch is run next: so many at once in a process, and so many of one team, that another team's are never far behind."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager


class Turns:
    """Places for batches, given in the order of asking; none for who stops waiting."""

    def __init__(self, total: int, each_team: int) -> None:
        self._total = asyncio.Semaphore(total)
        self._each_team = each_team
        self._teams: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def turn(self, team: str, halted: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
        """A place until the block ends, or none if `halted` returns first: to wind up takes no place."""
        own = self._teams.setdefault(team, asyncio.Semaphore(self._each_team))
        async with AsyncExitStack() as held:
            for places in (own, self._total):
                if not await _acquired(places, halted):
                    break
                held.callback(places.release)
            yield


async def _acquired(places: asyncio.Semaphore, halted: Callable[[], Awaitable[object]]) -> bool:
    if not places.locked():
        await places.acquire()
        return True
    asking: asyncio.Task[bool] = asyncio.create_task(places.acquire())
    stop = asyncio.ensure_future(halted())
    try:
        await asyncio.wait([asking, stop], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _call_off(asking, places)
        raise
    finally:
        stop.cancel()
        await asyncio.gather(stop, return_exceptions=True)
    if asking.done():
        return True
    await _call_off(asking, places)
    return False


async def _call_off(asking: "asyncio.Task[bool]", places: asyncio.Semaphore) -> None:
    """The place may have been given in the same turn of the loop."""
    if not asking.cancel() and not asking.cancelled():
        places.release()
    await asyncio.gather(asking, return_exceptions=True)
