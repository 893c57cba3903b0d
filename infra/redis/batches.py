"""What is to be seen of batches, in Redis: written by who runs them about once a second, read by who asks."""

import asyncio
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import ValidationError

from infra.redis.client import Redis, Script
from infra.redis.listing import page
from schemas.openai.batches import OVER, Batch

_SAVE = Script.load("batch_save")
_FIND = Script.load("batch_find")

KEPT_MS = 30 * 86_400_000
MOST_LISTED = 10_000
"""Batches of a team that can be listed; older ones are still found by their id."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch as its runner last told of it, and when its cancelling was asked for (unix milliseconds; 0: not at all)."""

    batch: Batch
    cancel_ms: int


class Batches:
    """Views of batches. All raise RedisUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(self, batch: Batch, team: str, created_ms: int) -> None:
        """Keeps the first view, unless the runner was faster."""
        await self._save(batch, team, created_ms, "new")

    async def save(self, batch: Batch, team: str, created_ms: int) -> int:
        """Keeps the latest view, for 30 days; gives when its cancelling was asked for (unix milliseconds), or 0.

        What is kept of a batch that is over doesn't change any more.
        """
        return await self._save(batch, team, created_ms, "over" if batch.status in OVER else "on")

    async def find(self, batch_id: str, team: str, cancel_ms: int = 0) -> Seen | None:
        """A batch of this team, or None. With `cancel_ms` it is noted that it shall be cancelled, unless it is over."""
        result = await self._redis.run(_FIND, [f"batch:{batch_id}"], (team, cancel_ms))
        return _seen(*cast("list[bytes | int]", result)) if result else None

    async def page(self, team: str, after: str, limit: int) -> list[Seen]:
        """Batches of a team, the youngest first, from below `after` on."""
        ids = await page(self._redis, f"batches:{team}", "batch:", after, limit)
        found = await asyncio.gather(*(self.find(batch_id, team) for batch_id in ids))
        return [seen for seen in found if seen is not None]

    async def _save(self, batch: Batch, team: str, created_ms: int, what: Literal["new", "on", "over"]) -> int:
        args = (batch.model_dump_json(exclude_defaults=True), team, batch.id, created_ms, KEPT_MS, MOST_LISTED, what)
        return cast("int", await self._redis.run(_SAVE, [f"batch:{batch.id}", f"batches:{team}"], args))


def _seen(view: bytes | int, cancel_ms: bytes | int) -> Seen | None:
    try:
        return Seen(Batch.model_validate_json(cast("bytes", view)), int(cancel_ms))
    except ValidationError:
        return None
