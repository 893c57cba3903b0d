"""The ledger of what is spent and held (RELIABILITY.md 5.10): settled by the completions, held by leases, open or closed.

Counters are `spend:<scope>:<period>`, so that no period ever has to be reset. A hold belongs to a job, not to a counter: it is
given back when the job ends, or when its lease does. Money is in whole nano-dollars.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from infra.redis.admission import Allowance, Charge
from infra.redis.client import Argument, Redis, Script

_SETTLE = Script.load("settle", "holds")
_EXTEND = Script.load("extend", "holds")
_SWEEP = Script.load("sweep", "holds")
_RELEASE = Script.load("release", "holds")
_SHRINK = Script.load("shrink", "holds")
_HOLD_AGAIN = Script.load("hold_again", "holds")
_SETTLED = Script.load("settled")
_COUNTERS = Script.load("counters")
_OPEN_HOLDS = Script.load("open_holds")
_CLOSE_LEDGER = Script.load("close_ledger")
_OPEN_LEDGER = Script.load("open_ledger")

SWEPT_AT_ONCE = 500


@dataclass(slots=True)
class Spent:
    """What was spent at a counter. `forgotten_ms`: when it may be forgotten, in unix milliseconds; 0: never."""

    forgotten_ms: int
    usd_nano: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Settlement:
    """What some completions say, of each partition in order.

    `settled`: of each partition the last record settled before these and the last of these; `jobs`: tokens that each needed;
    `spent`: by counter; `used`: when a key was last used, unix milliseconds.
    """

    settled: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    jobs: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    spent: dict[str, Spent] = field(default_factory=dict[str, Spent])
    used: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Settled:
    """It is settled, now or before. `totals`: USD (nano) and tokens spent at each counter so far; empty if it was done before."""

    totals: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """Somebody else has settled some of it. `last`: of each partition the last record that is settled."""

    last: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class LedgerClosed:
    """Redis has lost the counters."""


async def settle(redis: Redis, settlement: Settlement) -> Settled | OutOfOrder | LedgerClosed:
    """Makes what was held spent. The same call made again changes nothing. Raises RedisUnavailable."""
    args: list[Argument] = [len(settlement.settled)]
    for partition, (before, last) in settlement.settled.items():
        args += (partition, before, last)
    args.append(len(settlement.jobs))
    for job_id, tokens in settlement.jobs:
        args += (job_id, tokens)
    for spent in settlement.spent.values():
        args += (spent.usd_nano, spent.tokens, spent.forgotten_ms)
    args.append(len(settlement.used))
    for key_id, at_ms in settlement.used.items():
        args += (key_id, at_ms)
    counters = list(settlement.spent)
    result = cast("list[int | bytes]", await redis.run(_SETTLE, counters, args))
    match result[0]:
        case 0:
            return LedgerClosed()
        case 3:
            return OutOfOrder(dict(zip(settlement.settled, map(int, result[1:]), strict=True)))
        case 2:
            return Settled({})
        case _:
            totals = list(map(int, result[1:]))
            return Settled(dict(zip(counters, zip(totals[::2], totals[1::2], strict=True), strict=True)))


async def settled(redis: Redis, partitions: Sequence[int]) -> dict[int, int]:
    """The last record of each partition that is settled; -1: none is. Raises RedisUnavailable."""
    return dict(zip(partitions, cast("list[int]", await redis.run(_SETTLED, (), partitions)), strict=True))


async def extend(redis: Redis, job_id: str, allowances: Sequence[Allowance], tokens: int, usd_nano: int) -> bool | None:
    """Holds so much more for a job that needs it; False if it doesn't fit, None if nothing is held. Raises RedisUnavailable."""
    args: list[Argument] = [job_id, tokens, usd_nano]
    for allowance in allowances:
        args += ("" if allowance.usd_nano is None else allowance.usd_nano, "" if allowance.tokens is None else allowance.tokens)
    result = await redis.run(_EXTEND, [allowance.key for allowance in allowances], args)
    return None if result == -1 else result == 1


async def release(redis: Redis, job_id: str, tokens: int | None = None) -> bool:
    """Gives back what is held for a job that never began, or that used so many tokens. Raises RedisUnavailable."""
    return await redis.run(_RELEASE, (), (job_id, "" if tokens is None else tokens)) == 1


async def sweep(redis: Redis, settled_ms: Mapping[int, int] | None = None) -> tuple[int, bool]:
    """Gives back what is held for dead jobs: how many were (SWEPT_AT_ONCE at most), and whether the ledger is open.

    `settled_ms`: of partitions, unix milliseconds up to which every completion is settled; what ended later may still be running,
    or wait to be settled. Raises RedisUnavailable.
    """
    args: list[Argument] = [SWEPT_AT_ONCE]
    for partition, until_ms in (settled_ms or {}).items():
        args += (partition, until_ms)
    swept, is_open = cast("list[int]", await redis.run(_SWEEP, (), args))
    return swept, bool(is_open)


async def shrink(redis: Redis, job_id: str, tokens: int, usd_nano: int) -> None:
    """Of a job that waits again nothing stays held but what it has cost so far; its places are free. Raises RedisUnavailable."""
    await redis.run(_SHRINK, (), (job_id, tokens, usd_nano))


@dataclass(frozen=True, slots=True)
class Counted:
    """What stands at a counter, in nano-dollars and tokens."""

    usd_nano: int
    held_usd_nano: int
    tokens: int
    held_tokens: int


async def counted(redis: Redis, counters: Sequence[str]) -> dict[str, Counted]:
    """What stands at these counters. Raises RedisUnavailable."""
    numbers = list(map(int, cast("list[bytes]", await redis.run(_COUNTERS, counters))))
    return {key: Counted(*numbers[4 * i : 4 * i + 4]) for i, key in enumerate(counters)}


@dataclass(frozen=True, slots=True)
class OpenHold:
    """What is held for a job that runs, at these counters, until its lease ends (unix milliseconds)."""

    job_id: str
    ends_ms: int
    usd_nano: int
    tokens: int
    counters: tuple[str, ...]


async def open_holds(redis: Redis, skip: int = 0, most: int = 1000) -> list[OpenHold]:
    """Holds, the one that ends first first. Raises RedisUnavailable."""
    told = cast("list[bytes]", await redis.run(_OPEN_HOLDS, (), (skip, most)))
    return [
        OpenHold(
            job.decode(), int(float(ends)), int(usd_nano), int(tokens), tuple(counters.decode().split("\n")) if counters else ()
        )
        for job, ends, usd_nano, tokens, counters in zip(*(told[i::5] for i in range(5)), strict=True)
    ]


async def hold_again(redis: Redis, charge: Charge, job_id: str) -> bool:
    """Holds what was held for a job before Redis lost it; False if something is held for it. Raises RedisUnavailable."""
    keys = [allowance.key for allowance in charge.limits.allowances]
    return await redis.run(_HOLD_AGAIN, keys, (job_id, charge.tokens, charge.usd_nano, charge.lease_ms)) == 1


async def close_ledger(redis: Redis) -> None:
    """Nobody trusts the ledger any more until it is opened again. Raises RedisUnavailable."""
    await redis.run(_CLOSE_LEDGER, ())


async def open_ledger(redis: Redis, epoch: str, settled: Mapping[int, int], spent: Mapping[str, Spent]) -> bool:
    """Opens the ledger with these counters, settled up to these records; False if somebody else has. Raises RedisUnavailable."""
    args: list[Argument] = [epoch, len(settled)]
    for partition, last in settled.items():
        args += (partition, last)
    for one in spent.values():
        args += (one.usd_nano, one.tokens, one.forgotten_ms)
    return await redis.run(_OPEN_LEDGER, list(spent), args) == 1
