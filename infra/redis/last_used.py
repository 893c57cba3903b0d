"""When each virtual key was used last, as far as accounting has come."""

from collections.abc import Sequence
from typing import Final, cast

from infra.redis.client import Redis, Script

LAST_USED: Final = "keys:last_used"
"""A hash: the id of a key → unix milliseconds. Written by settle.lua."""

_READ = Script.load("read_last_used")


async def last_used_ms(redis: Redis, key_ids: Sequence[str]) -> list[int | None]:
    """When each of these keys was used last, in unix milliseconds; None: not that we know of. Raises RedisUnavailable."""
    if not key_ids:
        return []
    found = cast("list[bytes]", await redis.run(_READ, [LAST_USED], key_ids))
    return [int(at_ms) if at_ms else None for at_ms in found]
