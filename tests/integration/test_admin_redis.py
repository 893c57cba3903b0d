"""When keys were used last, in the real Redis."""

import uuid

from infra.embedded.stack import Stack
from infra.redis.client import Redis
from infra.redis.last_used import last_used_ms
from infra.redis.ledger import Settlement, open_ledger, settle


async def test_the_latest_use_stays(stack: Stack) -> None:
    redis, (used, unused) = Redis(stack.redis, 2), (f"key_{uuid.uuid4().hex}" for _ in range(2))
    await open_ledger(redis, "test", {}, {})
    for at_ms in (1_800_000_000_000, 1_700_000_000_000):
        await settle(redis, Settlement(used={used: at_ms}))
    assert await last_used_ms(redis, [unused, used]) == [None, 1_800_000_000_000]
    assert await last_used_ms(redis, []) == []
    await redis.close()
