"""What the books know of the past: jobs that have ended, and who changed what. Read from ClickHouse, which accounting fills."""

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from infra.clickhouse.client import ClickHouse, ClickHouseError, Columns, open_clickhouse
from schemas.errors import InvalidRequest, Unavailable

_ANSWER_S = 10.0
_MOST_DOCUMENTS = 1000

_JOB = """
SELECT job_id, toUnixTimestamp64Milli(accepted) AS accepted_ms, status, error_type, organization, team, project, environment,
       key_id, user, identity, model, lane, feature, segment, metadata, policy_version
FROM sluice.usage WHERE job_id = {job:String}
"""
_DOCUMENTS = """
SELECT resource, version, toUnixTimestamp64Milli(ts) AS at_ms, actor, reason, after
FROM sluice.events
WHERE resource IN {resources:Array(String)} AND version IN {versions:Array(UInt64)} AND after != ''
ORDER BY at_ms, event_id LIMIT {most:UInt32}
"""
_PLACE = "SELECT toUnixTimestamp64Milli(ts) AS at_ms FROM sluice.events WHERE event_id = {id:String} LIMIT 1"
_EVENTS = """
SELECT event_id, toUnixTimestamp64Milli(ts) AS at_ms, actor, action, resource, kind, team, version, before, after, reason
FROM sluice.events WHERE {conditions}
ORDER BY at_ms DESC, event_id DESC LIMIT {{most:UInt32}}
"""


class JobBooked(BaseModel):
    """A job that has ended, and under which policy it was decided."""

    job_id: str
    accepted_ms: int
    status: str
    error_type: str
    organization: str
    team: str
    project: str
    environment: str
    key_id: str
    user: str
    identity: str
    model: str
    lane: str
    feature: str
    segment: str
    metadata: dict[str, str]
    policy_version: str


@dataclass(frozen=True, slots=True)
class Document:
    """A version of a resource as it was written: its JSON, and when, by whom and why."""

    resource: str
    version: int
    at_ms: int
    actor: str
    reason: str
    after: str


class EventsAsked(BaseModel):
    """GET /admin/v1/events."""

    resource: str | None = Field(default=None, description="record key, such as team/fraud")
    team: str | None = None
    after: str | None = Field(default=None, description="the last event of the page before")
    limit: int = Field(default=100, ge=1, le=1000)


class EventShown(BaseModel):
    """A change or an act. `before` and `after`: null where there is nothing."""

    id: str
    object: Literal["event"] = "event"
    at_ms: int
    actor: str
    action: str
    resource: str
    kind: str
    team: str
    version: int
    before: JsonValue
    after: JsonValue
    reason: str


class Books:
    """Asks ClickHouse, which is connected to when it is first needed. Everything raises Unavailable while it is away."""

    def __init__(self, url: str) -> None:
        """`url`: as `open_clickhouse` takes it; empty: nobody has said where it is."""
        self._url = url
        self._clickhouse: ClickHouse | None = None
        self._opening = asyncio.Lock()

    async def job(self, job_id: str) -> JobBooked | None:
        """The job of this id, if it has ended and is booked."""
        rows = await self.ask(_JOB, {"job": job_id})
        return JobBooked.model_validate(rows[0]) if rows else None

    async def documents(self, versions: Mapping[str, int]) -> list[Document]:
        """What was ever written as these versions of resources (by record key), the oldest first.

        It may be more than one each: what is deleted and made anew begins at version 1 again.
        """
        if not versions:
            return []
        asked = {"resources": list(versions), "versions": sorted(set(versions.values())), "most": _MOST_DOCUMENTS}
        found = (Document(**row) for row in await self.ask(_DOCUMENTS, asked))  # pyright: ignore[reportArgumentType]
        return [document for document in found if versions[document.resource] == document.version]

    async def events(self, asked: EventsAsked, teams: Collection[str] | None) -> tuple[list[EventShown], str | None]:
        """Events, the latest first, and the id to go on from, if there are more. `teams`: only of these; None: of all.

        Raises InvalidRequest for an `after` that is no event.
        """
        parameters: dict[str, object] = {"most": asked.limit + 1}
        if asked.resource is not None:
            parameters["resource"] = asked.resource
        if asked.team is not None:
            parameters["team"] = asked.team
        if teams is not None:
            parameters["teams"] = sorted(teams)
        if asked.after is not None:
            parameters |= {"after": asked.after, "at": await self._at(asked.after)}
        rows = await self.ask(_EVENTS.format(conditions=" AND ".join(_conditions(parameters)) or "1"), parameters)
        shown = [_shown(row) for row in rows[: asked.limit]]
        return shown, shown[-1].id if len(rows) > asked.limit else None

    async def close(self) -> None:
        if self._clickhouse is not None:
            await self._clickhouse.close()

    async def _at(self, event_id: str) -> int:
        for row in await self.ask(_PLACE, {"id": event_id}):
            return _number(row["at_ms"])
        raise InvalidRequest(f"There is no event {event_id[:64]!r} to go on from.", param="after")

    async def ask(self, sql: str, parameters: Mapping[str, object], answer_s: float = _ANSWER_S) -> list[dict[str, object]]:
        """The rows of a SELECT that is ours: `{name:Type}` in it takes its value from `parameters`."""
        try:
            async with asyncio.timeout(answer_s):
                clickhouse = await self._opened()
                return await clickhouse.query(sql, parameters)
        except (ClickHouseError, TimeoutError) as error:
            # Its words may hold addresses and passwords.
            raise Unavailable(
                f"The books can't be read now ({type(error).__name__}). `sluice doctor` says whether ClickHouse is there.",
                code="books_unavailable",
                retry_after_s=2,
            ) from error

    async def add(self, table: str, columns: Columns, token: str) -> None:
        """Writes rows of ours; the same `token` a second time does nothing."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await (await self._opened()).insert(table, columns, token)
        except (ClickHouseError, TimeoutError) as error:
            raise Unavailable(
                f"The books can't be written now ({type(error).__name__}). Try again.", code="books_unavailable", retry_after_s=2
            ) from error

    async def _opened(self) -> ClickHouse:
        if not self._url:
            raise Unavailable("Nobody has said where the books are: set SLUICE_CLICKHOUSE.", code="books_unavailable")
        async with self._opening:
            if self._clickhouse is None:
                self._clickhouse = await open_clickhouse(self._url)
            return self._clickhouse


def _conditions(parameters: Mapping[str, object]) -> Iterable[str]:
    told = {
        "resource": "resource = {resource:String}",
        "team": "team = {team:String}",
        "teams": "team IN {teams:Array(String)}",
        "after": "(at_ms, event_id) < ({at:Int64}, {after:String})",
    }
    return (condition for name, condition in told.items() if name in parameters)


def _shown(row: Mapping[str, object]) -> EventShown:
    told = dict(row)
    return EventShown.model_validate(
        {**told, "id": told.pop("event_id"), "before": _public(told["before"]), "after": _public(told["after"])}
    )


def _public(text: object) -> JsonValue:
    """A document without the hashes of secrets: they say nothing, and are nobody's business."""
    return without_hashes(json.loads(str(text))) if text else None


def without_hashes(value: JsonValue) -> JsonValue:
    """The same, without any member `sha256`."""
    if isinstance(value, dict):
        return {name: without_hashes(member) for name, member in value.items() if name != "sha256"}
    return [without_hashes(member) for member in value] if isinstance(value, list) else value


def _number(value: object) -> int:
    return int(str(value))
