"""What happens once, whichever process is asked: a webhook that came before is a replay, a request is decided by one."""

from typing import Final, Literal, cast

from infra.redis.client import Redis, Script

_ONCE: Final = Script.load("once")

Before = Literal["", "begun", "done"]


class Once:
    """Notes in Redis, under `once:<name>`. All raise RedisUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def begin(self, name: str, life_ms: int) -> Before:
        """Empty for whoever asks first; what is known of it for the others, until `life_ms` are over."""
        said = cast("bytes", await self._redis.run(_ONCE, [_key(name)], ("begin", life_ms)))
        return cast("Before", said.decode())

    async def done(self, name: str, life_ms: int) -> None:
        """It has happened, which is remembered for `life_ms`."""
        await self._redis.run(_ONCE, [_key(name)], ("done", life_ms))

    async def forget(self, name: str) -> None:
        """It came to nothing: it may begin again."""
        await self._redis.run(_ONCE, [_key(name)], ("forget", 0))


def _key(name: str) -> str:
    return f"once:{name}"
