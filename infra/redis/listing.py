"""The jobs of several teams as one list."""

import asyncio
from collections.abc import Iterable
from typing import cast

from infra.redis.client import Redis, Script
from infra.redis.tickets import list_key
from schemas.ids import accepted_ms

_OLDER = Script.load("list_older")


async def older_jobs(redis: Redis, teams: Iterable[str], after: str, limit: int) -> list[str]:
    """Ids of the teams' asynchronous jobs that are older than `after` (empty: of all), the youngest first.

    Some may be kept no longer. Raises RedisUnavailable, and ValueError if `after` is no id of a job.
    """
    args = (accepted_ms(after) if after else "+inf", after, limit)
    pages = await asyncio.gather(*(redis.run(_OLDER, [list_key(team)], args) for team in teams))
    ids = [job_id.decode() for page in pages for job_id in cast("list[bytes]", page)]
    return sorted(ids, reverse=True)[:limit]
