"""Views of batches in the real Redis."""

import uuid
from collections.abc import AsyncGenerator

import pytest

from infra.embedded.stack import Stack
from infra.redis.batches import Batches
from infra.redis.client import Redis
from schemas.openai.batches import Batch, BatchStatus

CREATED_MS = 1_800_000_000_000


@pytest.fixture
async def redis(stack: Stack) -> AsyncGenerator[Redis]:
    redis = Redis(stack.redis, timeout_s=2)
    yield redis
    await redis.close()


@pytest.fixture
def views(redis: Redis) -> Batches:
    return Batches(redis)


@pytest.fixture
def team() -> str:
    return uuid.uuid4().hex


def a_batch(status: BatchStatus = "validating") -> Batch:
    return Batch(
        id=f"batch_{uuid.uuid4().hex}",
        endpoint="/v1/chat/completions",
        input_file_id="file_1",
        completion_window="24h",
        status=status,
        created_at=CREATED_MS // 1000,
    )


def then(batch: Batch, status: BatchStatus) -> Batch:
    return batch.model_copy(update={"status": status})


async def test_the_first_view_never_hides_what_the_runner_told(views: Batches, team: str) -> None:
    batch = a_batch()
    await views.save(then(batch, "in_progress"), team, CREATED_MS)
    await views.create(batch, team, CREATED_MS)
    seen = await views.find(batch.id, team)
    assert seen is not None
    assert seen.batch.status == "in_progress"


async def test_what_is_over_stays_as_it_is(views: Batches, team: str) -> None:
    batch = a_batch()
    await views.save(then(batch, "completed"), team, CREATED_MS)
    await views.save(then(batch, "in_progress"), team, CREATED_MS)
    seen = await views.find(batch.id, team, cancel_ms=5)
    assert seen is not None
    assert (seen.batch.status, seen.cancel_ms) == ("completed", 0)


async def test_the_runner_hears_of_the_first_wish_to_cancel(views: Batches, team: str) -> None:
    batch = a_batch()
    await views.create(batch, team, CREATED_MS)
    assert await views.save(batch, team, CREATED_MS) == 0
    seen = await views.find(batch.id, team, cancel_ms=CREATED_MS + 5)
    assert seen is not None
    assert seen.cancel_ms == CREATED_MS + 5
    again = await views.find(batch.id, team, cancel_ms=CREATED_MS + 9)
    assert again is not None
    assert again.cancel_ms == CREATED_MS + 5
    assert await views.save(batch, team, CREATED_MS) == CREATED_MS + 5


async def test_another_team_neither_sees_nor_cancels_a_batch(views: Batches, team: str) -> None:
    batch = a_batch()
    await views.create(batch, team, CREATED_MS)
    assert await views.find(batch.id, "others", cancel_ms=5) is None
    assert await views.page("others", "", 10) == []
    assert await views.save(batch, team, CREATED_MS) == 0


async def test_pages_follow_one_another_the_youngest_first(views: Batches, team: str) -> None:
    batches = [a_batch() for _ in range(5)]
    for n, batch in enumerate(batches):
        await views.create(batch, team, CREATED_MS + n)
    found, after = list[str](), ""
    while page := await views.page(team, after, 2):
        found += [seen.batch.id for seen in page]
        after = found[-1]
    assert found == [batch.id for batch in reversed(batches)]
    assert await views.page(team, "batch_unknown", 2) == []
