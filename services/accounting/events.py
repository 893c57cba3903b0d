"""Who did what, from the control topic and `sluice.events` into `sluice.changes_log` (infra/clickhouse/migrations).

A record of the control topic is a change: its value is what stands after it, its headers say who, why and what stood before
(schemas/event.py). All is kept as it came, for who asks later what a version said.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from infra.kafka.envelope import Poison, decode, explain, header
from infra.kafka.log import Incoming
from schemas.base import JsonObject
from schemas.event import H_ACTION, H_ACTOR, H_BEFORE, H_EVENT, H_REASON, AdminEvent
from schemas.ids import uuid7_hex
from schemas.topics import CONTROL, EVENTS
from services.accounting import policy
from services.accounting.keeper import Keeping
from services.accounting.rows import Row

CHANGES: Final = "sluice.changes_log"

_MOST_VERSIONS: Final = 2**64
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def row_of(record: Incoming) -> Row | Poison:
    """The row of a record of either topic, or why it has none."""
    row = _change(record) if record.topic == CONTROL.name else _act(record)
    if isinstance(row, Poison):
        return row
    ts, version = row["ts"], row["version"]
    # It has to be found here: a block that ClickHouse refuses would be refused for ever.
    if not isinstance(ts, int) or not 0 <= ts < policy.MOST_MS:
        return Poison("unwritable", "the time is out of range")
    if not isinstance(version, int) or not 0 <= version < _MOST_VERSIONS:
        return Poison("unwritable", "the version is out of range")
    return row


def _change(record: Incoming) -> Row | Poison:
    try:
        resource = (record.key or b"").decode()
        before, after = _text(_header(record, H_BEFORE)), _text(record.value)
        was, stands = _object(before), _object(after)
    except UnicodeDecodeError:
        return Poison("invalid", "the key, the value or what stood before is not UTF-8")
    except ValidationError as error:
        return Poison("invalid", explain(error))
    if not resource:
        return Poison("invalid", "the record has no key, which would name the resource")
    return {
        "ts": record.timestamp,
        "event_id": header(record.headers, H_EVENT) or _id_of(record),
        "actor": header(record.headers, H_ACTOR),
        "action": header(record.headers, H_ACTION) or ("written" if after else "deleted"),
        "resource": resource,
        **_whose(resource, stands, was),
        "version": (stands or was or {}).get("version", 0),
        "before": before,
        "after": after,
        "reason": header(record.headers, H_REASON),
    }


def _act(record: Incoming) -> Row | Poison:
    event = decode(record, AdminEvent)
    if isinstance(event, Poison):
        return event
    return {
        "ts": event.at_ms,
        "event_id": event.id,
        "actor": event.actor,
        "action": event.action,
        "resource": event.resource,
        **_whose(event.resource, event.after, event.before),
        "version": event.version,
        "before": _json(event.before),
        "after": _json(event.after),
        "reason": event.reason,
    }


def _whose(resource: str, *documents: JsonValue) -> Mapping[str, object]:
    """Kind and team of a resource: by its name, or by what is written in it, the latest first."""
    kind, _, name = resource.partition("/")
    if kind == "team":
        return {"kind": kind, "team": name}
    named = (document.get("team") for document in documents if isinstance(document, dict))
    return {"kind": kind, "team": next((team for team in named if team and isinstance(team, str)), "")}


def _id_of(record: Incoming) -> str:
    """An id for a change that brought none: by its place in the log, so that what is read twice has one id.

    Ids sort as the log does, also those of one millisecond.
    """
    place = hashlib.sha256(f"{record.topic}/{record.partition}".encode()).digest()
    return f"evt_{uuid7_hex(max(0, record.timestamp), record.offset << 30 | int.from_bytes(place[:4], 'big') >> 2)}"


def _header(record: Incoming, name: str) -> bytes | None:
    return next((value for key, value in record.headers if key == name), None)


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""


def _object(text: str) -> JsonObject | None:
    return _OBJECT.validate_json(text) if text else None


def _json(value: JsonValue) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


EVENTS_KEPT: Final = Keeping("events", (CONTROL.name, EVENTS.name), CHANGES, row_of)
