"""The control topic as a table in memory: the hot path asks no database, a change is here in milliseconds."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from infra.kafka.broker import Kafka, Reader
from infra.kafka.log import Incoming, Outgoing, Partition
from schemas.control import (
    RESOURCE,
    Alerting,
    Analyst,
    Approval,
    DeploymentState,
    Environment,
    IdentityProvider,
    Model,
    Operator,
    Organization,
    PriceEntry,
    Project,
    Resource,
    Team,
    User,
    VirtualKey,
    resource_key,
    resource_name,
)
from schemas.event import Author, headers_of
from schemas.topics import CONTROL

log = logging.getLogger(__name__)

_POLL_S = 1.0
_PARTITION = Partition(CONTROL.name, 0)

OURSELVES = Author(actor="sluice")


class ControlTable:
    """Every resource by kind and name (schemas/control.py, `resource_name`); credentials also by the hash of their secrets."""

    def __init__(self) -> None:
        self.organizations: dict[str, Organization] = {}
        self.teams: dict[str, Team] = {}
        self.projects: dict[str, Project] = {}
        self.environments: dict[str, Environment] = {}
        self.users: dict[str, User] = {}
        self.models: dict[str, Model] = {}
        self.keys: dict[str, VirtualKey] = {}
        self.operators: dict[str, Operator] = {}
        self.identity_providers: dict[str, IdentityProvider] = {}
        self.approvals: dict[str, Approval] = {}
        self.deployment_states: dict[str, DeploymentState] = {}
        self.prices: dict[str, PriceEntry] = {}
        self.alertings: dict[str, Alerting] = {}
        self.analysts: dict[str, Analyst] = {}
        self.keys_by_hash: dict[str, VirtualKey] = {}
        self.operators_by_hash: dict[str, Operator] = {}
        self.version = 0
        self._kinds: dict[str, dict[str, Any]] = {
            "organization": self.organizations,
            "team": self.teams,
            "project": self.projects,
            "environment": self.environments,
            "user": self.users,
            "model": self.models,
            "key": self.keys,
            "operator": self.operators,
            "identity_provider": self.identity_providers,
            "approval": self.approvals,
            "deployment_state": self.deployment_states,
            "price": self.prices,
            "alerting": self.alertings,
            "analyst": self.analysts,
        }

    @property
    def alerting(self) -> Alerting:
        """The house's rules for alerts and its channels, as somebody wrote them or as they are without."""
        return self.alertings.get("default") or Alerting()

    def get(self, key: str) -> Resource | None:
        """The resource under a record key."""
        kind, _, name = key.partition("/")
        return self._kinds.get(kind, {}).get(name)

    def put(self, resource: Resource) -> None:
        """Takes a resource in, or its newer version."""
        self.remove(resource_key(resource))
        self._kinds[resource.kind][resource_name(resource)] = resource
        match resource:
            case VirtualKey():
                self.keys_by_hash |= dict.fromkeys(_hashes(resource), resource)
            case Operator():
                self.operators_by_hash[resource.sha256] = resource
            case _:
                pass

    def remove(self, key: str) -> None:
        """Drops the resource under a record key; nothing happens if there is none."""
        kind, _, name = key.partition("/")
        if kind not in self._kinds:
            log.warning("control: a record of unknown kind %r", kind[:40])
            return
        old = self._kinds[kind].pop(name, None)
        match old:
            case VirtualKey():
                for digest in _hashes(old):
                    self.keys_by_hash.pop(digest, None)
            case Operator():
                self.operators_by_hash.pop(old.sha256, None)
            case _:
                pass


def _hashes(key: VirtualKey) -> list[str]:
    return [key.sha256, *(old.sha256 for old in key.old)]


class Control:
    """Keeps the table up to date, and writes to the topic for those who may."""

    def __init__(self, kafka: Kafka) -> None:
        self.table = ControlTable()
        self._kafka = kafka
        self._reader: Reader | None = None
        self._loop: asyncio.Task[None] | None = None
        self._next = 0
        self._moved = asyncio.Condition()
        self._seen: dict[str, int] = defaultdict(int)
        self._watchers: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Reads the topic to its end, then goes on in the background."""
        self._reader = await self._kafka.reader([_PARTITION])
        await self._reader.seek_to_beginning()
        async for records in self._reader.rest(_POLL_S):
            await self._take(records)
        self._loop = asyncio.create_task(self._follow(self._reader))

    def watch(self, changed: Callable[[], None]) -> None:
        """Calls `changed` after each change of the table."""
        self._watchers.append(changed)

    def not_ready(self) -> str | None:
        if self._loop is None:
            return "control: not read to its end yet"
        return "control: its loop has ended" if self._loop.done() else None

    async def write(self, *resources: Resource, author: Author = OURSELVES) -> None:
        """Publishes resources, with who did it and what stood before, and returns when this process's own table has them."""
        for resource in resources:
            await self._publish(resource_key(resource), RESOURCE.dump_json(resource, exclude_defaults=False), author)

    async def delete(self, key: str, author: Author = OURSELVES) -> None:
        """Publishes a tombstone and returns when the resource is gone here."""
        await self._publish(key, None, author)

    async def caught_up(self) -> None:
        """Returns when the table has everything that stands on the topic now."""
        if self._reader is None:
            return
        end = (await self._kafka.ends([_PARTITION]))[_PARTITION]
        async with self._moved:
            await self._moved.wait_for(lambda: self._next >= end)

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()

    async def _publish(self, key: str, value: bytes | None, author: Author) -> None:
        seen, before = self._seen[key], self.table.get(key)
        headers = (
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_type", b"io.sluice.control.v1"),
            *headers_of(author, before),
        )
        await (await self._kafka.send(Outgoing(CONTROL.name, key.encode(), value, headers, 0)))
        async with self._moved:
            await self._moved.wait_for(lambda: self._seen[key] > seen)

    async def _follow(self, reader: Reader) -> None:
        while True:
            try:
                records = await reader.poll(_POLL_S)
                if records:
                    await self._take(records)
            except Exception as error:
                log.warning("control: can't read (%s), trying again", type(error).__name__)
                await asyncio.sleep(0.2)

    async def _take(self, records: list[Incoming]) -> None:
        for record in records:
            self._apply(record)
        for changed in self._watchers:
            changed()
        async with self._moved:
            self._moved.notify_all()

    def _apply(self, record: Incoming) -> None:
        key = (record.key or b"").decode("utf-8", "replace")
        self._seen[key] += 1
        self.table.version = record.offset
        self._next = record.offset + 1
        if not record.value:
            self.table.remove(key)
            return
        try:
            self.table.put(RESOURCE.validate_json(record.value))
        except ValidationError as error:
            log.error("control: %s is not understood and left out (%d errors)", key, error.error_count())
