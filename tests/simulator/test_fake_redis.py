"""Redis as the simulator has it says what the real one says, script by script."""

import asyncio
from random import Random

import pytest

from infra.embedded.stack import Stack
from infra.redis.admission import Charge, Keeping, Limits, Rate, admit
from infra.redis.client import Redis
from infra.redis.jobs import JobRecords
from infra.redis.listing import list_key
from tests.fakes.redis import LuaRedis

JOBS = ("a", "b", "c")
STEPS = 400


class Asker:
    """The same questions, put to one of them."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis, self._prefix = redis, prefix
        self._records = [JobRecords(redis, f"router-{slot}", life) for slot, life in ((0, "x"), (0, "y"), (1, "z"))]

    async def ask(self, chance: Random) -> object:
        records, job_id = chance.choice(self._records), f"{self._prefix}-{chance.choice(JOBS)}"
        match chance.randrange(11):
            case 0 | 1:
                lease = await records.lease(
                    job_id, 60_000, lease_ms=chance.choice((0, 10_000)), attempts=3, ask=str(chance.randrange(3)),
                    held=chance.randrange(3), note=str(chance.randrange(9)),
                )  # fmt: skip
                return lease.state, lease.n, lease.answer, lease.notes, lease.left_ms > 0
            case 2:
                return await records.renew([job_id], chance.choice((0, 10_000)))
            case 3:
                return await records.streamed(job_id)
            case 4:
                return await records.answered(job_id, 1000, b"\x00 \xff")
            case 5 | 6:
                ending = await records.may_end(job_id, 1000, chance.choice("pq"), books=chance.random() < 0.5)
                return ending.state, ending.left_ms > 0
            case 7:
                return await records.done(job_id, 1000, keep_answer=chance.random() < 0.5)
            case 8:
                return await records.abandon(job_id, 1000), await records.seen(job_id, 1000)
            case 9:
                return await records.was_ending(job_id, chance.choice("pq"), forget=chance.random() < 0.5)
            case _:
                return await self._admit(chance, job_id)

    async def _admit(self, chance: Random, job_id: str) -> object:
        keeping = Keeping(
            job_id=job_id,
            accepted_ms=chance.randrange(100),
            claim_key=f"{self._prefix}-claim",
            claim=b"claim",
            claim_ms=chance.choice((1, 60_000)),
            ticket=b"{}",
            ticket_ms=60_000,
            list_key=list_key(self._prefix),
        )
        admitted = await admit(self._redis, Charge(Limits((Rate(f"{self._prefix}-limit", 60),))), keeping)
        # What depends on the microsecond is not compared.
        return type(admitted)


@pytest.mark.parametrize("seed", range(5))
async def test_the_fake_says_what_redis_says(stack: Stack, seed: int) -> None:
    real = Redis(f"{stack.redis.removesuffix('/0')}/8", timeout_s=5)
    fake = LuaRedis(lambda: 1_800_000_000_000 + int(asyncio.get_running_loop().time() * 1000))
    askers = [Asker(redis, f"fake-{seed}") for redis in (real, fake)]
    chances = [Random(seed), Random(seed)]
    try:
        for step in range(STEPS):
            said = [await asker.ask(chance) for asker, chance in zip(askers, chances, strict=True)]
            assert said[0] == said[1], f"step {step}"
            await asyncio.sleep(0.002 if step % 10 == 0 else 0)
    finally:
        await real.close()
