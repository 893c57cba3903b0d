"""Vectors with payload, searched by likeness, for callers on an event loop.

Measured in local mode (one shared core): a write 0.8 ms; a search 8 to 13 us for each point of the collection, nearly
all of it the filter, in Python, under the GIL. Hence the bound on points of a local collection.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from infra.qdrant.store import Hit, Scalar, Store, VectorsUnavailable

# A search of a full local collection takes about 25 ms, half of what a look-up is given.
LOCAL_POINTS = 2_000
SERVER_POINTS = 1_000_000
SERVER_THREADS = 8
MAX_WAITING = 64
MAX_HITS = 100

T = TypeVar("T")


def open_vectors(location: str, *, api_key: str | None = None, max_points: int | None = None) -> "Vectors":
    """Vectors at `location`: the URL of a server (http:// or https://), or the path of a folder, made if missing.

    Opens nothing yet: the first call does that, on a thread, and raises what is wrong. A folder belongs to one
    process at a time. `max_points` bounds each collection: by default 2,000 in a folder, a million on a server.
    """
    if location.startswith(("http://", "https://")):
        return Vectors(Store(location, api_key, max_points or SERVER_POINTS, local=False), SERVER_THREADS)
    # Local mode can't be used by two threads at a time. One thread is its lock.
    return Vectors(Store(location, None, max_points or LOCAL_POINTS, local=True), threads=1)


class Vectors:
    """Collections of points: an id (a UUID as text), a vector, a flat payload.

    Every call works on a thread. It raises VectorsUnavailable when the work fails, when 64 others are waiting or at
    work, and after `close`. Cancelling a caller undoes nothing: a write that has begun is finished.
    """

    def __init__(self, store: Store, threads: int) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="qdrant")
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    async def ensure_collection(self, name: str, dimensions: int, indexed: Sequence[str] = ()) -> None:
        """Makes the collection unless it is there. `indexed`: the payload keys that filters use.

        Raises VectorsUnavailable also for a collection of other dimensions: name collections after their model.
        """
        await self._run(lambda: self._store.ensure(name, dimensions, indexed))

    async def upsert(self, collection: str, id: str, vector: NDArray[np.float32], payload: Mapping[str, Scalar]) -> None:
        """Writes a point over any of the same id. On return it is stored and will be found.

        A collection that is then over its bound loses points of the lowest ids: the oldest, if ids are UUIDv7.
        """
        await self._run(lambda: self._store.upsert(collection, id, vector, payload))

    async def search(self, collection: str, vector: NDArray[np.float32], filter: Mapping[str, str], limit: int) -> list[Hit]:
        """The nearest points by cosine, best first, among those alone whose payload has every value of `filter`.

        The filter is what keeps tenants apart, so an empty one is a ValueError, as is a limit outside 1 to 100.
        """
        if not filter:
            raise ValueError("a search needs a filter: without one it would see every tenant's points")
        if not 1 <= limit <= MAX_HITS:
            raise ValueError(f"limit must be 1 to {MAX_HITS}, not {limit}")
        return await self._run(lambda: self._store.search(collection, vector, filter, limit))

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Removes points; ids that aren't there are passed over."""
        await self._run(lambda: self._store.delete(collection, ids))

    async def delete_matching(self, collection: str, filter: Mapping[str, str]) -> None:
        """Removes every point whose payload has every value of `filter`; an empty one is a ValueError."""
        if not filter:
            raise ValueError("an empty filter would remove every tenant's points")
        await self._run(lambda: self._store.delete_matching(collection, filter))

    async def close(self) -> None:
        """Finishes what is under way and closes the files. May be called twice, and without any use before."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._store.close)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise VectorsUnavailable(f"{MAX_WAITING} calls are under way already")
        try:
            running = self._pool.submit(work)
        except RuntimeError as error:
            self._places.release()
            raise VectorsUnavailable("closed") from error
        # With the work, not with the caller: a cancelled caller's work still has its place until it ends.
        running.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(running)
