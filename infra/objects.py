"""The object store: files of any length under names with slashes, in a folder or wherever fsspec reaches (S3, GCS, Azure…).

Each call runs in a thread of its own pool and moves chunks, so that memory doesn't grow with the file. What is written appears
whole or not at all.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import fsspec.core  # pyright: ignore[reportMissingTypeStubs]

CHUNK_BYTES = 256 * 1024
_THREADS = 16
_SUFFIX = ".part"

P = ParamSpec("P")
T = TypeVar("T")


class ObjectsUnavailable(Exception):
    """The store did not do what was asked. It may have happened or not."""


class ObjectStore:
    """Objects below one URL. Names are ours: letters, digits, `._-` and slashes.

    A method raises FileNotFoundError where nothing lies under the name, and ObjectsUnavailable for whatever else goes wrong.
    """

    def __init__(self, url: str) -> None:
        """`url`: a folder, or what fsspec takes, such as s3://bucket/prefix. Raises ValueError if its package is missing."""
        self._local = "://" not in url or url.startswith(("file://", "local://"))
        self._fs, self._root = _opened(url)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="objects")

    async def put(self, name: str, data: bytes) -> None:
        """Keeps a small object."""
        await self._run(self._put, name, data)

    async def put_chunks(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Keeps what comes, as it comes; gives the number of bytes. If `chunks` raises, nothing is kept."""
        written = self._writing(name)
        handle, size = await self._run(written.__enter__), 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                await self._run(handle.write, chunk)
        except BaseException as error:
            await asyncio.shield(self._run(_leave, written, error))
            raise
        await self._run(_leave, written, None)
        return size

    async def upload(self, name: str, path: Path) -> int:
        """Keeps a local file; gives the number of its bytes."""
        return await self._run(self._upload, name, path)

    async def download(self, name: str, path: Path) -> None:
        """Copies an object into a local file."""
        await self._run(self._download, name, path)

    async def get(self, name: str) -> bytes:
        """A small object."""
        return await self._run(self._get, name)

    async def chunks(self, name: str) -> AsyncGenerator[bytes]:
        """An object, chunk by chunk."""
        handle = await self._run(self._open, name)
        try:
            while chunk := await self._run(handle.read, CHUNK_BYTES):
                yield cast("bytes", chunk)
        finally:
            await asyncio.shield(self._run(handle.close))

    async def delete(self, name: str) -> None:
        """Removes an object; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError):
            await self._run(self._fs.rm_file, self._path(name))

    async def names(self, folder: str) -> list[str]:
        """The names of all objects below a folder, in no order."""
        return await self._run(self._names, folder)

    async def folders(self, folder: str) -> list[str]:
        """The names of the folders right below a folder."""
        return await self._run(self._folders, folder)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ObjectsUnavailable(f"{type(error).__name__}: {error}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _writing(self, name: str) -> Generator[Any]:
        """What is written between comes to lie under `name` when the block ends well."""
        path = self._path(name)
        if not self._local:
            with _remote(self._fs, path) as handle:
                yield handle
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}{_SUFFIX}")
        try:
            with partial.open("wb") as handle:
                yield handle
                handle.flush()
                # Once it is acknowledged, a power cut may not take it.
                os.fsync(handle.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        with self._writing(name) as handle:
            handle.write(data)

    def _upload(self, name: str, path: Path) -> int:
        with path.open("rb") as file, self._writing(name) as handle:
            shutil.copyfileobj(file, handle, CHUNK_BYTES)
            return file.tell()

    def _download(self, name: str, path: Path) -> None:
        with self._open(name) as handle, path.open("wb") as file:
            shutil.copyfileobj(handle, file, CHUNK_BYTES)

    def _open(self, name: str) -> Any:
        return self._fs.open(self._path(name), "rb")

    def _get(self, name: str) -> bytes:
        with self._open(name) as handle:
            return cast("bytes", handle.read())

    def _names(self, folder: str) -> list[str]:
        below = f"{self._root}/"
        found = cast("list[str]", self._fs.find(self._path(folder)))
        return [path.removeprefix(below) for path in found if not path.endswith(_SUFFIX)]

    def _folders(self, folder: str) -> list[str]:
        try:
            found = cast("list[dict[str, str]]", self._fs.ls(self._path(folder), detail=True))
        except FileNotFoundError:
            return []
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory"]


def _opened(url: str) -> tuple[Any, str]:
    try:
        # Listings that are remembered would hide what other processes have written.
        fs, root = cast("tuple[Any, str]", fsspec.core.url_to_fs(url, use_listings_cache=False))  # pyright: ignore[reportUnknownMemberType]
    except (ImportError, ValueError) as error:
        scheme = url.partition("://")[0]
        raise ValueError(f"SLUICE_OBJECTS: {scheme}:// can't be used: {error}") from error
    return fs, root.rstrip("/")


@contextlib.contextmanager
def _remote(fs: Any, path: str) -> Generator[Any]:
    """An upload that is completed at the end, or broken off."""
    handle = fs.open(path, "wb", autocommit=False)
    try:
        yield handle
        handle.close()
        handle.commit()
    except BaseException:
        with contextlib.suppress(Exception):
            handle.discard()
        raise


def _leave(written: "contextlib.AbstractContextManager[Any]", error: BaseException | None) -> None:
    if error is None:
        written.__exit__(None, None, None)
        return
    with contextlib.suppress(type(error)):
        written.__exit__(type(error), error, error.__traceback__)
