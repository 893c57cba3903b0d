"""Runs what stands on `sluice.batches`: each record is one batch, worked on by one process at a time, to its end."""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.platform import Platform
from infra.redis.batches import Batches
from infra.redis.client import RedisUnavailable
from infra.redis.numbers import claim
from schemas.batch import BatchOrder
from schemas.openai.batches import Batch, BatchProblem
from schemas.webhook import WebhookDelivery
from services.ingress.batches import policy
from services.ingress.batches.files import Files
from services.ingress.batches.results import LineResults
from services.ingress.batches.run import Halt, Hands, Run
from services.ingress.batches.submission import Lines
from services.ingress.batches.turns import Turns

log = logging.getLogger(__name__)

_AT_ONCE = 32
_EACH_TEAM = 8
_LEASE_MS, _RENEW_S = 10_000, 3.0
_TELL_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_GIVE_UP_MS = 3_600_000
"""So long after its deadline a batch is still tried whose end can't be made; then it has failed."""


@dataclass(slots=True)
class _Progress:
    """What is to be told of a batch, and that it is to be told at once."""

    batch: Batch
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, batch: Batch) -> None:
        if batch.status != self.batch.status:
            self.moved.set()
        self.batch = batch


class Runner:
    """Brings batches to their end."""

    def __init__(self, platform: Platform, post: Post, files: Files, views: Batches, lines: Lines) -> None:
        self._platform, self._post, self._files, self._views, self._lines = platform, post, files, views, lines
        self._turns = Turns(_AT_ONCE, _EACH_TEAM)

    async def work(self, record: Incoming, _: bool) -> None:
        """Runs one batch. Cancelled, it goes on elsewhere: the record is delivered again."""
        order = decode(record, BatchOrder)
        if isinstance(order, Poison):
            await self._post.dead(record, order)
            return
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                if await self._alone(order):
                    return
                log.warning("%s: the lease was lost; another process has it now", order.id)
            except Exception:
                log.exception("%s can't be brought to its end now; trying again", order.id)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _alone(self, order: BatchOrder) -> bool:
        """Works on a batch while nobody else does; False if somebody else began to."""
        await self._claimed(order)
        working = asyncio.create_task(self._settle(order))
        holding = asyncio.create_task(self._hold(order))
        try:
            await asyncio.wait([working, holding], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            return working.done()
        finally:
            for task in (working, holding):
                task.cancel()
            await asyncio.gather(working, holding, return_exceptions=True)
            await self._claim(order, 1)

    async def _claimed(self, order: BatchOrder) -> None:
        while True:
            if await self._claim(order, _LEASE_MS):
                return
            await asyncio.sleep(_RENEW_S)

    async def _hold(self, order: BatchOrder) -> None:
        """Returns when the lease is lost."""
        held = True
        while held:
            await asyncio.sleep(_RENEW_S)
            held = await self._claim(order, _LEASE_MS)

    async def _claim(self, order: BatchOrder, lease_ms: int) -> bool:
        """While Redis is away nobody can be asked, and who works goes on: written twice, the files are the same."""
        owner = f"ingress-{self._platform.owner}"
        try:
            return await claim(self._platform.redis, f"batch:{order.id}", 1, owner, lease_ms, held=0) is not None
        except RedisUnavailable:
            return True

    async def _settle(self, order: BatchOrder) -> None:
        """Brings a batch to its end, unless it has come there, and tells of it."""
        batch = await self._files.remembered(order.caller.team, order.id)
        if batch is None:
            batch = await self._end_of(order)
            await self._files.remember(order.caller.team, batch)
        with suppress(RedisUnavailable):
            await self._views.save(batch, order.caller.team, order.created_ms)
        if order.webhook:
            await self._post.webhook(self._delivery(order, batch), None)
        log.info("%s: %s, %d of %d lines answered", order.id, batch.status, *_answered(batch))

    async def _end_of(self, order: BatchOrder) -> Batch:
        try:
            return await self._run(order)
        except Exception:
            if self._platform.clock() < order.deadline_ms + _GIVE_UP_MS:
                raise
            log.exception("%s is given up", order.id)
            problem = BatchProblem(code="internal_error", message="The gateway could not bring this batch to its end.")
            return policy.failed(policy.asked(order), [problem], self._platform.clock() // 1000)

    async def _run(self, order: BatchOrder) -> Batch:
        halt, progress = Halt(), _Progress(policy.asked(order))
        settings, platform = self._platform.settings, self._platform
        hands = Hands(self._files, self._lines, platform.clock, platform.signer.derive, settings.max_body_bytes, progress.say)
        watching = asyncio.create_task(self._watch(order, progress, halt))
        try:
            async with self._turns.turn(order.caller.team, halt.wait), _folder(settings.work_dir) as folder:
                run = Run(order, hands, halt, folder)
                plan = await run.check()
                if plan.problems:
                    return run.failed(plan)
                told = await LineResults.open(platform.kafka, platform.files, order)
                try:
                    return await run.to_end(plan, told)
                finally:
                    await told.close()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, order: BatchOrder, progress: _Progress, halt: Halt) -> None:
        """Tells about once a second how far the batch is, and hears whether it is to be cancelled."""
        while True:
            progress.moved.clear()
            with suppress(RedisUnavailable):
                cancel_ms = await self._views.save(progress.batch, order.caller.team, order.created_ms)
                if cancel_ms:
                    halt.set("cancelled", cancel_ms // 1000)
            left_s = (order.deadline_ms - self._platform.clock()) / 1000
            if left_s <= 0:
                halt.set("expired", order.deadline_ms // 1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_TELL_S, left_s) if left_s > 0 else _TELL_S):
                    await progress.moved.wait()

    def _delivery(self, order: BatchOrder, batch: Batch) -> WebhookDelivery:
        now_ms = self._platform.clock()
        payload = policy.event(batch, now_ms // 1000)
        return WebhookDelivery(
            id=str(payload["id"]),
            url=order.webhook,
            team=order.caller.team,
            key_id=order.caller.key_id,
            payload=payload,
            created_ms=now_ms,
        )


def _answered(batch: Batch) -> tuple[int, int]:
    return batch.request_counts.completed, batch.request_counts.total


@asynccontextmanager
async def _folder(parent: Path) -> AsyncGenerator[Path]:
    """A folder that goes with the block. What a killed process leaves is swept (`service.py`)."""
    await asyncio.to_thread(parent.mkdir, parents=True, exist_ok=True)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=parent))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
