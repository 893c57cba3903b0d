"""The job store: tickets of jobs that may be asked for later, and how they ended, for as long as somebody may ask."""

from dataclasses import dataclass
from typing import cast

from pydantic import ValidationError

from infra.files import FileStore
from infra.redis.client import Redis, Script
from infra.redis.listing import list_key, page
from schemas.ticket import Ended, Ticket

_END = Script.load("end_ticket")
_FIND = Script.load("find_ticket")
_CLAIM = Script.load("claim_note")

INLINE_BYTES = 8 * 1024
"""A longer end lies in the file store."""


@dataclass(frozen=True, slots=True)
class Found:
    """A job as it stands. `state` is that of its record (infra/redis/jobs.py), empty before a router has seen it."""

    ticket: Ticket
    ended: Ended | None
    state: str
    attempts: int


class Tickets:
    """Tickets and ends in Redis; long ends in the file store."""

    def __init__(self, redis: Redis, files: FileStore) -> None:
        self._redis = redis
        self._files = files

    async def find(self, job_id: str) -> Found | None:
        """The job, or None if nobody kept it, or no longer. Raises RedisUnavailable."""
        result = cast("list[bytes | int]", await self._redis.run(_FIND, [f"ticket:{job_id}", f"job:{job_id}"]))
        ticket, end, reference, state = (cast("bytes", value) for value in result[:4])
        if not ticket:
            return None
        if reference:
            try:
                end = await self._files.get(reference.decode())
            except FileNotFoundError:
                end = b""
        try:
            ended = Ended.model_validate_json(end) if end else None
            return Found(Ticket.model_validate_json(ticket), ended, state.decode(), cast("int", result[4]))
        except ValidationError:
            return None

    async def end(self, job_id: str, ended: Ended, keep_s: int) -> bool:
        """Notes how a job ended, for `keep_s`. False if that was noted before. Raises RedisUnavailable."""
        data = ended.model_dump_json().encode()
        reference = await self._files.put(data) if len(data) > INLINE_BYTES else ""
        args = (b"" if reference else data, reference, ended.status.value, keep_s * 1000)
        return bool(await self._redis.run(_END, [f"ticket:{job_id}"], args))

    async def page(self, team: str, after: str, limit: int) -> list[str]:
        """Ids of a team's asynchronous jobs, the youngest first, from below `after` on. Raises RedisUnavailable."""
        return await page(self._redis, list_key(team), "ticket:", after, limit)

    async def sent(self, claim_key: str) -> None:
        """The job of this claim is known to be on its way. Raises RedisUnavailable."""
        await self._redis.run(_CLAIM, [claim_key], ("sent",))

    async def is_sent(self, claim_key: str) -> bool:
        """Whether the job of this claim is known to be on its way. Raises RedisUnavailable."""
        return bool(await self._redis.run(_CLAIM, [claim_key], ("is_sent",)))

    async def attached(self, claim_key: str) -> int:
        """How many repeated requests have attached to the job of this claim. Raises RedisUnavailable."""
        return cast("int", await self._redis.run(_CLAIM, [claim_key], ("attached",)))

    async def forget(self, claim_key: str) -> None:
        """Who repeats the request begins anew. Raises RedisUnavailable."""
        await self._redis.run(_CLAIM, [claim_key], ("forget",))
