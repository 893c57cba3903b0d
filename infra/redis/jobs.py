"""The record of a job in Redis: who works on it, what was answered, and that it is done.

States: (none) → leased → answered → done at the router, (none) → ending → done elsewhere, and abandoned for a job nobody
waits for any more. What a redelivered record means
is decided by this alone (RELIABILITY.md 5.6).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast

from infra.redis.client import Redis, Script

_LEASE = Script.load("lease")
_RENEW = Script.load("renew")
_MARK = Script.load("mark")
_END = Script.load("end")
_RESUME = Script.load("resume")
_PUT_OFF = Script.load("put_off")

_GRACE_MS = 60_000
_DONE_MS = 900_000
"""How long it is remembered that a job is done: a record of it is delivered again only until its offset is committed, which takes
0.2 s, or as long as Kafka is away. A day, which batch jobs may take, would be 50 million records at 600 jobs/s."""
_RENEW_AT_ONCE = 500

EndState = Literal["granted", "again", "done", "leased", "answered", "called"]
LeaseState = Literal["granted", "done", "stale", "ending", "abandoned", "answered", "leased", "interrupted", "exhausted"]


@dataclass(frozen=True, slots=True)
class Lease:
    """What the lease script said. `n`: number of this attempt (granted), or of those made; `left_ms`: of another's lease.

    `notes` are those of the attempts made before, by a life that is over. Who is told granted, interrupted, exhausted,
    abandoned or answered holds the lease and has to end the job; ending: a copy at another stage does. stale: a copy
    that was put off since then knows of more calls.
    """

    state: LeaseState
    n: int = 0
    left_ms: int = 0
    answer: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """What the script said to who would end a job.

    again: granted, as it was before, so that the end may be known already. done: another copy has ended it, or is about to.
    leased: a router may be at work on it, for `left_ms` at most if it is dead. answered: a router died that had kept the answer;
    another one has to publish it. called: a router died that had called a provider; another one has to tell of that.
    """

    state: EndState
    left_ms: int = 0


class JobRecords:
    """Records of jobs, for one owner (a slot) in one life (a process)."""

    def __init__(self, redis: Redis, owner: str, life: str) -> None:
        self._redis = redis
        self._owner = owner
        self._life = life

    async def lease(
        self,
        job_id: str,
        rest_ms: int,
        *,
        lease_ms: int,
        attempts: int,
        ask: str = "",
        held: int = 0,
        note: str = "",
        made: int = 0,
        goes_on: bool = False,
    ) -> Lease:
        """Asks for the right to call a provider, at most `attempts` times in all. `rest_ms`: until the job's deadline.

        `ask` names the question within this life: asked again after RedisUnavailable, it gets the same answer and not one more
        attempt. `held`: the last attempt that this life has made; the next one is granted at once, while for anybody else the job
        stays leased. `note` says what will be called, for whoever has to tell of this attempt after our death.
        `made`: how many attempts this copy of the job tells of; if it was put off with more, this copy is done. `goes_on`: the
        next one goes on behind what this life's stream has said already, or races with it, which else nobody may.
        """
        args = (self._owner, self._life, lease_ms, _life_ms(rest_ms), attempts, ask, held, note, made, int(goes_on))
        result = cast("list[bytes | int]", await self._redis.run(_LEASE, _keys(job_id), args))
        state = cast("LeaseState", cast("bytes", result[0]).decode())
        match state:
            case "granted" | "interrupted" | "exhausted" | "abandoned":
                notes = tuple(cast("bytes", note).decode() for note in result[2:])
                return Lease(state, n=int(result[1]), notes=notes)
            case "leased":
                return Lease(state, left_ms=int(result[1]))
            case "answered":
                return Lease(state, answer=cast("bytes", result[1]))
            case "done" | "stale" | "ending":
                return Lease(state)

    async def renew(self, job_ids: Collection[str], lease_ms: int) -> None:
        """Prolongs the leases of jobs that are still being worked on."""
        ids = list(job_ids)
        for start in range(0, len(ids), _RENEW_AT_ONCE):
            keys = [f"job:{job_id}" for job_id in ids[start : start + _RENEW_AT_ONCE]]
            await self._redis.run(_RENEW, keys, (self._owner, self._life, lease_ms))

    async def release(self, job_id: str) -> None:
        """Gives a lease back, so that the next who asks need not wait for its end."""
        await self.renew((job_id,), 0)

    async def put_off(self, job_id: str, made: int) -> None:
        """The job waits in another record, which tells of `made` attempts: gives the lease back, and makes older copies void."""
        await self._redis.run(_PUT_OFF, _keys(job_id)[:1], (self._owner, self._life, made))

    async def streamed(self, job_id: str) -> None:
        """The first token went out: from now on no second attempt may begin."""
        await self._redis.run(_MARK, _keys(job_id), ("streamed", 0, "", 0))

    async def answered(self, job_id: str, rest_ms: int, answer: bytes) -> bool:
        """Keeps the answer before it is published: a death in between costs a republish, not a second call.

        False if the job was answered or ended before, by whoever took it over when our lease had lapsed.
        """
        return bool(await self._redis.run(_MARK, _keys(job_id), ("answered", _life_ms(rest_ms), answer, 0)))

    async def may_end(self, job_id: str, rest_ms: int, copy: str, *, books: bool = False) -> Ending:
        """Asks for the right to end a job here; if it is granted, that is noted.

        `copy` names the record that the job came in (topic/partition@offset), so that the same copy is entitled again after a
        lost answer or a death. `books`: who asks can tell of the provider calls that were made for the job.
        """
        args = (copy, self._owner, self._life, _life_ms(rest_ms), int(books))
        result = cast("list[bytes | int]", await self._redis.run(_END, _keys(job_id)[:1], args))
        state = cast("EndState", cast("bytes", result[0]).decode())
        return Ending(state, int(result[1]) if state == "leased" else 0)

    async def was_ending(self, job_id: str, copy: str, *, forget: bool = False) -> bool:
        """Whether this copy was granted the job's end, which is not known to be told; `forget`: the job goes on instead."""
        return bool(await self._redis.run(_RESUME, _keys(job_id)[:1], (copy, int(forget))))

    async def done(self, job_id: str, rest_ms: int, *, keep_answer: bool) -> None:
        """The end was published and acknowledged. `keep_answer`: the cache will fetch it."""
        await self._redis.run(_MARK, _keys(job_id), ("done", min(_life_ms(rest_ms), _DONE_MS), "", int(keep_answer)))

    async def abandon(self, job_id: str, rest_ms: int) -> None:
        """Nobody waits for this job any more: no provider may be called for it."""
        await self._redis.run(_MARK, _keys(job_id), ("abandoned", _life_ms(rest_ms), "", 0))

    async def seen(self, job_id: str, rest_ms: int, ask: str = "") -> int:
        """Counts a delivery that may be a repeated one; 0 if the job has ended already.

        `ask` names the delivery: asked again after RedisUnavailable, it is not counted again.
        """
        return cast("int", await self._redis.run(_MARK, _keys(job_id), ("seen", _life_ms(rest_ms), ask, 0)))


def _keys(job_id: str) -> list[str]:
    return [f"job:{job_id}", f"answer:{job_id}"]


def _life_ms(rest_ms: int) -> int:
    """A record outlives its job's deadline by a minute: a redelivery after that is expired anyway."""
    return max(0, rest_ms) + _GRACE_MS
