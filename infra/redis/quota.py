"""What a provider allows a deployment a minute, in calls and tokens, shared by all routers, by the lanes, and by teams."""

from dataclasses import dataclass
from typing import cast

from infra.redis.client import Argument, Redis, Script
from schemas.control import Deployment
from schemas.topics import Lane

_QUOTA = Script.load("quota")
_CORRECT = Script.load("quota_correct")
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that somebody wants to make. `weight`: of its team, when the quota is short. `tokens`: expected, in and out.

    `patience_ms`: how long it waits in its place at most; `again`: it was told to wait before.
    """

    lane: Lane
    team: str
    weight: float = 1.0
    tokens: int = 0
    patience_ms: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What the script said. `wait_ms`: until the call may come again; 0: it was charged. `full_ms`: until nothing is in use."""

    wait_ms: int
    full_ms: int


async def take(redis: Redis, deployment: Deployment, wish: Wish) -> Taken:
    """Charges one call and its tokens, both or neither, or says when it can be. Raises RedisUnavailable."""
    args: list[Argument] = [deployment.rpm or 0, deployment.tpm or 0, wish.tokens, int(wish.lane is Lane.BATCH)]
    args += [wish.team, wish.weight, wish.patience_ms, int(wish.again)]
    return Taken(*cast("list[int]", await redis.run(_QUOTA, [_buckets(deployment), _waiting(deployment, wish)], args)))


async def correct(redis: Redis, deployment: Deployment, wish: Wish, tokens: int) -> None:
    """A call was charged `wish.tokens` and took `tokens`. Raises RedisUnavailable."""
    keys = [_buckets(deployment), f"{_waiting(deployment, wish)}:{wish.team}"]
    args: list[Argument] = [deployment.rpm or 0, deployment.tpm or 0, int(wish.lane is Lane.BATCH), wish.weight]
    await redis.run(_CORRECT, keys, [*args, wish.tokens, tokens])


def _buckets(deployment: Deployment) -> str:
    return f"quota:{deployment.id}:minute"


def _waiting(deployment: Deployment, wish: Wish) -> str:
    return f"quota:{deployment.id}:waiting:{wish.lane}"
