"""What is kept of responses, on a real Redis and in real files."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from infra.embedded.stack import Stack
from infra.files import FileStore
from infra.redis.client import Redis
from infra.redis.conversations import Conversations
from infra.redis.tickets import INLINE_BYTES
from schemas.openai.responses import KeptResponse

LIFE_MS = 60_000


@pytest.fixture
async def conversations(stack: Stack, tmp_path: Path) -> AsyncGenerator[Conversations]:
    redis = Redis(stack.redis, 1)
    yield Conversations(redis, FileStore(tmp_path))
    await redis.close()


def job() -> str:
    return f"job_{uuid.uuid4().hex}"


def kept(text: str) -> KeptResponse:
    return KeptResponse(told={"model": "small"}, items=({"id": "msg_1", "content": text},))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def save(conversations: Conversations, job_id: str, what: KeptResponse, life_ms: int = LIFE_MS) -> None:
    await conversations.save(job_id, what.model_dump_json().encode(), life_ms)


@pytest.mark.parametrize("length", [10, INLINE_BYTES + 1])
async def test_what_is_kept_is_found_until_it_is_deleted_and_no_file_is_left(
    conversations: Conversations, tmp_path: Path, length: int
) -> None:
    job_id = job()
    await save(conversations, job_id, kept("x" * length))
    assert await conversations.find(job_id) == kept("x" * length)
    assert len(files(tmp_path)) == (length > INLINE_BYTES)
    await conversations.delete(job_id, "team")
    assert await conversations.find(job_id) is None
    assert files(tmp_path) == []
    await conversations.delete(job_id, "team")


@pytest.mark.parametrize("length", [10, INLINE_BYTES + 1])
async def test_a_repeated_request_changes_nothing_and_leaves_no_second_file(
    conversations: Conversations, tmp_path: Path, length: int
) -> None:
    job_id = job()
    await save(conversations, job_id, kept("x" * length))
    await save(conversations, job_id, kept("y" * length))
    assert await conversations.find(job_id) == kept("x" * length)
    assert len(files(tmp_path)) == (length > INLINE_BYTES)


async def test_what_nobody_kept_or_whose_file_is_gone_is_not_found(conversations: Conversations, tmp_path: Path) -> None:
    assert await conversations.find(job()) is None
    job_id = job()
    await save(conversations, job_id, kept("x" * INLINE_BYTES))
    for path in files(tmp_path):
        path.unlink()
    assert await conversations.find(job_id) is None
