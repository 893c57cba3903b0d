"""Lists that are read page by page, the youngest first."""

import asyncio
from collections.abc import Iterable
from typing import cast

from infra.redis.client import Redis, Script
from schemas.ids import accepted_ms

_OLDER = Script.load("list_older")
_PAGE = Script.load("page")


def list_key(team: str) -> str:
    """Where a team's jobs are listed."""
    return f"tickets:{team}"


async def page(redis: Redis, key: str, kept: str, after: str, limit: int) -> list[str]:
    """Ids from below `after` (empty: the first) on, of which something is kept under `kept`. Raises RedisUnavailable."""
    ids = cast("list[bytes]", await redis.run(_PAGE, [key], (after, limit, kept)))
    return [found.decode() for found in ids]


async def older_jobs(redis: Redis, teams: Iterable[str], after: str, limit: int) -> list[str]:
    """Several teams' asynchronous jobs as one list: ids of those older than `after` (empty: of all), the youngest first.

    Some may be kept no longer. Raises RedisUnavailable, and ValueError if `after` is no id of a job.
    """
    args = (accepted_ms(after) if after else "+inf", after, limit)
    pages = await asyncio.gather(*(redis.run(_OLDER, [list_key(team)], args) for team in teams))
    ids = [job_id.decode() for found in pages for job_id in cast("list[bytes]", found)]
    return sorted(ids, reverse=True)[:limit]
