"""Changes of resources, one at a time: each has an author, and a version that is given once."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from infra.clock import Clock, new_id
from infra.kafka.table import Control, ControlTable
from infra.redis.client import RedisUnavailable
from infra.redis.once import Once
from schemas.control import Environment, Project, Resource, resource_key
from schemas.errors import Unavailable
from schemas.event import Author
from services.portal.access import Actor

log = logging.getLogger(__name__)

_WRITING: Final = "control:writing"
_CLAIM_MS: Final = 10_000
_PATIENCE_S: Final = 5.0
_AGAIN_S: Final = 0.02


class Store:
    """The control table, and the only way of the portal to change it."""

    def __init__(self, control: Control, clock: Clock, once: Once | None = None) -> None:
        """`once`: keeps other processes out too; None: there are none."""
        self.table: ControlTable = control.table
        self._once = once
        self.clock = clock
        self.lock = asyncio.Lock()
        self._control = control

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Between looking at what stands and changing it, nobody else does: here, or in another process.

        Raises Unavailable if another one is at it for too long. While Redis is away only this process is kept in order: who
        administrates must be able to act then.
        """
        async with self.lock:
            claimed = await self._claim()
            try:
                await self._control.caught_up()
                yield
            finally:
                if claimed and self._once is not None:
                    with suppress(RedisUnavailable):
                        await self._once.forget(_WRITING)

    async def _claim(self) -> bool:
        ends = asyncio.get_running_loop().time() + _PATIENCE_S
        while self._once is not None:
            try:
                if not await self._once.begin(_WRITING, _CLAIM_MS):
                    return True
            except RedisUnavailable as error:
                log.warning("changes of other processes can't be kept apart: %s", error)
                return False
            if asyncio.get_running_loop().time() > ends:
                raise Unavailable("Another change is being made. Try again.", retry_after_s=1)
            await asyncio.sleep(_AGAIN_S)
        return False

    async def write(self, *resources: Resource, author: Author) -> None:
        """Publishes resources within `writing`, and returns when they stand here."""
        await self._control.write(*resources, author=author)

    async def make_place(self, team: str, project: str, environment: str, actor: Actor) -> None:
        """Makes the project and the environment that somebody named within `writing`, if they aren't there: they can be given a
        policy and a budget then."""
        born = self.clock()
        named: list[Project | Environment] = []
        if project:
            named.append(Project(id=new_id("proj", born), team=team, name=project, created_ms=born))
        if environment:
            env_id = new_id("env", born)
            named.append(Environment(id=env_id, team=team, project=project, name=environment, created_ms=born))
        for place in named:
            if self.table.get(resource_key(place)) is None:
                await self.write(place, author=actor.author(f"{place.kind}.created"))

    async def delete(self, *record_keys: str, author: Author) -> None:
        """Deletes resources within `writing`, and returns when they are gone here."""
        for record_key in record_keys:
            await self._control.delete(record_key, author=author)
