"""All that is held under a prefix, for who searches what is somebody's: slow, and bounded in memory."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import cast

from infra.redis.client import Redis, Script

_SCAN = Script.load("scan_held")
_FORGET = Script.load("forget")
_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Held:
    """`text`: a string's, or a ticket's; `reference`: of a file with the rest."""

    key: str
    reference: str
    ended: bool
    text: bytes


async def held(redis: Redis, prefix: str) -> AsyncGenerator[Held]:
    """Each once or more often; what comes meanwhile may be missed. Raises RedisUnavailable."""
    cursor = b"0"
    while True:
        result = cast("list[object]", await redis.run(_SCAN, [], (cursor, prefix, _AT_ONCE)))
        for one in cast("list[list[bytes | int]]", result[1:]):
            key, reference, ended, text = one
            yield Held(cast("bytes", key).decode(), cast("bytes", reference).decode(), bool(ended), cast("bytes", text))
        cursor = cast("bytes", result[0])
        if cursor == b"0":
            return


async def forget(redis: Redis, keys: Sequence[str]) -> int:
    """Removes keys; gives how many were there. Raises RedisUnavailable."""
    return cast("int", await redis.run(_FORGET, keys)) if keys else 0
