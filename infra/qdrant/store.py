"""The one module that speaks to Qdrant, by its blocking client: a server, or qdrant-client's local mode on a folder."""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import Filter

SERVER_TIMEOUT_S = 2
# Locally each removal is a transaction of its own; a few at a time leave the thread free for searches.
EVICT_AT_ONCE = 16

Scalar: TypeAlias = str | int | float | bool


class VectorsUnavailable(Exception):
    """Qdrant refused, failed, is busy or closed. For a cache that is a miss."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that was found: its id as a UUID with dashes, the cosine to what was sought, what was kept with it."""

    id: str
    score: float
    payload: Mapping[str, Scalar]


class Store:
    """The blocking half. Opens at first use; all that goes wrong is VectorsUnavailable.

    A local store must be used by one thread at a time; a server's by any number.
    """

    def __init__(self, location: str, api_key: str | None, max_points: int, *, local: bool) -> None:
        self._location = location
        self._api_key = api_key
        self._max_points = max_points
        self._local = local
        self._opening = threading.Lock()
        self._client: QdrantClient | None = None
        self._removed = 0

    def ensure(self, name: str, dimensions: int, indexed: Sequence[str]) -> None:
        from qdrant_client.models import PayloadSchemaType

        with self._opened() as client:
            if client.collection_exists(name):
                _check_dimensions(client, name, dimensions)
            else:
                _create(client, name, dimensions)
            # Local mode has no payload indexes.
            for key in () if self._local else indexed:
                client.create_payload_index(name, key, PayloadSchemaType.KEYWORD)

    def upsert(self, collection: str, id: str, vector: NDArray[np.float32], payload: Mapping[str, Scalar]) -> None:
        from qdrant_client.models import PointStruct

        with self._opened() as client:
            client.upsert(collection, [PointStruct(id=id, vector=vector.tolist(), payload=dict(payload))])
            if client.count(collection, exact=self._local).count > self._max_points:
                oldest, _ = client.scroll(collection, limit=EVICT_AT_ONCE, with_payload=False)
                self._remove(client, collection, [str(point.id) for point in oldest])

    def search(self, collection: str, vector: NDArray[np.float32], filter: Mapping[str, str], limit: int) -> list[Hit]:
        with self._opened() as client:
            found = client.query_points(collection, vector.tolist(), query_filter=_all_of(filter), limit=limit, with_payload=True)
            return [Hit(str(point.id), point.score, point.payload or {}) for point in found.points]

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        with self._opened() as client:
            self._remove(client, collection, ids)

    def delete_matching(self, collection: str, filter: Mapping[str, str]) -> None:
        from qdrant_client.models import FilterSelector

        with self._opened() as client:
            matching = _all_of(filter)
            self._removed += client.count(collection, count_filter=matching, exact=self._local).count
            client.delete(collection, FilterSelector(filter=matching))
            self._compact(client)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _remove(self, client: "QdrantClient", collection: str, ids: Sequence[str]) -> None:
        from qdrant_client.models import PointIdsList

        client.delete(collection, PointIdsList(points=list(ids)))
        self._removed += len(ids)
        self._compact(client)

    def _compact(self, client: "QdrantClient") -> None:
        """Local mode keeps removed points in memory, and searches through them, until it is opened again."""
        if self._local and self._removed >= self._max_points:
            client.close()
            self._client = None
            self._removed = 0

    @contextmanager
    def _opened(self) -> "Generator[QdrantClient]":
        """The client, opened if need be. Its errors have no common base (HTTP, SQLite, ValueError, RuntimeError)."""
        try:
            with self._opening:
                self._client = self._client or self._open()
                client = self._client
            yield client
        except VectorsUnavailable:
            raise
        except Exception as error:
            raise VectorsUnavailable(f"{type(error).__name__}: {error}") from error

    def _open(self) -> "QdrantClient":
        # Here, because the import takes a second and 100 MB, and only a semantic cache needs it.
        from qdrant_client import QdrantClient

        if self._local:
            return QdrantClient(path=self._location)
        return QdrantClient(url=self._location, api_key=self._api_key, timeout=SERVER_TIMEOUT_S, check_compatibility=False)


def _create(client: "QdrantClient", name: str, dimensions: int) -> None:
    from qdrant_client.models import Distance, VectorParams

    try:
        client.create_collection(name, VectorParams(size=dimensions, distance=Distance.COSINE))
    except Exception:
        # Another process was first.
        if not client.collection_exists(name):
            raise
        _check_dimensions(client, name, dimensions)


def _check_dimensions(client: "QdrantClient", name: str, dimensions: int) -> None:
    from qdrant_client.models import VectorParams

    found = client.get_collection(name).config.params.vectors
    if not isinstance(found, VectorParams) or found.size != dimensions:
        raise VectorsUnavailable(f"collection {name} is not of {dimensions} dimensions")


def _all_of(values: Mapping[str, str]) -> "Filter":
    from qdrant_client.models import FieldCondition, Filter, MatchValue

    return Filter(must=[FieldCondition(key=key, match=MatchValue(value=values[key])) for key in values])
