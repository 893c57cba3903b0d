"""A record of the control topic, or an act, as a row: who, what, before and after in full."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import Columns
from infra.clickhouse.migrate import migrations
from infra.clickhouse.writer import BlockWriter
from infra.events import Acts
from infra.files import FileStore
from infra.kafka.envelope import Poison
from infra.kafka.post import Post
from schemas.control import RESOURCE, Environment, Operator, Organization, Resource, Team, VirtualKey, resource_key
from schemas.event import Author, headers_of
from schemas.policy import Policy
from schemas.roles import Role
from schemas.topics import CONTROL, DEAD, EVENTS
from services.accounting.events import CHANGES, EVENTS_KEPT, row_of
from services.accounting.keeper import Keeper
from services.accounting.policy import MOST_MS
from services.accounting.rows import Row
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog, Record

AT_MS = 1_800_000_000_000
ADA = Author(actor="user/ada", action="team.policy", reason="new contract", event="evt_1")
OLD = Team(id="team_1", name="fraud", organization="acme", version=3)
NEW = OLD.model_copy(update={"version": 4, "policy": Policy(models=("small",))})


def change(after: Resource | None, before: Resource | None = None, author: Author | None = ADA, offset: int = 7) -> Record:
    """As `Control` writes it."""
    stands = after or before
    assert stands is not None
    headers = tuple(headers_of(author, before)) if author else ()
    value = RESOURCE.dump_json(after) if after else None
    return Record(CONTROL.name, 0, offset, AT_MS, resource_key(stands).encode(), value, headers)


def row(record: Record) -> Row:
    found = row_of(record)
    assert not isinstance(found, Poison), found
    return found


def columns_in_sql() -> list[str]:
    text = next(text for m in migrations() for text in m.statements if f"CREATE TABLE IF NOT EXISTS {CHANGES}\n" in text)
    return re.findall(r"^    (\w+) ", text, re.MULTILINE)


def test_a_change_has_what_stood_before_and_after_in_full() -> None:
    found = dict(row(change(NEW, OLD)))
    assert list(found) == columns_in_sql()
    assert RESOURCE.validate_json(str(found.pop("before"))) == OLD
    assert RESOURCE.validate_json(str(found.pop("after"))) == NEW
    assert found == {
        "ts": AT_MS,
        "event_id": "evt_1",
        "actor": "user/ada",
        "action": "team.policy",
        "resource": "team/fraud",
        "kind": "team",
        "team": "fraud",
        "version": 4,
        "reason": "new contract",
    }


def test_what_is_new_had_nothing_before_it() -> None:
    found = row(change(NEW, author=Author(actor="admin")))
    assert (found["before"], found["action"], found["reason"]) == ("", "written", "")


def test_what_is_deleted_keeps_its_last_version() -> None:
    found = row(change(None, NEW, Author(actor="admin")))
    assert (found["action"], found["after"], found["version"], found["team"]) == ("deleted", "", 4, "fraud")
    assert RESOURCE.validate_json(str(found["before"])) == NEW


def test_a_record_of_before_there_were_authors_is_kept_without_one() -> None:
    found = row(change(OLD, author=None))
    assert (found["actor"], found["action"], found["version"], found["before"]) == ("", "written", 3, "")


def test_what_is_read_twice_has_one_id_and_ids_sort_as_the_log_does() -> None:
    offsets = [0, 1, 7, 255, 256, 2**31, 2**40]
    ids = [str(row(change(OLD, author=None, offset=offset))["event_id"]) for offset in offsets]
    assert ids == sorted(set(ids))
    assert row(change(OLD, author=None, offset=7))["event_id"] == ids[2]
    assert all(re.fullmatch(r"evt_[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize(
    ("resource", "kind", "team"),
    [
        (Organization(id="org_1", name="acme"), "organization", ""),
        (Environment(id="env_1", team="fraud", project="p", name="dev"), "environment", "fraud"),
        (VirtualKey(id="key_1", sha256="0", last4="abcd", team="fraud"), "key", "fraud"),
        (Operator(id="op_1", name="ci", role=Role.AUDITOR, sha256="0", last4="abcd"), "operator", ""),
    ],
)
def test_whose_it_is(resource: Resource, kind: str, team: str) -> None:
    for found in (row(change(resource)), row(change(None, resource))):
        assert (found["kind"], found["team"]) == (kind, team)


async def act(actor: str, action: str, resource: str, **told: str | Mapping[str, str]) -> Record:
    log = MemoryLog(clock=lambda: AT_MS)
    await Acts(log, lambda: AT_MS).tell(actor, action, resource, **told)  # pyright: ignore[reportArgumentType]
    (record,) = log.records(EVENTS.name)
    return record


async def test_an_act_is_a_row_too() -> None:
    found = row(await act("operator/op_1", "job.cancelled", "job/job_1", reason="too dear", after={"team": "fraud"}))
    assert list(found) == columns_in_sql()
    assert (found["ts"], found["actor"], found["action"], found["reason"]) == (
        AT_MS,
        "operator/op_1",
        "job.cancelled",
        "too dear",
    )
    assert (found["kind"], found["team"], found["version"], found["before"]) == ("job", "fraud", 0, "")
    assert json.loads(str(found["after"])) == {"team": "fraud"}
    assert row(await act("admin", "webhook_secret.shown", "team/fraud"))["team"] == "fraud"


POISONS: dict[str, Record] = {
    "no JSON": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b"{"),
    "no object": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b"[1]"),
    "no text": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b"\xff"),
    "no key": Record(CONTROL.name, 0, 0, AT_MS, None, b"{}"),
    "a key that is no text": Record(CONTROL.name, 0, 0, AT_MS, b"\xff", b"{}"),
    "a broken before": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b"{}", (("sluice-before", b"{"),)),
    "no time": Record(CONTROL.name, 0, 0, -1, b"team/a", b"{}"),
    "a time that no column holds": Record(CONTROL.name, 0, 0, MOST_MS, b"team/a", b"{}"),
    "a version below 0": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b'{"version": -1}'),
    "a version that no column holds": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b'{"version": 18446744073709551616}'),
    "a version that is no number": Record(CONTROL.name, 0, 0, AT_MS, b"team/a", b'{"version": "x"}'),
    "an act without a value": Record(EVENTS.name, 0, 0, AT_MS, b"team/a", b""),
    "an act that is none": Record(EVENTS.name, 0, 0, AT_MS, b"team/a", b'{"id": "evt_1"}'),
    "another message": Record(EVENTS.name, 0, 0, AT_MS, b"team/a", b"{}", (("ce_type", b"io.sluice.job.v1"),)),
}


class Table:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, Columns, str]] = []

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        self.stored.append((table, columns, token))


@pytest.mark.parametrize("name", POISONS)
async def test_what_is_no_event_goes_to_the_dead_letters(name: str, tmp_path: Path) -> None:
    log, files = MemoryLog(), FileStore(tmp_path)
    events = Keeper(EVENTS_KEPT, Post(log, files, FakeClock(), "accounting"), BlockWriter(Table()))
    assert await events.read(POISONS[name]) is None
    assert len(log.records(DEAD.name)) == 1


async def test_a_block_goes_into_the_table_under_its_token(tmp_path: Path) -> None:
    table, plan = Table(), Plan(CONTROL.name, 0, 7, 8)
    events = Keeper(EVENTS_KEPT, Post(MemoryLog(), FileStore(tmp_path), FakeClock(), "accounting"), BlockWriter(table))
    rows = [await events.read(change(OLD)), await events.read(change(NEW, OLD, offset=8))]
    await events.write(plan, [found for found in rows if found is not None])
    await events.write(Plan(CONTROL.name, 0, 9, 9), [])
    ((name, columns, token),) = table.stored
    assert (name, token, list(columns["version"])) == (CHANGES, plan.token, [3, 4])
