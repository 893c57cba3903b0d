"""Counts by minute that several processes add to and all read: in one round trip, expiring by themselves."""

from collections.abc import Mapping
from typing import Final, cast

from infra.redis.client import Argument, Redis, Script

_RATES: Final = Script.load("rates")

Counts = Mapping[str, int]
"""By field."""


async def add_rates(redis: Redis, minutes: Mapping[int, Counts], life_ms: int) -> dict[int, dict[str, int]]:
    """Adds to these minutes (since 1970), of which some may add nothing, and gives what all processes have counted in each.

    Raises RedisUnavailable: then it may have been added or not.
    """
    keys = [f"rates:{minute}" for minute in minutes]
    args: list[Argument] = [life_ms]
    for counts in minutes.values():
        args.append(len(counts))
        for field, by in counts.items():
            args += (field, by)
    found = cast("list[list[bytes]]", await redis.run(_RATES, keys, args))
    return {minute: _counts(pairs) for minute, pairs in zip(minutes, found, strict=True)}


def _counts(pairs: list[bytes]) -> dict[str, int]:
    return {field.decode(): int(value) for field, value in zip(pairs[::2], pairs[1::2], strict=True)}
