"""Admission in one round trip: all limits of a caller, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from infra.redis.client import Redis, Script

_ADMIT = Script.load("admit")


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests per minute at one level; `scope` says whose, such as `team/fraud`."""

    scope: str
    requests_per_minute: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What admission said. `limit` is the one that refused, or else the tightest; times in milliseconds."""

    allowed: bool
    limit: Limit
    remaining: int
    retry_ms: int
    reset_ms: int


async def admit(redis: Redis, limits: Sequence[Limit]) -> Admission | None:
    """Charges one request to every limit, or to none if one refuses. None if there is no limit to ask about.

    Raises RedisUnavailable.
    """
    if not limits:
        return None
    keys = [f"rate:{limit.scope}" for limit in limits]
    result = await redis.run(_ADMIT, keys, [limit.requests_per_minute for limit in limits])
    allowed, index, retry_ms, remaining, reset_ms = cast("list[int]", result)
    return Admission(bool(allowed), limits[index - 1], remaining, retry_ms, reset_ms)
