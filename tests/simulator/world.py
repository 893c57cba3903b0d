"""A world: servers, processes, a door, and the troubles that its seed has chosen. Alike whenever it is run again."""

import asyncio
from dataclasses import dataclass

from schemas.slip import Stage
from tests.simulator.chaos import Chaos, Weather, known_by_life
from tests.simulator.check import Report, check
from tests.simulator.door import Door
from tests.simulator.process import Process
from tests.simulator.provider import Ledger
from tests.simulator.servers import Servers
from tests.simulator.wires import REDIS_TIMEOUT_S, SESSION_S

ALL = (Stage.GUARD, Stage.CACHE, Stage.ROUTER)
JOBS = 40
_PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands in a world: `together`: all stages in each process, which hand jobs over in memory."""

    together: bool
    slots: bool
    copies: int


class World:
    """Everything, and what must hold of it."""

    def __init__(self, seed: int, given: Weather | None = None, jobs: int = JOBS) -> None:
        self.chaos = Chaos(seed, given)
        chance = self.chaos.chance
        self._jobs = jobs
        self.shape = Shape(chance.random() < 0.5, chance.random() < 0.7, chance.choice((1, 2, 3)))
        self.servers = Servers(self.chaos)
        self.ledger = Ledger()
        self.door = Door(self.servers, self.chaos, self._cancel)
        self._processes: list[Process] = []
        self._undertakers: set[asyncio.Task[None]] = set()
        self._born = 0

    async def run(self) -> Report:
        """Lives through it all. Raises AssertionError if something doesn't hold."""
        asyncio.get_running_loop().set_task_factory(known_by_life)
        for place in [ALL] if self.shape.together else [(stage,) for stage in ALL]:
            for copy in range(self.shape.copies):
                await self._start(place, str(copy) if self.shape.slots else None)
        troubles = asyncio.create_task(self._troubles())
        await self._come()
        await troubles
        self.chaos.calm = True
        await self._settle()
        return await check(self.servers, self.ledger, self.door.sent, self._processes, self.chaos)

    async def _come(self) -> None:
        async with asyncio.TaskGroup() as coming:
            for _ in range(self._jobs):
                coming.create_task(self.door.come())
                await asyncio.sleep(self.chaos.chance.random() ** 4 * 3)

    async def _settle(self) -> None:
        """Until nobody has anything left to do, and leases that nobody needs have lapsed."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                # Who was stopped and overtaken may still be at a call that somebody else has made again.
                while not self.servers.log.is_all_committed() or any(p.running for p in self._processes):  # noqa: ASYNC110
                    await asyncio.sleep(1)
                await asyncio.sleep(SESSION_S + REDIS_TIMEOUT_S)
        except TimeoutError:
            reasons = [f"{process.name}: {process.not_ready()}" for process in self._processes]
            raise AssertionError(f"it never came to an end: {reasons}, {self.servers.log.lags()}") from None

    async def _start(self, stages: tuple[Stage, ...], slot: str | None) -> None:
        self._born += 1
        process = Process(self.servers, self.chaos, self.ledger, stages, slot, self._born)
        self._processes.append(process)
        undertaker = asyncio.create_task(self._watch(process))
        self._undertakers.add(undertaker)
        undertaker.add_done_callback(self._undertakers.discard)
        await process.start()

    async def _watch(self, process: Process) -> None:
        """When a process ends, the group notices sooner or later, and another one takes its place."""
        await process.life.over.wait()
        self._processes.remove(process)
        await process.life.bury()
        noticed_s = self.chaos.chance.random() * (SESSION_S if process.slot is None else 1)
        await asyncio.sleep(noticed_s)
        for source in process.sources:
            await source.crash()
        await self._start(process.stages, process.slot)

    async def _troubles(self) -> None:
        weather = self.chaos.weather
        names = ("deaths", "drains", "freezes", "rebalances", "outages")
        due = [name for name in names for _ in range(int(getattr(weather, name)))]
        self.chaos.chance.shuffle(due)
        for name in due:
            await asyncio.sleep(self.chaos.chance.random() * 2 * self._jobs * 0.6 / len(due))
            await self._strike(name)

    async def _strike(self, name: str) -> None:
        chance = self.chaos.chance
        if name == "outages":
            self.chaos.redis_away_until_s = asyncio.get_running_loop().time() + chance.choice((0.3, 2, 12))
            return
        if name == "rebalances":
            await self.servers.log.rebalance(chance.choice(ALL).value, chance.choice((None, chance.randrange(1000))))
            return
        if not self._processes:
            return
        victim = chance.choice(self._processes)
        match name:
            case "deaths":
                victim.life.end_after(chance.randrange(1, 60))
            case "drains":
                await victim.terminate()
            case _:
                await self._freeze(victim, chance.choice((1.0, 5.0, 11.0, 25.0)))

    async def _freeze(self, victim: Process, seconds: float) -> None:
        victim.life.freeze(seconds)
        if seconds > SESSION_S:
            await asyncio.sleep(SESSION_S)
            for source in victim.sources:
                await source.expire()
            await asyncio.sleep(seconds - SESSION_S)
            for source in victim.sources:
                await source.rejoin()

    def _cancel(self, job_id: str) -> None:
        for process in self._processes:
            if process.running is not None:
                process.running.cancel(job_id)
