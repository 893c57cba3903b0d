"""The control topic in this process: processes that share it, each with a table of its own that may lag behind."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from infra.kafka.table import OURSELVES, Control, ControlTable
from schemas.control import RESOURCE, Resource, resource_key
from schemas.event import Author


@dataclass(frozen=True, slots=True)
class Change:
    """A record: `after` None is a tombstone."""

    key: str
    after: bytes | None
    author: Author

    @property
    def resource(self) -> Any:
        assert self.after is not None
        return RESOURCE.validate_json(self.after)


@dataclass(slots=True)
class Topic:
    """All changes in their order, and how many writes more are to fail: before they are there, or after."""

    changes: list[Change] = field(default_factory=list[Change])
    fail_before: int = 0
    fail_after: int = 0

    def by(self, action: str) -> list[Change]:
        """The changes that are called so."""
        return [change for change in self.changes if change.author.action == action]


class FakeControl(Control):
    """One process' table. It has its own writes at once, and those of others when it reads (`read`), or writes itself."""

    def __init__(self, topic: Topic | None = None) -> None:
        self.topic = topic or Topic()
        self.table = ControlTable()
        self._position = 0

    async def write(self, *resources: Resource, author: Author = OURSELVES) -> None:
        for resource in resources:
            await self._append(Change(resource_key(resource), RESOURCE.dump_json(resource), author))

    async def delete(self, key: str, author: Author = OURSELVES) -> None:
        await self._append(Change(key, None, author))

    async def caught_up(self) -> None:
        self.read()

    def put(self, *resources: Resource) -> None:
        """What stands before a test begins."""
        self.topic.changes += [Change(resource_key(one), RESOURCE.dump_json(one), OURSELVES) for one in resources]
        self.read()

    def read(self) -> None:
        """Takes in what others have written."""
        for change in self.topic.changes[self._position :]:
            if change.after is None:
                self.table.remove(change.key)
            else:
                self.table.put(cast("Resource", change.resource))
        self._position = len(self.topic.changes)

    async def _append(self, change: Change) -> None:
        await asyncio.sleep(0)
        if self.topic.fail_before:
            self.topic.fail_before -= 1
            raise ConnectionError("no broker answers")
        self.topic.changes.append(change)
        self.read()
        if self.topic.fail_after:
            self.topic.fail_after -= 1
            raise ConnectionError("the broker's answer got lost")
