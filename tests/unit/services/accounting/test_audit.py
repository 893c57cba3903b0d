"""The way of an audit record into ClickHouse, and its link into the chain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.audit import AuditRow, Head, Link, end_of, flaw_of
from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouse, Columns
from infra.events import Acts
from infra.files import FileStore
from infra.kafka.envelope import encode
from infra.kafka.log import Outgoing
from infra.kafka.post import Post
from schemas.audit import AuditRecord
from schemas.topics import AUDIT
from services.accounting.audit import CHAIN, ROWS, Audit
from services.accounting.policy import MOST_MS
from tests.contract.examples import EXAMPLES
from tests.fakes.log import MemoryLog, Record

NOW_MS = 1_800_000_000_000
EXAMPLE = EXAMPLES["audit"]
assert isinstance(EXAMPLE, AuditRecord)


class Tables(ClickHouse):
    """What was inserted, and the last link before an offset."""

    def __init__(self) -> None:
        self.inserted: list[tuple[str, Columns, str]] = []

    async def insert(self, table: str, columns: Columns, token: str) -> None:
        self.inserted.append((table, columns, token))

    async def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        first = (parameters or {})["first"]
        assert isinstance(first, int)
        earlier = [one for one in self.links if one.seq < first]
        return [{"n": one.n, "seq": one.seq, "row_hash": one.row_hash} for one in earlier[-1:]]

    @property
    def links(self) -> list[Link]:
        """In the order of their offsets, each once."""
        found: dict[int, Link] = {}
        for table, columns, _ in self.inserted:
            rows = zip(*columns.values(), strict=True) if table == CHAIN else ()
            made = (Link.model_validate(dict(zip(columns, row, strict=True))) for row in rows)
            found |= {one.seq: one for one in made}
        return [found[seq] for seq in sorted(found)]


class Bench:
    """An audit stage's work, all of whose surroundings are fakes."""

    def __init__(self, folder: Path) -> None:
        self.log, self.tables = MemoryLog(), Tables()
        files = FileStore(folder)
        post = Post(self.log, files, lambda: NOW_MS, "accounting")
        self.audit = Audit(post, files, self.tables, Acts(self.log, lambda: NOW_MS))

    async def rows(self, offsets: Sequence[int], **members: object) -> list[AuditRow]:
        read = [await self.audit.read(record(offset, **members)) for offset in offsets]
        return [row for row in read if row is not None]

    async def write(self, *offsets: int) -> None:
        await self.audit.write(Plan(AUDIT.name, 2, offsets[0], offsets[-1]), await self.rows(offsets))


def record(offset: int, **members: object) -> Record:
    message = EXAMPLE.model_copy(update={"job_id": f"job_{offset}", **members})
    made: Outgoing = encode(message, topic=AUDIT.name, key="job", event_id="job", source="router", now_ms=NOW_MS)
    return Record(AUDIT.name, 2, offset, NOW_MS, made.key, made.value, made.headers)


async def test_blocks_follow_each_other_in_one_chain_and_a_repeated_one_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.write(0, 1, 4)
    await bench.write(5, 6)
    written = bench.tables.links
    await bench.write(0, 1, 4)
    await bench.write(5, 6)
    assert bench.tables.links == written
    assert [one.n for one in written] == [1, 2, 3, 4, 5]
    head = Head()
    for one in written:
        assert flaw_of(head, one) is None
        head = end_of(one)


async def test_rows_are_there_before_their_links_and_both_know_the_block(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.write(7, 8)
    assert [(table, token) for table, _, token in bench.tables.inserted] == [
        (ROWS, "sluice.audit:2:7-8"),
        (CHAIN, "sluice.audit:2:7-8"),
    ]


async def test_now_and_then_it_is_told_where_the_chain_stands(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.write(0, 1)
    await bench.write(2, 3)
    (told,) = bench.log.records("sluice.events")
    assert bench.tables.links[1].row_hash.encode() in (told.value or b"")


async def test_what_clickhouse_could_not_hold_goes_to_the_dead_letters(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.rows([3], accepted_ms=MOST_MS) == []
    assert await bench.audit.read(Record(AUDIT.name, 2, 4, NOW_MS, b"job", b"{", ())) is None
    assert len(bench.log.records("sluice.dead")) == 2
