"""Who did what: changes of resources, and acts that change none (a secret shown, a job cancelled, a refused try).

A change and its event are one record on the control topic, so that neither can be there without the other: the value is what
stands now, the headers say who, why and what stood before. Acts go to `sluice.events`. Accounting writes both to ClickHouse.
"""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import JsonValue

from schemas.base import Message, Part
from schemas.control import RESOURCE, Resource

H_EVENT, H_ACTOR, H_ACTION, H_REASON, H_BEFORE = "sluice-event", "sluice-actor", "sluice-action", "sluice-reason", "sluice-before"


class Author(Part):
    """Who acts, named as in `operator/op_…`, `user/ada@corp.example`, `admin`, and why. `action`: empty: written or deleted.

    `event`: id of the event (`evt_…`); empty: the record's offset names it.
    """

    actor: str
    action: str = ""
    reason: str = ""
    event: str = ""


class AdminEvent(Message):
    """An act. `before` and `after` in full, null where there is nothing; `version` of the resource after it."""

    TYPE: ClassVar[str] = "io.sluice.event.v1"

    id: str
    at_ms: int
    actor: str
    action: str
    resource: str
    version: int = 0
    before: JsonValue = None
    after: JsonValue = None
    reason: str = ""


def headers_of(author: Author, before: Resource | None) -> Iterable[tuple[str, bytes]]:
    """The headers of a change."""
    yield H_ACTOR, author.actor.encode()
    if author.action:
        yield H_ACTION, author.action.encode()
    if author.reason:
        yield H_REASON, author.reason.encode()
    if author.event:
        yield H_EVENT, author.event.encode()
    if before is not None:
        yield H_BEFORE, RESOURCE.dump_json(before)
