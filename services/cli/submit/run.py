"""One run: lines go to the Kafka door, a bounded number at once; results come back and are written as they come."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from pydantic import ValidationError

from infra.files import FileStore
from infra.kafka.envelope import H_DATAREF, header
from infra.kafka.log import Incoming, Outgoing, Partition, Sink
from schemas.batch import BatchError, BatchResult
from schemas.topics import JOBS, RESULTS, Lane, door_topic, results_topic
from services.cli.output import Failed
from services.cli.submit.journal import Ack, Journal
from services.cli.submit.lines import Batch

WAITING = 5_000
"""Lines that may be on their way at once."""

UNACKNOWLEDGED = 512
POLL_S = 0.5
_TELL_EVERY = 64

_H_ID = "ce_id"
_EARLIER, _NOW = 1, 2
"""When a line was sent: by a former process of this run, or by this one, which then holds a place for it."""


class Watch(Protocol):
    """Told how far it is."""

    def __call__(self, sent: int, completed: int, failed: int) -> None: ...


class Reads(Protocol):
    """A reader of partitions, as `infra.kafka.broker.Reader` is one."""

    async def ends(self) -> dict[Partition, int]: ...
    def seek(self, partition: Partition, offset: int) -> None: ...
    def rest(self, poll_s: float) -> AsyncGenerator[list[Incoming]]: ...
    async def poll(self, timeout_s: float, limit: int | None = None) -> list[Incoming]: ...
    async def stop(self) -> None: ...


class Log(Sink, Protocol):
    """Kafka, as far as a run needs it."""

    async def reader(self, partitions: Collection[Partition]) -> Reads: ...


class _Written(Protocol):
    """What the brokers say of a record that they have."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with. `token` gives a job token that is still good for long."""

    kafka: Log
    files: FileStore
    token: Callable[[], Awaitable[str]]
    out: BinaryIO
    watch: Watch


class Run:
    """Sends what isn't in the log yet, and waits until every line has its result."""

    def __init__(self, batch: Batch, journal: Journal, parts: Parts, patience_s: float) -> None:
        self._batch = batch
        self._journal = journal
        self._parts = parts
        self._patience_s = patience_s
        start = journal.progress.start
        self._door = door_topic(Lane(start.lane))
        self._results = results_topic(start.team)
        self._team = start.team.encode()
        self._id = f"{start.run}/"
        self._sent = bytearray(len(batch))
        self._answered = bytearray(len(batch))
        self._room = asyncio.Semaphore(WAITING)
        self._acks: asyncio.Queue[tuple[int, Awaitable[object]] | None] = asyncio.Queue(UNACKNOWLEDGED)
        self.completed = self.failed = 0

    async def go(self, resumed: bool) -> None:
        """Returns when every line is answered. Raises Failed; the same run can then go on."""
        if resumed:
            await self._find_ours()
        progress = self._journal.progress
        for line in range(len(self._batch)):
            self._sent[line] = _EARLIER if line in progress else 0
        self._tell()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._confirm())
                tasks.create_task(self._collect())
        except ExceptionGroup as group:
            failures, others = group.split(Failed)
            if others is not None or failures is None:
                raise
            first = failures.exceptions[0]
            raise first from None

    async def _find_ours(self) -> None:
        """Lines that reached the log in the last moments of the former run, before it could note them."""
        if self._journal.progress.count == len(self._batch):
            return
        start = {Partition(self._door, p): offset for p, offset in self._journal.progress.unknown_from.items()}
        reader = await self._parts.kafka.reader(start)
        try:
            for partition, offset in start.items():
                reader.seek(partition, offset)
            async for records in reader.rest(POLL_S):
                self._journal.add([ack for record in records for ack in self._ours(record)])
        finally:
            await reader.stop()

    def _ours(self, record: Incoming) -> list[Ack]:
        event_id = header(record.headers, _H_ID)
        number = event_id.removeprefix(self._id)
        if not event_id.startswith(self._id) or not number.isdecimal() or int(number) >= len(self._batch):
            return []
        return [Ack(int(number), record.partition, record.offset)]

    async def _send(self) -> None:
        for line, text in enumerate(self._batch.lines()):
            if self._sent[line]:
                continue
            await self._room.acquire()
            token = await self._parts.token()
            self._sent[line] = _NOW
            await self._acks.put((line, await self._parts.kafka.send(self._record(line, text, token))))
        await self._acks.put(None)

    def _record(self, line: int, text: bytes, token: str) -> Outgoing:
        headers = (
            ("content-type", b"application/json"),
            ("authorization", f"Bearer {token}".encode()),
            (_H_ID, f"{self._id}{line}".encode()),
        )
        return Outgoing(self._door, self._team, text, headers)

    async def _confirm(self) -> None:
        """Notes what the brokers have, as soon as they say so: what isn't noted is looked for when the run is resumed."""
        while (item := await self._acks.get()) is not None:
            line, ack = item
            try:
                written = cast("_Written", await ack)
            except Exception as error:
                # What kind it is depends on the connection; by contract each of them means "unknown".
                raise Failed(
                    f"Kafka did not acknowledge a line ({error}). Nothing is lost: run the same command again, and it goes on."
                ) from error
            self._journal.add([Ack(line, written.partition, written.offset)])
            if self._acks.empty() or line % _TELL_EVERY == 0:
                self._tell()

    async def _collect(self) -> None:
        partitions = [Partition(self._results, n) for n in range(RESULTS.partitions)]
        reader = await self._parts.kafka.reader(partitions)
        try:
            for partition, offset in self._journal.progress.start.results.items():
                reader.seek(Partition(self._results, partition), offset)
            await self._until_answered(reader)
        finally:
            await reader.stop()

    async def _until_answered(self, reader: Reads) -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while self.completed + self.failed < len(self._batch):
            records = await reader.poll(POLL_S)
            news = sum([await self._answer(record) for record in records])
            if news:
                self._parts.out.flush()
                self._tell()
                last_s = loop.time()
            elif loop.time() - last_s > self._patience_s:
                missing = len(self._batch) - self.completed - self.failed
                raise Failed(
                    f"{missing} lines got no answer, and none came for {self._patience_s:g} s. `sluice doctor` says what is "
                    "wrong; run the same command again to go on waiting."
                )

    async def _answer(self, record: Incoming) -> bool:
        """Writes a result, unless it isn't ours or came before; True if it is new."""
        result = await self._result(record)
        line = self._batch.by_id.get(result.custom_id) if result is not None else None
        if result is None or line is None or not self._sent[line] or self._answered[line]:
            return False
        self._answered[line] = 1
        self._parts.out.write(result.model_dump_json().encode() + b"\n")
        if result.response is not None and result.response.status_code < 400:
            self.completed += 1
        else:
            self.failed += 1
        if self._sent[line] == _NOW:
            self._room.release()
        return True

    async def _result(self, record: Incoming) -> BatchResult | None:
        reference = header(record.headers, H_DATAREF)
        custom_id = (record.key or b"").decode(errors="replace")
        try:
            return BatchResult.model_validate_json(await self._parts.files.get(reference) if reference else record.value or b"")
        except FileNotFoundError:
            message = "the answer was too large for Kafka, and its file is not in the data folder of this machine"
            return BatchResult(
                id=f"batch_req_{reference}", custom_id=custom_id, error=BatchError(code="result_elsewhere", message=message)
            )
        except ValidationError:
            return None

    def _tell(self) -> None:
        self._parts.watch(self._journal.progress.count, self.completed, self.failed)


async def offsets(kafka: Log, lane: Lane, team: str) -> tuple[dict[int, int], dict[int, int]]:
    """The ends of the results topic and of the door: what a run that begins now writes and gets stands behind them."""
    wanted = [Partition(results_topic(team), n) for n in range(RESULTS.partitions)]
    wanted += [Partition(door_topic(lane), n) for n in range(JOBS.partitions)]
    reader = await kafka.reader(wanted)
    try:
        ends = await reader.ends()
    finally:
        await reader.stop()
    results = {p.partition: offset for p, offset in ends.items() if p.topic == results_topic(team)}
    return results, {p.partition: offset for p, offset in ends.items() if p.topic != results_topic(team)}
