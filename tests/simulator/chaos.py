"""What goes wrong in a world, drawn from its seed, and the life of a process, which may end at every await on the world."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Literal, Never
from zlib import crc32

from infra.kafka.log import Partition

START_MS = 1_800_000_000_000

Fate = Literal["well", "lost", "unknown", "late"]
"""What becomes of a call on a server: an error comes and nothing has happened, or it has, or it will."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad a world is. Shares are of 1; `longest_s`: of a pause, most are far shorter."""

    longest_s: float = 0.05
    kafka: float = 0
    redis: float = 0
    provider: float = 0
    leaving: float = 0
    deaths: int = 0
    drains: int = 0
    freezes: int = 0
    rebalances: int = 0
    outages: int = 0
    deadly: bool = False


def weather(chance: Random) -> Weather:
    """The weather of a seed: some have one trouble only, so that what it does is seen alone."""
    troubles = {
        "kafka": chance.choice((0.005, 0.02, 0.1)),
        "redis": chance.choice((0.005, 0.02, 0.1)),
        "provider": chance.choice((0.1, 0.5)),
        "leaving": 0.2,
        "deaths": chance.randrange(1, 10),
        "drains": chance.randrange(1, 6),
        "freezes": chance.randrange(1, 6),
        "rebalances": chance.randrange(1, 10),
        "outages": chance.randrange(1, 4),
        "deadly": True,
    }
    chosen = chance.sample(sorted(troubles), chance.choice((1, 2, 3, 5, len(troubles))))
    given: dict[str, float] = {name: troubles[name] for name in chosen}
    longest_s = chance.choice((0.001, 0.05, 0.05, 0.5))
    return Weather(longest_s=longest_s, **given)  # pyright: ignore[reportArgumentType]


class Chaos:
    """Chance and time of a world. `calm`: the last trouble is over, and everything is to come to its end.

    `habits`: chance too, for what was added later, so that seeds go on meaning what they meant.
    """

    def __init__(self, seed: int, given: Weather | None = None) -> None:
        self.chance = Random(seed)
        self.habits = Random(f"habits {seed}")
        self.weather = given or weather(self.chance)
        self.calm = False
        self.steps = 0
        self.redis_away_until_s = 0.0
        self._loop = asyncio.get_running_loop()

    def now_ms(self) -> int:
        """The clock of everybody."""
        return START_MS + int(self._loop.time() * 1000)

    def pause_s(self) -> float:
        """Mostly a moment, sometimes much longer than the others."""
        return self.chance.random() ** 6 * self.weather.longest_s

    def strikes(self, share: float) -> bool:
        return not self.calm and self.chance.random() < share

    def fate(self, share: float) -> Fate:
        return self.chance.choice(("lost", "unknown", "late")) if self.strikes(share) else "well"


class Life:
    """One life of a process. When it is over, nothing that it still asks is ever answered."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._fuse = 0
        self._frozen_until_s = 0.0
        self.over = asyncio.Event()
        self._tasks: dict[asyncio.Task[Any], None] = {}

    async def point(self) -> None:
        """An await on the world: it takes a moment, and may be the last."""
        self._chaos.steps += 1
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                self.end()
        if self.over.is_set():
            await never()
        await asyncio.sleep(self._chaos.pause_s())
        while (rest_s := self._frozen_until_s - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(rest_s)
        if self.over.is_set():
            await never()

    def end_after(self, points: int) -> None:
        self._fuse = points

    def end(self) -> None:
        self.over.set()

    def freeze(self, seconds: float) -> None:
        """As SIGSTOP and SIGCONT do, at every await on the world."""
        self._frozen_until_s = asyncio.get_running_loop().time() + seconds

    async def bury(self) -> None:
        """Ends what is left of a life that is over. Nothing of it reaches the world."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0)

    def owns(self, task: "asyncio.Task[Any]") -> None:
        """The task ends with this life."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
"""In whose life a task runs."""


def known_by_life(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    """A task factory: each process knows its tasks, so that they can end with it."""
    task = asyncio.Task[Any](coroutine, loop=loop, **options)
    if life := LIFE.get():
        life.owns(task)
    return task


@cache
def _topic_hash(topic: str) -> int:
    return crc32(topic.encode()) * 31


def _same_everywhere(partition: Partition) -> int:
    return _topic_hash(partition.topic) + partition.partition


# The hash of a text differs from one interpreter to the next, and with it the order of a set of partitions: a seed would mean
# something else at each run.
setattr(Partition, "__hash__", _same_everywhere)  # noqa: B010


async def never() -> Never:
    """Waits for ever."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a future that nobody has was done")
