"""Who may run a batch next."""

import asyncio

from services.ingress.batches.turns import Turns
from tests.fakes.clock import in_virtual_time


class Batch:
    def __init__(self, turns: Turns, team: str) -> None:
        self.has = asyncio.Event()
        self.halt = asyncio.Event()
        self._over = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, team))

    async def _run(self, turns: Turns, team: str) -> None:
        async with turns.turn(team, self.halt.wait):
            self.has.set()
            await self._over.wait()

    async def end(self) -> None:
        self._over.set()
        await self.task


async def running(batches: list[Batch]) -> list[int]:
    await asyncio.sleep(1)
    return [n for n, batch in enumerate(batches) if batch.has.is_set() and not batch.task.done()]


@in_virtual_time
async def test_one_team_does_not_take_every_place() -> None:
    turns = Turns(3, 2)
    many = [Batch(turns, "many") for _ in range(5)]
    other = Batch(turns, "other")
    assert await running([*many, other]) == [0, 1, 5]
    await many[0].end()
    assert await running([*many, other]) == [1, 2, 5]
    for batch in (other, *many):
        await batch.end()


@in_virtual_time
async def test_places_are_given_back_by_those_who_are_cancelled_while_they_wait() -> None:
    turns = Turns(1, 1)
    batches = [Batch(turns, team) for team in ("a", "a", "b", "c")]
    assert await running(batches) == [0]
    for waiting in (batches[1], batches[2]):
        waiting.task.cancel()
        await asyncio.gather(waiting.task, return_exceptions=True)
    await batches[0].end()
    assert await running(batches) == [3]
    await batches[3].end()
    again = [Batch(turns, team) for team in ("a", "b")]
    assert await running(again) == [0]
    await again[0].end()
    assert await running(again) == [1]
    await again[1].end()


@in_virtual_time
async def test_who_is_halted_winds_up_without_a_place_and_takes_none_from_others() -> None:
    turns = Turns(1, 1)
    batches = [Batch(turns, "a"), Batch(turns, "a"), Batch(turns, "b")]
    batches[1].halt.set()
    assert await running(batches) == [0, 1]
    await batches[1].end()
    assert await running(batches) == [0]
    await batches[0].end()
    assert await running(batches) == [2]
    await batches[2].end()


@in_virtual_time
async def test_a_place_given_to_who_is_halted_in_the_same_moment_is_not_lost() -> None:
    turns = Turns(1, 1)
    first, second = Batch(turns, "a"), Batch(turns, "a")
    assert await running([first, second]) == [0]
    second.halt.set()
    await first.end()
    assert await running([first, second]) == [1]
    await second.end()
    third = Batch(turns, "a")
    assert await running([third]) == [0]
    await third.end()
