"""The Lua scripts and the connection that carries them, against a real Redis."""

import asyncio
import hashlib
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from infra.embedded.probe import ask
from infra.embedded.stack import Stack
from infra.redis.admission import Admitted, Charge, Limits, OverRate, Rate, admit
from infra.redis.cache import fill, lookup
from infra.redis.client import Redis, RedisUnavailable, Script, Value
from infra.redis.jobs import JobRecords, Lease
from infra.redis.numbers import claim
from infra.redis.quota import Wish, correct, take
from schemas.control import Deployment
from schemas.topics import Lane

HOUR_MS = 3_600_000


@pytest.fixture(scope="session")
async def redis(stack: Stack) -> AsyncGenerator[Redis]:
    """A database of our own, so that the other suites' entries are not in the way."""
    redis = Redis(f"{stack.redis.removesuffix('/0')}/7", timeout_s=5)
    yield redis
    await redis.close()


def script(text: str) -> Script:
    return Script("test", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def call(redis: Redis, *words: str | int) -> Value:
    return await redis.run(script("return redis.call(unpack(ARGV))"), [], words)


def fresh(prefix: str = "x") -> str:
    return f"{prefix}-{secrets.token_hex(6)}"


# The connection.


async def test_calls_made_at_once_get_each_its_own_answer(redis: Redis) -> None:
    echo = script("return ARGV[1]")
    answers = await asyncio.gather(*(redis.run(echo, [], [n]) for n in range(1300)))
    assert answers == [b"%d" % n for n in range(1300)]


async def test_a_script_that_redis_does_not_know_yet_is_sent_along(redis: Redis) -> None:
    known, new = script("return 'known'"), script(f"return '{fresh()}'")
    await redis.run(known, [])
    answers = await asyncio.gather(redis.run(known, []), redis.run(new, []), redis.run(known, []), redis.run(new, []))
    assert answers == [b"known", new.text[8:-1].encode(), b"known", new.text[8:-1].encode()]


async def test_a_scripts_own_error_hits_its_caller_only(redis: Redis) -> None:
    wrong, right = script("return redis.call('NOPE')"), script("return 7")
    results = await asyncio.gather(redis.run(wrong, []), redis.run(right, []), return_exceptions=True)
    assert isinstance(results[0], RedisError)
    assert results[1] == 7


async def test_nobody_there_is_unavailable() -> None:
    redis = Redis("redis://127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(RedisUnavailable):
        await redis.run(script("return 1"), [])
    assert not await redis.ping()
    await redis.close()


async def test_silence_is_unavailable() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    redis = Redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.02)
    with pytest.raises(RedisUnavailable, match=r"within 0\.02 s"):
        await redis.run(script("return 1"), [])
    await redis.close()
    server.close()


async def test_a_busy_loop_is_not_taken_for_a_silent_redis(stack: Stack) -> None:
    redis, echo = Redis(stack.redis, timeout_s=0.05), script("return ARGV[1]")
    await redis.run(echo, [], ["known"])
    answers = asyncio.gather(*(redis.run(echo, [], [n]) for n in range(20)))
    for _ in range(3):
        await asyncio.sleep(0)
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass
    assert await answers == [b"%d" % n for n in range(20)]
    await redis.close()


async def test_answers_that_come_too_late_reach_nobody_else(stack: Stack) -> None:
    redis, slow = (
        Redis(stack.redis, timeout_s=0.05),
        script(
            "local function now() local t = redis.call('TIME'); return t[1] * 1000 + t[2] / 1000 end "
            "local ends = now() + 200; while now() < ends do end; return 'slow'"
        ),
    )
    echo = script("return ARGV[1]")
    for n in range(3):
        with pytest.raises(RedisUnavailable):
            await redis.run(slow, [])
        answers: list[Value] = []
        while not answers:
            with suppress(RedisUnavailable):
                answers = await asyncio.gather(*(redis.run(echo, [], [f"{n}/{m}"]) for m in range(20)))
        assert answers == [f"{n}/{m}".encode() for m in range(20)]
    await redis.close()


async def test_a_call_that_is_cancelled_takes_its_answer_along(redis: Redis) -> None:
    echo = script("return ARGV[1]")
    calls = [asyncio.create_task(redis.run(echo, [], [n])) for n in range(100)]
    await asyncio.sleep(0)
    for call_ in calls[::3]:
        call_.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [a for n, a in enumerate(answers) if n % 3] == [b"%d" % n for n in range(100) if n % 3]
    assert await redis.run(echo, [], ["after"]) == b"after"


async def test_a_full_redis_is_unavailable_not_an_error_of_the_job(redis: Redis, stack: Stack) -> None:
    port = int(stack.redis.rpartition(":")[2].removesuffix("/0"))
    await ask(port, b"CONFIG SET maxmemory 1\r\n")
    try:
        with pytest.raises(RedisUnavailable):
            await JobRecords(redis, "a", "1").answered(fresh("job"), HOUR_MS, b"x")
    finally:
        await ask(port, b"CONFIG SET maxmemory 512mb\r\n")


# Admission.


async def ask_for(redis: Redis, *rates: Rate) -> Admitted | OverRate:
    decision = await admit(redis, Charge(Limits(rates)))
    assert isinstance(decision, Admitted | OverRate)
    return decision


async def admitted(redis: Redis, *rates: Rate) -> Admitted:
    decision = await ask_for(redis, *rates)
    assert isinstance(decision, Admitted)
    return decision


async def refused(redis: Redis, *rates: Rate) -> OverRate:
    decision = await ask_for(redis, *rates)
    assert isinstance(decision, OverRate)
    return decision


async def pass_ms(redis: Redis, rate: Rate, ms: int) -> None:
    """As if `ms` had passed for this rate: what it knows is one point in time."""
    text = "redis.call('SET', KEYS[1], string.format('%.3f', redis.call('GET', KEYS[1]) - ARGV[1]), 'KEEPTTL')"
    await redis.run(script(text), [rate.key], [ms])


async def test_no_limit_needs_no_asking(redis: Redis) -> None:
    assert await admit(redis) == Admitted()


async def test_as_many_as_the_limit_then_refusal_with_an_honest_retry(redis: Redis) -> None:
    rate = Rate(fresh(), 6)
    assert [(await admitted(redis, rate)).rates[0].remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    await refused(redis, rate)
    retry_ms = (await refused(redis, rate)).wait_ms
    assert 0 < retry_ms <= 10_000
    await pass_ms(redis, rate, retry_ms - 2000)
    await refused(redis, rate)
    await pass_ms(redis, rate, 2000)
    await admitted(redis, rate)
    await refused(redis, rate)


async def test_after_its_reset_the_whole_limit_is_there_again(redis: Redis) -> None:
    rate = Rate(fresh(), 6)
    for _ in range(6):
        await admitted(redis, rate)
    reset_ms = (await refused(redis, rate)).standing.reset_ms
    assert 50_000 <= reset_ms <= 60_000
    await pass_ms(redis, rate, reset_ms)
    for _ in range(6):
        await admitted(redis, rate)
    await refused(redis, rate)


async def test_a_refusal_charges_nobody(redis: Redis) -> None:
    key, team = Rate(fresh("key"), 2), Rate(fresh("team"), 5)
    for _ in range(10):
        await ask_for(redis, team, key)
    assert (await admitted(redis, team)).rates[0].remaining == 2
    assert (await refused(redis, team, key)).standing.rate == key


async def test_the_tightest_rate_is_told(redis: Redis) -> None:
    key, team = Rate(fresh("key"), 20), Rate(fresh("team"), 10)
    tightest = (await admitted(redis, key, team)).tightest("requests")
    assert tightest is not None
    assert (tightest.rate, tightest.remaining) == (team, 9)


async def test_a_rate_that_nobody_uses_is_forgotten(redis: Redis) -> None:
    rate = Rate(fresh(), 6)
    await admitted(redis, rate)
    left = await call(redis, "PTTL", rate.key)
    assert isinstance(left, int)
    assert 0 < left <= 11_000


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    requests=st.lists(st.sets(st.integers(0, 2), min_size=1), max_size=25),
)
async def test_all_or_nothing_over_any_sequence(redis: Redis, limits: list[int], requests: list[set[int]]) -> None:
    levels = [Rate(fresh(), limit) for limit in limits]
    charged: Counter[str] = Counter()
    for request in requests:
        asked = [levels[n] for n in sorted(request) if n < len(levels)]
        if not asked:
            continue
        decision = await ask_for(redis, *asked)
        # A unit comes back after 60 s / 8 at the earliest; the sequence is over long before.
        room = [rate for rate in asked if charged[rate.scope] < rate.limit]
        assert isinstance(decision, Admitted) == (room == asked)
        if isinstance(decision, Admitted):
            charged.update(rate.scope for rate in asked)
            left = {rate.scope: rate.limit - charged[rate.scope] for rate in asked}
            assert {standing.rate.scope: standing.remaining for standing in decision.rates} == left
        else:
            assert charged[decision.standing.rate.scope] == decision.standing.rate.limit
            assert decision.wait_ms > 0


# The record of a job. `A1` is owner A in its first life; `brief` takes a lease that has lapsed at once.
# `lease?q` names the question, `lease+1` says that attempt 1 is over, `end@5` is asked for the copy at offset 5,
# `books@5` by who can tell of calls.

WAYS: dict[str, Sequence[str]] = {
    "the first who asks": ["A1 lease: granted 1"],
    "another while it is leased": ["A1 lease: granted 1", "B1 lease: leased"],
    "the same process while it is leased": ["A1 lease: granted 1", "A1 lease: leased"],
    "the same slot, born again": ["A1 lease: granted 1", "A2 lease: granted 2"],
    "another after the lease has lapsed": ["A1 brief: granted 1", "B1 lease: granted 2", "A1 lease: leased"],
    "a lease that is renewed": ["A1 brief: granted 1", "A1 renew", "B1 lease: leased"],
    "a lease that is given back": ["A1 lease: granted 1", "A1 release", "B1 lease: granted 2"],
    "a lease that somebody else would renew": ["A1 brief: granted 1", "B1 renew", "A2 renew", "B1 lease: granted 2"],
    "a lease that somebody else would give back": ["A1 lease: granted 1", "B1 release", "B1 lease: leased"],
    "a lease that was lost": ["A1 brief: granted 1", "B1 brief: granted 2", "A1 renew", "C1 lease: granted 3"],
    "the same question again": ["A1 lease?q: granted 1", "A1 lease?q: granted 1", "A1 lease?r: leased", "B1 lease?q: leased"],
    "the next attempt": ["A1 lease: granted 1", "A1 lease+1: granted 2", "A1 lease+1: leased", "A1 lease+2: granted 3"],
    "the next attempt of somebody else": ["A1 lease: granted 1", "B1 lease+1: leased", "A2 lease: granted 2"],
    "the next attempt, asked twice": ["A1 lease?q: granted 1", "A1 lease?r+1: granted 2", "A1 lease?r+1: granted 2"],
    "the last attempt": ["A1 brief: granted 1", "A1 brief: granted 2", "A1 brief: granted 3", "B1 lease: exhausted 3"],
    "an end that is told is held": [
        *["A1 brief: granted 1", "A1 brief: granted 2", "A1 brief: granted 3"],
        "B1 lease: exhausted 3",
        "C1 lease: leased",
    ],
    "after tokens went out": ["A1 brief: granted 1", "A1 streamed", "B1 lease: interrupted 1", "C1 lease: leased"],
    "after tokens went out, while it is leased": ["A1 lease: granted 1", "A1 streamed", "B1 lease: leased"],
    "after tokens went out, the slot born again": ["A1 lease: granted 1", "A1 streamed", "A2 lease: interrupted 1"],
    "an answer that was kept": ["A1 lease: granted 1", "A1 answered: yes", "B1 lease: leased", "A2 lease: answered"],
    "an answer, its keeper dead": ["A1 brief: granted 1", "A1 answered: yes", "B1 lease: answered", "C1 lease: leased"],
    "a second answer": ["A1 brief: granted 1", "B1 lease: granted 2", "B1 answered: yes", "A1 answered: no"],
    "an end": ["A1 lease: granted 1", "A1 answered: yes", "A1 done", "B1 lease: done", "A1 lease: done"],
    "an end without an answer": ["A1 done", "B1 lease: done"],
    "nobody waits": ["I1 abandon", "A1 lease: abandoned", "B1 lease: leased"],
    "nobody waits any more, while it is leased": [
        "A1 lease: granted 1",
        "I1 abandon",
        "B1 lease: leased",
        "A2 lease: abandoned 1",
    ],
    "nobody waits, but the answer is there": ["A1 lease: granted 1", "A1 answered: yes", "I1 abandon", "A2 lease: answered"],
    "nobody waits, but the answer comes": ["A1 lease: granted 1", "I1 abandon", "A1 answered: yes", "A2 lease: answered"],
    "nobody waits, but it has ended": ["A1 done", "I1 abandon", "A1 lease: done"],
    "an end is an end": ["A1 done", "A1 answered: no", "B1 streamed", "A1 lease: done"],
    "deliveries are counted": ["A1 seen: 1", "A2 seen: 2", "B1 seen: 3", "A1 done", "A1 seen: 0"],
    "a count is no lease": ["A1 seen: 1", "B1 lease: granted 1"],
    "one copy ends it": ["A1 end@5: granted", "A1 done", "A1 end@5: done"],
    "two copies would end it": ["A1 end@5: granted", "A1 end@6: done", "B1 end@6: done"],
    "the answer to a copy's question was lost": ["A1 end@5: granted", "A1 end@5: again"],
    "the copy comes again after a death": ["A1 end@5: granted", "B1 end@5: again", "B1 end@6: done"],
    "nobody is called for what is ending": ["A1 end@5: granted", "R1 lease: ending", "A1 done", "R1 lease: done"],
    "a copy that was sent on is at work": ["R1 lease: granted 1", "A1 end@5: leased"],
    "a copy that was sent on is answered": ["R1 lease: granted 1", "R1 answered: yes", "A1 end@5: answered"],
    "who is at work ends it": ["R1 lease: granted 1", "R1 end@5: granted", "R1 done", "R1 end@5: done"],
    "who kept the answer ends it": ["R1 lease: granted 1", "R1 answered: yes", "R1 end@5: granted"],
    "who was at work has died": ["R1 brief: granted 1", "A1 end@5: called", "S1 books@5: granted"],
    "a copy that was about to end goes on": ["A1 end@5: granted", "A1 forget@6: no", "A1 forget@5: yes", "R1 lease: granted 1"],
    "a copy that has ended doesn't go on": ["A1 end@5: granted", "A1 done", "A1 forget@5: no"],
    "nobody waits for what ends": ["I1 abandon", "A1 end@5: granted", "B1 end@6: done"],
    "nobody waits for what is at work": ["R1 lease: granted 1", "I1 abandon", "A1 end@5: leased", "R1 end@5: granted"],
    "nobody waits for what is ending": ["A1 end@5: granted", "I1 abandon", "B1 end@6: done", "A1 end@5: again"],
}


@pytest.mark.parametrize("way", WAYS)
async def test_who_may_do_what(redis: Redis, way: str) -> None:
    job_id = fresh("job")
    for step in WAYS[way]:
        asked, _, expected = step.partition(": ")
        assert await do(redis, job_id, asked) == expected, step


async def do(redis: Redis, job_id: str, asked: str) -> str:
    """One step of a way, and its result in words."""
    who, _, what = asked.partition(" ")
    records = JobRecords(redis, who[0], who[1])
    what, *rest = re.split(r"([?+@])", what)
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    match what:
        case "lease" | "brief":
            ms, held = (0 if what == "brief" else 60_000), int(given.get("+", "0"))
            return in_words(await records.lease(job_id, HOUR_MS, lease_ms=ms, attempts=3, ask=given.get("?", ""), held=held))
        case "end" | "books":
            copy, books = f"sluice.router.batch/0@{given['@']}", what == "books"
            return (await records.may_end(job_id, HOUR_MS, copy, books=books)).state
        case "forget":
            return yes_or_no(await records.was_ending(job_id, f"sluice.router.batch/0@{given['@']}", forget=True))
        case "answered":
            return yes_or_no(await records.answered(job_id, HOUR_MS, b"kept"))
        case "seen":
            return str(await records.seen(job_id, HOUR_MS))
        case "renew":
            await records.renew([job_id], 60_000)
        case "release":
            await records.release(job_id)
        case "streamed":
            await records.streamed(job_id)
        case "done":
            await records.done(job_id, HOUR_MS, keep_answer=False)
        case "abandon":
            await records.abandon(job_id, HOUR_MS)
        case _:
            raise ValueError(asked)
    return ""


def in_words(lease: Lease) -> str:
    if lease.state == "leased":
        assert 0 < lease.left_ms <= 60_000
    if lease.state == "answered":
        assert lease.answer == b"kept"
    return f"{lease.state} {lease.n}".removesuffix(" 0")


def yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"


async def test_what_a_dead_life_had_called_is_told(redis: Redis) -> None:
    job_id, a, b = fresh("job"), JobRecords(redis, "A", "1"), JobRecords(redis, "B", "1")
    first = await a.lease(job_id, HOUR_MS, lease_ms=60_000, attempts=2, note="gpt at one")
    assert first.notes == ()
    second = await a.lease(job_id, HOUR_MS, lease_ms=0, attempts=2, held=1, note="gpt at another")
    assert (second.state, second.n, second.notes) == ("granted", 2, ("gpt at one",))
    last = await b.lease(job_id, HOUR_MS, lease_ms=60_000, attempts=2, note="never called")
    assert (last.state, last.n, last.notes) == ("exhausted", 2, ("gpt at one", "gpt at another"))


async def test_of_many_who_ask_at_once_one_is_granted(redis: Redis) -> None:
    job_id = fresh("job")
    asked = (JobRecords(redis, f"o{n}", "1").lease(job_id, HOUR_MS, lease_ms=60_000, attempts=3) for n in range(50))
    assert Counter([lease.state for lease in await asyncio.gather(*asked)]) == {"granted": 1, "leased": 49}


async def test_leases_are_renewed_in_lots(redis: Redis) -> None:
    records, jobs = JobRecords(redis, "A", "1"), [fresh("job") for _ in range(1100)]
    await asyncio.gather(*(records.lease(job, HOUR_MS, lease_ms=0, attempts=3) for job in jobs))
    await records.renew(jobs, 60_000)
    other = JobRecords(redis, "B", "1")
    states = await asyncio.gather(*(other.lease(job, HOUR_MS, lease_ms=0, attempts=3) for job in jobs))
    assert {lease.state for lease in states} == {"leased"}


async def test_a_record_outlives_its_deadline_by_a_minute_and_no_longer(redis: Redis) -> None:
    records = JobRecords(redis, "A", "1")
    for rest_ms in (1000, 0, -5000):
        jobs = [fresh("job") for _ in range(6)]
        await records.lease(jobs[0], rest_ms, lease_ms=10, attempts=3)
        await records.answered(jobs[1], rest_ms, b"x")
        await records.done(jobs[2], rest_ms, keep_answer=False)
        await records.abandon(jobs[3], rest_ms)
        await records.seen(jobs[4], rest_ms)
        await records.may_end(jobs[5], rest_ms, "t/0@0")
        left = [await call(redis, "PTTL", f"job:{job}") for job in jobs]
        assert all(isinstance(ms, int) and 30_000 < ms <= 61_000 for ms in left)


# The exact cache.


async def keep(redis: Redis, answer: bytes, key: str, max_bytes: int, ttl_s: int = 60) -> bool:
    """A job ends whose answer is kept, and the cache takes it in."""
    records, job_id = JobRecords(redis, "A", "1"), fresh("job")
    await records.answered(job_id, HOUR_MS, answer)
    await records.done(job_id, HOUR_MS, keep_answer=True)
    return await fill(redis, job_id, key, ttl_s, max_bytes)


async def test_an_answer_becomes_an_entry_for_its_time(redis: Redis) -> None:
    key = fresh()
    assert await lookup(redis, key) is None
    assert await keep(redis, b"answer", key, 10**9, ttl_s=50)
    assert await lookup(redis, key) == b"answer"
    left = await call(redis, "TTL", f"cache:{key}")
    assert isinstance(left, int)
    assert 45 <= left <= 50


async def test_without_an_answer_there_is_no_entry(redis: Redis) -> None:
    key, job_id = fresh(), fresh("job")
    records = JobRecords(redis, "A", "1")
    await records.answered(job_id, HOUR_MS, b"answer")
    await records.done(job_id, HOUR_MS, keep_answer=False)
    assert not await fill(redis, job_id, key, 60)
    assert await lookup(redis, key) is None


@pytest.mark.parametrize("done", [False, True])
async def test_a_completion_that_comes_twice_fills_once(redis: Redis, done: bool) -> None:
    key, job_id, records = fresh(), fresh("job"), JobRecords(redis, "A", "1")
    await records.answered(job_id, HOUR_MS, b"answer")
    if done:
        await records.done(job_id, HOUR_MS, keep_answer=True)
    assert await fill(redis, job_id, key, 60)
    assert not await fill(redis, job_id, key, 60)
    assert await lookup(redis, key) == b"answer"


@pytest.mark.parametrize("max_bytes", [10**9, 3])
async def test_an_answer_that_may_have_to_be_published_again_stays(redis: Redis, max_bytes: int) -> None:
    job_id, killed, reborn = fresh("job"), JobRecords(redis, "A", "1"), JobRecords(redis, "A", "2")
    await killed.lease(job_id, HOUR_MS, lease_ms=60_000, attempts=3)
    await killed.answered(job_id, HOUR_MS, b"answer")
    await fill(redis, job_id, fresh(), 60, max_bytes)
    assert (await reborn.lease(job_id, HOUR_MS, lease_ms=60_000, attempts=3)).answer == b"answer"
    await reborn.done(job_id, HOUR_MS, keep_answer=True)
    assert await call(redis, "EXISTS", f"answer:{job_id}") == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=30))
async def test_the_cache_never_holds_more_bytes_than_it_may_and_keeps_the_newest(
    redis: Redis, entries: list[tuple[int, int]]
) -> None:
    await call(redis, "FLUSHDB")
    for key, size in entries:
        kept = await keep(redis, bytes([65 + key]) * size, f"k{key}", max_bytes=50)
        assert kept == (size <= 50)
        found = [await lookup(redis, f"k{n}") for n in range(10)]
        assert sum(len(entry) for entry in found if entry) <= 50
        if kept:
            assert found[key] == bytes([65 + key]) * size


# Numbers.


async def test_each_owner_gets_a_number_of_his_own_until_none_is_left(redis: Redis) -> None:
    name = fresh()
    numbers = [await claim(redis, name, 3, f"o{n}", 60_000) for n in range(4)]
    assert numbers == [0, 1, 2, None]


async def test_a_number_is_kept_while_it_is_held_and_free_when_it_lapsed(redis: Redis) -> None:
    name = fresh()
    assert await claim(redis, name, 2, "a", 60_000) == 0
    assert await claim(redis, name, 2, "a", 60_000, held=0) == 0
    assert await claim(redis, name, 2, "b", 60_000, held=0) is None
    await call(redis, "DEL", f"number:{name}:0")
    assert await claim(redis, name, 2, "a", 60_000, held=0) == 0
    await call(redis, "DEL", f"number:{name}:0")
    assert await claim(redis, name, 2, "b", 60_000) == 0
    assert await claim(redis, name, 2, "a", 60_000, held=0) is None


# Quotas of providers. Their shares are seen in tests/unit/infra/redis, where a minute is over at once.


def limited(rpm: int | None = None, tpm: int | None = None) -> Deployment:
    return Deployment(id=fresh("d"), provider="openai", model="real-model", rpm=rpm, tpm=tpm)


@pytest.mark.parametrize(("rpm", "tpm"), [(60, None), (None, 60_000), (60, 600_000), (600, 60_000)])
async def test_of_many_calls_at_once_as_many_are_made_as_the_provider_allows(redis: Redis, rpm: int, tpm: int) -> None:
    deployment = limited(rpm, tpm)
    wishes = [Wish(lane, f"team-{n % 5}", 1 + n % 3, 1_000, 2_000) for n in range(60) for lane in Lane]
    taken = await asyncio.gather(*(take(redis, deployment, wish) for wish in wishes))
    made = sum(not one.wait_ms for one in taken)
    # A minute's worth, but for what is kept for each lane; one comes each second.
    assert 45 <= made <= 63
    assert max(one.full_ms for one in taken) <= 60_000


async def test_a_call_is_charged_what_it_took_and_never_waits_for_ever(redis: Redis) -> None:
    deployment = limited(tpm=60_000)
    wish = Wish(Lane.BATCH, "team", tokens=6_000)
    assert (await take(redis, deployment, wish)).wait_ms == 0
    await correct(redis, deployment, wish, 500)
    used = await take(redis, deployment, Wish(Lane.INTERACTIVE, "team", tokens=500))
    assert used.wait_ms == 0
    assert 0 < used.full_ms <= 1_000
    huge = await take(redis, limited(tpm=60_000), Wish(Lane.INTERACTIVE, "team", tokens=300_000))
    assert huge.wait_ms == 0
    assert 299_000 < huge.full_ms <= 300_000


async def test_who_waits_is_told_one_turn_after_another_and_is_forgotten_in_time(redis: Redis) -> None:
    deployment = limited(rpm=60)
    while not (await take(redis, deployment, Wish(Lane.INTERACTIVE, "first", patience_ms=0))).wait_ms:
        pass
    told = [(await take(redis, deployment, Wish(Lane.INTERACTIVE, "second", patience_ms=30_000))).wait_ms for _ in range(4)]
    assert told == sorted(told)
    assert len(set(told)) == 4
    left = [await call(redis, "PTTL", key) for key in quota_keys(deployment)]
    assert all(isinstance(ms, int) and 0 < ms <= 130_000 for ms in left)


def quota_keys(deployment: Deployment) -> list[str]:
    waiting = f"quota:{deployment.id}:waiting:interactive"
    return [f"quota:{deployment.id}:minute", waiting, f"{waiting}:first", f"{waiting}:second"]


async def test_a_correction_reaches_the_tag_of_a_team_that_is_short(redis: Redis) -> None:
    deployment = limited(tpm=60_000)
    wish = Wish(Lane.INTERACTIVE, "team", tokens=1_000, patience_ms=2_000)
    while not (await take(redis, deployment, wish)).wait_ms:
        pass
    key = f"quota:{deployment.id}:waiting:interactive:team"
    before = await call(redis, "GET", key)
    await correct(redis, deployment, wish, 250)
    after = await call(redis, "GET", key)
    assert isinstance(before, bytes)
    assert isinstance(after, bytes)
    assert float(after.split()[0]) - float(before.split()[0]) == pytest.approx(-750)
    assert after.split()[1:] == before.split()[1:]
