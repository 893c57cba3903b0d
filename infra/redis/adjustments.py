"""The ledger compared with the books: how it stands at one moment, and corrections by a difference (RELIABILITY.md 5.12)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from infra.redis.client import Argument, Redis, Script
from infra.redis.ledger import Spent

_STANDING = Script.load("standing")
_ADJUST = Script.load("adjust")


@dataclass(frozen=True, slots=True)
class Standing:
    """`state` names it, empty while the ledger is closed; `settled`: of each partition the last record that is counted."""

    state: str
    settled: Mapping[int, int]
    spent: Mapping[str, tuple[int, int]]
    """USD (nano) and tokens by counter."""


async def standing(redis: Redis, partitions: Sequence[int], counters: Sequence[str] = ()) -> Standing:
    """All of one moment. Raises RedisUnavailable."""
    told = cast("list[bytes]", await redis.run(_STANDING, counters, partitions))
    settled, spent = told[1 : len(partitions) + 1], list(map(int, told[len(partitions) + 1 :]))
    return Standing(
        told[0].decode(),
        dict(zip(partitions, map(int, settled), strict=True)),
        dict(zip(counters, zip(spent[::2], spent[1::2], strict=True), strict=True)),
    )


async def adjust(redis: Redis, state: str, differences: Mapping[str, Spent]) -> bool:
    """Adds differences to counters, once; False if the ledger isn't in that state any more. Raises RedisUnavailable."""
    args: list[Argument] = [state]
    for one in differences.values():
        args += (one.usd_nano, one.tokens, one.forgotten_ms)
    return await redis.run(_ADJUST, list(differences), args) == 1
