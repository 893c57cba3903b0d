"""What happens once, against a real Redis."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest

from infra.embedded.stack import Stack
from infra.redis.client import Redis
from infra.redis.once import Once
from tests.system import until


@pytest.fixture(scope="module")
async def once(stack: Stack) -> AsyncGenerator[Once]:
    redis = Redis(stack.redis, timeout_s=5)
    yield Once(redis)
    await redis.close()


@pytest.fixture
def name() -> str:
    return f"test:{secrets.token_hex(8)}"


async def test_of_those_who_begin_at_once_one_does(once: Once, name: str) -> None:
    said = await asyncio.gather(*(once.begin(name, 60_000) for _ in range(20)))
    assert sorted(said) == ["", *["begun"] * 19]


async def test_what_is_done_stays_so_and_what_came_to_nothing_begins_again(once: Once, name: str) -> None:
    await once.begin(name, 60_000)
    await once.done(name, 60_000)
    assert await once.begin(name, 60_000) == "done"
    await once.forget(name)
    assert await once.begin(name, 60_000) == ""


async def test_who_began_and_died_is_not_waited_for(once: Once, name: str) -> None:
    assert await once.begin(name, 50) == ""

    async def begins() -> bool:
        return await once.begin(name, 60_000) == ""

    assert await until(begins)
