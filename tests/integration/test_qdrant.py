"""Vectors in qdrant-client's local mode; what a server must be told is read off the wire."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from infra.qdrant.client import MAX_WAITING, Hit, Vectors, VectorsUnavailable, open_vectors
from schemas.ids import uuid7_hex

NAME = "answers-minilm"
DIMENSIONS = 8
ACME = {"team": "acme"}
ZEUS = {"team": "zeus"}


def point(axis: int, lean: float = 0.0) -> NDArray[np.float32]:
    """Along one axis, leaning to the next."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[axis], vector[(axis + 1) % DIMENSIONS] = 1, lean
    return vector


def ids(count: int) -> list[str]:
    return [uuid7_hex(1_700_000_000_000 + n, n) for n in range(count)]


def canonical(id: str) -> str:
    return f"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"


@pytest_asyncio.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[Vectors]:
    opened = open_vectors(str(tmp_path / "qdrant"))
    await opened.ensure_collection(NAME, DIMENSIONS, indexed=["team"])
    yield opened
    await opened.close()


async def test_the_nearest_come_first_with_cosine_and_payload(vectors: Vectors) -> None:
    near, far, other = ids(3)
    await vectors.upsert(NAME, near, point(0, lean=0.5), ACME | {"answer": "job_1", "tokens": 12})
    await vectors.upsert(NAME, far, point(1), ACME | {"answer": "job_2", "tokens": 34})
    await vectors.upsert(NAME, other, point(4), ACME)
    hits = await vectors.search(NAME, point(0, lean=0.2), ACME, limit=2)
    assert [hit.id for hit in hits] == [canonical(near), canonical(far)]
    assert hits[0].score == pytest.approx(1.1 / np.sqrt(1.25 * 1.04), abs=1e-6)
    assert hits[0].payload == {"team": "acme", "answer": "job_1", "tokens": 12}


async def test_one_tenant_never_sees_anothers(vectors: Vectors) -> None:
    for n, id in enumerate(ids(20)):
        await vectors.upsert(NAME, id, point(0), {"team": "zeus" if n else "acme", "model": "small"})
    assert len(await vectors.search(NAME, point(0), ACME, limit=20)) == 1
    assert len(await vectors.search(NAME, point(0), ZEUS, limit=20)) == 19
    assert not await vectors.search(NAME, point(0), ACME | {"model": "large"}, limit=20)
    assert not await vectors.search(NAME, point(0), {"tenant": "acme"}, limit=20)


async def test_a_search_over_all_tenants_is_refused(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match="filter"):
        await vectors.search(NAME, point(0), {}, limit=1)
    with pytest.raises(ValueError, match="filter"):
        await vectors.delete_matching(NAME, {})
    for limit in (0, 101):
        with pytest.raises(ValueError, match="limit"):
            await vectors.search(NAME, point(0), ACME, limit)


async def test_the_same_id_is_written_over(vectors: Vectors) -> None:
    (id,) = ids(1)
    await vectors.upsert(NAME, id, point(0), ACME | {"answer": "first"})
    await vectors.upsert(NAME, id, point(1), ACME | {"answer": "second"})
    (hit,) = await vectors.search(NAME, point(1), ACME, limit=5)
    assert (hit.payload["answer"], hit.score) == ("second", pytest.approx(1))


async def test_deleting_by_id_and_by_tenant(vectors: Vectors) -> None:
    first, second, third = ids(3)
    await vectors.upsert(NAME, first, point(0), ACME)
    await vectors.upsert(NAME, second, point(0), ACME)
    await vectors.upsert(NAME, third, point(0), ZEUS)
    await vectors.delete(NAME, [first, *ids(5)[3:]])
    assert [hit.id for hit in await vectors.search(NAME, point(0), ACME, limit=5)] == [canonical(second)]
    await vectors.delete_matching(NAME, ACME)
    assert not await vectors.search(NAME, point(0), ACME, limit=5)
    assert len(await vectors.search(NAME, point(0), ZEUS, limit=5)) == 1


async def test_points_are_there_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        opened = open_vectors(str(tmp_path))
        await opened.ensure_collection(NAME, DIMENSIONS)
        await opened.upsert(NAME, ids(1)[0], point(0), ACME)
        await opened.close()
    reopened = open_vectors(str(tmp_path))
    assert len(await reopened.search(NAME, point(0), ACME, limit=5)) == 1
    await reopened.close()


async def test_a_full_collection_loses_its_oldest(tmp_path: Path) -> None:
    bounded = open_vectors(str(tmp_path), max_points=40)
    await bounded.ensure_collection(NAME, DIMENSIONS)
    written = ids(120)
    for id in written:
        await bounded.upsert(NAME, id, point(0), ACME)
    left = {hit.id for hit in await bounded.search(NAME, point(0), ACME, limit=100)}
    assert 24 <= len(left) <= 40
    assert left == {canonical(id) for id in written[-len(left) :]}
    await bounded.close()


async def test_a_folder_belongs_to_one_process(tmp_path: Path, vectors: Vectors) -> None:
    second = open_vectors(str(tmp_path / "qdrant"))
    with pytest.raises(VectorsUnavailable, match="already accessed"):
        await second.ensure_collection(NAME, DIMENSIONS)
    await vectors.close()
    await second.ensure_collection(NAME, DIMENSIONS)
    await second.close()


async def test_other_dimensions_are_refused(vectors: Vectors) -> None:
    with pytest.raises(VectorsUnavailable, match="dimensions"):
        await vectors.ensure_collection(NAME, DIMENSIONS + 1)
    with pytest.raises(VectorsUnavailable):
        await vectors.upsert(NAME, ids(1)[0], np.ones(DIMENSIONS + 1, np.float32), ACME)


async def test_what_is_not_there_is_unavailable(vectors: Vectors) -> None:
    with pytest.raises(VectorsUnavailable, match="elsewhere"):
        await vectors.search("elsewhere", point(0), ACME, limit=1)
    with pytest.raises(VectorsUnavailable):
        await vectors.upsert(NAME, "not a UUID", point(0), ACME)


async def test_after_close_and_without_use(tmp_path: Path) -> None:
    unused = open_vectors(str(tmp_path))
    await unused.close()
    await unused.close()
    with pytest.raises(VectorsUnavailable, match="closed"):
        await unused.search(NAME, point(0), ACME, limit=1)


async def test_only_so_many_wait(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    store, may_go = vectors._store, threading.Event()  # pyright: ignore[reportPrivateUsage]
    search = store.search

    def held(*asked: Any) -> list[Hit]:
        assert may_go.wait(60)
        return search(*asked)

    monkeypatch.setattr(store, "search", held)
    calls = [asyncio.create_task(vectors.search(NAME, point(0), ACME, limit=1)) for _ in range(MAX_WAITING + 5)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    may_go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, VectorsUnavailable)]
    assert len(refused) == 5
    assert all(result == [] for result in results if result not in refused)
    assert await vectors.search(NAME, point(0), ACME, limit=1) == []


async def test_cancelled_callers_give_their_places_back(vectors: Vectors) -> None:
    calls = [asyncio.create_task(vectors.search(NAME, point(0), ACME, limit=1)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    again = await asyncio.gather(*(vectors.search(NAME, point(0), ACME, limit=1) for _ in range(MAX_WAITING - 1)))
    assert again == [[]] * (MAX_WAITING - 1)


async def test_no_server() -> None:
    absent = open_vectors("http://127.0.0.1:9")
    with pytest.raises(VectorsUnavailable):
        await absent.ensure_collection(NAME, DIMENSIONS)
    await absent.close()


ANSWERS = {
    "exists": '{"exists": false}',
    "index": '{"operation_id": 1, "status": "completed"}',
    "query": '{"points": []}',
}


@dataclass
class Wire:
    """A server that says yes to everything, and remembers what it was told."""

    url: str = ""
    told: list[tuple[str, str, dict[str, object]]] = field(default_factory=list[tuple[str, str, dict[str, object]]])
    keys: set[str | None] = field(default_factory=set[str | None])


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            wire.told.append((self.command, self.path.partition("?")[0], json.loads(body or b"{}")))
            wire.keys.add(self.headers.get("api-key"))
            last = self.path.partition("?")[0].rpartition("/")[2]
            sent = f'{{"result": {ANSWERS.get(last, "true")}, "status": "ok", "time": 0}}'.encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Not on a test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    wire.url = f"http://127.0.0.1:{server.server_port}"
    yield wire
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_a_server_is_told_the_filter_and_to_index_it(wire: Wire) -> None:
    remote = open_vectors(wire.url, api_key="secret")
    await remote.ensure_collection(NAME, DIMENSIONS, indexed=["team"])
    assert await remote.search(NAME, point(0), ACME, limit=3) == []
    await remote.close()

    told = {(method, path): body for method, path, body in wire.told}
    assert told["PUT", f"/collections/{NAME}"]["vectors"] == {"size": DIMENSIONS, "distance": "Cosine"}
    assert told["PUT", f"/collections/{NAME}/index"] == {"field_name": "team", "field_schema": "keyword"}
    query = told["POST", f"/collections/{NAME}/points/query"]
    assert query["filter"] == {"must": [{"key": "team", "match": {"value": "acme"}}]}
    assert query["limit"] == 3
    assert wire.keys == {"secret"}
