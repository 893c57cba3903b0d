"""Files of teams in a folder: nobody sees another team's, and what has expired is gone."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from infra.objects import ObjectStore
from schemas.ids import uuid7_hex
from services.ingress.batches import policy
from services.ingress.batches.files import DEFAULT_LIFE_S, Files
from tests.fakes.clock import FakeClock
from tests.fakes.jobs import NOW_MS
from tests.unit.services.ingress.batches.examples import an_order


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path))


@pytest.fixture
def files(store: ObjectStore, clock: FakeClock) -> Files:
    return Files(store, clock)


def file_id(n: int) -> str:
    return f"file_{uuid7_hex(NOW_MS + n, 1)}"


async def content(*parts: bytes) -> AsyncGenerator[bytes]:
    for part in parts:
        yield part


async def test_of_another_team_there_is_no_file(files: Files) -> None:
    await files.upload("fraud", file_id(1), "a", content(b"1", b"2"), None)
    found = await files.find("fraud", file_id(1))
    assert found is not None
    assert (found.bytes, found.expires_at) == (2, NOW_MS // 1000 + DEFAULT_LIFE_S)
    assert await files.find("search", file_id(1)) is None
    assert (await files.page("search", "", 10, None, oldest_first=True))[0] == []


@pytest.mark.parametrize("guess", ["../fraud/x", "file_x", "", f"../fraud/{file_id(1)}", f"{file_id(1)}.json"])
async def test_a_guessed_id_leads_nowhere(files: Files, guess: str) -> None:
    await files.upload("fraud", file_id(1), "a", content(b"1"), None)
    assert await files.find("search", guess) is None
    assert await files.remembered("search", guess) is None


async def test_an_upload_that_breaks_off_leaves_no_file(files: Files, store: ObjectStore) -> None:
    async def broken() -> AsyncGenerator[bytes]:
        yield b"1"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await files.upload("fraud", file_id(1), "a", broken(), None)
    assert await files.find("fraud", file_id(1)) is None
    assert await store.names("files") == []


async def test_an_expired_file_is_not_shown_and_then_swept(files: Files, store: ObjectStore, clock: FakeClock) -> None:
    await files.upload("fraud", file_id(1), "a", content(b"1"), 3600)
    await files.upload("fraud", file_id(2), "b", content(b"2"), 7200)
    assert await files.sweep() == 0
    clock.move(3_600_000)
    assert await files.find("fraud", file_id(1)) is None
    assert [f.id for f in (await files.page("fraud", "", 10, None, oldest_first=True))[0]] == [file_id(2)]
    assert await files.sweep() == 1
    assert sorted(await store.names("files")) == [f"files/fraud/{file_id(2)}", f"files/fraud/{file_id(2)}.json"]
    assert len(await store.names("expiring")) == 1
    assert await files.sweep() == 0


async def test_pages_follow_one_another_without_gap_or_repetition(files: Files) -> None:
    for n in range(5):
        await files.upload("fraud", file_id(n), "a", content(b"1"), None)
    for oldest_first in (True, False):
        found, after, more = list[str](), "", True
        while more:
            page, more = await files.page("fraud", after, 2, "batch", oldest_first=oldest_first)
            found += [file.id for file in page]
            after = found[-1]
        assert found == sorted((file_id(n) for n in range(5)), reverse=not oldest_first)
    assert await files.page("fraud", "", 2, "batch_output", oldest_first=True) == ([], False)


async def test_the_end_of_a_batch_outlives_redis_for_its_team_alone(files: Files, clock: FakeClock) -> None:
    batch = policy.ended(policy.asked(an_order()), None, 5, "file_o", None)
    await files.remember("fraud", batch)
    assert await files.remembered("fraud", batch.id) == batch
    assert await files.remembered("search", batch.id) is None
    clock.move(DEFAULT_LIFE_S * 1000)
    await files.sweep()
    assert await files.remembered("fraud", batch.id) is None
