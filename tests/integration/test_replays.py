"""Notes on replayed letters, and the list of all teams' jobs, against a real Redis."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest

from infra.clock import new_id
from infra.embedded.stack import Stack
from infra.redis.admission import Keeping, admit
from infra.redis.client import Redis
from infra.redis.listing import list_key, older_jobs
from infra.redis.replays import Replays

BORN_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
async def redis(stack: Stack) -> AsyncGenerator[Redis]:
    redis = Redis(stack.redis, timeout_s=5)
    yield redis
    await redis.close()


def fresh() -> str:
    return f"0@{secrets.randbits(50)}"


async def test_of_those_who_replay_a_letter_at_once_one_does(redis: Redis) -> None:
    replays, letter = Replays(redis), fresh()
    said = await asyncio.gather(*(replays.begin(letter, f"job_{n}", again=False) for n in range(20)))
    assert said.count("") == 1
    winner = f"job_{said.index('')}"
    assert {answer for answer in said if answer} == {winner}
    assert await replays.became([letter, fresh()]) == [winner, ""]


async def test_what_was_replayed_is_replayed_again_only_by_force(redis: Redis) -> None:
    replays, letter = Replays(redis), fresh()
    assert await replays.begin(letter, "job_1", again=False) == ""
    assert await replays.begin(letter, "job_2", again=False) == "job_1"
    assert await replays.begin(letter, "job_3", again=True) == ""
    assert await replays.became([letter]) == ["job_3"]


async def test_what_came_to_nothing_may_be_tried_again(redis: Redis) -> None:
    replays, letter = Replays(redis), fresh()
    await replays.begin(letter, "job_1", again=False)
    await replays.forget(letter)
    assert await replays.begin(letter, "job_2", again=False) == ""
    assert await replays.became([]) == []


async def test_jobs_of_many_teams_are_one_list_by_age(redis: Redis) -> None:
    teams = [f"team-{secrets.token_hex(4)}" for _ in range(3)]
    made: list[str] = []
    for n in range(250):
        # Some within the same millisecond.
        job_id, team = new_id("job", BORN_MS + n // 2), teams[n % 3]
        made.append(job_id)
        await admit(redis, keeping=Keeping(job_id, BORN_MS + n // 2, ticket=b"{}", ticket_ms=60_000, list_key=list_key(team)))
    youngest_first = sorted(made, reverse=True)
    assert await older_jobs(redis, teams, "", 1000) == youngest_first
    seen: list[str] = []
    while page := await older_jobs(redis, teams, seen[-1] if seen else "", 30):
        seen += page
    assert seen == youngest_first, "no job twice, none left out, wherever a page ends"
    assert await older_jobs(redis, [], "", 10) == []


async def test_a_page_can_only_begin_after_a_job(redis: Redis) -> None:
    with pytest.raises(ValueError):
        await older_jobs(redis, ["team"], "x", 10)
