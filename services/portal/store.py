"""Changes of resources, one at a time: each has an author, and a version that is given once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from infra.clock import Clock, new_id
from infra.kafka.table import Control, ControlTable
from schemas.control import Environment, Project, Resource, resource_key
from schemas.event import Author
from services.portal.access import Actor


class Store:
    """The control table, and the only way of the portal to change it."""

    def __init__(self, control: Control, clock: Clock) -> None:
        self.table: ControlTable = control.table
        self.clock = clock
        self.lock = asyncio.Lock()
        self._control = control

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Between looking at what stands and changing it, nobody else does."""
        async with self.lock:
            yield

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
