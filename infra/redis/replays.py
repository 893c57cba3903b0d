"""What became of dead letters: noted for as long as the letters themselves are kept."""

from collections.abc import Sequence
from typing import Final, cast

from infra.redis.client import Redis, Script
from schemas.topics import DEAD

_REPLAY = Script.load("replay")
_REPLAYED = Script.load("replayed")

_KEEP_MS: Final = DEAD.retention_ms


class Replays:
    """Notes in Redis, by the id of the letter (`partition@offset`)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def begin(self, letter_id: str, becomes: str, *, again: bool) -> str:
        """Notes that a letter is replayed. Gives what it became before, which forbids it unless `again`, or nothing.

        Raises RedisUnavailable.
        """
        args = ("begin", becomes, _KEEP_MS, int(again))
        return cast("bytes", await self._redis.run(_REPLAY, [_key(letter_id)], args)).decode()

    async def forget(self, letter_id: str) -> None:
        """Nothing came of it. Raises RedisUnavailable."""
        await self._redis.run(_REPLAY, [_key(letter_id)], ("forget", "", 0, 0))

    async def became(self, letter_ids: Sequence[str]) -> list[str]:
        """What each letter has become; empty for one that was not replayed. Raises RedisUnavailable."""
        if not letter_ids:
            return []
        notes = await self._redis.run(_REPLAYED, [_key(letter_id) for letter_id in letter_ids])
        return [note.decode() for note in cast("list[bytes]", notes)]


def _key(letter_id: str) -> str:
    return f"dead:replayed:{letter_id}"
