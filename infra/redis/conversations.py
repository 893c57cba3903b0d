"""What is kept of a response beside its job: its request and the conversation it belongs to. Small in Redis, long in a file."""

from typing import cast

from pydantic import ValidationError

from infra.files import FileStore
from infra.redis.client import Redis, Script
from infra.redis.listing import list_key
from infra.redis.tickets import INLINE_BYTES
from schemas.openai.responses import KeptResponse

_SAVE = Script.load("response_save")
_FIND = Script.load("response_find")
_DELETE = Script.load("response_delete")


class Conversations:
    """Kept responses, by the ids of their jobs."""

    def __init__(self, redis: Redis, files: FileStore) -> None:
        self._redis = redis
        self._files = files

    async def save(self, job_id: str, data: bytes, life_ms: int) -> None:
        """Keeps a `KeptResponse`, written as JSON, unless one is kept already. Raises RedisUnavailable."""
        reference = await self._files.put(data) if len(data) > INLINE_BYTES else ""
        kept = await self._redis.run(_SAVE, [_key(job_id)], (b"" if reference else data, reference, life_ms))
        if reference and not kept:
            await self._files.remove(reference)

    async def find(self, job_id: str) -> KeptResponse | None:
        """What is kept, or None if nothing is, or no longer. Raises RedisUnavailable."""
        data, reference = cast("list[bytes]", await self._redis.run(_FIND, [_key(job_id)]))
        try:
            if reference:
                data = await self._files.get(reference.decode())
            return KeptResponse.model_validate_json(data) if data else None
        except (FileNotFoundError, ValidationError):
            return None

    async def delete(self, job_id: str, team: str) -> None:
        """Forgets the response, its job's ticket, and how that ended. Raises RedisUnavailable."""
        keys = [_key(job_id), f"ticket:{job_id}", list_key(team)]
        references = cast("list[bytes]", await self._redis.run(_DELETE, keys, (job_id,)))
        for reference in filter(None, references):
            await self._files.remove(reference.decode())


def _key(job_id: str) -> str:
    return f"response:{job_id}"
