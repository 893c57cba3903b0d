"""One batch in one life of its runner: its file is checked, its lines are run, its files are made.

Nothing here is remembered but in the log: after a death the next life reads there what has ended, and submits the rest again,
each line under the same job id as before.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from infra.clock import Clock
from schemas.batch import BatchLine, BatchOrder, BatchResult
from schemas.ids import uuid7_hex
from schemas.openai.batches import Batch, BatchProblem
from services.ingress.batches import policy
from services.ingress.batches.files import Files
from services.ingress.batches.lines import Checker, Plan, Raw, Splitter
from services.ingress.batches.parts import Parts
from services.ingress.batches.policy import Halted
from services.ingress.batches.results import Told
from services.ingress.batches.submission import Lines
from services.ingress.batches.tally import Part, Tally

WINDOW = 1000
"""Lines of a batch that are under way at once: enough for a provider, few enough for other batches to have their turn."""

CANCEL_WAIT_S = 10.0
"""So long a batch that is cancelled waits for what its running lines come to."""

_SUBMITTED_AT_ONCE = 32
_READ_BYTES = 256 * 1024

Derive = Callable[..., int]
"""Makes 74 bits of texts: `Signer.derive`."""


class Halt:
    """Whether, and why, a batch is to end before its last line has."""

    def __init__(self) -> None:
        self.why: Halted | None = None
        self.at_s = 0
        self._event = asyncio.Event()

    def set(self, why: Halted, at_s: int) -> None:
        """The first reason stays."""
        if self.why is None:
            self.why, self.at_s = why, at_s
            self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


@dataclass(frozen=True, slots=True)
class Hands:
    """What a run works with. `say` is told of each step; it must not block."""

    files: Files
    lines: Lines
    clock: Clock
    derive: Derive
    max_body_bytes: int
    say: Callable[[Batch], None]
    window: int = WINDOW
    cancel_wait_s: float = CANCEL_WAIT_S


class Run:
    """Runs a batch in a folder of its own."""

    def __init__(self, order: BatchOrder, hands: Hands, halt: Halt, folder: Path) -> None:
        self._order, self._hands, self._halt = order, hands, halt
        self._input = folder / "input.jsonl"
        self._parts = Parts(folder)
        self._batch = policy.asked(order)
        self._tally = Tally({})
        self._window = asyncio.Semaphore(hands.window)
        self._under_way = set[str]()

    async def check(self) -> Plan:
        """Fetches and reads the whole input file."""
        checker = Checker(self._order.endpoint)
        try:
            await self._hands.files.copy(self._order.caller.team, self._order.input_file_id, self._input)
        except FileNotFoundError:
            text = "The input file is gone: it was deleted, or has expired."
            return Plan(problems=[BatchProblem(code="invalid_input_file", message=text, param="input_file_id")])
        async for raw in self._lines():
            checker.add(raw)
            if checker.enough:
                break
        return checker.end()

    def failed(self, plan: Plan) -> Batch:
        """The end of a batch whose file is not in order."""
        return policy.failed(self._batch, plan.problems, self._now_s())

    async def to_end(self, plan: Plan, told: Told) -> Batch:
        """Runs what has not ended yet, and makes the files. May be cancelled at any time."""
        self._tally = Tally(plan.ids)
        self._say(policy.begun(self._batch, len(plan.ids), plan.model, self._now_s()))
        with self._parts:
            async for results in told.past():
                await self._take(results)
            if self._tally.left and self._halt.why is None:
                await self._run_lines(told)
            if self._halt.why:
                await self._wind_up(told, self._halt.why)
        return await self._finish()

    async def _run_lines(self, told: Told) -> None:
        """Submits and listens, until all lines have ended or the batch is halted."""
        sending = asyncio.create_task(self._submit_all())
        reading = asyncio.create_task(self._read_on(told))
        pending = {sending, reading}
        try:
            while not reading.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)

    async def _submit_all(self) -> None:
        busy = asyncio.Semaphore(_SUBMITTED_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            async for raw in self._lines():
                line = BatchLine.model_validate_json(raw.text or b"")
                if self._tally.is_done(line.custom_id):
                    continue
                await self._window.acquire()
                self._under_way.add(line.custom_id)
                await busy.acquire()
                group.create_task(self._submit(line, busy))

    async def _submit(self, line: BatchLine, busy: asyncio.Semaphore) -> None:
        try:
            await self._hands.lines.submit(self._order, line)
        finally:
            busy.release()

    async def _read_on(self, told: Told) -> None:
        """Looks between two readings whether the batch is halted: what was read is never dropped in the middle."""
        while self._tally.left and self._halt.why is None:
            await self._take(await told.more())

    async def _wind_up(self, told: Told, why: Halted) -> None:
        """Calls off what is under way. What it comes to nevertheless still counts if the batch was cancelled, for a while."""
        if why == "cancelled":
            self._say(policy.cancelling(self._batch, self._halt.at_s))
        # Those submitted are among the first that have not ended: an earlier life may have submitted more than we know.
        called_off = self._tally.undone()[: self._hands.window]
        for start in range(0, len(called_off), _SUBMITTED_AT_ONCE):
            ids = called_off[start : start + _SUBMITTED_AT_ONCE]
            await asyncio.gather(*(self._hands.lines.abandon(self._order, custom_id) for custom_id in ids))
        if why == "cancelled":
            ends = asyncio.get_running_loop().time() + self._hands.cancel_wait_s
            while self._under_way and asyncio.get_running_loop().time() < ends:
                await self._take(await told.more())

    async def _take(self, results: list[BatchResult]) -> None:
        told: list[tuple[Part, BatchResult]] = []
        for result in results:
            if result.custom_id in self._under_way:
                self._under_way.discard(result.custom_id)
                self._window.release()
            if self._halt.why and policy.is_cancelled(result):
                continue
            if part := self._tally.take(result):
                told.append((part, result))
        if told:
            await self._parts.add(told)
            self._say(policy.advanced(self._batch, self._tally.counts, self._tally.usage))

    async def _finish(self) -> Batch:
        await self._add_unrun()
        why = "cancelled" if self._halt.why == "cancelled" else "expired" if self._tally.expired else None
        self._say(policy.finalizing(policy.advanced(self._batch, self._tally.counts, self._tally.usage), self._now_s()))
        output, errors = await self._keep("output"), await self._keep("errors")
        return policy.ended(self._batch, why, self._now_s(), output, errors)

    async def _add_unrun(self) -> None:
        """Each line stands in one of the files, also if it was never run."""
        why, undone = self._halt.why, self._tally.undone()
        if not undone:
            return
        assert why is not None, "only a halted batch leaves lines"
        results = [policy.unrun(self._hands.lines.result_id(self._order, custom_id), custom_id, why) for custom_id in undone]
        for result in results:
            self._tally.take(result)
        with self._parts:
            await self._parts.add([("errors", result) for result in results])

    async def _keep(self, part: Part) -> str | None:
        """Puts a part into the store, under an id that is the same in every life of the batch; None if it is empty."""
        path = self._parts.path(part)
        if not self._parts.has(part):
            return None
        order, name = self._order, "output" if part == "output" else "error"
        file_id = f"file_{uuid7_hex(order.created_ms, self._hands.derive('batch file', order.id, name))}"
        await self._hands.files.keep(order.caller.team, file_id, f"{order.id}_{name}.jsonl", path, order.output_expires_after_s)
        return file_id

    async def _lines(self) -> AsyncGenerator[Raw]:
        splitter = Splitter(self._hands.max_body_bytes)
        with await asyncio.to_thread(self._input.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _READ_BYTES):
                for raw in splitter.feed(chunk):
                    yield raw
        for raw in splitter.end():
            yield raw

    def _say(self, batch: Batch) -> None:
        self._batch = batch
        self._hands.say(batch)

    def _now_s(self) -> int:
        return self._hands.clock() // 1000
