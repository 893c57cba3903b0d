"""The object store on a folder, and on another file system of fsspec's, as S3 is one."""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from infra.objects import ObjectStore


@pytest.fixture(params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/prefix")


async def parts(*given: bytes) -> AsyncGenerator[bytes]:
    for part in given:
        yield part


async def test_what_is_put_in_chunks_comes_back_in_chunks(store: ObjectStore) -> None:
    big = b"0123456789" * 100_000
    assert await store.put_chunks("files/a/1", parts(big, big)) == 2 * len(big)
    chunks = [chunk async for chunk in store.chunks("files/a/1")]
    assert b"".join(chunks) == big + big
    assert len(chunks) > 1


async def test_small_objects_are_replaced_listed_and_deleted(store: ObjectStore) -> None:
    await store.put("files/a/1.json", b"1")
    await store.put("files/a/1.json", b"22")
    await store.put("files/b/1.json", b"")
    assert await store.get("files/a/1.json") == b"22"
    assert sorted(await store.names("files")) == ["files/a/1.json", "files/b/1.json"]
    assert await store.names("files/a") == ["files/a/1.json"]
    await store.delete("files/a/1.json")
    await store.delete("files/a/1.json")
    assert await store.names("files/a") == []


async def test_what_isnt_there_is_told_as_such(store: ObjectStore, tmp_path: Path) -> None:
    assert await store.names("nowhere") == []
    with pytest.raises(FileNotFoundError):
        await store.get("nowhere/1")
    with pytest.raises(FileNotFoundError):
        await store.download("nowhere/1", tmp_path / "1")
    with pytest.raises(FileNotFoundError):
        _ = [chunk async for chunk in store.chunks("nowhere/1")]


async def test_local_files_go_up_and_come_down(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * 600_000)
    assert await store.upload("files/a/1", tmp_path / "up") == 600_000
    await store.download("files/a/1", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"x" * 600_000


async def test_what_breaks_off_or_is_cancelled_is_not_there(tmp_path: Path) -> None:
    store, begun = ObjectStore(str(tmp_path)), asyncio.Event()

    async def broken() -> AsyncGenerator[bytes]:
        yield b"1"
        raise ConnectionError("gone")

    async def endless() -> AsyncGenerator[bytes]:
        yield b"1"
        begun.set()
        await asyncio.sleep(60)

    with pytest.raises(ConnectionError):
        await store.put_chunks("files/a/1", broken())
    task = asyncio.create_task(store.put_chunks("files/a/2", endless()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == []


async def test_a_replacement_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    await store.put("files/a/1", b"whole")

    async def broken() -> AsyncGenerator[bytes]:
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await store.put_chunks("files/a/1", broken())
    assert await store.get("files/a/1") == b"whole"


@pytest.mark.parametrize(("url", "why"), [("s3://bucket/prefix", "s3fs"), ("nothing://x", "nothing")])
def test_a_store_that_cant_be_used_says_what_is_missing(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"SLUICE_OBJECTS.*{why}"):
        ObjectStore(url)
