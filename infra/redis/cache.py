"""The exact cache in Redis: bounded in bytes, the oldest entries go first."""

from typing import cast

from infra.redis.client import Redis, Script

_LOOKUP = Script.load("lookup")
_FILL = Script.load("fill")

MAX_BYTES = 256 * 1024 * 1024


async def lookup(redis: Redis, key: str) -> bytes | None:
    """The entry under `key`, or None. Raises RedisUnavailable."""
    return cast("bytes | None", await redis.run(_LOOKUP, [f"cache:{key}"]))


async def fill(redis: Redis, job_id: str, key: str, ttl_s: int, max_bytes: int = MAX_BYTES) -> bool:
    """Makes the kept answer of a finished job an entry; False if nothing is kept, or it is one. Raises RedisUnavailable."""
    keys = [f"answer:{job_id}", f"cache:{key}", "cache_order", "cache_bytes", f"job:{job_id}"]
    return bool(await redis.run(_FILL, keys, (ttl_s, max_bytes)))
