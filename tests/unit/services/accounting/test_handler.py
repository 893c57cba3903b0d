"""The way of a record: a bill, or the dead letters with a reason; never an error that would hold up the others."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import Columns
from infra.clickhouse.writer import BlockWriter
from infra.files import FileStore
from infra.kafka.envelope import H_DATAREF, encode
from infra.kafka.post import Post
from schemas.topics import COMPLETIONS, DEAD
from services.accounting.handler import Accounting
from services.accounting.rows import bill
from tests.fakes.clock import FakeClock
from tests.fakes.log import MemoryLog, Record
from tests.unit.services.accounting.examples import completion


class Table:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, Columns, str]] = []

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        self.stored.append((table, columns, token))


class Desk:
    def __init__(self, folder: Path) -> None:
        self.log, self.table, self.files = MemoryLog(), Table(), FileStore(folder)
        post = Post(self.log, self.files, FakeClock(), "accounting")
        self.accounting = Accounting(post, self.files, BlockWriter(self.table))

    def dead(self) -> list[bytes | None]:
        return [dict(record.headers)["sluice_dead_reason"] for record in self.log.records(DEAD.name)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def record(value: bytes, *headers: tuple[str, bytes | None]) -> Record:
    return Record(COMPLETIONS.name, 0, 9, 0, b"job", value, headers)


def sent() -> Record:
    """As the router sends it."""
    outgoing = encode(completion(), topic=COMPLETIONS.name, key="job", event_id="e", source="router", now_ms=0)
    return record(outgoing.value or b"", *outgoing.headers)


async def test_a_completion_becomes_a_bill(desk: Desk) -> None:
    assert await desk.accounting.read(sent()) == bill(completion(), 9)
    assert desk.dead() == []


async def test_a_completion_that_lies_elsewhere_is_fetched(desk: Desk) -> None:
    reference = await desk.files.put(sent().value or b"")
    assert await desk.accounting.read(record(b"", (H_DATAREF, reference.encode()))) == bill(completion(), 9)


def changed(**told: object) -> bytes:
    return json.dumps(json.loads(sent().value or b"") | told).encode()


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"", (), b"empty"),
        (b"no JSON", (), b"invalid"),
        (b"\xff\x00", (), b"invalid"),
        (b"{}", (("ce_type", b"io.sluice.job.v1"),), b"unknown_type"),
        (b"", ((H_DATAREF, b"0" * 32),), b"dataref"),
        (changed(attempts="many"), (), b"invalid"),
        (changed(status="paused"), (), b"invalid"),
        (changed(saved_usd="NaN"), (), b"invalid"),
        (changed(model="\ud800"), (), b"invalid"),
        (changed(ended_ms=10**30), (), b"unbillable"),
        (changed(saved_usd="1e999999"), (), b"unbillable"),
    ],
)
async def test_what_is_no_bill_goes_to_the_dead_letters(
    desk: Desk, value: bytes, headers: Sequence[tuple[str, bytes | None]], reason: bytes
) -> None:
    assert await desk.accounting.read(record(value, *headers)) is None
    assert desk.dead() == [reason]


async def test_a_block_goes_into_both_tables_under_one_token_calls_first(desk: Desk) -> None:
    plan = Plan(COMPLETIONS.name, 0, 9, 10)
    hit = completion(attempts=(), cache="hit", saved_usd=Decimal(1))
    await desk.accounting.write(plan, [bill(completion(), 9), bill(hit, 10)])
    assert [(table, token) for table, _, token in desk.table.stored] == [
        ("sluice.attempts_log", plan.token),
        ("sluice.usage_log", plan.token),
    ]
    (_, attempts, _), (_, usage, _) = desk.table.stored
    assert list(usage["cache"]) == ["miss", "hit"]
    assert list(attempts["n"]) == [1]


async def test_a_block_of_nothing_but_poison_is_written_without_a_word(desk: Desk) -> None:
    await desk.accounting.write(Plan(COMPLETIONS.name, 0, 9, 10), [])
    assert desk.table.stored == []
