"""Numbers that instances lease from one another, such as the partition on which an ingress gets its replies."""

from typing import cast

from infra.redis.client import Redis, Script

_CLAIM = Script.load("claim")


async def claim(redis: Redis, name: str, count: int, owner: str, lease_ms: int, held: int = -1) -> int | None:
    """Leases a number below `count`, or prolongs the one `held`. None if all are taken, or the held one is lost."""
    keys = [f"number:{name}:{n}" for n in range(count)]
    number = cast("int", await redis.run(_CLAIM, keys, (owner, lease_ms, held)))
    return None if number < 0 else number
