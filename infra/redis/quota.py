"""A provider's quota of requests per minute, shared by all routers: interactive first, batch has what is left and a tenth."""

from dataclasses import dataclass
from typing import cast

from infra.redis.client import Redis, Script
from schemas.topics import Lane

_QUOTA = Script.load("quota")
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What the script said. `wait_ms`: until the call may come again; 0: it was charged. `full_ms`: until nothing is in use."""

    wait_ms: int
    full_ms: int


async def take(redis: Redis, deployment: str, rpm: int, lane: Lane) -> Taken:
    """Charges one call of a deployment, or says when it can be. Raises RedisUnavailable."""
    keys = [f"quota:{deployment}", f"quota:{deployment}:batch"]
    result = cast("list[int]", await redis.run(_QUOTA, keys, (rpm, int(lane is Lane.BATCH))))
    return Taken(*result)
