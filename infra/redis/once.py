"""What happens once, whichever process is asked: a webhook that came before is a replay, a request is decided by one."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Literal, cast

from infra.redis.client import Redis, Script

_ONCE: Final = Script.load("once")

_MOST_REMEMBERED: Final = 10_000

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


class OnceEach:
    """Does things once each; what this process knows to have been done is not asked again."""

    def __init__(self, once: Once) -> None:
        self._once = once
        self._done: OrderedDict[str, None] = OrderedDict()

    async def do(self, name: str, life_ms: int, act: Callable[[], Awaitable[object]]) -> None:
        """Raises RedisUnavailable, and what `act` raises: then it may be done again at once."""
        if name in self._done:
            return
        if not await self._once.begin(name, life_ms):
            try:
                await act()
            except BaseException:
                await self._once.forget(name)
                raise
        self._done[name] = None
        if len(self._done) > _MOST_REMEMBERED:
            self._done.popitem(last=False)


def _key(name: str) -> str:
    return f"once:{name}"
