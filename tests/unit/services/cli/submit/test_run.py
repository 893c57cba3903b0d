"""A run over a log in memory: every line once in the log, every result once in the file, whenever it was killed."""

import asyncio
import io
import json
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.files import FileStore
from infra.kafka.log import Incoming, Outgoing, Partition
from schemas.batch import BatchLine, BatchResponse, BatchResult
from schemas.topics import Lane
from services.cli.output import Failed
from services.cli.submit import run as run_module
from services.cli.submit.journal import Journal, Start, parse
from services.cli.submit.lines import Batch, check
from services.cli.submit.run import Parts, Run, offsets
from tests.fakes.log import Record

DOOR, RESULTS = "sluice.jobs.batch", "sluice.results.fraud"
Broken = ConnectionError("gone")


@dataclass
class Broker:
    """Keeps what is sent and answers it. `dies_after` records it says nothing any more, though it may still keep some."""

    chance: random.Random
    logs: dict[Partition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    dies_after: int | None = None
    status: int = 200
    answers_twice: bool = False
    by_reference: FileStore | None = None

    async def send(self, record: Outgoing) -> Awaitable[object]:
        await asyncio.sleep(0)
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        if self.dies_after is not None and self.dies_after <= 0:
            if self.chance.random() < 0.5 and self.dies_after == 0:
                self.append(Partition(DOOR, 3), record.key, record.value, record.headers)
            else:
                self.dies_after = -1  # in order: what comes behind a lost record is lost too
            done.set_exception(Broken)
            return done
        if self.dies_after is not None:
            self.dies_after -= 1
        written = self.append(Partition(DOOR, 3), record.key, record.value, record.headers)
        await self.answer(written)
        done.set_result(written)
        return done

    def append(
        self, partition: Partition, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...]
    ) -> Record:
        log = self.logs[partition]
        record = Record(*partition, len(log), 0, key, value, headers)
        log.append(record)
        return record

    async def answer(self, record: Record) -> None:
        line = BatchLine.model_validate_json(record.value or b"")
        response = BatchResponse(status_code=self.status, request_id="job_1", body={})
        text = BatchResult(id="batch_req_1", custom_id=line.custom_id, response=response).model_dump_json().encode()
        for _ in range(2 if self.answers_twice else 1):
            if self.by_reference:
                headers = (("ce_dataref", (await self.by_reference.put(text)).encode()),)
                self.append(Partition(RESULTS, 0), line.custom_id.encode(), b"", headers)
            else:
                self.append(Partition(RESULTS, 0), line.custom_id.encode(), text, ())

    async def come_back(self, dies_after: int | None) -> None:
        """What it kept before it died is answered now."""
        self.dies_after = dies_after
        answered = {record.key for record in self.logs[Partition(RESULTS, 0)]}
        for record in self.logs[Partition(DOOR, 3)]:
            if BatchLine.model_validate_json(record.value or b"").custom_id.encode() not in answered:
                await self.answer(record)

    async def reader(self, partitions: Collection[Partition]) -> "Reader":
        return Reader(self, {partition: 0 for partition in partitions})

    def in_log(self) -> list[str]:
        """The custom_ids on the door, in order."""
        return [BatchLine.model_validate_json(r.value or b"").custom_id for r in self.logs[Partition(DOOR, 3)]]


@dataclass
class Reader:
    broker: Broker
    positions: dict[Partition, int]

    async def ends(self) -> dict[Partition, int]:
        return {partition: len(self.broker.logs[partition]) for partition in self.positions}

    def seek(self, partition: Partition, offset: int) -> None:
        self.positions[partition] = offset

    async def rest(self, poll_s: float) -> AsyncGenerator[list[Incoming]]:
        yield await self.poll(poll_s)

    async def poll(self, timeout_s: float, limit: int | None = None) -> list[Incoming]:
        await asyncio.sleep(0)
        found = list[Incoming]()
        for partition, position in self.positions.items():
            found += self.broker.logs[partition][position:]
            self.positions[partition] = len(self.broker.logs[partition])
        return found

    async def stop(self) -> None: ...


@dataclass
class Bench:
    """One command's work on a folder: begin or go on, until all is answered or it fails."""

    folder: Path
    batch: Batch
    broker: Broker
    out: io.BytesIO = field(default_factory=io.BytesIO)

    @classmethod
    def of(cls, folder: Path, lines: int, broker: Broker) -> "Bench":
        path = folder / "f.jsonl"
        body = {"model": "m", "messages": list[str]()}
        texts = [
            json.dumps({"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body})
            for n in range(lines)
        ]
        path.write_text("\n".join(texts))
        return cls(folder, check(path), broker)

    async def go(self, patience_s: float = 60) -> Run:
        state = self.folder / "state"
        former = parse(state.read_bytes()) if state.exists() else None
        journal = Journal(state, former) if former else Journal.begin(state, await self._start())
        self.out = io.BytesIO()
        parts = Parts(self.broker, FileStore(self.folder / "files"), _token, self.out, _unwatched)
        run = Run(self.batch, journal, parts, patience_s)
        try:
            await run.go(resumed=former is not None)
        finally:
            journal.close()
        return run

    async def _start(self) -> Start:
        results, door = await offsets(self.broker, Lane.BATCH, "fraud")
        return Start(
            run="run1", sha256=self.batch.sha256, lines=len(self.batch), lane="batch", team="fraud", results=results, door=door
        )

    def results(self) -> list[str]:
        return [BatchResult.model_validate_json(line).custom_id for line in self.out.getvalue().splitlines()]


def _unwatched(sent: int, completed: int, failed: int) -> None: ...


async def _token() -> str:
    return "ey.x"


@pytest.fixture
def broker() -> Broker:
    return Broker(random.Random(0))


async def test_every_line_is_sent_with_a_token_and_answered(tmp_path: Path, broker: Broker) -> None:
    bench = Bench.of(tmp_path, 10, broker)
    run = await bench.go()
    assert (run.completed, run.failed) == (10, 0)
    assert bench.broker.in_log() == [f"c{n}" for n in range(10)]
    assert sorted(bench.results()) == sorted(bench.batch.by_id)
    record = broker.logs[Partition(DOOR, 3)][0]
    assert (record.key, dict(record.headers)["authorization"]) == (b"fraud", b"Bearer ey.x")


async def test_refusals_are_counted(tmp_path: Path, broker: Broker) -> None:
    broker.status = 429
    run = await Bench.of(tmp_path, 3, broker).go()
    assert (run.completed, run.failed) == (0, 3)


async def test_answers_that_come_twice_are_written_once(tmp_path: Path, broker: Broker) -> None:
    broker.answers_twice = True
    bench = Bench.of(tmp_path, 5, broker)
    await bench.go()
    assert len(bench.results()) == 5


async def test_answers_of_others_and_of_earlier_runs_are_not_ours(tmp_path: Path, broker: Broker) -> None:
    earlier = BatchResult(id="b", custom_id="c0", response=BatchResponse(status_code=500, request_id="j", body={}))
    broker.append(Partition(RESULTS, 0), b"c0", earlier.model_dump_json().encode(), ())
    broker.append(Partition(DOOR, 3), b"other", b"not ours", (("ce_id", b"other/0"),))
    bench = Bench.of(tmp_path, 2, broker)
    state = tmp_path / "state"
    Journal.begin(state, await bench._start()).close()  # pyright: ignore[reportPrivateUsage]
    broker.append(Partition(RESULTS, 0), b"x", b"no JSON", ())
    run = await bench.go()
    assert (run.completed, run.failed) == (2, 0)


async def test_a_large_answer_is_fetched_from_the_file_store(tmp_path: Path, broker: Broker) -> None:
    broker.by_reference = FileStore(tmp_path / "files")
    bench = Bench.of(tmp_path, 2, broker)
    assert (await bench.go()).completed == 2
    assert sorted(bench.results()) == ["c0", "c1"]


async def test_a_large_answer_on_another_machine_is_told_as_an_error(tmp_path: Path, broker: Broker) -> None:
    broker.by_reference = FileStore(tmp_path / "elsewhere")
    bench = Bench.of(tmp_path, 2, broker)
    assert (await bench.go()).failed == 2
    assert b"result_elsewhere" in bench.out.getvalue()


async def test_no_more_than_a_window_is_on_its_way(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "WAITING", 4)
    bench = Bench.of(tmp_path, 20, broker)

    async def silence(record: Record) -> None: ...

    monkeypatch.setattr(broker, "answer", silence)
    with pytest.raises(Failed, match="20 lines got no answer"):
        await bench.go(patience_s=1)
    assert broker.in_log() == ["c0", "c1", "c2", "c3"]


async def test_a_lost_broker_is_told_once_and_loses_nothing(tmp_path: Path, broker: Broker) -> None:
    broker.dies_after = 3
    bench = Bench.of(tmp_path, 8, broker)
    with pytest.raises(Failed, match="run the same command again"):
        await bench.go()


@settings(max_examples=60, deadline=None)
@given(lines=st.integers(1, 30), deaths=st.lists(st.integers(0, 12), max_size=4), seed=st.integers(), torn=st.integers(0, 80))
def test_however_often_it_dies_each_line_is_sent_and_written_once(lines: int, deaths: list[int], seed: int, torn: int) -> None:
    """Also when records were kept that nobody acknowledged, and when the end of the journal was lost."""

    async def story(folder: Path) -> None:
        broker = Broker(random.Random(seed))
        bench = Bench.of(folder, lines, broker)
        for death in deaths:
            await broker.come_back(death)
            try:
                await bench.go()
            except Failed:
                state = folder / "state"
                whole = state.read_bytes()
                head = whole.index(b"\n") + 1
                state.write_bytes(whole[: max(head, len(whole) - torn)])
            else:
                break
        await broker.come_back(None)
        run = await bench.go()
        assert broker.in_log() == [f"c{n}" for n in range(lines)]
        assert run.completed == lines
        assert sorted(bench.results()) == sorted(bench.batch.by_id)

    with TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))
