"""A batch order, its file, and the hands of a run without brokers: lines that are answered as a test says."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.objects import ObjectStore
from schemas.batch import BatchError, BatchLine, BatchOrder, BatchResponse, BatchResult
from schemas.ids import uuid7_hex
from schemas.job import Api
from schemas.openai.batches import Batch
from services.ingress.batches.files import Files
from services.ingress.batches.results import Told
from services.ingress.batches.run import Halt, Hands, Run
from services.ingress.batches.submission import Lines
from tests.fakes.clock import FakeClock
from tests.fakes.jobs import CALLER, NOW_MS, SIGNER

URL = "/v1/chat/completions"
BATCH_ID = f"batch_{uuid7_hex(NOW_MS, 7)}"
FILE_ID = f"file_{uuid7_hex(NOW_MS, 8)}"


def an_order(**members: object) -> BatchOrder:
    order = BatchOrder(
        id=BATCH_ID,
        caller=CALLER,
        input_file_id=FILE_ID,
        endpoint=URL,
        api=Api.CHAT,
        created_ms=NOW_MS,
        deadline_ms=NOW_MS + 86_400_000,
    )
    return order.model_copy(update=members)


def jsonl(*custom_ids: str) -> bytes:
    body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
    lines = ({"custom_id": custom_id, "method": "POST", "url": URL, "body": body} for custom_id in custom_ids)
    return b"\n".join(json.dumps(line).encode() for line in lines)


def answer(custom_id: str, status: int = 200) -> BatchResult:
    response = BatchResponse(status_code=status, request_id="job_1", body={"usage": {"prompt_tokens": 2}})
    return BatchResult(id=f"batch_req_{custom_id}", custom_id=custom_id, response=response)


def cancelled(custom_id: str) -> BatchResult:
    error = BatchError(code="batch_cancelled", message="…")
    return BatchResult(id=f"batch_req_{custom_id}", custom_id=custom_id, error=error)


async def when(condition: Callable[[], bool]) -> None:
    """Waits until something has happened."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


class FakeTold(Told):
    """A log of ends, as `sluice.batch_results` is one: each life reads it from the beginning."""

    def __init__(self, ends: list[BatchResult]) -> None:
        self.ends = ends
        self._at = 0

    async def past(self) -> AsyncGenerator[list[BatchResult]]:
        if self.ends:
            yield self._rest()

    async def more(self) -> list[BatchResult]:
        await asyncio.sleep(0.001)
        return self._rest()

    def _rest(self) -> list[BatchResult]:
        start, self._at = self._at, len(self.ends)
        return self.ends[start:]


@dataclass
class FakeLines(Lines):
    """Answers what is submitted, unless its custom_id begins with `slow`; who is called off is told cancelled."""

    ends: list[BatchResult]
    submitted: list[str] = field(default_factory=list[str])
    abandoned: list[str] = field(default_factory=list[str])
    under_way: int = 0
    most: int = 0

    async def submit(self, order: BatchOrder, line: BatchLine) -> None:
        self.submitted.append(line.custom_id)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        if not line.custom_id.startswith("slow"):
            self.under_way -= 1
            self.ends.append(answer(line.custom_id, 500 if line.custom_id.startswith("bad") else 200))

    async def abandon(self, order: BatchOrder, custom_id: str) -> None:
        self.abandoned.append(custom_id)
        if custom_id in self.submitted and not custom_id.startswith("slow-deaf"):
            self.ends.append(cancelled(custom_id))

    def result_id(self, order: BatchOrder, custom_id: str) -> str:
        return f"batch_req_{custom_id}"


class Bench:
    """One batch over its lives: the store, the log of ends and the clock outlive a run."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(NOW_MS)
        self.files = Files(ObjectStore(str(folder / "objects")), self.clock)
        self.ends: list[BatchResult] = []
        self.lines = FakeLines(self.ends)
        self.order = an_order()
        self.said: list[Batch] = []
        self._folder, self._lives = folder, 0

    async def upload(self, content: bytes) -> None:
        async def chunks() -> AsyncGenerator[bytes]:
            yield content

        await self.files.upload(CALLER.team, FILE_ID, "in.jsonl", chunks(), None)

    async def live(self, halt: Halt | None = None, **hands: object) -> Batch:
        """One life of the runner."""
        self._lives += 1
        folder = self._folder / str(self._lives)
        folder.mkdir()
        own = Hands(self.files, self.lines, self.clock, SIGNER.derive, 10_000, self.said.append, cancel_wait_s=0.05)
        run = Run(self.order, replace(own, **hands), halt or Halt(), folder)  # pyright: ignore[reportArgumentType]
        plan = await run.check()
        return run.failed(plan) if plan.problems else await run.to_end(plan, FakeTold(self.ends))

    async def told(self, file_id: str | None) -> list[str]:
        """The custom ids in a file, in its order."""
        if file_id is None:
            return []
        content = b"".join([chunk async for chunk in self.files.content(CALLER.team, file_id)])
        return [BatchResult.model_validate_json(line).custom_id for line in content.splitlines()]
